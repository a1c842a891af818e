"""Start the web process: one uvicorn, our bounds and logging."""

import os
import resource
from contextlib import suppress
from typing import Any

import uvicorn

from deploy.server import Server
from deploy.usage import Parser

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deploy.settings")

FILES = 16_384
"""Open files that the process may have where its hard limit lets it: connections, and what answering them takes."""


def main() -> None:
    allow_files(FILES)
    from deploy.asgi import application, hub

    with suppress(KeyboardInterrupt):  # uvicorn has ended in order, and tells the shell why
        Server(uvicorn.Config(application, **options()), hub).run()


def options() -> dict[str, Any]:
    """How uvicorn serves here."""
    from django.conf import settings

    from api.connection import Connection

    host, port = settings.ENV.listen
    return {
        "host": host,
        "port": port,
        "http": Connection,
        "ws": "none",
        "h11_max_incomplete_event_size": settings.HEAD_LIMIT,
        "lifespan": "off",  # Django has none
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,  # deploy/proxies.py does that
        "timeout_graceful_shutdown": 3,  # without it a client that reads nothing keeps the process alive
    }


def allow_files(number: int) -> None:
    """Raise the soft limit of open files to `number`, or as far as the hard one lets; logins have 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < min(number, hard):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(number, hard), hard))


if __name__ == "__main__":
    Parser("deploy.serve", __doc__).parse_args()
    main()
