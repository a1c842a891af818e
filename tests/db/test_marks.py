"""Whoever has all rights on the database gets no signature for what he made of the audit trail."""

import json
from collections.abc import Callable
from functools import partial

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from fleet.secrets import SecretError
from jobs import tasks
from jobs.audit import marks, trail
from jobs.audit.trail import Entry, append, checkpoint, export, verify
from jobs.audit.verify import GAP_ACTION, event_hash, verify_lines
from jobs.clock import db_now
from jobs.errors import Unavailable
from jobs.models import AuditChain, AuditCheckpoint, AuditEvent, Pause, WorkerLiveness
from jobs.restore import pause, watch
from jobs.triggers import drop_sql
from tests.db.triggers import run

pytestmark = pytest.mark.django_db


def missed() -> str:
    """What this machine misses, in words."""
    assert bool(watch.alarm()) == bool(watch.lost())
    return "; ".join(map(str, watch.lost()))


def write(first: int, last: int, chain: str = "acme") -> None:
    for number in range(first, last + 1):
        append(Entry(chain, "job.submitted", None, object=f"job {number}"))


def recompute(chain: str = "acme") -> None:
    """The unkeyed arithmetic of a whole, fitting chain, which needs no key."""
    previous, seq = "", 0
    for seq, row in enumerate(AuditEvent.objects.filter(chain=chain).order_by("seq"), 1):
        row.seq, row.prev_hash = seq, previous
        row.hash = previous = event_hash(previous, trail.event_line(row))
        row.save()
    AuditChain.objects.filter(name=chain).update(seq=seq, hash=previous)


def drop_entries() -> None:
    AuditEvent.objects.filter(chain="acme", seq__in=(2, 3)).delete()
    recompute()


def cut_the_tail() -> None:
    AuditEvent.objects.filter(chain="acme", seq__gt=2).delete()
    recompute()


def change_an_entry() -> None:
    AuditEvent.objects.filter(chain="acme", seq=2).update(actor="mallory")
    recompute()


def drop_entries_and_write_others_in_their_place() -> None:
    drop_entries()
    write(90, 99)


def drop_the_chain() -> None:
    AuditEvent.objects.filter(chain="acme").delete()
    AuditChain.objects.filter(name="acme").delete()


ATTACKS = (drop_entries, cut_the_tail, change_an_entry, drop_entries_and_write_others_in_their_place, drop_the_chain)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("and_checkpoints", [True, False])
def test_the_owner_of_the_database_gets_no_signature_for_a_forgery(
    attack: Callable[[], None], and_checkpoints: bool
) -> None:
    write(1, 5)
    assert [row.seq for row in checkpoint()] == [5]
    run(connection, drop_sql(connection.vendor))
    attack()
    if and_checkpoints:
        AuditCheckpoint.objects.filter(chain="acme").delete()
    write(6, 7)
    assert checkpoint() == []
    assert "chain acme: entry 5" in missed()
    watch.check()
    assert pause.is_on()
    assert not AuditCheckpoint.objects.filter(chain="acme", seq__gt=5).exists()


def test_checkpoints_that_were_deleted_are_missed() -> None:
    write(1, 3)
    checkpoint()
    run(connection, drop_sql(connection.vendor))
    AuditCheckpoint.objects.all().delete()
    write(4, 5)
    assert checkpoint() == []
    assert "the checkpoint of entry 3, signed here, is gone" in missed()


def test_entries_are_missed_though_they_were_not_signed_yet() -> None:
    write(1, 3)
    watch.check()
    run(connection, drop_sql(connection.vendor))
    cut_the_tail()
    assert checkpoint() == []
    assert "entry 3 was there, and the chain ends at 2" in missed()


def test_a_checkpoint_names_the_one_before_it_so_none_can_be_left_out() -> None:
    for number in (1, 2, 3):
        write(number, number)
        checkpoint()
    assert [row.previous for row in AuditCheckpoint.objects.order_by("seq")] == [0, 1, 2]
    lines = [json.loads(line) for line in export()]
    without = [line for line in lines if (line["type"], line["seq"]) != ("checkpoint", 2)]
    bad = verify_lines(without, trail.public_keys()).first_bad
    assert bad is not None
    assert bad.reason == "the checkpoint before it, of entry 2, is not there"
    stripped = [{name: line[name] for name in line if not name.startswith("previous")} for line in lines]
    assert not verify_lines(stripped, trail.public_keys()).ok


def test_two_machines_that_sign_at_once_leave_one_line_of_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    write(1, 2)
    ours = marks.heads()
    write(3, 4)
    checkpoint()
    marks.write({})
    monkeypatch.setattr(marks, "heads", lambda: ours)
    assert checkpoint() == []
    assert (AuditCheckpoint.objects.count(), verify().ok) == (1, True)


@pytest.fixture
def lost() -> str:
    """Five signed entries of which a restore brought back two. Returns the hash of the fifth."""
    write(1, 2)
    checkpoint()
    write(3, 5)
    checkpoint()
    last = AuditEvent.objects.get(chain="acme", seq=5).hash
    run(connection, drop_sql(connection.vendor))
    AuditCheckpoint.objects.filter(seq__gt=2).delete()
    cut_the_tail()
    watch.check()
    return last


def test_an_acknowledged_gap_is_signed_named_and_reported_each_time(
    lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("audit_acknowledge_gap", reason="restored from last night")
    assert "entry 5 was there, and the chain ends at 2" in capsys.readouterr().out
    data = AuditEvent.objects.get(action=GAP_ACTION).data
    assert (data["from"], data["to"], data["last_known_hash"]) == (3, 5, lost)
    write(6, 9)
    watch.check()
    assert [row.seq for row in checkpoint() if row.chain == "acme"] == [7]
    assert missed() == ""
    for _ in range(2):
        call_command("audit_verify")
        said = capsys.readouterr().out
        assert "gap acknowledged in chain acme: entries 3 to 5" in said
        assert lost in said
        assert "restored from last night" in said


def test_an_acknowledged_gap_explains_kept_checkpoints_and_no_other_ones(lost: str) -> None:
    call_command("audit_acknowledge_gap", reason="restored")
    write(6, 9)
    lines = [json.loads(line) for line in export()]
    genuine = AuditCheckpoint.objects.get(chain="acme", seq=2)
    keys = trail.public_keys()

    def kept(seq: int) -> list[trail.Line]:
        row = AuditCheckpoint(chain="acme", seq=seq, hash=lost, at=genuine.at, previous=2, previous_hash=genuine.hash)
        row.signature = trail.sign(trail.checkpoint_content(trail.checkpoint_line(row)))
        return [trail.checkpoint_line(row)]

    assert verify_lines(lines, keys, kept(5)).ok
    assert not verify_lines(lines, keys, kept(6)).ok


def test_one_acknowledgement_covers_what_each_machine_has_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    write(1, 4)
    watch.check()
    older = marks.read() or {}
    write(5, 5)
    watch.check()
    newer = marks.read() or {}
    run(connection, drop_sql(connection.vendor))
    cut_the_tail()
    watch.check()
    monkeypatch.setattr(pause, "machine", lambda: "another one")
    marks.write(older)
    watch.check()
    assert checkpoint() == []
    call_command("audit_acknowledge_gap", reason="restored")
    for known in (older, newer):
        marks.write(known)
        watch.check()
        assert missed() == ""
    call_command("resume", reason="both know")
    assert [(gap.first, gap.last) for gap in verify().gaps] == [(1, 4), (1, 5)]
    assert checkpoint()


def test_machines_of_the_same_name_do_not_take_each_others_reports_away() -> None:
    one, other = marks.Lost("acme", 4, "a" * 64, "gone"), marks.Lost("acme", 5, "b" * 64, "gone")
    for lost in ([one], [other], [one], []):
        pause.begin(watch.FORGOTTEN, lost)
    pause.begin(watch.UNKNOWN)
    assert [each[:3] for each in pause.unacknowledged()] == [one[:3], other[:3]]


def test_a_lost_checkpoint_pauses_the_next_claim_as_the_next_look() -> None:
    write(1, 3)
    checkpoint()
    run(connection, drop_sql(connection.vendor))
    AuditCheckpoint.objects.all().delete()
    assert watch.is_paused()
    assert pause.is_on()


def test_readiness_reports_what_a_machine_without_workers_misses_so_that_one_acknowledgment_covers_it() -> None:
    write(1, 4)
    watch.check()
    of_the_api = marks.read() or {}
    write(5, 5)
    watch.check()
    run(connection, drop_sql(connection.vendor))
    cut_the_tail()
    watch.check()
    of_the_worker = marks.read() or {}
    marks.write(of_the_api)
    assert "an administrator has to acknowledge" in watch.alarm()
    marks.write(of_the_worker)
    call_command("audit_acknowledge_gap", reason="restored")
    marks.write(of_the_api)
    assert watch.alarm() == ""


def test_nobody_acknowledges_without_the_key(lost: str) -> None:
    data = {"from": 3, "to": 5, "last_known_hash": lost, "reason": "nothing to see", "signature": "test:AAAA"}
    append(Entry("acme", GAP_ACTION, None, data=data))
    watch.check()
    assert checkpoint() == []
    assert missed()
    bad = verify(["acme"]).first_bad
    assert bad is not None
    assert "acknowledgement of a gap is not signed" in bad.reason


def test_an_acknowledgement_counts_for_its_gap_only(lost: str) -> None:
    call_command("audit_acknowledge_gap", reason="restored")
    signed = AuditEvent.objects.get(action=GAP_ACTION).data
    write(4, 9)
    watch.check()
    checkpoint()
    cut_the_tail()
    append(Entry("acme", GAP_ACTION, None, data=signed))
    write(4, 9)
    assert checkpoint() == []
    assert "chain acme" in missed()


def test_there_is_nothing_to_acknowledge_where_nothing_is_missing() -> None:
    write(1, 2)
    watch.check()
    with pytest.raises(CommandError, match="nothing is missing"):
        call_command("audit_acknowledge_gap", reason="just so")


def begin_anew() -> None:
    """As on a machine that has not remembered anything yet."""
    marks.path().unlink()


def test_trust_begins_with_an_entry_that_says_whether_the_trail_was_sound() -> None:
    write(1, 3)
    begin_anew()
    watch.check()
    entry = AuditEvent.objects.get(action=watch.TRUST)
    assert (entry.chain, entry.data["entries"], entry.data["sound"]) == ("", 3, True)
    assert not pause.is_on()
    assert {row.chain for row in checkpoint()} == {"", "acme"}


def test_trust_in_a_trail_that_was_not_sound_says_so() -> None:
    write(1, 3)
    run(connection, drop_sql(connection.vendor))
    AuditEvent.objects.filter(seq=2).update(actor="mallory")
    begin_anew()
    watch.check()
    data = AuditEvent.objects.get(action=watch.TRUST).data
    assert (data["sound"], data["first_bad"]["seq"]) == (False, 2)


def test_checkpoints_of_the_version_before_are_followed_by_linked_ones() -> None:
    write(1, 2)
    old = AuditCheckpoint(chain="acme", seq=2, hash=AuditEvent.objects.get(seq=2).hash, at=db_now())
    old.signature = trail.sign(trail.checkpoint_content(trail.checkpoint_line(old)))
    old.save()
    write(3, 4)
    (new,) = checkpoint()
    assert (new.previous, new.previous_hash) == (2, old.hash)
    assert (verify().ok, verify().unsigned) == (True, 0)


def test_a_machine_that_joins_others_is_no_loss() -> None:
    watch.check()
    begin_anew()
    WorkerLiveness.objects.create(name="ssh-0@other", at=db_now())
    watch.check()
    assert not pause.is_on()


def test_a_machine_alone_with_a_database_that_others_watched_before_pauses() -> None:
    append(Entry("", watch.TRUST, None))
    run(connection, drop_sql(connection.vendor))
    AuditEvent.objects.update(at="2026-01-01T00:00:00Z")
    begin_anew()
    assert watch.is_paused()
    assert Pause.objects.get().reason == watch.UNKNOWN


def test_a_machine_that_could_not_pause_is_not_trusted_for_its_own_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    append(Entry("", watch.TRUST, None))
    run(connection, drop_sql(connection.vendor))
    AuditEvent.objects.update(at="2026-01-01T00:00:00Z")
    begin_anew()
    with monkeypatch.context() as patch:
        patch.setattr("jobs.audit.trail.append", failing(Unavailable("audit_unavailable", "no")))
        tasks.sweep()
        assert not watch.check()
    assert marks.read() is None
    assert watch.is_paused()
    assert Pause.objects.get().reason == watch.UNKNOWN


def failing(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_trust_is_told_once_though_the_marks_cannot_be_written_at_first() -> None:
    begin_anew()
    draft = marks.path().with_name(f".{marks.path().name}.draft")
    draft.unlink(missing_ok=True)
    draft.mkdir()
    told = [watch.check(), watch.check(), not watch.is_paused()]
    draft.rmdir()
    assert not any(told)
    assert watch.check()
    assert AuditEvent.objects.filter(action=watch.TRUST).count() == 1


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"": 1}', '{"": {"seq": "1"}}', '{"": {"seq": 1, "hash": "x", "signed": [1]}}']
)
def test_marks_that_cannot_be_read_begin_nothing(content: str) -> None:
    marks.path().write_text(content)
    assert watch.is_paused()
    assert "cannot be read" in watch.alarm()


def test_a_process_that_keeps_the_marks_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    write(1, 2)
    monkeypatch.setattr(marks, "locked", partial(marks.locked, 0.01))
    with marks.locked():
        watch.check()
    assert not watch.is_paused()
    assert marks.read() == {}


@pytest.mark.parametrize("error", [Unavailable("audit_unavailable", "no"), SecretError("no key")])
def test_what_cannot_be_told_begins_nothing_and_is_said(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    marks.write({"acme": marks.Mark(3, "0" * 64)})
    monkeypatch.setattr(pause, "begin", fail)
    assert not watch.check()
    assert watch.is_paused()
    assert watch.alarm() == str(error)


def test_marks_are_private_and_keep_what_was_signed() -> None:
    write(1, 2)
    checkpoint()
    write(3, 3)
    watch.check()
    assert marks.path().stat().st_mode & 0o777 == 0o600
    known = marks.read()
    assert known is not None
    assert (known["acme"].seq, known["acme"].signed) == (3, 2)


@pytest.mark.django_db(transaction=True)
def test_what_was_not_committed_is_not_remembered() -> None:
    with transaction.atomic():
        write(1, 2)
        transaction.set_rollback(True)
    watch.check()
    assert marks.read() == {}


def test_a_lock_that_cannot_be_had_is_told_as_the_marks_fault_and_burns_no_claim(db: None) -> None:
    lock = marks.path().with_name(f".{marks.path().name}.lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()
    try:
        with pytest.raises(marks.MarksError, match="cannot be locked"), marks.locked():
            pass
    finally:
        lock.rmdir()
