"""Changes of Exim's queue against a host played by hand: what is claimed of each message, and what is not."""

from collections import Counter
from dataclasses import replace

import pytest

from fleet import match
from fleet.mta.errors import (
    Conflict,
    FleetError,
    InDelivery,
    MessageNotFound,
    MtaNotFound,
    OutcomeUnknown,
    PlanStale,
    UnparsedOutput,
    Unsupported,
)
from fleet.mta.exim import Exim, commands
from fleet.mta.exim.attempt import attempt_result
from fleet.mta.exim.parse import StreamedEntry
from fleet.mta.operations import (
    Quarantined,
    QuarantineErase,
    QuarantineRestore,
    QueueBounce,
    QueueFlush,
    QueueHold,
    QueuePurge,
    QueueRelease,
    Selection,
)
from fleet.mta.queue.outcome import fingerprint_of
from fleet.mta.records import Ended, Fingerprint, MessageState, Result
from fleet.mta.steps import Command, Completed, Plan
from tests.unit.exim_host import INSTANCE, SPOOL, EximHost, Mail, context

A, B, C = "1xUMSQ-00005F-0r", "1xUMSQ-00005F-0s", "1xUMSQ-00005F-0u"
EXIM = Exim()
ALL = Selection(match=match.parse("ALL"))


def fingerprint(mail: Mail) -> Fingerprint:
    return fingerprint_of(StreamedEntry(mail.record().removeprefix(b"M ").rstrip(b"\n")).entry())


def states(result: Result | Plan) -> dict[str, MessageState]:
    assert isinstance(result, Result)
    return {each.queue_id: each.outcome for each in result.messages}


def by_id(*names: str) -> Selection:
    return Selection(queue_ids=names)


def test_hold_counts_what_exim_froze_and_the_queue_shows_frozen() -> None:
    host = EximHost.of(Mail(A), Mail(B, word="frozen"), Mail(C))
    host.locked = {C}
    result = host.run(EXIM.queue_hold(INSTANCE, QueueHold(by_id(A, B, C, "1AAAAA-000000-00")), context()))
    assert states(result) == {
        A: MessageState.DONE,
        C: MessageState.IN_DELIVERY,
        "1AAAAA-000000-00": MessageState.ALREADY_GONE,
    }
    assert isinstance(result, Result)
    assert result.data["already"] == 1
    assert isinstance(result.error, InDelivery)


def test_the_plan_of_a_hold_says_when_exim_gives_frozen_mail_up() -> None:
    plan = EximHost.of(Mail(A)).run(EXIM.queue_hold(INSTANCE, QueueHold(ALL), context()), until_plan=True)
    assert isinstance(plan, Plan)
    assert any("timeout_frozen_after is 1w" in note for note in plan.notes)
    for_ever = replace(INSTANCE, options={**INSTANCE.options, "timeout_frozen_after": "0s"})
    plan = EximHost.of(Mail(A)).run(EXIM.queue_hold(for_ever, QueueHold(ALL), context()), until_plan=True)
    assert isinstance(plan, Plan)
    assert not any("timeout_frozen_after" in note for note in plan.notes)


def test_release_frees_only_what_a_job_of_ours_froze_unless_named() -> None:
    ours, others = Mail(A, word="frozen"), Mail(B, word="frozen")
    host = EximHost.of(ours, others)
    mine = context(ours=frozenset({fingerprint(ours)}))
    assert states(host.run(EXIM.queue_release(INSTANCE, QueueRelease(ALL), mine))) == {A: MessageState.DONE}
    assert others.word == "frozen"
    assert states(host.run(EXIM.queue_release(INSTANCE, QueueRelease(by_id(B)), mine))) == {B: MessageState.DONE}


def test_what_left_by_itself_was_not_deleted_by_us() -> None:
    host = EximHost.of(Mail(A), Mail(B), Mail(C))
    host.leaving, host.locked = {B}, {C}
    result = host.run(EXIM.queue_purge(INSTANCE, QueuePurge(ALL, mode="delete"), context()))
    assert states(result) == {A: MessageState.DONE, B: MessageState.ALREADY_GONE, C: MessageState.IN_DELIVERY}
    assert list(host.queues[""]) == [C]


def test_only_the_frozen_plan_is_touched_and_only_the_same_message() -> None:
    host = EximHost.of(Mail(A), Mail(B), Mail(C))
    planned = (fingerprint(Mail(A)), fingerprint(Mail(B, time=1)))
    result = host.run(EXIM.queue_purge(INSTANCE, QueuePurge(ALL), context(frozen=planned)))
    assert states(result) == {A: MessageState.DONE, B: MessageState.ALREADY_GONE}
    assert set(host.queues[""]) == {B, C}
    with pytest.raises(PlanStale):
        host.run(EXIM.queue_purge(INSTANCE, QueuePurge(ALL), context(frozen=planned[1:])))


def purged(host: EximHost, *mails: Mail) -> tuple[Quarantined, ...]:
    result = host.run(EXIM.queue_purge(INSTANCE, QueuePurge(by_id(*(m.queue_id for m in mails))), context()))
    assert isinstance(result, Result)
    places = result.data["places"]
    found = (fingerprint(mail) for mail in mails)
    return tuple(
        Quarantined(f.queue_id, f.queue_id, places[f.queue_id], f.arrival_time, f.sender, f.size, f.state)
        for f in found
    )


def test_a_purge_lies_in_a_named_queue_and_comes_back_as_it_was() -> None:
    host = EximHost.of(Mail(A), Mail(B, word="frozen"))
    items = purged(host, Mail(A), Mail(B, word="frozen"))
    assert items[0].place == f"{SPOOL}/mxfleet-0190a1b2/input/{A}"
    assert not host.queues[""]
    result = host.run(EXIM.quarantine_restore(INSTANCE, QuarantineRestore(items), context()))
    assert states(result) == {A: MessageState.DONE, B: MessageState.DONE}
    assert host.queues[""][B].word == "frozen"
    attempted = [count for script, _, count in host.commands if script == "exim_attempt.sh"]
    assert attempted == [1]


def test_the_named_queue_of_a_job_has_a_name_that_exim_takes_messages_out_of_again() -> None:
    """Exim 4.98.2 refuses `-qG` with more than 32 characters, and takes them for the way in."""
    host = EximHost.of(Mail(A))
    uuid = context(job="0199b0c2-7f3e-7abc-8def-0123456789ab")
    result = host.run(EXIM.queue_purge(INSTANCE, QueuePurge(by_id(A)), uuid))
    assert isinstance(result, Result)
    place = result.data["places"][A]
    name = place.removeprefix(f"{SPOOL}/").partition("/")[0]
    assert len(name) <= 32
    wanted = fingerprint(Mail(A))
    item = Quarantined(A, A, place, wanted.arrival_time, wanted.sender, wanted.size, wanted.state)
    told = host.run(EXIM.read_back(INSTANCE, QueuePurge(by_id(A)), replace(uuid, frozen=(wanted,))))
    assert isinstance(told, Result)
    assert told.data["places"] == {A: place}
    assert states(host.run(EXIM.quarantine_restore(INSTANCE, QuarantineRestore((item,)), context(undo=True)))) == {
        A: MessageState.DONE
    }


def test_a_bounce_that_was_cut_off_before_it_began_has_left_everything() -> None:
    host = EximHost.of(Mail(A), Mail(B, word="delivering"))
    frozen = context(frozen=(fingerprint(Mail(A)), fingerprint(Mail(B))))
    told = host.run(EXIM.read_back(INSTANCE, QueueBounce(by_id(A, B)), frozen))
    assert states(told) == {A: MessageState.LEFT, B: MessageState.IN_DELIVERY}
    del host.queues[""][A]
    assert host.run(EXIM.read_back(INSTANCE, QueueBounce(by_id(A, B)), frozen)) is None


DEFERRED = [
    f"delivering {A}",
    "LOG: MAIN",
    "  == r@defer.test R=dns T=smtp defer (-44) H=mx [192.0.2.1]: SMTP error from remote mail server after RCPT "
    "TO:<r@defer.test>: 451 later",
]


def test_an_attempt_that_goes_on_is_not_told_by_its_first_recipient() -> None:
    """The script stopped waiting: one recipient was put off, the next is being tried."""
    entry = StreamedEntry(Mail(A).record().removeprefix(b"M ").rstrip(b"\n")).entry()
    cut = attempt_result(entry, entry, DEFERRED)
    assert (cut.ended, cut.messages[0].outcome) == (Ended.FAILED, MessageState.IN_DELIVERY)
    assert attempt_result(entry, entry, [*DEFERRED, "", "ended"]).data["outcome"] == "deferred"


@pytest.mark.parametrize(
    "line",
    [f"  Spool file {A}-D not found", f"  Spool read error for {A}-H: No such file or directory"],
)
def test_a_message_that_exim_did_not_find_was_not_attempted(line: str) -> None:
    entry = StreamedEntry(Mail(A).record().removeprefix(b"M ").rstrip(b"\n")).entry()
    with pytest.raises(MessageNotFound):
        attempt_result(entry, None, [f"delivering {A}", "LOG: MAIN", line, "", "ended"])


def test_an_undo_attempts_nothing() -> None:
    host = EximHost.of(Mail(A))
    items = purged(host, Mail(A))
    host.run(EXIM.quarantine_restore(INSTANCE, QuarantineRestore(items), context(undo=True)))
    assert A in host.queues[""]
    assert "exim_attempt.sh" not in {script for script, _, _ in host.commands}


def test_what_the_main_queue_delivered_in_the_middle_of_a_move_is_never_restored() -> None:
    host = EximHost.of(Mail(A))
    items = purged(host, Mail(A))
    host.queues["mxfleet-0190a1b2"][A].lines = b"N r@defer.test\n"
    result = host.run(EXIM.quarantine_restore(INSTANCE, QuarantineRestore(items), context()))
    assert states(result) == {A: MessageState.ALREADY_GONE}
    read = host.run(EXIM.read_back(INSTANCE, QueuePurge(ALL), context(frozen=(fingerprint(Mail(A)),))))  # type: ignore[arg-type]
    assert states(read) == {A: MessageState.ALREADY_GONE}


def test_what_lies_in_both_queues_is_still_queued() -> None:
    host = EximHost.of(Mail(A))
    host.queues["mxfleet-0190a1b2"] = {A: Mail(A)}
    read = host.run(EXIM.read_back(INSTANCE, QueuePurge(ALL), context(frozen=(fingerprint(Mail(A)),))))  # type: ignore[arg-type]
    assert states(read) == {A: MessageState.LEFT}


def test_erase_says_what_was_there_and_a_foreign_place_is_refused() -> None:
    host = EximHost.of(Mail(A))
    items = purged(host, Mail(A))
    absent = replace(items[0], id=B, queue_id=B, place=items[0].place.replace(A, B))
    result = host.run(EXIM.quarantine_erase(INSTANCE, QuarantineErase((*items, absent)), context()))
    assert states(result) == {A: MessageState.DONE, B: MessageState.ALREADY_GONE}
    foreign = replace(items[0], place=f"/etc/{A}")
    with pytest.raises(Conflict):
        host.run(EXIM.quarantine_erase(INSTANCE, QuarantineErase((foreign,)), context()))


def test_flush_passes_over_frozen_mail_and_claims_only_attempts_that_began() -> None:
    host = EximHost.of(Mail(A), Mail(B, word="frozen"), Mail(C))
    host.locked = {C}
    result = host.run(EXIM.queue_flush(INSTANCE, QueueFlush(ALL), context()))
    assert states(result) == {A: MessageState.DONE, C: MessageState.LEFT}


def test_bounce_needs_exims_word_and_always_tells_the_sender() -> None:
    host = EximHost.of(Mail(A), Mail(B, word="delivering"))
    host.locked = {B}
    result = host.run(EXIM.queue_bounce(INSTANCE, QueueBounce(ALL), context()))
    assert states(result) == {A: MessageState.DONE, B: MessageState.IN_DELIVERY}
    with pytest.raises(Unsupported):
        host.run(EXIM.queue_bounce(INSTANCE, QueueBounce(ALL, notify=False), context()))


def test_a_command_that_breaks_off_is_an_error_and_a_plan_comes_even_for_nothing() -> None:
    host = EximHost.of(Mail(A))
    host.cut = "exim_change.sh"
    with pytest.raises(UnparsedOutput):
        host.run(EXIM.queue_hold(INSTANCE, QueueHold(ALL), context()))
    empty = EximHost.of()
    assert isinstance(empty.run(EXIM.queue_purge(INSTANCE, QueuePurge(ALL), context()), until_plan=True), Plan)
    result = empty.run(EXIM.queue_purge(INSTANCE, QueuePurge(ALL), context()))
    assert isinstance(result, Result)
    assert result.ended is Ended.UNCHANGED
    assert {script for script, _, _ in empty.commands} == {"exim_list.sh"}


@pytest.mark.parametrize(("number", "error"), [(1, MtaNotFound), (2, OutcomeUnknown)])
def test_when_exim_is_gone_the_outcome_of_the_commands_before_is_unknown(
    number: int, error: type[FleetError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while its package is exchanged."""
    monkeypatch.setattr(commands, "BATCH", 1)
    host = EximHost.of(Mail(A), Mail(B))
    answer, ran = host.answer, Counter[bool]()

    def gone(command: Command) -> Completed:
        ran[command.mutates] += 1
        return Completed(127) if command.mutates and ran[True] == number else answer(command)

    host.answer = gone  # type: ignore[method-assign]
    with pytest.raises(error):
        host.run(EXIM.queue_purge(INSTANCE, QueuePurge(ALL), context()))


def test_a_lot_of_messages_takes_a_few_commands_and_sudo_rules_have_no_wildcard() -> None:
    host = EximHost.of(*(Mail(f"1xUM{n:02d}-00005F-{m:02d}") for n in range(90) for m in range(100)))
    result = host.run(EXIM.queue_hold(INSTANCE, QueueHold(ALL), context()))
    assert isinstance(result, Result)
    assert result.data["done"] == 9000
    assert len([script for script, _, _ in host.commands if script == "exim_change.sh"]) == 3
    rules = EXIM.sudoers(INSTANCE, "fleetops")
    assert all(any(word in rule for word in ("exim_", "block_file.sh", "_log", "quarantine_find.sh")) for rule in rules)
    assert not any(char in rule.replace("\\*", "") for rule in rules for char in "*?[")
