"""Whose word counts for where a request came from."""

import asyncio
from ipaddress import ip_network
from typing import Any

import pytest

from api.limits import Message
from api.origin import is_forwarding
from deploy.proxies import behind_proxies

TRUSTED = (ip_network("127.0.0.1"), ip_network("10.0.0.0/8"))


def seen(peer: Any, headers: dict[str, str], trusted: Any = TRUSTED) -> tuple[str | None, bool]:
    """The client that the application sees, and whether a forwarding header is left."""
    found: list[Message] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        found.append(scope)

    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "scheme": "http", "client": peer, "headers": pairs}
    asyncio.run(behind_proxies(app, trusted)(scope, None, None))  # type: ignore[arg-type]  # neither is called
    (scope,) = found
    client = scope["client"] and scope["client"][0]
    return client, any(is_forwarding(name.decode()) for name, _ in scope["headers"])


@pytest.mark.parametrize(
    ("peer", "headers", "client", "is_forwarded"),
    [
        ("127.0.0.1", {}, "127.0.0.1", False),
        ("127.0.0.1", {"X-Forwarded-For": "203.0.113.7"}, "203.0.113.7", False),
        ("127.0.0.1", {"X-Forwarded-For": "203.0.113.7", "X-Real-IP": "203.0.113.7"}, "203.0.113.7", False),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1, 203.0.113.7"}, "203.0.113.7", False),
        ("127.0.0.1", {"X-Forwarded-For": "203.0.113.7, 10.1.1.1"}, "203.0.113.7", False),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, "127.0.0.1", False),
        ("127.0.0.1", {"X-Forwarded-For": " , "}, "127.0.0.1", True),
        ("127.0.0.1", {"Forwarded": "for=203.0.113.7"}, "127.0.0.1", True),
        ("127.0.0.1", {"X-Real-IP": "203.0.113.7"}, "127.0.0.1", True),
        ("127.0.0.2", {"X-Forwarded-For": "127.0.0.1"}, "127.0.0.2", True),
        ("203.0.113.7", {"X-Forwarded-For": "127.0.0.1"}, "203.0.113.7", True),
    ],
)
def test_only_a_trusted_proxy_names_the_client_and_only_that_uses_its_headers_up(
    peer: str, headers: dict[str, str], client: str, is_forwarded: bool
) -> None:
    assert seen((peer, 40000), headers) == (client, is_forwarded)


def test_without_trusted_proxies_nobody_names_another_client() -> None:
    assert seen(("127.0.0.1", 40000), {"X-Forwarded-For": "203.0.113.7"}, ()) == ("127.0.0.1", True)


def test_a_client_at_a_socket_without_address_is_nobody() -> None:
    assert seen(None, {"X-Forwarded-For": "127.0.0.1"}) == (None, True)
