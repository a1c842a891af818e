"""A credential is replaced host by host: each keeps the old one until a login with the new one has worked."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from fleet.models import Credential, Host
from fleet.mta.errors import AuthFailed
from fleet.secrets import SecretError
from fleet.ssh.engine import Outcome, Request
from jobs import tasks
from jobs.administration.hosts import update_host
from jobs.clock import db_now
from jobs.errors import Clash, Forbidden, Invalid
from jobs.lifecycle import replacing
from jobs.models import AuditEvent
from jobs.worker import replacing as trying
from jobs.worker import runner
from tests.db.fleet import Cast

QUEUES = ("ssh.0", "ssh.1")


@pytest.fixture
def old(people: Cast, monkeypatch: pytest.MonkeyPatch) -> Credential:
    """That of mx1 and mx2; `new` is there too. A private key is its credential's name."""
    monkeypatch.setattr("jobs.worker.endpoints._private_key", lambda credential: credential.name.encode())
    Credential.objects.create(customer=people.acme, name="new", private_key="")
    return Credential.objects.get(customer=people.acme, name="key")


def tried(*takers: str) -> list[tuple[str, bytes]]:
    """Carry out a round in which these hosts take any key; who was asked by which."""
    asked: list[tuple[str, bytes]] = []

    def execute(requests: Sequence[Request[Any]]) -> Iterator[list[Outcome]]:
        for request in requests:
            asked.append((request.endpoint.name, request.endpoint.private_key))
            is_taken = request.endpoint.name in takers
            yield [Outcome(request.key, error=None if is_taken else AuthFailed("it takes no such key"))]

    for queue in QUEUES:
        trying.try_next(queue, execute)
    return sorted(asked)


def credentials() -> dict[str, str]:
    """Which host has which."""
    return dict(Host.objects.order_by("name").values_list("name", "credential__name"))


def later(**ago: int) -> None:
    """Have so much time gone by."""
    for host in Host.objects.exclude(next_credential=None):
        Host.objects.filter(pk=host.pk).update(next_credential_due=host.next_credential_due - timedelta(**ago))


def actions() -> list[tuple[str, str]]:
    """What the audit trail tells of it."""
    rows = AuditEvent.objects.filter(action__contains="credential").order_by("pk")
    return list(rows.values_list("action", "object"))


def test_a_host_gets_the_new_one_when_a_login_has_worked_and_others_keep_the_old_one(
    people: Cast, old: Credential
) -> None:
    begun = replacing.begin(people.dana, old, "new")
    assert (begun.by, begun.left, begun.failed) == ("new", 2, [])
    assert credentials() == {"mx1": "key", "mx2": "key", "mx9": "key"}
    assert tried("mx1") == [("mx1", b"new"), ("mx2", b"new")]
    assert credentials() == {"mx1": "new", "mx2": "key", "mx9": "key"}
    now = replacing.progress(old)
    assert (now.left, [(host.name, host.next_credential_error) for host in now.failed]) == (
        1,
        [("mx2", "auth_failed: it takes no such key")],
    )
    assert tried("mx2") == []  # not so soon
    later(minutes=1)
    assert tried("mx2") == [("mx2", b"new")]
    assert credentials() == {"mx1": "new", "mx2": "new", "mx9": "key"}
    assert replacing.progress(old) == replacing.Replacement("", 0, [])
    assert actions() == [
        ("credential.replacing", "key"),
        ("host.credential_replaced", "mx1"),
        ("host.credential_replaced", "mx2"),
    ]


def test_a_host_that_refuses_is_asked_ever_less_often(people: Cast, old: Credential) -> None:
    replacing.begin(people.dana, old, "new")
    pauses = []
    for _ in range(7):
        later(hours=12)
        assert len(tried()) == 2
        pauses.append(round((Host.objects.get(name="mx1").next_credential_due - db_now()).total_seconds() / 60))
    assert pauses == [1, 5, 30, 120, 720, 720, 720]
    assert replacing.begin(people.dana, old, "new").failed == []  # begun again: at once
    assert len(tried()) == 2


def test_a_try_whose_worker_died_is_made_again(people: Cast, old: Credential) -> None:
    replacing.begin(people.dana, old, "new")

    def dies(requests: Sequence[Request[Any]]) -> Iterator[list[Outcome]]:
        raise SystemExit

    for queue in QUEUES:
        with pytest.raises(SystemExit):
            trying.try_next(queue, dies)
        assert replacing.take(db_now(), queue) == []
    assert credentials()["mx1"] == "key"
    later(minutes=5)
    assert tried("mx1", "mx2") == [("mx1", b"new"), ("mx2", b"new")]
    assert credentials() == {"mx1": "new", "mx2": "new", "mx9": "key"}


def test_what_is_changed_during_a_try_is_not_overwritten(people: Cast, old: Credential) -> None:
    replacing.begin(people.dana, old, "new")
    hosts = {host.name: host for queue in QUEUES for host in replacing.take(db_now(), queue)}
    update_host(people.dana, Host.objects.get(name="mx1"), {"address": "192.0.2.2"})
    replacing.took(hosts["mx1"])  # at the address of before
    assert credentials()["mx1"] == "key"
    Credential.objects.get(name="new").save()  # another key by now
    replacing.took(hosts["mx2"])
    assert credentials()["mx2"] == "key"
    later(minutes=5)
    tried("mx1", "mx2")
    assert credentials() == {"mx1": "new", "mx2": "new", "mx9": "key"}


def test_who_says_which_credential_a_host_has_ends_the_trying(people: Cast, old: Credential) -> None:
    Credential.objects.create(customer=people.acme, name="third", private_key="")
    replacing.begin(people.dana, old, "new")
    update_host(people.dana, Host.objects.get(name="mx1"), {"credential": "third"})
    assert tried("mx1", "mx2") == [("mx2", b"new")]
    assert credentials()["mx1"] == "third"


def test_a_replacement_can_be_stopped(people: Cast, old: Credential) -> None:
    with pytest.raises(Clash):
        replacing.stop(people.dana, old)
    replacing.begin(people.dana, old, "new")
    tried("mx1")
    replacing.stop(people.dana, old)
    later(hours=1)
    assert tried("mx2") == []
    assert credentials() == {"mx1": "new", "mx2": "key", "mx9": "key"}
    assert actions()[-1] == ("credential.replacing_stopped", "key")


def test_only_another_one_of_the_same_customer_takes_its_place(people: Cast, old: Credential) -> None:
    for by in ("key", "none"):
        with pytest.raises(Invalid):
            replacing.begin(people.dana, old, by)
    with pytest.raises(Clash):
        replacing.begin(people.dana, Credential.objects.get(name="new"), "key")
    for actor in (people.alice, people.bob, people.charlie):
        with pytest.raises(Forbidden):
            replacing.begin(actor, old, "new")


def test_the_schedule_has_workers_try_and_a_pause_does_not(
    people: Cast, old: Credential, wakeups: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    Host.objects.filter(name="mx2").update(enabled=False)
    replacing.begin(people.dana, old, "new")
    wakeups.clear()
    tasks.sweep()
    queue = replacing.queue_of_host("mx1", "")
    assert (queue, "look") in [(name, str(lane)) for name, lane in wakeups]
    with monkeypatch.context() as patch:
        patch.setattr("jobs.restore.watch.is_paused", lambda: True)
        runner.check_hosts(queue)
    assert credentials()["mx1"] == "key"
    people.engine.results["mx1"] = None
    runner.check_hosts(queue)
    assert credentials() == {"mx1": "new", "mx2": "key", "mx9": "key"}


def test_one_that_cannot_be_opened_is_told_and_keeps_no_other_from_being_tried(
    people: Cast, old: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    replacing.begin(people.dana, old, "new")
    endpoint_for = trying.endpoint_for

    def opened(host: Host, credential: Credential | None) -> Any:
        if host.name == "mx1":
            raise SecretError("the key file has no such key")
        return endpoint_for(host, credential)

    monkeypatch.setattr(trying, "endpoint_for", opened)
    tried("mx1", "mx2")
    assert credentials() == {"mx1": "key", "mx2": "new", "mx9": "key"}
    (failed,) = replacing.progress(old).failed
    assert (failed.name, failed.next_credential_tries) == ("mx1", 1)
    assert failed.next_credential_error == "it cannot be tried: SecretError; the worker's log has more"
