"""The service's work in the database, by the role that the environment names: told by tests/db/test_roles.py.

A program of its own, because Django keeps to the database of its process.
"""

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402

from jobs import tasks, wakeup  # noqa: E402
from jobs.audit import trail  # noqa: E402
from jobs.worker import liveness  # noqa: E402
from tests.http.cast import Caller, build_world  # noqa: E402

HOST = {"name": "mx9", "customer": "acme", "address": "mx9.example.com", "username": "x", "credential": "acme-key"}


def main() -> None:
    settings.ALLOWED_HOSTS = ["*"]
    wakeup.wake = lambda queue, lane: None
    world = build_world()

    def ask(caller: Caller, status: int, method: str, path: str, body: object = None) -> dict:
        answer = caller.send(method, path, body)
        assert answer.status_code == status, (method, path, answer.status_code, answer.content)
        return answer.json() if answer.content else {}

    ask(world.dana, 201, "POST", "customers/", {"slug": "gamma", "name": "Gamma"})
    ask(world.anna, 201, "POST", "hosts/", HOST)
    ask(world.anna, 200, "PATCH", "hosts/mx9/", {"port": 2222})
    ask(world.anna, 204, "DELETE", "hosts/mx9/")
    ask(world.dana, 204, "DELETE", "customers/gamma/")
    job = ask(world.alice, 202, "POST", "hosts/mx1/discover/", {})
    ask(world.alice, 200, "POST", f"jobs/{job['id']}/cancel/", {})
    liveness.renew("worker", "ssh.0")
    tasks.sweep()
    tasks.housekeep()
    trail.checkpoint()
    call_command("audit_verify")
    call_command("rotate_keys")


if __name__ == "__main__":
    main()
