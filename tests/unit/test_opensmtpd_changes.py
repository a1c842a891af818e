"""OpenSMTPD's operations on a host played by hand: what they change, what they claim, and what they leave alone."""

from typing import Any

import pytest

from fleet import match
from fleet.mta.errors import (
    Conflict,
    InDelivery,
    MessageNotFound,
    MtaNotRunning,
    OutcomeUnknown,
    PlanStale,
    SudoDenied,
    TooMany,
    Unsupported,
)
from fleet.mta.opensmtpd import OpenSmtpd
from fleet.mta.operations import (
    Limits,
    MessageDeliver,
    MessageShow,
    Quarantined,
    QuarantineErase,
    QuarantineRestore,
    QueueFlush,
    QueueHold,
    QueueList,
    QueuePurge,
    QueueRelease,
    Selection,
)
from fleet.mta.records import Ended, MessageState
from fleet.mta.steps import Command, Completed
from tests.unit.opensmtpd_host import CREATED, FakeHost, Mail, context, instance

OPENSMTPD = OpenSmtpd()
HERE = instance()
CHANGES: list[Any] = [
    (OPENSMTPD.queue_hold, QueueHold),
    (OPENSMTPD.queue_purge, QueuePurge),
    (OPENSMTPD.queue_flush, QueueFlush),
]
ATTEMPT = (
    "2026-11-21T11:59:51.469264+00:00 os1 smtpd[57]: 2ca5015b10ceef6b mta delivery evpid={} from=<news@bulk.example> "
    'to=<{}> rcpt=<-> source="10.0.0.51" relay="10.0.0.202 (mx.defer.test)" delay=1s result="{}" stat="{}"'
)


def by_match(text: str) -> Selection:
    return Selection(match=match.parse(text))


@pytest.fixture
def host() -> FakeHost:
    host = FakeHost()
    host.add(
        Mail("00000001"),
        Mail("00000002", sender="<>", recipients=("a@x.test", "b@x.test")),
        Mail("00000003", sender="other@x.test", state="hold"),
        Mail("00000004", sender="slow@x.test", state="active"),
    )
    return host


def outcomes(result: Any) -> dict[str, str]:
    return {each.queue_id: each.outcome for each in result.messages}


def quarantined(mail: Mail, **fields: Any) -> Quarantined:
    place = f"/var/spool/smtpd/mxfleet-quarantine/job-1/{mail.queue_id}"
    given = {"place": place, "state": mail.state, **fields}
    return Quarantined(
        f"q-{mail.queue_id}", mail.queue_id, given["place"], mail.created, mail.sender, mail.size, given["state"]
    )


def test_listing_matches_and_shows(host: FakeHost) -> None:
    listed = host.drive(OPENSMTPD.queue_list(HERE, QueueList(match.parse("from:<> attempts>=1")), context())).data
    assert [(each["queue_id"], len(each["recipients"])) for each in listed["entries"]] == [("00000002", 2)]
    assert listed["total"] == 4
    host.mail["00000001"].body = b"\nneedle\n"
    found = host.drive(OPENSMTPD.queue_list(HERE, QueueList(match.parse("body~needle")), context())).data
    assert [each["queue_id"] for each in found["entries"]] == ["00000001"]
    shown = host.drive(OPENSMTPD.message_show(HERE, MessageShow("00000001", ("headers", "body")), context())).data
    assert (shown["body"]["text"], shown["headers"][0]["value"]) == ("needle\n", "Newsletter")
    with pytest.raises(MessageNotFound):
        host.drive(OPENSMTPD.message_show(HERE, MessageShow("0000000f"), context()))


def test_an_encrypted_queue_is_listed_and_not_matched_by_content(host: FakeHost) -> None:
    locked = instance(is_encrypted=True)
    listed = host.drive(OPENSMTPD.queue_list(locked, QueueList(match.parse("from:<>")), context())).data
    assert listed["matched"] == 1
    with pytest.raises(Unsupported, match="encrypted"):
        host.drive(OPENSMTPD.queue_list(locked, QueueList(match.parse("subject~x")), context()))


def test_hold_leaves_what_is_held_or_in_delivery(host: FakeHost) -> None:
    result = host.drive(OPENSMTPD.queue_hold(HERE, QueueHold(by_match("ALL")), context()))
    assert outcomes(result) == {
        "00000001": MessageState.DONE,
        "00000002": MessageState.DONE,
        "00000004": MessageState.IN_DELIVERY,
    }
    assert (result.ended, result.data["already"]) == (Ended.FAILED, 1)
    assert host.plan is not None
    assert any("restart releases" in note for note in host.plan.notes)


def test_release_frees_others_holds_only_when_they_are_named(host: FakeHost) -> None:
    none = host.drive(OPENSMTPD.queue_release(HERE, QueueRelease(by_match("ALL")), context()))
    assert none.ended is Ended.UNCHANGED
    named = host.drive(OPENSMTPD.queue_release(HERE, QueueRelease(by_match("state:hold")), context()))
    assert outcomes(named) == {"00000003": MessageState.DONE}


@pytest.mark.parametrize("mode", ["quarantine", "delete"])
def test_purge_never_claims_what_is_in_delivery(host: FakeHost, mode: str) -> None:
    result = host.drive(OPENSMTPD.queue_purge(HERE, QueuePurge(by_match("ALL"), mode=mode), context()))
    assert outcomes(result) == {
        "00000001": MessageState.DONE,
        "00000002": MessageState.DONE,
        "00000003": MessageState.DONE,
        "00000004": MessageState.IN_DELIVERY,
    }
    assert isinstance(result.error, InDelivery)
    assert set(host.quarantine) == set(result.data["places"])
    assert len(host.quarantine) == (3 if mode == "quarantine" else 0)


def test_what_leaves_by_itself_before_the_purge_is_gone_and_not_done(host: FakeHost) -> None:
    host.before[1] = lambda host: host.mail.pop("00000001") and None
    result = host.drive(OPENSMTPD.queue_purge(HERE, QueuePurge(by_match("id:00000001")), context()))
    assert (result.ended, outcomes(result)) == (Ended.UNCHANGED, {"00000001": MessageState.ALREADY_GONE})


def test_a_message_that_came_under_a_used_id_is_not_touched(host: FakeHost) -> None:
    purge = QueuePurge(by_match("id:00000001"))
    plan = host.drive(OPENSMTPD.queue_purge(HERE, purge, context()), until_plan=True)
    host.mail["00000001"].created += 60
    with pytest.raises(PlanStale):
        host.drive(OPENSMTPD.queue_purge(HERE, purge, context(frozen=plan.selected)))
    host.mail["00000001"].created = CREATED
    host.before[len(host.commands) + 1] = lambda host: setattr(host.mail["00000001"], "created", CREATED + 60)
    result = host.drive(OPENSMTPD.queue_purge(HERE, purge, context(frozen=plan.selected)))
    assert outcomes(result) == {"00000001": MessageState.ALREADY_GONE}
    assert "00000001" in host.mail


@pytest.mark.parametrize(("method", "kind"), CHANGES)
def test_nothing_selected_plans_and_changes_nothing(method: Any, kind: Any) -> None:
    host = FakeHost()
    result = host.drive(method(HERE, kind(by_match("ALL")), context()))
    assert (result.ended, result.messages) == (Ended.UNCHANGED, ())
    assert host.plan is not None
    assert host.plan.commands == ()
    assert not any(command.mutates for command in host.commands)


@pytest.mark.parametrize(("method", "kind"), CHANGES)
def test_limits_refusals_and_cut_off_answers_have_names(host: FakeHost, method: Any, kind: Any) -> None:
    with pytest.raises(TooMany):
        host.drive(method(HERE, kind(by_match("ALL"), Limits(max_messages=1)), context()))
    for answer, error in (
        (Completed(1, stderr=b"sudo: a password is required\n"), SudoDenied),
        (Completed(69, stderr=b"smtpctl: smtpd doesn't seem to be running\n"), MtaNotRunning),
        (Completed(0, b"00000001\n"), OutcomeUnknown),
        (Completed(0, b""), OutcomeUnknown),
        (Completed(74, stderr=b"smtpctl: smtpd doesn't seem to be running\n"), OutcomeUnknown),
    ):
        for script in ("opensmtpd_act.sh", "opensmtpd_quarantine.sh"):
            host.broken[script] = answer
        with pytest.raises(error):
            host.drive(method(HERE, kind(by_match("ALL")), context()))


def test_a_later_lot_that_fails_makes_the_outcome_unknown() -> None:
    """What the first lot put away would have no record if that were a failure."""
    host = FakeHost()
    host.add(*(Mail(f"{number:08x}") for number in range(1001)))
    stopped = Completed(69, stderr=b"smtpctl: smtpd doesn't seem to be running\n")
    host.before[2] = lambda host: host.broken.update({"opensmtpd_quarantine.sh": stopped})
    with pytest.raises(OutcomeUnknown):
        host.drive(OPENSMTPD.queue_purge(HERE, QueuePurge(by_match("ALL")), context()))
    assert len(host.quarantine) == 1000


@pytest.mark.parametrize("mode", ["quarantine", "delete"])
def test_the_file_of_a_message_in_flight_is_not_even_moved_away(host: FakeHost, mode: str) -> None:
    result = host.drive(
        OPENSMTPD.queue_purge(HERE, QueuePurge(by_match("from:slow@* OR id:00000001"), mode=mode), context())
    )
    assert outcomes(result) == {"00000001": "done", "00000004": "in_delivery"}
    (moved,) = (command.stdin.decode() for command in host.commands if command.mutates)
    assert moved == f"job-1\n00000001 {CREATED}\n"


def test_another_run_at_work_is_a_conflict_and_changes_nothing(host: FakeHost) -> None:
    host.broken["opensmtpd_quarantine.sh"] = Completed(76, stderr=b"opensmtpd_quarantine: another run is at work\n")
    with pytest.raises(Conflict, match="another run"):
        host.drive(OPENSMTPD.queue_purge(HERE, QueuePurge(by_match("ALL")), context()))


def test_an_attempt_that_broke_off_after_the_release_is_unknown(host: FakeHost) -> None:
    host.broken["opensmtpd_deliver.sh"] = Completed(74, stderr=b"smtpctl: smtpd doesn't seem to be running\n")
    with pytest.raises(OutcomeUnknown):
        host.drive(OPENSMTPD.message_deliver(HERE, MessageDeliver("00000003", release=True), context()))


def test_what_was_changed_and_not_seen_afterwards_is_unknown(host: FakeHost) -> None:
    host.before[2] = lambda host: host.broken.update({"opensmtpd_list.sh": Completed(1, stderr=b"smtpctl: no\n")})
    with pytest.raises(OutcomeUnknown):
        host.drive(OPENSMTPD.queue_hold(HERE, QueueHold(by_match("ALL")), context()))


def test_a_lot_is_small_enough_for_its_time() -> None:
    host = FakeHost()
    host.add(*(Mail(f"{number:08x}") for number in range(2500)))
    result = host.drive(OPENSMTPD.queue_purge(HERE, QueuePurge(by_match("ALL")), context()))
    assert result.data["done"] == 2500
    batches = [command.stdin.count(b"\n") - 1 for command in host.commands if command.mutates]
    assert batches == [1000, 1000, 500]
    assert all(command.timeout <= 120 for command in host.commands if command.mutates)


def test_flush_never_touches_what_is_paused(host: FakeHost) -> None:
    tried: list[str] = []
    host.on_attempt = lambda host, name: tried.append(name)
    result = host.drive(OPENSMTPD.queue_flush(HERE, QueueFlush(by_match("ALL")), context()))
    assert tried == ["00000001", "00000002"]
    assert (result.ended, result.data["already"], result.data["done"]) == (Ended.SUCCEEDED, 1, 3)


def test_restore_is_seen_in_the_queue_or_not_claimed(host: FakeHost) -> None:
    mail = host.mail["00000001"]
    host.drive(OPENSMTPD.queue_purge(HERE, QueuePurge(by_match("id:00000001")), context()))
    back = QuarantineRestore((quarantined(mail),))
    result = host.drive(OPENSMTPD.quarantine_restore(HERE, back, context()))
    assert outcomes(result) == {"00000001": MessageState.DONE}
    assert host.commands[-2].stdin == b"job-1\n00000001 schedule\n"
    again = host.drive(OPENSMTPD.quarantine_restore(HERE, back, context(undo=True)))
    assert host.commands[-2].stdin == b"job-1\n00000001 wait\n"
    assert again.ended is Ended.SUCCEEDED


def test_a_copy_whose_id_names_another_message_now_stays_where_it_is(host: FakeHost) -> None:
    mail = host.mail.pop("00000001")
    host.quarantine["00000001"] = mail
    host.add(Mail("00000001", sender="new@x.test"))
    result = host.drive(OPENSMTPD.quarantine_restore(HERE, QuarantineRestore((quarantined(mail),)), context()))
    assert outcomes(result) == {"00000001": MessageState.LEFT}
    assert isinstance(result.error, Conflict)
    assert host.quarantine == {"00000001": mail}


def test_a_place_that_is_none_of_ours_is_refused(host: FakeHost) -> None:
    for place in ("/etc/passwd", "/var/spool/smtpd/mxfleet-quarantine/../x/00000001", ""):
        item = quarantined(host.mail["00000001"], place=place)
        for steps in (
            OPENSMTPD.quarantine_restore(HERE, QuarantineRestore((item,)), context()),
            OPENSMTPD.quarantine_erase(HERE, QuarantineErase((item,)), context()),
        ):
            with pytest.raises(Conflict):
                host.drive(steps)
    assert not any(command.mutates for command in host.commands)


def test_erase_counts_what_was_there(host: FakeHost) -> None:
    mail = host.mail.pop("00000001")
    host.quarantine["00000001"] = mail
    erase = QuarantineErase((quarantined(mail),))
    assert host.drive(OPENSMTPD.quarantine_erase(HERE, erase, context())).ended is Ended.SUCCEEDED
    assert host.drive(OPENSMTPD.quarantine_erase(HERE, erase, context())).ended is Ended.UNCHANGED


def test_what_a_later_lot_moved_is_not_told_as_left() -> None:
    host = FakeHost()
    mails = [Mail(f"{number:08x}") for number in range(2500)]
    host.quarantine = {mail.queue_id: mail for mail in mails}
    back = QuarantineRestore(tuple(quarantined(mail) for mail in mails))
    assert host.drive(OPENSMTPD.quarantine_restore(HERE, back, context())).data["done"] == 2500
    host.quarantine, host.mail = host.mail, {}
    erase = QuarantineErase(back.items)
    assert host.drive(OPENSMTPD.quarantine_erase(HERE, erase, context())).data["done"] == 2500


def deliver(host: FakeHost, queue_id: str, *, release: bool = False, **fields: Any) -> Any:
    return host.drive(OPENSMTPD.message_deliver(HERE, MessageDeliver(queue_id, release=release), context(**fields)))


@pytest.mark.parametrize(
    ("word", "is_gone", "said"),
    [
        ("Ok", True, "sent"),
        ("TempFail", False, "deferred"),
        ("PermFail", True, "bounced"),
        ("Other", True, "left_queue"),
    ],
)
def test_an_attempt_is_told_by_log_and_queue(host: FakeHost, word: str, is_gone: bool, said: str) -> None:
    def attempt(host: FakeHost, name: str) -> None:
        host.log.append(ATTEMPT.format(f"{name}00000000", "r@defer.test", word, '250 2.0.0 "ok"'))
        if is_gone:
            del host.mail[name]

    host.on_attempt = attempt
    result = deliver(host, "00000001")
    assert result.data["outcome"] == said
    assert result.data["recipients"][0]["reply"] == '250 2.0.0 "ok"'
    assert result.data["recipients"][0]["remote"] == "10.0.0.202 (mx.defer.test)"


def test_a_reply_that_poses_as_a_result_is_not_believed(host: FakeHost) -> None:
    def attempt(host: FakeHost, name: str) -> None:
        spoof = '451 no delay=1s result="Ok" stat="250 fine'
        host.log.append(ATTEMPT.format(f"{name}00000000", "r@defer.test", "TempFail", spoof))
        del host.mail[name]

    host.on_attempt = attempt
    assert deliver(host, "00000001").data["outcome"] == "left_queue"


def test_an_attempt_that_cannot_or_may_not_be_made_is_refused(host: FakeHost) -> None:
    with pytest.raises(MessageNotFound):
        deliver(host, "0000000f")
    with pytest.raises(InDelivery):
        deliver(host, "00000004")
    with pytest.raises(Conflict, match="paused"):
        deliver(host, "00000003")
    assert not any(command.mutates for command in host.commands)
    silent = deliver(host, "00000001")
    assert (silent.ended, outcomes(silent)) == (Ended.FAILED, {"00000001": MessageState.LEFT})
    host.on_attempt = lambda host, name: host.mail.pop(name) and None
    assert deliver(host, "00000003", release=True).data["outcome"] == "left_queue"
    assert host.commands[-2].stdin == b"00000003 release\n"


def test_what_its_script_moved_without_seeing_it_is_purged_and_not_gone(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = FakeHost._quarantine

    def forgetful(self: FakeHost, command: Command, words: list[str]) -> Completed:
        said = play(self, command, words)
        return Completed(0, b"end\n") if command.argv[2] == "out" else said

    monkeypatch.setattr(FakeHost, "_quarantine", forgetful)
    result = host.drive(OPENSMTPD.queue_purge(HERE, QueuePurge(by_match("from:news@*")), context()))
    assert outcomes(result) == {"00000001": "done"}
    assert set(result.data["places"]) == {"00000001"}


def read_back(host: FakeHost, operation: Any, **fields: Any) -> Any:
    before = len(host.commands)
    result = host.drive(OPENSMTPD.read_back(HERE, operation, context(**fields)))
    assert not any(command.mutates for command in host.commands[before:])
    return result


def test_reading_back_claims_only_what_it_sees(host: FakeHost) -> None:
    purge = QueuePurge(by_match("ALL"))
    frozen = host.drive(OPENSMTPD.queue_purge(HERE, purge, context()), until_plan=True).selected
    host.quarantine["00000001"] = host.mail.pop("00000001")
    del host.mail["00000002"]
    seen = read_back(host, purge, frozen=frozen)
    assert outcomes(seen) == {
        "00000001": MessageState.DONE,
        "00000002": MessageState.ALREADY_GONE,
        "00000003": MessageState.LEFT,
        "00000004": MessageState.IN_DELIVERY,
    }
    hold = read_back(host, QueueHold(by_match("ALL")), frozen=frozen)
    assert "00000003" not in outcomes(hold)
    assert hold.data["already"] == 1, "nothing tells by whom it was paused"
    assert read_back(host, QueueFlush(by_match("ALL")), frozen=frozen) is None
    host.mail.clear()
    deleted = read_back(host, QueuePurge(by_match("ALL"), mode="delete"), frozen=frozen)
    assert (deleted.ended, deleted.data["done"]) == (Ended.SUCCEEDED, 0)


def test_reading_back_an_attempt_needs_that_the_message_left(host: FakeHost) -> None:
    deliver_one = MessageDeliver("00000001")
    frozen = host.drive(OPENSMTPD.message_deliver(HERE, deliver_one, context()), until_plan=True).selected
    host.log.append(ATTEMPT.format("0000000100000000", "r@defer.test", "Ok", "250 ok"))
    assert read_back(host, deliver_one, frozen=frozen) is None
    host.mail["00000001"].size = 10**30
    assert read_back(host, deliver_one, frozen=frozen) is None, "it is there, and cannot be read"
    del host.mail["00000001"]
    assert read_back(host, deliver_one, frozen=frozen).data["outcome"] == "sent"


def test_reading_back_a_restore_looks_at_both_places(host: FakeHost) -> None:
    mail = host.mail.pop("00000003")
    host.quarantine["00000003"] = mail
    back = QuarantineRestore((quarantined(mail),))
    assert outcomes(read_back(host, back)) == {"00000003": MessageState.LEFT}
    host.mail["00000003"] = host.quarantine.pop("00000003")
    assert outcomes(read_back(host, back)) == {"00000003": MessageState.DONE}
    mail.state = "deferred"
    assert outcomes(read_back(host, QuarantineRestore((quarantined(mail, state="hold"),)))) == {
        "00000003": MessageState.LEFT
    }


def test_sudoers_has_no_wildcard_and_no_open_end() -> None:
    lines = OPENSMTPD.sudoers(instance(tables={"blocked": "file:/etc/smtpd/blocked", "aliases": "db:/x"}), "fleetops")
    assert any("opensmtpd_quarantine.sh /usr/sbin/smtpctl /var/spool/smtpd out" in line for line in lines)
    assert any("/etc/smtpd/blocked blocked" in line for line in lines)
    for line in lines:
        assert line.startswith("fleetops ALL=(root) NOPASSWD: /usr/bin/timeout -k 5 ")
        assert not set("*?^$") & set(line)
