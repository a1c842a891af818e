"""Who asks: alice operates acme, bob approves there, erin only looks, anna administers acme, robot is an integration
there; charlie belongs to beta and may see nothing of acme; dana administers everything."""

import json
import secrets
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
from django.core.signals import setting_changed
from django.db import transaction
from django.dispatch import receiver
from django.test import Client
from django.test.client import ClientHandler

from api.auth import digest
from api.models import Token
from api.tokens import issue_on_server
from fleet.models import Credential, Customer, Host, Instance
from fleet.secrets import seal_credential
from jobs import wakeup
from jobs.audit import trail
from jobs.models import Account, AccountKind, Role

API = "/api/v1/"
KEY = """-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
"""
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFR5cGUgYnkgaGFuZCwgMzIgYnl0ZXMgbG9uZy4u"


@cache
def _handler() -> ClientHandler:
    """One for all clients: to load the middleware takes longer than most requests."""
    made = ClientHandler(enforce_csrf_checks=False)
    made.load_middleware()
    return made


@receiver(setting_changed)
def _forget_handler(**_: object) -> None:
    """Middleware may have read the setting."""
    _handler.cache_clear()


def _client() -> Client:
    client = Client(raise_request_exception=False)
    client.handler = lambda environ: _handler()(environ)
    return client


@dataclass
class Caller:
    """Somebody with a token. Paths are below /api/v1/ unless they begin with a slash."""

    token: str
    client: Client = field(default_factory=_client)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """`body`: JSON value, or bytes that are sent as they are. Header names with `_` for `-`."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        kind = sent.pop("Content-Type", "application/json")
        where = path if path.startswith(("/", "http")) else API + path
        return self.client.generic(method, where, content, content_type=kind, headers=sent)

    def get(self, path: str, **headers: str) -> Any:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.send("POST", path, {} if body is None else body, **headers)

    def patch(self, path: str, body: Any, **headers: str) -> Any:
        return self.send("PATCH", path, body, **headers)

    def put(self, path: str, body: Any, **headers: str) -> Any:
        return self.send("PUT", path, body, **headers)

    def delete(self, path: str, **headers: str) -> Any:
        return self.send("DELETE", path, **headers)


@dataclass
class World:
    """What exists, and who may ask."""

    acme: Customer
    beta: Customer
    mx1: Host
    bx1: Host
    postfix: Instance
    people: dict[str, Account]
    callers: dict[str, Caller]

    def __getattr__(self, name: str) -> Caller:
        try:
            return self.__dict__["callers"][name]
        except KeyError:
            raise AttributeError(name) from None

    def token(self, name: str, **values: Any) -> Caller:
        """Another token of that person, of their own."""
        return Caller(issue_on_server(Account.objects.get(username=name), {"name": "test", **values}))


ROLES = {
    "alice": ("operator", "acme"),
    "bob": ("approver", "acme"),
    "erin": ("viewer", "acme"),
    "anna": ("admin", "acme"),
    "charlie": ("operator", "beta"),
    "dana": ("admin", None),
    "robot": ("operator", "acme"),
}


def build_world() -> World:
    """Write the rows."""
    customers = {slug: Customer.objects.create(slug=slug, name=slug.title()) for slug in ("acme", "beta")}
    people = {name: _person(name, role, customers.get(slug or "")) for name, (role, slug) in ROLES.items()}
    mx1 = _host(customers["acme"], "mx1", labels={"role": "mx"})
    bx1 = _host(customers["beta"], "bx1", labels={})
    postfix = _instance(mx1)
    _instance(bx1)
    return World(customers["acme"], customers["beta"], mx1, bx1, postfix, people, _callers(people))


def _callers(people: dict[str, Account]) -> dict[str, Caller]:
    """A token for each and its entry in the audit trail, as `issue_on_server` writes them one by one."""
    texts = {name: f"mxf_{secrets.token_urlsafe(32)}" for name in people}
    rows = [Token(account=people[name], name="test", digest=digest(text)) for name, text in texts.items()]
    with transaction.atomic():
        Token.objects.bulk_create(rows)
        trail.append(*(_entry(row) for row in rows))
    return {name: Caller(text) for name, text in texts.items()}


def _entry(row: Token) -> trail.Entry:
    _, customer = ROLES[row.account.username]
    return trail.Entry(
        customer or "", "token.first", None, row.account.username, data={"name": row.name, "token": row.pk}
    )


def _person(name: str, role: str, customer: Customer | None) -> Account:
    kind = AccountKind.SERVICE if name == "robot" else AccountKind.PERSON
    row = Account.objects.create_user(name, kind=kind)
    Role.objects.create(account=row, role=role, customer=customer)
    return row


def _host(customer: Customer, name: str, labels: dict[str, str]) -> Host:
    key = Credential(customer=customer, name=f"{customer.slug}-key", public_key="ssh-ed25519 AAAA")
    seal_credential(key, b"not a real key")
    key.save()
    return Host.objects.create(
        customer=customer, name=name, address=f"{name}.example.com", username="mxfleet", credential=key, labels=labels
    )


def _instance(host: Host) -> Instance:
    return Instance.objects.create(
        host=host,
        name="postfix",
        mta="postfix",
        version="3.7.11",
        config_dir="/etc/postfix",
        queue_dirs=["/var/spool/postfix"],
        options={"command_directory": "/usr/sbin", "daemon_directory": "/usr/lib/postfix/sbin"},
    )


def harmless_wakeups(monkeypatch: pytest.MonkeyPatch, wakeups: list[tuple[str, str]]) -> None:
    """Write down the wakeups instead of sending it to a broker."""
    monkeypatch.setattr(wakeup, "wake", lambda queue, lane: wakeups.append((queue, lane)))
