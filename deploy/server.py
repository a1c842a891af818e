"""uvicorn, which on its way out first lets go of what waits."""

import socket

import uvicorn

from api.hub import Hub


class Server(uvicorn.Server):
    """By itself it would wait for held answers and streams as for any other, and then cut them off."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._hub.close()
        await super().shutdown(sockets)
        await self._hub.stop()
