"""Proxies in front: the word of a trusted one counts, and nobody else's."""

from typing import Any, cast

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from api.access import App, Message, Receive, Send
from api.origin import is_forwarding, is_inside
from deploy.values import Networks


def behind_proxies(app: App, trusted: Networks) -> App:
    """`app` with the client and the scheme of which a trusted proxy tells in X-Forwarded-For and X-Forwarded-Proto.

    That uses up the forwarding headers: where one is still there, nobody whom we trust has named the client.
    """
    # Uvicorn has types of its own for what is a mapping here.
    forwarding = cast(App, ProxyHeadersMiddleware(cast(Any, _used_up(app)), [str(network) for network in trusted]))

    async def choosing(scope: Message, receive: Receive, send: Send) -> None:
        peer = scope.get("client")
        is_trusted = peer is not None and is_inside(peer[0], trusted)
        await (forwarding if is_trusted else app)(scope, receive, send)

    return choosing


def _used_up(app: App) -> App:
    async def plain(scope: Message, receive: Receive, send: Send) -> None:
        pairs = scope["headers"]
        if any(name == b"x-forwarded-for" and value.strip(b" \t,") for name, value in pairs):
            scope["headers"] = [pair for pair in pairs if not is_forwarding(pair[0].decode("latin-1"))]
        await app(scope, receive, send)

    return plain
