"""Messages in a host's quarantine without a row: ours get theirs, any other is reported, none is ever touched."""

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from fleet.models import Host, Instance, QuarantineLook
from fleet.mta.errors import OutcomeUnknown, RemoteError, SudoDenied, Unreachable
from fleet.mta.records import Ended, Found, InQuarantine, MessageState, Result
from fleet.mta.steps import Plan
from jobs import tasks
from jobs.clock import db_now
from jobs.lifecycle import orphans, sweep
from jobs.lifecycle.followup import undo
from jobs.models import AuditEvent, HostLease, Job, QuarantineItem, QuarantineState, Run
from jobs.worker import orphans as looking
from jobs.worker import runner
from tests.db.fleet import Cast, ask, changed, message, work

HERE = "mx2/postfix"
MESSAGES = [message(1), message(2), message(3)]
IDS = [each.queue_id for each in MESSAGES]
PURGE = {"match": "from:*@bulk.example"}


def place(job: object, queue_id: str) -> str:
    return f"/var/spool/postfix/mxfleet-quarantine/{job}/{queue_id}"


def lying(job: object, *queue_ids: str, **counts: int) -> InQuarantine:
    """What a look shows."""
    return InQuarantine(tuple(Found(str(job), each, place(job, each)) for each in queue_ids), **counts)


def purged(people: Cast, outcome: MessageState = MessageState.DONE, **params: Any) -> Job:
    """A purge of MESSAGES, which told the places of those that it moved."""
    people.engine.plans[HERE] = Plan(selected=tuple(MESSAGES), queue_total=1000)
    people.engine.before = lambda at, phase: None
    job = ask(people.alice, "queue.purge", {"instances": [HERE]}, params=PURGE | params)
    places = {each: place(job.pk, each) for each in IDS} if outcome is MessageState.DONE else {}
    people.engine.results[HERE] = changed(MESSAGES, outcome, places=places)
    return work(job)


def look(people: Cast, there: InQuarantine | Exception, proof: dict[str, str] | None = None) -> QuarantineLook:
    """A round in which the host shows this, and in which reading a purge back tells these places."""
    people.engine.results["mx2"] = there  # type: ignore[assignment]
    people.engine.results[HERE] = Result(Ended.FAILED, {"places": proof or {}})
    Run.objects.filter(finished_at__isnull=False).update(finished_at=db_now() - timedelta(seconds=60))
    instance = Instance.objects.get(host__name="mx2")
    orphans.inspect_soon(instance)
    people.engine.asked.clear()
    for queue in ("ssh.0", "ssh.1"):
        looking.inspect(queue, runner.execute)
    return QuarantineLook.objects.get(instance=instance)


def told(action: str) -> list[dict[str, Any]]:
    return [event.data for event in AuditEvent.objects.filter(action=action).order_by("seq")]


def test_what_lies_there_as_the_rows_tell_is_nothing_to_report(people: Cast) -> None:
    job = purged(people)
    seen = look(people, lying(job.pk, *IDS))
    assert (seen.orphans, seen.sample, seen.reported, seen.error) == (0, [], "", "")
    assert seen.looked_at is not None
    assert seen.due_at - seen.looked_at == orphans.EVERY
    assert people.engine.asked == [("mx2", "applied")]
    assert not told("quarantine.found")
    assert not told("quarantine.orphaned")


@pytest.mark.parametrize("outcome", [MessageState.ALREADY_GONE, MessageState.LEFT])
def test_what_a_purge_of_ours_left_there_gets_its_row_and_can_be_undone(people: Cast, outcome: MessageState) -> None:
    job = purged(people, outcome, keep="1h")
    before = db_now()
    seen = look(people, lying(job.pk, *IDS[:2]), {each: place(job.pk, each) for each in IDS[:2]})
    items = QuarantineItem.objects.order_by("queue_id")
    assert [(item.job, item.queue_id, item.place) for item in items] == [(job, n, place(job.pk, n)) for n in IDS[:2]]
    assert [(item.sender, item.size, item.native_state) for item in items] == [
        (each.sender, each.size, each.state) for each in MESSAGES[:2]
    ]
    kept = [item.expires_at - before for item in items]
    assert all(timedelta(hours=1) <= each < timedelta(hours=1, seconds=30) for each in kept), "from the finding on"
    assert [(data["count"], data["named"]) for data in told("quarantine.found")] == [
        (2, [f"{job.pk}/{each}" for each in IDS[:2]])
    ]
    event = AuditEvent.objects.get(action="quarantine.found")
    assert (event.chain, event.object, event.job) == ("acme", HERE, job.pk)
    assert (seen.orphans, seen.reported) == (0, "")
    restore = undo(people.alice, job, "they were no newsletters")
    assert (restore.operation, [str(run.instance) for run in restore.runs.all()]) == ("quarantine.restore", [HERE])


def test_a_second_look_makes_no_second_row(people: Cast) -> None:
    job = purged(people, MessageState.LEFT)
    proof = {IDS[0]: place(job.pk, IDS[0])}
    look(people, lying(job.pk, IDS[0]), proof)
    look(people, lying(job.pk, IDS[0]), proof)
    assert QuarantineItem.objects.count() == 1
    assert len(told("quarantine.found")) == 1


def test_what_the_host_does_not_prove_is_reported_and_gets_no_row(people: Cast) -> None:
    """As when the queue has the message too, or another place has it."""
    job = purged(people, MessageState.LEFT)
    seen = look(people, lying(job.pk, *IDS), {IDS[0]: "hold", IDS[1]: place(job.pk, IDS[0])})
    assert (seen.orphans, seen.sample) == (3, [f"{job.pk}/{each}" for each in IDS])
    assert not QuarantineItem.objects.exists()


def planned_only(people: Cast) -> object:
    people.engine.plans[HERE] = Plan(selected=tuple(MESSAGES), queue_total=1000)
    return work(ask(people.alice, "queue.purge", {"instances": [HERE]}, params=PURGE, dry_run=True)).pk


def held(people: Cast) -> object:
    people.engine.plans[HERE] = Plan(selected=tuple(MESSAGES), queue_total=1000)
    people.engine.results[HERE] = changed(MESSAGES)
    return work(ask(people.alice, "queue.hold", {"instances": [HERE]}, params=PURGE)).pk


def elsewhere(people: Cast) -> object:
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(MESSAGES), queue_total=1000)
    people.engine.results["mx1/postfix"] = changed(MESSAGES, MessageState.LEFT)
    return work(ask(people.alice, "queue.purge", params=PURGE)).pk


@pytest.mark.parametrize("of", [planned_only, held, elsewhere, lambda people: uuid4()])
def test_what_no_purge_of_ours_can_have_put_there_is_reported_and_stays(
    people: Cast, of: Callable[[Cast], object]
) -> None:
    job = of(people)
    seen = look(people, lying(job, IDS[0]), {IDS[0]: place(job, IDS[0])})
    assert (seen.orphans, seen.sample) == (1, [f"{job}/{IDS[0]}"])
    assert people.engine.asked == [("mx2", "applied")], "the host was asked for more than what lies there"
    assert not QuarantineItem.objects.exists()
    event = AuditEvent.objects.get(action="quarantine.orphaned")
    assert (event.chain, event.object, event.job) == ("acme", HERE, None)
    assert event.data == {"count": 1, "more": 0, "odd": 0, "named": [f"{job}/{IDS[0]}"]}


def test_a_message_that_the_purge_did_not_name_is_reported(people: Cast) -> None:
    job = purged(people)
    seen = look(people, lying(job.pk, *IDS, "ABCDEF0123"), {"ABCDEF0123": place(job.pk, "ABCDEF0123")})
    assert (seen.orphans, seen.sample) == (1, [f"{job.pk}/ABCDEF0123"])
    assert QuarantineItem.objects.count() == 3


@pytest.mark.parametrize("state", [QuarantineState.RESTORED, QuarantineState.ERASED, QuarantineState.EXPIRED])
def test_what_a_row_tells_to_be_gone_and_lies_there_is_reported(people: Cast, state: QuarantineState) -> None:
    job = purged(people)
    QuarantineItem.objects.filter(queue_id=IDS[0]).update(state=state)
    seen = look(people, lying(job.pk, *IDS), {each: place(job.pk, each) for each in IDS})
    assert (seen.orphans, seen.sample) == (1, [f"{job.pk}/{IDS[0]}"])
    assert QuarantineItem.objects.get(queue_id=IDS[0]).state == state


def test_nothing_without_a_row_is_ever_erased(people: Cast) -> None:
    look(people, lying(uuid4(), *IDS))
    assert sweep.expire_quarantine() == []
    assert not Job.objects.filter(operation="quarantine.erase").exists()


def test_the_same_finding_is_reported_once_and_another_one_again(
    people: Cast, caplog: pytest.LogCaptureFixture
) -> None:
    job = uuid4()
    with caplog.at_level(logging.WARNING, "jobs.lifecycle.orphans"):
        look(people, lying(job, IDS[0]))
        look(people, lying(job, IDS[0]))
        assert len(told("quarantine.orphaned")) == len(caplog.records) == 1
        assert "left alone" in caplog.text
        look(people, lying(job, IDS[0], IDS[1]))
        look(people, lying(job))
        look(people, lying(job, IDS[0]))
    assert [data["count"] for data in told("quarantine.orphaned")] == [1, 2, 1]


def test_a_hostile_host_can_fill_neither_the_trail_nor_the_row(people: Cast) -> None:
    job = uuid4()
    seen = look(people, lying(job, *(f"{n:A>64}" for n in range(3000)), more=9, odd=7))
    assert (seen.orphans, seen.more, seen.odd) == (3000, 9, 7)
    (data,) = told("quarantine.orphaned")
    assert (data["count"], data["more"], data["odd"], len(data["named"])) == (3000, 9, 7, 20)
    assert all(len(name) <= 120 for name in data["named"])
    assert seen.sample == data["named"]


def test_files_of_no_known_form_are_reported_and_more_than_one_look_tells_of_is_not(people: Cast) -> None:
    look(people, lying(uuid4(), more=5))
    assert not told("quarantine.orphaned")
    assert look(people, lying(uuid4(), odd=2)).odd == 2
    assert len(told("quarantine.orphaned")) == 1


def test_a_run_that_is_not_over_is_left_to_reading_back(people: Cast) -> None:
    people.engine.plans[HERE] = Plan(selected=tuple(MESSAGES), queue_total=1000)
    people.engine.results[HERE] = OutcomeUnknown("the connection ended")
    job = work(ask(people.alice, "queue.purge", {"instances": [HERE]}, params=PURGE))
    assert job.runs.get().state == "unknown"
    HostLease.objects.update(job=None)
    seen = look(people, lying(job.pk, IDS[0]), {IDS[0]: place(job.pk, IDS[0])})
    assert seen.orphans == 0
    assert seen.due_at < db_now() + orphans.EVERY / 2
    assert not QuarantineItem.objects.exists()
    assert not told("quarantine.orphaned")


def test_a_host_that_a_changing_job_has_is_not_looked_at(people: Cast) -> None:
    job = purged(people)
    HostLease.objects.filter(host__name="mx2").update(job=job)
    look(people, lying(uuid4(), IDS[0]))
    assert people.engine.asked == []
    assert not told("quarantine.orphaned")


@pytest.mark.parametrize("is_ours", [True, False])
def test_what_was_seen_while_a_job_began_is_not_believed(people: Cast, *, is_ours: bool) -> None:
    job = purged(people, MessageState.LEFT)
    host = Host.objects.get(name="mx2")

    def begin(at: str, phase: str) -> None:
        HostLease.objects.filter(host=host).update(job=job)

    people.engine.before = begin
    owner = job.pk if is_ours else uuid4()
    seen = look(people, lying(owner, IDS[0]), {IDS[0]: place(owner, IDS[0])})
    assert people.engine.asked
    assert not QuarantineItem.objects.exists()
    assert not told("quarantine.orphaned")
    assert seen.looked_at is None
    assert seen.due_at < db_now() + orphans.EVERY / 2


def test_a_job_that_ended_meanwhile_may_have_moved_what_was_seen(people: Cast) -> None:
    purged(people)

    def end(at: str, phase: str) -> None:
        Run.objects.update(finished_at=db_now())

    people.engine.before = end
    assert look(people, lying(uuid4(), IDS[0])).looked_at is None
    assert not told("quarantine.orphaned")


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (Unreachable("no route to host"), orphans.AGAIN),
        (SudoDenied("a password is required"), orphans.EVERY),
        (RemoteError("x" * 9000), orphans.EVERY),
    ],
)
def test_a_look_that_failed_says_why_and_keeps_what_was_known(people: Cast, error: Any, again: timedelta) -> None:
    look(people, lying(uuid4(), IDS[0]))
    seen = look(people, error)
    assert seen.error.startswith(f"{error.code}: {error.detail}"[:500])
    assert (seen.orphans, len(told("quarantine.orphaned"))) == (1, 1)
    assert abs(seen.due_at - db_now() - again) < timedelta(seconds=30)


def test_a_purge_that_cannot_be_read_back_now_is_neither_adopted_nor_reported(people: Cast) -> None:
    job = purged(people, MessageState.LEFT)

    def fail(at: str, phase: str) -> None:
        people.engine.results[HERE] = Unreachable("no route to host")

    people.engine.before = fail
    seen = look(people, lying(job.pk, IDS[0]))
    assert (seen.orphans, seen.reported) == (0, "")
    assert seen.due_at < db_now() + orphans.EVERY / 2
    assert not QuarantineItem.objects.exists()


def test_one_host_that_cannot_be_asked_does_not_keep_the_others(people: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = looking.endpoint_for

    def endpoint(host: Host) -> object:
        if host.name == "mx1":
            raise ValueError("cannot be opened")
        return genuine(host)

    monkeypatch.setattr(looking, "endpoint_for", endpoint)
    monkeypatch.setattr(orphans, "queue_of_host", lambda name, site: "ssh.0")
    orphans.inspect_soon(Instance.objects.get(host__name="mx1", name="postfix"))
    assert look(people, lying(uuid4(), IDS[0])).orphans == 1


def test_every_instance_is_looked_at_once_a_day_and_a_new_one_not_at_once(people: Cast) -> None:
    tasks.housekeep()
    assert orphans.queues(db_now()) == set()
    now = db_now() + orphans.FIRST + timedelta(seconds=1)
    assert {str(each) for each in orphans.due(now)} == {"mx1/postfix", "mx1/postfixEXT", "mx2/postfix", "mx9/postfix"}
    queues = orphans.queues(now)
    taken = [str(each) for queue in queues for each in orphans.take(now, queue)]
    assert len(taken) == 4
    assert [each for queue in queues for each in orphans.take(now, queue)] == [], "twice at once"
    assert orphans.queues(now + orphans.TAKEN) == queues, "a worker that died must not end the looks"


@pytest.mark.parametrize("what", ["instance", "host", "customer"])
def test_what_is_disabled_is_not_looked_at(people: Cast, what: str) -> None:
    orphans.enroll()
    instance = Instance.objects.get(host__name="mx9")
    assert instance in orphans.due(db_now() + timedelta(days=2))
    row = {"instance": instance, "host": instance.host, "customer": instance.host.customer}[what]
    row.enabled = False
    row.save()
    assert instance not in orphans.due(db_now() + timedelta(days=2))


def test_a_round_is_bounded(people: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "ROUND", 1)
    orphans.enroll()
    now = db_now() + timedelta(days=2)
    assert [len(orphans.take(now, queue)) for queue in orphans.queues(now)] == [1] * len(orphans.queues(now))


def test_more_purges_than_one_round_takes_are_taken_in_the_next(people: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "JOBS", 1)
    first, second = purged(people, MessageState.LEFT), purged(people, MessageState.LEFT)
    there = InQuarantine((*lying(first.pk, IDS[0]).found, *lying(second.pk, IDS[1]).found))
    proof = {IDS[0]: place(first.pk, IDS[0]), IDS[1]: place(second.pk, IDS[1])}
    seen = look(people, there, proof)
    assert (QuarantineItem.objects.count(), seen.orphans) == (1, 0)
    assert seen.due_at < db_now() + orphans.EVERY / 2
    look(people, there, proof)
    assert QuarantineItem.objects.count() == 2


def test_a_read_back_that_did_not_find_all_has_the_quarantine_looked_at(people: Cast) -> None:
    people.engine.plans[HERE] = Plan(selected=tuple(MESSAGES), queue_total=1000)
    people.engine.results[HERE] = OutcomeUnknown("the connection ended")
    job = work(ask(people.alice, "queue.purge", {"instances": [HERE]}, params=PURGE))
    Run.objects.filter(job=job).update(unknown_at=db_now() - timedelta(seconds=200))
    people.engine.results[HERE] = changed(MESSAGES, MessageState.LEFT, places={})
    runner.read_back("ssh.0")
    runner.read_back("ssh.1")
    assert job.runs.get().state == "failed"
    assert [str(each) for each in orphans.due(db_now())] == [HERE]


def test_workers_are_rung_for_it_and_look_after_reading_back(
    people: Cast, wakeups: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(runner, "read_back", lambda queue: done.append("read back"))
    monkeypatch.setattr(runner, "catch_up", lambda queue: done.append("catch up"))
    monkeypatch.setattr(looking, "inspect", lambda queue, execute: done.append("look"))
    runner.work("look", "ssh.0")
    assert done == ["read back", "catch up", "look"]
    sweep.sweep()
    assert wakeups == []
    orphans.inspect_soon(Instance.objects.get(host__name="mx2"))
    sweep.sweep()
    assert [lane for _, lane in wakeups] == ["look"]


def test_a_second_round_does_not_begin_before_the_first_has_ended(people: Cast) -> None:
    def again(at: str, phase: str) -> None:
        orphans.inspect_soon(Instance.objects.get(host__name="mx2"))
        for queue in ("ssh.0", "ssh.1"):
            looking.inspect(queue, runner.execute)

    people.engine.before = again
    look(people, lying(uuid4()))
    assert people.engine.asked == [("mx2", "applied")]
