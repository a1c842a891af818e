"""Changes of messages on a host played by hand: what is touched, what is claimed, what is left alone."""

from typing import Any

import pytest

from fleet import match
from fleet.mta.errors import OutcomeUnknown, PlanStale, SudoDenied, TooMany, Unsupported
from fleet.mta.operations import (
    Limits,
    Quarantined,
    QuarantineErase,
    QuarantineRestore,
    QueueBounce,
    QueueFlush,
    QueueHold,
    QueuePurge,
    QueueRelease,
    QueueRequeue,
    Selection,
)
from fleet.mta.postfix import Postfix
from fleet.mta.queue.outcome import fingerprint_of
from fleet.mta.records import Ended, Fingerprint, MessageState, QueueEntry, Result
from fleet.mta.steps import Command, Completed, Plan, Steps
from tests.unit.postfix_host import FakeHost, Mail, context, instance

POSTFIX = Postfix()
HERE = instance()
OTHER = 1_795_172_999


def by(text: str) -> Selection:
    return Selection(match=match.parse(text))


def ids(*queue_ids: str) -> Selection:
    return Selection(queue_ids=queue_ids)


@pytest.fixture
def host() -> FakeHost:
    host = FakeHost()
    host.add(Mail("AAAAAA1"), Mail("AAAAAA2"), Mail("AAAAAA3", sender="good@fine.example"))
    return host


def outcomes(result: Result) -> dict[str, str]:
    return {each.queue_id: each.outcome.value for each in result.messages}


def plan_for(host: FakeHost, operation: QueuePurge | QueueHold | QueueRelease) -> tuple[Fingerprint, ...]:
    carried = {"queue.purge": POSTFIX.queue_purge, "queue.hold": POSTFIX.queue_hold}[operation.name]
    plan = host.drive(carried(HERE, operation, context()), until_plan=True)
    assert isinstance(plan, Plan)
    return plan.selected


def read_mail(mail: Mail) -> QueueEntry:
    return QueueEntry(mail.queue_id, mail.state, mail.state, mail.arrival_time, mail.sender, [], mail.size)


def quarantined(result: Result, *mails: Mail) -> tuple[Quarantined, ...]:
    places = result.data["places"]
    return tuple(
        Quarantined("x", m.queue_id, places[m.queue_id], m.arrival_time, m.sender, m.size, "deferred") for m in mails
    )


def test_hold_touches_the_matching_messages_only_and_reads_their_state_back(host: FakeHost) -> None:
    result = host.drive(POSTFIX.queue_hold(HERE, QueueHold(by("from:news@*")), context()))
    assert result.ended is Ended.SUCCEEDED
    assert outcomes(result) == {"AAAAAA1": "done", "AAAAAA2": "done"}
    assert {name: mail.state for name, mail in host.mail.items()} == {
        "AAAAAA1": "hold",
        "AAAAAA2": "hold",
        "AAAAAA3": "deferred",
    }
    assert result.before["states"] == {"deferred": 2}
    assert result.after["states"] == {"hold": 2}


def test_what_is_held_already_is_not_ours_and_nothing_is_changed(host: FakeHost) -> None:
    host.mail["AAAAAA1"].state = "hold"
    result = host.drive(POSTFIX.queue_hold(HERE, QueueHold(ids("AAAAAA1")), context()))
    assert result.ended is Ended.UNCHANGED
    assert result.messages == ()
    assert result.data["already"] == 1
    assert not any(command.mutates for command in host.commands)


@pytest.mark.parametrize("state", ["active", "incoming", "maildrop"])
@pytest.mark.parametrize("mode", ["delete", "quarantine"])
def test_a_message_in_delivery_is_left_alone_and_never_claimed(host: FakeHost, state: str, mode: str) -> None:
    host.mail["AAAAAA1"].state = state
    result = host.drive(POSTFIX.queue_purge(HERE, QueuePurge(by("from:news@*"), mode=mode), context()))
    assert outcomes(result) == {"AAAAAA1": "in_delivery", "AAAAAA2": "done"}
    assert result.ended is Ended.FAILED
    assert result.error is not None
    assert result.error.code == "in_delivery"
    assert host.mail["AAAAAA1"].state == state


def test_a_message_that_becomes_active_after_the_look_is_not_deleted(host: FakeHost) -> None:
    host.before[1] = lambda host: setattr(host.mail["AAAAAA1"], "state", "active")
    result = host.drive(POSTFIX.queue_purge(HERE, QueuePurge(by("from:news@*"), mode="delete"), context()))
    assert outcomes(result) == {"AAAAAA1": "in_delivery", "AAAAAA2": "done"}
    assert host.mail["AAAAAA1"].state == "active"


def test_a_message_that_came_under_a_used_id_in_between_is_released_and_lives(host: FakeHost) -> None:
    host.before[1] = lambda host: host.add(Mail("AAAAAA1", sender="new@fine.example", arrival_time=OTHER))
    result = host.drive(POSTFIX.queue_purge(HERE, QueuePurge(by("from:news@*"), mode="delete"), context()))
    assert outcomes(result) == {"AAAAAA1": "already_gone", "AAAAAA2": "done"}
    assert host.mail["AAAAAA1"].state == "deferred"
    assert host.mail["AAAAAA1"].sender == "new@fine.example"


def test_a_message_that_an_administrator_deletes_meanwhile_is_gone_by_itself(host: FakeHost) -> None:
    host.before[3] = lambda host: host.mail.pop("AAAAAA1")
    result = host.drive(POSTFIX.queue_purge(HERE, QueuePurge(by("from:news@*"), mode="delete"), context()))
    assert outcomes(result) == {"AAAAAA1": "already_gone", "AAAAAA2": "done"}
    assert result.ended is Ended.SUCCEEDED


def test_only_what_the_plan_names_is_touched(host: FakeHost) -> None:
    frozen = plan_for(host, QueuePurge(by("from:news@*")))
    host.add(Mail("AAAAAA9"))
    del host.mail["AAAAAA2"]
    result = host.drive(POSTFIX.queue_purge(HERE, QueuePurge(by("from:news@*"), mode="delete"), context(frozen=frozen)))
    assert outcomes(result) == {"AAAAAA1": "done", "AAAAAA2": "already_gone"}
    assert set(host.mail) == {"AAAAAA3", "AAAAAA9"}
    assert host.plan is not None
    assert (host.plan.gone, host.plan.new) == (1, 1)


def test_a_plan_whose_ids_now_name_other_messages_is_stale(host: FakeHost) -> None:
    frozen = plan_for(host, QueuePurge(ids("AAAAAA1")))
    host.add(Mail("AAAAAA1", sender="new@fine.example", arrival_time=OTHER))
    with pytest.raises(PlanStale):
        host.drive(POSTFIX.queue_purge(HERE, QueuePurge(ids("AAAAAA1")), context(frozen=frozen)))
    assert host.mail["AAAAAA1"].state == "deferred"


def test_a_plan_all_of_which_is_gone_by_itself_changes_nothing(host: FakeHost) -> None:
    frozen = plan_for(host, QueuePurge(ids("AAAAAA1", "AAAAAA2")))
    host.mail.clear()
    result = host.drive(POSTFIX.queue_purge(HERE, QueuePurge(ids("AAAAAA1", "AAAAAA2")), context(frozen=frozen)))
    assert result.ended is Ended.UNCHANGED
    assert result.data["already_gone"] == 2


def test_a_used_id_among_others_is_skipped_and_said(host: FakeHost) -> None:
    frozen = plan_for(host, QueuePurge(ids("AAAAAA1", "AAAAAA2")))
    host.add(Mail("AAAAAA1", sender="new@fine.example", arrival_time=OTHER))
    result = host.drive(POSTFIX.queue_purge(HERE, QueuePurge(ids("AAAAAA1")), context(frozen=frozen)))
    assert outcomes(result) == {"AAAAAA2": "done", "AAAAAA1": "already_gone"}
    assert "name other messages" in result.data["notes"][0]
    assert host.mail["AAAAAA1"].state == "deferred"


def test_ids_that_are_not_queued_count_as_gone(host: FakeHost) -> None:
    result = host.drive(POSTFIX.queue_hold(HERE, QueueHold(ids("AAAAAA1", "FFFFFF9")), context()))
    assert outcomes(result) == {"AAAAAA1": "done", "FFFFFF9": "already_gone"}
    assert result.data["asked"] == 2


def test_an_empty_queue_is_believed_only_when_postqueue_says_so() -> None:
    host = FakeHost()
    result = host.drive(POSTFIX.queue_hold(HERE, QueueHold(by("ALL")), context()))
    assert result.ended is Ended.UNCHANGED
    assert [command.argv[3] for command in host.commands] == ["-j", "-p"]


def test_more_than_the_limit_stops_before_anything_is_changed(host: FakeHost) -> None:
    with pytest.raises(TooMany, match="3 messages match, max_messages is 2"):
        host.drive(POSTFIX.queue_hold(HERE, QueueHold(by("ALL"), limits=Limits(max_messages=2)), context()))
    with pytest.raises(TooMany, match="max_fraction"):
        host.drive(POSTFIX.queue_hold(HERE, QueueHold(by("from:news@*"), Limits(max_fraction=0.5)), context()))
    assert {mail.state for mail in host.mail.values()} == {"deferred"}


def test_release_frees_what_we_hold_and_no_other_hold(host: FakeHost) -> None:
    held = plan_for(host, QueueHold(by("from:news@*")))
    for mail in host.mail.values():
        mail.state = "hold"
    result = host.drive(POSTFIX.queue_release(HERE, QueueRelease(by("ALL")), context(ours=frozenset(held))))
    assert outcomes(result) == {"AAAAAA1": "done", "AAAAAA2": "done"}
    assert host.mail["AAAAAA3"].state == "hold"


@pytest.mark.parametrize("selection", [by("subject:newsletter"), by("ALL"), ids("AAAAAA3")])
@pytest.mark.parametrize("is_frozen", [False, True])
def test_every_listing_for_a_change_sees_which_of_our_holds_others_ended(
    host: FakeHost, selection: Selection, is_frozen: bool
) -> None:
    kept, released, reused, left = (Mail(name, "hold") for name in ("BBBBBB1", "BBBBBB2", "BBBBBB3", "BBBBBB4"))
    host.add(kept, released, reused, left)
    ours = frozenset(fingerprint_of(read_mail(each)) for each in (kept, released, reused, left))
    released.state = "deferred"
    reused.arrival_time = OTHER
    del host.mail[left.queue_id]
    frozen = plan_for(host, QueueHold(by("ALL"))) if is_frozen else None
    host.drive(POSTFIX.queue_hold(HERE, QueueHold(selection), context(ours=ours, frozen=frozen)))
    assert host.plan is not None
    assert sorted(each.queue_id for each in host.plan.freed) == ["BBBBBB2", "BBBBBB3", "BBBBBB4"]


def test_a_listing_that_left_messages_out_proves_no_end_of_a_hold(host: FakeHost) -> None:
    ours = frozenset({fingerprint_of(read_mail(Mail("BBBBBB1")))})
    host.garbage = b"{}\n"
    host.drive(POSTFIX.queue_hold(HERE, QueueHold(by("ALL")), context(ours=ours)), until_plan=True)
    assert host.plan is not None
    assert host.plan.freed == ()


@pytest.mark.parametrize("selection", [by("state:hold"), ids("AAAAAA3")])
def test_others_holds_are_freed_when_named_and_the_plan_says_so(host: FakeHost, selection: Selection) -> None:
    host.mail["AAAAAA3"].state = "hold"
    result = host.drive(POSTFIX.queue_release(HERE, QueueRelease(selection), context()))
    assert outcomes(result) == {"AAAAAA3": "done"}
    assert host.plan is not None
    assert host.plan.foreign_holds == 1


def test_content_is_read_only_for_what_the_envelope_leaves_over(host: FakeHost) -> None:
    host.mail["AAAAAA2"].headers = b"Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\n"
    result = host.drive(POSTFIX.queue_hold(HERE, QueueHold(by('from:news@* subject:"Grüße"')), context()))
    assert outcomes(result) == {"AAAAAA2": "done"}
    read = next(command for command in host.commands if command.script == "postfix_content.sh")
    assert read.stdin.split(b"\n")[1:] == [b"AAAAAA1", b"AAAAAA2", b""]
    assert host.plan is not None
    assert host.plan.selected[0].subject == "Grüße"


def test_quarantine_and_restore_bring_the_same_message_back(host: FakeHost) -> None:
    mail = host.mail["AAAAAA1"]
    purged = host.drive(POSTFIX.queue_purge(HERE, QueuePurge(ids("AAAAAA1")), context()))
    assert purged.data["places"] == {"AAAAAA1": "/var/spool/postfix/mxfleet-quarantine/job-1/AAAAAA1"}
    assert "AAAAAA1" not in host.mail
    restore = QuarantineRestore(quarantined(purged, mail))
    result = host.drive(POSTFIX.quarantine_restore(HERE, restore, context()))
    assert outcomes(result) == {"AAAAAA1": "done"}
    assert host.mail["AAAAAA1"] is mail
    assert mail.state == "deferred"
    assert host.attempted == ["AAAAAA1"]


def test_what_its_script_moved_without_seeing_it_is_purged_and_not_gone(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = FakeHost._quarantine

    def forgetful(self: FakeHost, command: Command, words: list[str]) -> Completed:
        said = play(self, command, words)
        return Completed(0, b"end\n") if command.argv[0] == "out" else said

    monkeypatch.setattr(FakeHost, "_quarantine", forgetful)
    result = host.drive(POSTFIX.queue_purge(HERE, QueuePurge(by("from:news@*")), context()))
    assert outcomes(result) == {"AAAAAA1": "done", "AAAAAA2": "done"}
    assert set(result.data["places"]) == {"AAAAAA1", "AAAAAA2"}


def test_what_was_held_comes_back_held_and_is_not_attempted(host: FakeHost) -> None:
    mail = host.mail["AAAAAA1"]
    purged = host.drive(POSTFIX.queue_purge(HERE, QueuePurge(ids("AAAAAA1")), context()))
    (item,) = quarantined(purged, mail)
    was_held = Quarantined("x", item.queue_id, item.place, item.arrival_time, item.sender, item.size, "hold")
    host.drive(POSTFIX.quarantine_restore(HERE, QuarantineRestore((was_held,)), context()))
    assert mail.state == "hold"
    assert host.attempted == []


@pytest.mark.parametrize("can_quarantine", [True, False])
def test_what_somebody_else_held_since_the_listing_is_not_quarantined_as_one_that_was_free(
    host: FakeHost, can_quarantine: bool
) -> None:
    """Or the undo would free it."""
    here = instance(can_quarantine=can_quarantine)
    host.before[1] = lambda host: setattr(host.mail["AAAAAA1"], "state", "hold")
    result = host.drive(POSTFIX.queue_purge(here, QueuePurge(ids("AAAAAA1", "AAAAAA2")), context()))
    assert outcomes(result) == {"AAAAAA1": "left", "AAAAAA2": "done"}
    assert set(result.data["places"]) == {"AAAAAA2"}
    assert host.mail["AAAAAA1"].state == "hold"


@pytest.mark.parametrize(
    "operation",
    [
        QueuePurge(ids("AAAAAA1", "AAAAAA2", "AAAAAA3"), mode="delete"),
        QueueBounce(ids("AAAAAA1", "AAAAAA2", "AAAAAA3")),
        QueueRequeue(ids("AAAAAA1", "AAAAAA2", "AAAAAA3")),
    ],
    ids=lambda operation: operation.name,
)
def test_what_somebody_else_held_since_the_listing_is_left_and_said_and_what_was_held_before_is_not(
    host: FakeHost, operation: QueuePurge
) -> None:
    host.mail["AAAAAA3"].state = "hold"
    host.before[1] = lambda host: setattr(host.mail["AAAAAA1"], "state", "hold")
    carried = {
        "queue.purge": POSTFIX.queue_purge,
        "queue.bounce": POSTFIX.queue_bounce,
        "queue.requeue": POSTFIX.queue_requeue,
    }[operation.name]
    result = host.drive(carried(HERE, operation, context()))
    assert (result.ended, outcomes(result)["AAAAAA1"], host.mail["AAAAAA1"].state) == (Ended.FAILED, "left", "hold")
    (sent,) = (command.stdin for command in host.commands if {"-d", "-e", "-r"} & {*command.argv})
    assert sent == b"AAAAAA2\nAAAAAA3\n"


def test_an_undo_leaves_on_hold_what_somebody_else_holds_since_it_came_back(host: FakeHost) -> None:
    mail = host.mail["AAAAAA1"]
    purged = host.drive(POSTFIX.queue_purge(HERE, QueuePurge(ids("AAAAAA1")), context()))
    restore = QuarantineRestore(quarantined(purged, mail))
    assert outcomes(host.drive(POSTFIX.quarantine_restore(HERE, restore, context(undo=True)))) == {"AAAAAA1": "done"}
    assert mail.state == "deferred"
    host.drive(POSTFIX.queue_hold(HERE, QueueHold(ids("AAAAAA1")), context()))
    again = host.drive(POSTFIX.quarantine_restore(HERE, restore, context(undo=True)))
    assert (mail.state, outcomes(again)) == ("hold", {"AAAAAA1": "left"})
    assert "nothing on the host tells" in again.data["notes"][0]


def test_a_restore_that_was_cut_off_before_its_release_is_finished_by_the_next(host: FakeHost) -> None:
    mail = host.mail["AAAAAA1"]
    purged = host.drive(POSTFIX.queue_purge(HERE, QueuePurge(ids("AAAAAA1")), context()))
    restore = QuarantineRestore(quarantined(purged, mail))
    steps = POSTFIX.quarantine_restore(HERE, restore, context(undo=True))
    host.drive(_until(steps, "-H"))
    assert (mail.state, host.quarantine) == ("hold", {})
    assert outcomes(host.drive(POSTFIX.quarantine_restore(HERE, restore, context(undo=True)))) == {"AAAAAA1": "done"}
    assert mail.state == "deferred"


def _until(steps: Steps[Any], word: str) -> Steps[None]:
    """The steps up to the first command with this word, which never reaches the host."""
    step = next(steps)
    while not (isinstance(step, Command) and word in step.argv):
        step = steps.send((yield step))


def test_erase_says_what_was_there_and_what_was_not(host: FakeHost) -> None:
    mail = host.mail["AAAAAA1"]
    purged = host.drive(POSTFIX.queue_purge(HERE, QueuePurge(ids("AAAAAA1")), context()))
    erase = QuarantineErase(quarantined(purged, mail))
    assert outcomes(host.drive(POSTFIX.quarantine_erase(HERE, erase, context()))) == {"AAAAAA1": "done"}
    assert outcomes(host.drive(POSTFIX.quarantine_erase(HERE, erase, context()))) == {"AAAAAA1": "already_gone"}


def test_where_files_cannot_be_moved_quarantine_is_hold_and_the_plan_says_so(host: FakeHost) -> None:
    here = instance(can_quarantine=False)
    mail = host.mail["AAAAAA1"]
    purged = host.drive(POSTFIX.queue_purge(here, QueuePurge(ids("AAAAAA1")), context()))
    assert host.plan is not None
    assert any("kept on hold" in note for note in host.plan.notes)
    assert mail.state == "hold"
    host.drive(POSTFIX.quarantine_restore(here, QuarantineRestore(quarantined(purged, mail)), context()))
    assert mail.state == "deferred"


def test_a_listing_that_cannot_be_read_after_the_change_is_unknown_and_not_failed(host: FakeHost) -> None:
    host.before[4] = lambda host: setattr(host, "garbage", b"garbage\n")
    with pytest.raises(OutcomeUnknown):
        host.drive(POSTFIX.queue_purge(HERE, QueuePurge(ids("AAAAAA1"), mode="delete"), context()))


def test_a_refused_quarantine_leaves_nothing_on_hold(host: FakeHost) -> None:
    answer = host.answer

    def refusing(command: Command) -> Completed:
        return Completed(75) if command.script == "postfix_quarantine.sh" else answer(command)

    host.answer = refusing  # type: ignore[method-assign]
    with pytest.raises(Unsupported):
        host.drive(POSTFIX.queue_purge(HERE, QueuePurge(ids("AAAAAA1")), context()))
    assert host.mail["AAAAAA1"].state == "deferred"


def test_read_back_of_a_delete_succeeds_without_claiming_what_it_cannot_know(host: FakeHost) -> None:
    operation = QueuePurge(by("from:news@*"), mode="delete")
    frozen = plan_for(host, operation)
    for each in frozen:
        del host.mail[each.queue_id]
    result = host.drive(POSTFIX.read_back(HERE, operation, context(frozen=frozen)))
    assert result is not None
    assert (result.ended, result.data["done"], result.data["left_queue"]) == (Ended.SUCCEEDED, 0, len(frozen))
    assert "no longer in the queue" in result.data["notes"][0]


@pytest.mark.parametrize("mode", ["delete", "quarantine"])
def test_read_back_of_a_purge_tells_what_is_gone_and_what_was_left_on_hold(host: FakeHost, mode: str) -> None:
    operation = QueuePurge(by("from:news@*"), mode=mode)
    frozen = plan_for(host, operation)
    host.mail["AAAAAA2"].state = "hold"
    gone = host.mail.pop("AAAAAA1")
    if mode == "quarantine":
        host.quarantine["AAAAAA1"] = gone
    result = host.drive(POSTFIX.read_back(HERE, operation, context(frozen=frozen)))
    assert result is not None
    expected = "done" if mode == "quarantine" else "left_queue"
    assert outcomes(result) == {"AAAAAA1": expected, "AAAAAA2": "left"}
    assert result.data["held"] == ["AAAAAA2"]
    assert set(result.data["places"]) == ({"AAAAAA1"} if mode == "quarantine" else set())
    assert not any(command.mutates for command in host.commands)


def test_read_back_of_a_purge_that_keeps_on_hold_claims_no_hold_since_nothing_tells_whose_it_is(host: FakeHost) -> None:
    here = instance(can_quarantine=False)
    operation = QueuePurge(by("from:news@*"))
    frozen = plan_for(host, operation)
    host.mail["AAAAAA1"].state = "hold"
    result = host.drive(POSTFIX.read_back(here, operation, context(frozen=frozen)))
    assert result is not None
    assert outcomes(result) == {"AAAAAA1": "left", "AAAAAA2": "left"}
    assert (result.data["held"], result.data["places"]) == (["AAAAAA1"], {})


def test_read_back_of_a_hold_claims_none_since_nothing_tells_whose_it_is(host: FakeHost) -> None:
    operation = QueueHold(by("from:news@*"))
    frozen = plan_for(host, operation)
    host.mail["AAAAAA1"].state = "hold"
    result = host.drive(POSTFIX.read_back(HERE, operation, context(frozen=frozen)))
    assert result is not None
    assert (outcomes(result), result.data["already"]) == ({"AAAAAA2": "left"}, 1)
    assert "on hold" in result.data["notes"][-1]


@pytest.mark.parametrize("operation", [QueueFlush(by("ALL")), QueueRequeue(by("ALL")), QueueBounce(by("ALL"))])
def test_what_cannot_be_read_back_is_not_guessed(host: FakeHost, operation: QueueFlush) -> None:
    assert host.drive(POSTFIX.read_back(HERE, operation, context(frozen=()))) is None


def test_flush_of_a_selection_attempts_these_only_and_never_a_held_one(host: FakeHost) -> None:
    host.mail["AAAAAA2"].state = "hold"
    result = host.drive(POSTFIX.queue_flush(HERE, QueueFlush(by("from:news@*")), context()))
    assert host.attempted == ["AAAAAA1"]
    assert outcomes(result) == {"AAAAAA1": "done"}


def test_flush_is_not_claimed_for_a_message_that_nobody_touched(host: FakeHost) -> None:
    host.on_attempt = lambda host, name: setattr(host.mail[name], "ctime", 1)
    result = host.drive(POSTFIX.queue_flush(HERE, QueueFlush(ids("AAAAAA1")), context()))
    assert outcomes(result) == {"AAAAAA1": "left"}
    assert result.ended is Ended.FAILED


def test_flush_of_all_is_one_command(host: FakeHost) -> None:
    result = host.drive(POSTFIX.queue_flush(HERE, QueueFlush(by("ALL")), context()))
    assert result.data["done"] == 3
    assert [command.argv[3] for command in host.commands if command.mutates] == ["-f"]


def test_bounce_is_done_when_the_log_says_returned_to_sender(host: FakeHost) -> None:
    def expire(host: FakeHost, name: str) -> None:
        del host.mail[name]
        if name == "AAAAAA1":
            told = f"{name}: from=<news@bulk.example>, status=force-expired, returned to sender"
            host.log.append(f"2026-11-20T11:00:14 mx1 postfix/qmgr[304]: {told}")

    host.on_attempt = expire
    result = host.drive(POSTFIX.queue_bounce(HERE, QueueBounce(by("from:news@*")), context()))
    assert outcomes(result) == {"AAAAAA1": "done", "AAAAAA2": "already_gone"}


def test_bounce_is_unsupported_before_3_5_and_without_notice(host: FakeHost) -> None:
    old = instance()
    object.__setattr__(old, "version", "3.4.23")
    with pytest.raises(Unsupported, match="cannot expire"):
        host.drive(POSTFIX.queue_bounce(old, QueueBounce(by("ALL")), context()))
    with pytest.raises(Unsupported, match="notice"):
        host.drive(POSTFIX.queue_bounce(HERE, QueueBounce(by("ALL"), notify=False), context()))
    assert host.commands == []


def test_requeue_reports_the_new_id_that_pickup_logs(host: FakeHost) -> None:
    host.log.append("2026-11-20 mx1 postfix/pickup[7]: BBBBBB1: uid=0 from=<news@bulk.example> orig_id=AAAAAA1")
    host.before[4] = lambda host: host.mail.pop("AAAAAA1")
    result = host.drive(POSTFIX.queue_requeue(HERE, QueueRequeue(by("from:news@* -id:AAAAAA2")), context()))
    (message,) = result.messages
    assert (message.outcome, message.new_id) == (MessageState.DONE, "BBBBBB1")


def test_what_only_hastens_a_requeue_is_a_hint_and_what_moves_mail_is_none(host: FakeHost) -> None:
    host.drive(POSTFIX.queue_requeue(HERE, QueueRequeue(by("from:news@*")), context()))
    names = {(each.script or each.argv[0]).rpartition("/")[2]: each.is_hint for each in host.commands}
    assert [name for name, is_hint in names.items() if is_hint] == ["postkick", "sleep"]


def test_a_refused_requeue_leaves_nothing_on_hold(host: FakeHost) -> None:
    answer = host.answer

    def refusing(command: Command) -> Completed:
        return Completed(1, stderr=b"sudo: a password is required\n") if "-r" in command.argv else answer(command)

    host.answer = refusing  # type: ignore[method-assign]
    with pytest.raises(SudoDenied):
        host.drive(POSTFIX.queue_requeue(HERE, QueueRequeue(by("from:news@*")), context()))
    assert {mail.state for mail in host.mail.values()} == {"deferred"}


def test_what_cannot_be_taken_off_hold_again_after_a_refusal_is_an_unknown_outcome(host: FakeHost) -> None:
    """The configuration was taken away between two commands, so that the messages stay on hold."""
    answer = host.answer

    def broken(command: Command) -> Completed:
        is_refused = {"-d", "-H"} & {*command.argv}
        return (
            Completed(1, stderr=b"postsuper: fatal: open /etc/postfix/main.cf: x\n") if is_refused else answer(command)
        )

    host.answer = broken  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown):
        host.drive(POSTFIX.queue_purge(HERE, QueuePurge(by("from:news@*"), mode="delete"), context()))
    assert "hold" in {mail.state for mail in host.mail.values()}


def test_requeue_frees_no_hold_that_was_not_named(host: FakeHost) -> None:
    host.mail["AAAAAA1"].state = "hold"
    result = host.drive(POSTFIX.queue_requeue(HERE, QueueRequeue(by("from:news@* age>1s")), context()))
    assert outcomes(result) == {"AAAAAA2": "done"}
    assert host.mail["AAAAAA1"].state == "hold"
