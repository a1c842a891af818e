"""Sendmail's queue as our scripts read and change it, on real queue files."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet import match
from fleet.mta.errors import (
    Conflict,
    DiskFull,
    InDelivery,
    MessageNotFound,
    MtaNotFound,
    OutcomeUnknown,
    RemoteError,
    UnparsedOutput,
    Unsupported,
)
from fleet.mta.host.commands import HELPERS
from fleet.mta.operations import (
    MessageDeliver,
    MessageShow,
    Quarantined,
    QuarantineErase,
    QuarantineRestore,
    QueueBounce,
    QueueFlush,
    QueueHold,
    QueueList,
    QueuePurge,
    QueueRelease,
    Selection,
)
from fleet.mta.records import Ended, HostFacts, MessageState, QueueEntry, Recipient, Result
from fleet.mta.sendmail import Sendmail
from fleet.mta.sendmail.attempt import attempt_result
from fleet.mta.sendmail.commands import change, run_queue
from fleet.mta.sendmail.discovery import parse_instances
from fleet.mta.sendmail.driver import read_run
from fleet.mta.sendmail.parse import ListSink, changed_lines, messages_input, queue_id_error, script_lines
from fleet.mta.steps import Command, Completed
from tests.recorded import exchange
from tests.unit.real_scripts import AWKS, run_script, tools_with
from tests.unit.sendmail_host import ARRIVAL, SESSIONS, SendmailHost, context, queue_file, recorded_files

ONE, TWO, THREE = "6AKAxcId000281", "6AKAxcIe000281", "6AKAxcIf000281"
SENDMAIL = Sendmail()


@pytest.fixture
def host(tmp_path: Path) -> SendmailHost:
    return SendmailHost(tmp_path)


def do(host: SendmailHost, name: str, operation: Any, **fields: Any) -> Result:
    return host.drive(getattr(SENDMAIL, name)(host.instance(), operation, context(**fields)))


def entries(host: SendmailHost, text: str = "ALL") -> list[dict[str, Any]]:
    return do(host, "queue_list", QueueList(match.parse(text))).data["entries"]


def everything() -> Selection:
    return Selection(match=match.parse("ALL"))


def only(*queue_ids: str) -> Selection:
    return Selection(queue_ids=queue_ids)


def counts(result: Result) -> dict[str, int]:
    return {name: result.data[name] for name in ("done", "already_gone", "in_delivery", "left") if result.data[name]}


def items(found: list[dict[str, Any]], purged: Result) -> tuple[Quarantined, ...]:
    return tuple(
        Quarantined(
            "i",
            e["queue_id"],
            purged.data["places"][e["queue_id"]],
            e["arrival_time"],
            e["sender"],
            e["size"],
            e["state"],
        )
        for e in found
    )


def listed(data: bytes) -> list[QueueEntry]:
    found: list[QueueEntry] = []
    sink = ListSink(found.append)
    sink.feed(data)
    sink.close()
    return found


def test_a_recorded_queue_file_is_listed_with_all_it_says(host: SendmailHost) -> None:
    """Three recipients, one delivered: two are left, each with its reason; size is header and body."""
    host.add(ONE, recorded_files()[1], body=b"x" * 100)
    [entry] = entries(host)
    assert entry["sender"] == "multi@bulk.example"
    assert [each["address"] for each in entry["recipients"]] == ["a@defer.test", "b@defer.test"]
    assert {each["reason"] for each in entry["recipients"]} == {"Deferred: 451 4.7.1 sink: try later, defer.test"}
    assert (entry["arrival_time"], entry["attempts"], entry["state"]) == (1795172378, 1, "deferred")
    header = recorded_files()[1].split(b"H?P?")[1].partition(b"\n")[2]
    assert entry["size"] == 100 + len(header.replace(b"H??", b"").replace(b"H?D?", b"")) - len(b".\n")


def test_an_empty_queue_is_said_to_be_empty_and_a_missing_one_is_an_error(host: SendmailHost) -> None:
    assert not entries(host)
    shutil.rmtree(host.root / "mqueue")
    shutil.rmtree(host.root / "client")
    with pytest.raises(MtaNotFound):
        entries(host)


def test_a_listing_that_is_cut_off_anywhere_is_refused() -> None:
    whole = f">{ONE} q 0 0 {ARRIVAL} 1 0 10 5\nS<a@b.test>\nRPFD:<r@defer.test>\nend 1 0\n".encode()
    assert [each.sender for each in listed(whole)] == ["a@b.test"]
    for at in range(len(whole)):
        with pytest.raises(UnparsedOutput):
            listed(whole[:at])


@pytest.mark.parametrize(
    "garbage",
    [
        b"mailq: permission denied\nend 0 0\n",
        f">{ONE} q 0 0 now 1 0 10 5\nS<a@b.test>\nend 1 0\n".encode(),
        f">{ONE} q 0 0 1 1 0 10 5\nend 1 0\n".encode(),
        f">{ONE} q 0 0 1 1 0 10 5\nS<a@b.test>\nXx\nend 1 0\n".encode(),
        f">{ONE} q 0 0 1 1 0 10 5\nS<a@b.test>\nend 2 0\n".encode(),
    ],
)
def test_a_listing_of_another_form_is_refused(garbage: bytes) -> None:
    with pytest.raises(UnparsedOutput):
        listed(garbage)


@pytest.mark.parametrize("awk", AWKS)
def test_lines_of_a_queue_file_may_stand_in_any_order(host: SendmailHost, awk: str) -> None:
    """As Sendmail writes them or not, it is the same message, with any awk. A byte 1 is no end of a file."""
    usual = queue_file(subject="a\x01b").removesuffix(b".\n")
    envelope, headers = usual.partition(b"H?")[0], usual[usual.index(b"H?") :]
    sent = envelope[envelope.index(b"S<") :]
    host.add(ONE, usual + b".\n")
    host.add(
        TWO, headers + sent + b"\n".join(reversed(envelope[: -len(sent)].split(b"\n"))) + b"\n.\nR<x@after.test>\n"
    )
    host.tools = tools_with(host.root, awk)
    one, two = sorted(entries(host), key=lambda each: str(each["queue_id"]))
    assert (one["queue_id"], two["queue_id"]) == (ONE, TWO)
    assert {**one, "queue_id": TWO} == two
    assert [each["address"] for each in two["recipients"]] == ["r1@defer.test"]
    assert len(entries(host, 'subject:"a?b"')) == 2


def test_files_that_are_no_whole_message_are_told_and_prove_nothing(host: SendmailHost) -> None:
    """Without its last line, or of another version: refused. Empty, tf and xf files: no messages. Qf: a note."""
    host.add(ONE)
    host.add(TWO, queue_file().removesuffix(b".\n"))
    host.add(THREE, queue_file().replace(b"V8\n", b"V9\n"))
    for name in ("qf6AKAxcIg000281", "tf6AKAxcIh000281", "xf6AKAxcIh000281"):
        (host.root / "mqueue/q1" / name).write_bytes(b"")
    (host.root / "mqueue/q1/Qf6AKAxcIi000281").write_bytes(queue_file())
    result = do(host, "queue_list", QueueList(match.parse("ALL")))
    assert [each["queue_id"] for each in result.data["entries"]] == [ONE]
    assert result.data["refused"] == 2
    assert any("Qf" in note for note in result.data["notes"])
    with pytest.raises(UnparsedOutput):
        do(host, "queue_purge", QueuePurge(only(ONE)))
    assert f"mqueue/q1/qf{ONE}" in host.files()


ODD = {
    b'"a b"@x.test': '"a b"@x.test',
    b"\"'; rm -rf /;'\"@x.test": "\"'; rm -rf /;'\"@x.test",
    b"-bd@x.test": "-bd@x.test",
    b"$(id)`id`|&*@x.test": "$(id)`id`|&*@x.test",
    b"\xc3\xbcser@x.test": "\u00fcser@x.test",
    b"lat\xfcn@x.test": "lat\\xFCn@x.test",
    b"a\\b%s%d@x.test": "a\\b%s%d@x.test",
    b"": "<>",
}


@pytest.mark.parametrize("mode", ["quarantine", "delete"])
def test_odd_senders_are_listed_exactly_and_found_again(host: SendmailHost, mode: str) -> None:
    for at, sender in enumerate(ODD):
        host.add(f"6AKAxcI{at}000281", queue_file(sender))
    assert {each["sender"] for each in entries(host)} == set(ODD.values())
    assert counts(do(host, "queue_purge", QueuePurge(everything(), mode=mode))) == {"done": len(ODD)}
    assert not entries(host)


def test_hold_writes_a_reason_and_release_takes_it_away(host: SendmailHost) -> None:
    """qf becomes hf with a q line before its S line; back, every byte is as it was. The data file is not touched."""
    host.add(ONE)
    host.add(TWO, queue="mqueue/q2")
    before = host.files()
    result = do(host, "queue_hold", QueueHold(only(ONE)))
    assert counts(result) == {"done": 1}
    held = host.files()[f"mqueue/q1/hf{ONE}"]
    assert held == before[f"mqueue/q1/qf{ONE}"].replace(b"S<", b"qmxfleet job-1\nS<")
    assert {each["queue_id"]: each["native_state"] for each in entries(host)} == {ONE: "quarantined", TWO: "queued"}
    assert counts(do(host, "queue_release", QueueRelease(only(ONE)))) == {"done": 1}
    assert host.files() == before


def test_a_hold_that_was_cut_off_counts_as_held_and_can_be_released(host: SendmailHost) -> None:
    """A qf with a q line is what Sendmail itself turns into an hf; an hf without one is held as well."""
    text = queue_file()
    host.add(ONE, text.replace(b"S<", b"qmxfleet job-1\nS<"))
    host.add(TWO)
    (host.root / f"mqueue/q1/qf{TWO}").rename(host.root / f"mqueue/q1/hf{TWO}")
    assert {each["state"] for each in entries(host)} == {"hold"}
    assert counts(do(host, "queue_release", QueueRelease(only(ONE, TWO)))) == {"done": 2}
    assert {name: text for name, text in host.files().items() if "qf" in name} == {
        f"mqueue/q1/qf{ONE}": text,
        f"mqueue/q1/qf{TWO}": text,
    }


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("queue_hold", QueueHold(only(ONE))),
        ("queue_purge", QueuePurge(only(ONE))),
        ("queue_purge", QueuePurge(only(ONE), mode="delete")),
    ],
)
def test_a_message_that_sendmail_works_on_is_left_alone(host: SendmailHost, name: str, operation: Any) -> None:
    host.add(ONE)
    before = host.files()
    with host.working(ONE):
        result = do(host, name, operation)
    assert (result.ended, counts(result)) == (Ended.FAILED, {"in_delivery": 1})
    assert isinstance(result.error, InDelivery)
    assert host.files() == before


@pytest.mark.parametrize("change", [queue_file(arrival=ARRIVAL + 9), queue_file(b"else@bulk.example")])
@pytest.mark.parametrize("mode", ["quarantine", "delete"])
def test_another_message_under_the_same_id_is_not_touched(host: SendmailHost, mode: str, change: bytes) -> None:
    """It came between the last look and the change: found out under the lock."""
    host.add(ONE)
    host.before[1] = lambda: (host.root / f"mqueue/q1/qf{ONE}").write_bytes(change) and None
    result = do(host, "queue_purge", QueuePurge(only(ONE), mode=mode))
    assert (result.ended, counts(result)) == (Ended.UNCHANGED, {"already_gone": 1})
    assert host.files()[f"mqueue/q1/qf{ONE}"] == change


def test_one_id_in_two_directories_is_left(host: SendmailHost) -> None:
    host.add(ONE)
    host.add(ONE, queue="mqueue/q2")
    before = host.files()
    result = do(host, "queue_purge", QueuePurge(only(ONE), mode="delete"))
    assert (result.ended, counts(result)) == (Ended.FAILED, {"left": 1})
    assert host.files() == before


@pytest.mark.parametrize("parts", [(), ("qf", "df"), ("df",), ("qf", "df", "xf")])
def test_quarantine_and_restore_keep_every_byte_in_every_layout(host: SendmailHost, parts: tuple[str, ...]) -> None:
    """Also with sub-directories qf and df, held messages, bodies with NUL, and the client queue."""
    for part in parts:
        (host.root / "mqueue/q1" / part).mkdir()
    host.add(ONE, body=bytes(range(256)))
    host.add(TWO, queue="client")
    do(host, "queue_hold", QueueHold(only(ONE)))
    found, before = entries(host), host.files()
    purged = do(host, "queue_purge", QueuePurge(everything()))
    assert counts(purged) == {"done": 2}
    assert not entries(host)
    restored = do(host, "quarantine_restore", QuarantineRestore(items(found, purged)), undo=True)
    assert counts(restored) == {"done": 2}
    assert host.files() == before
    assert not host.calls()


def test_what_its_script_moved_without_seeing_it_is_purged_and_not_gone(
    host: SendmailHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.add(ONE)
    play = SendmailHost.answer

    def forgetful(self: SendmailHost, command: Command) -> Completed:
        said = play(self, command)
        return replace(said, stdout=b"end\n") if "out" in command.argv else said

    monkeypatch.setattr(SendmailHost, "answer", forgetful)
    result = do(host, "queue_purge", QueuePurge(only(ONE)))
    assert counts(result) == {"done": 1}
    assert set(result.data["places"]) == {ONE}


@pytest.mark.parametrize("cut", ["out", "back"])
def test_a_move_that_was_cut_off_between_both_files_is_completed(host: SendmailHost, cut: str) -> None:
    """The queue file is in quarantine and its data in the queue: read back says purged, restore brings it all back."""
    host.add(ONE)
    found, before = entries(host), host.files()
    plan = host.drive(SENDMAIL.queue_purge(host.instance(), QueuePurge(only(ONE)), context()), until_plan=True)
    there = host.root / "mqueue/q1/mxfleet-quarantine/job-1"
    if cut == "out":
        for directory in (there.parent, there):
            directory.mkdir(mode=0o700)
        (host.root / f"mqueue/q1/qf{ONE}").rename(there / f"qf{ONE}")
    else:
        do(host, "queue_purge", QueuePurge(only(ONE)))
        (there / f"df{ONE}").rename(host.root / f"mqueue/q1/df{ONE}")
    told = do(host, "read_back", QueuePurge(only(ONE)), frozen=plan.selected)
    assert counts(told) == {"done": 1}
    assert counts(do(host, "quarantine_restore", QuarantineRestore(items(found, told)), undo=True)) == {"done": 1}
    assert host.files() == before


def test_restore_overwrites_nothing_and_erase_removes_both_files(host: SendmailHost) -> None:
    host.add(ONE)
    found = entries(host)
    stored = items(found, do(host, "queue_purge", QueuePurge(only(ONE))))
    stranger = queue_file(b"stranger@x.test")
    host.add(ONE, stranger, body=b"other\n")
    result = do(host, "quarantine_restore", QuarantineRestore(stored), undo=True)
    assert counts(result) == {"left": 1}
    assert host.files()[f"mqueue/q1/qf{ONE}"] == stranger
    assert host.files()[f"mqueue/q1/df{ONE}"] == b"other\n"
    assert counts(do(host, "quarantine_erase", QuarantineErase(stored))) == {"done": 1}
    assert not [name for name in host.files() if "quarantine" in name]
    assert host.files()[f"mqueue/q1/df{ONE}"] == b"other\n"
    assert counts(do(host, "quarantine_erase", QuarantineErase(stored))) == {"already_gone": 1}


def test_a_message_without_its_data_is_neither_taken_away_nor_brought_back_and_a_note_says_so(
    host: SendmailHost,
) -> None:
    for name in (ONE, TWO):
        host.add(name)
    (host.root / f"mqueue/q1/df{TWO}").unlink()
    found = entries(host)
    purged = do(host, "queue_purge", QueuePurge(everything()))
    assert counts(purged) == {"done": 1, "left": 1}
    assert [note for note in purged.data["notes"] if TWO in note and "no data file" in note]
    there = host.root / "mqueue/q1/mxfleet-quarantine/job-1"
    (there / f"df{ONE}").unlink()
    before = host.files()
    stored = items([entry for entry in found if entry["queue_id"] == ONE], purged)
    result = do(host, "quarantine_restore", QuarantineRestore(stored), undo=True)
    assert counts(result) == {"left": 1}
    assert [note for note in result.data["notes"] if ONE in note and "no data file" in note]
    assert host.files() == before


@pytest.mark.parametrize("file", ["qf", "df"])
def test_what_a_delete_could_not_remove_is_not_told_as_done(host: SendmailHost, file: str) -> None:
    host.add(ONE)
    tools = host.root / "tools"
    tools.mkdir()
    (tools / "rm").write_text(f'#!/bin/sh\ncase $* in */{file}6AK*) exit 1 ;; esac\nexec /bin/rm "$@"\n')
    (tools / "rm").chmod(0o755)
    host.tools = tools
    result = do(host, "queue_purge", QueuePurge(only(ONE), mode="delete"))
    assert counts(result) == {"left": 1}
    assert f"mqueue/q1/df{ONE}" in host.files()


def test_a_place_that_is_no_quarantine_of_ours_is_refused(host: SendmailHost) -> None:
    item = Quarantined("i", ONE, f"/etc/mxfleet-quarantine/job-1/{ONE}", 1, "a@b.test", 1, "deferred")
    with pytest.raises(Conflict):
        do(host, "quarantine_erase", QuarantineErase((item,)))


def test_a_planted_link_leads_nowhere(host: SendmailHost, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever may write into a queue directory cannot have root move or change files elsewhere."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    elsewhere.chmod(0o755)
    host.add(ONE, queue="client")
    (host.root / "client/mxfleet-quarantine").symlink_to(elsewhere)
    before = host.files()
    with pytest.raises(RemoteError):
        do(host, "queue_purge", QueuePurge(only(ONE)))
    assert host.files() == before
    assert not list(elsewhere.iterdir())
    assert elsewhere.stat().st_mode & 0o777 == 0o755


def test_without_flock_nothing_is_changed(host: SendmailHost) -> None:
    host.add(ONE)
    before = host.files()
    with pytest.raises(Unsupported):
        host.drive(
            SENDMAIL.queue_hold(host.instance(has_flock=False), QueueHold(only(ONE)), context()),
        )
    assert host.files() == before


def test_headers_and_bodies_are_those_of_the_message(host: SendmailHost) -> None:
    """Continued lines stay, the prefix of Sendmail's own goes; a body may look like our own framing."""
    host.add(ONE, recorded_files()[1], body=f"{TWO} absent\nend\n\0\xff".encode("latin-1"))
    host.add(TWO, queue_file(subject="other"))
    shown = do(host, "message_show", MessageShow(ONE, ("envelope", "headers", "body"))).data
    names = [each["name"] for each in shown["headers"]]
    assert names == ["Received", "Date", "From", "To", "Subject", "Message-ID"]
    assert "id 6AKAxc6k000298" in shown["headers"][0]["value"]
    assert shown["body"]["text"].startswith(f"{TWO} absent\nend\n\0")
    assert [each["queue_id"] for each in entries(host, 'subject:"three recipients"')] == [ONE]
    assert [each["queue_id"] for each in entries(host, "body~absent")] == [ONE]
    with pytest.raises(MessageNotFound):
        do(host, "message_show", MessageShow(THREE))


def test_bytes_that_sendmail_marks_in_a_header_are_shown_as_they_were_sent(host: SendmailHost) -> None:
    """It writes a 0xFF before 0x80 to 0x9F and before 0xFF, so the text is found, and counted without it."""
    sent = "gr\u00fc\u00dfe \u00c0".encode() + b" \xff"
    host.add(ONE, queue_file(subject="SUBJECT"))
    path = host.root / f"mqueue/q1/qf{ONE}"
    plain = entries(host)[0]["size"]
    marked = sent.replace(b"\xff", b"\xff\xff").replace(b"\x9f", b"\xff\x9f").replace(b"\x80", b"\xff\x80")
    path.write_bytes(path.read_bytes().replace(b"SUBJECT", marked))
    assert entries(host)[0]["size"] == plain - len("SUBJECT") + len(sent)
    assert [each["queue_id"] for each in entries(host, 'subject~"gr\u00fc\u00dfe \u00c0"')] == [ONE]
    shown = do(host, "message_show", MessageShow(ONE)).data["headers"]
    assert [each["raw"] for each in shown if each["name"] == "Subject"] == ["gr\u00fc\u00dfe \u00c0 \\xFF"]


def test_headers_are_matched_in_the_listing_itself_whatever_they_look_like(host: SendmailHost) -> None:
    """One command. Continued lines and lines like our own framing stay with their message."""
    odd = f"H??>{TWO} q 0 0 1 1 1 1 1\nH??X-Odd: one\n\ttwo\nH??X-Odd: ?{TWO}\nH??X-Odd: end 7 7\n.\n".encode()
    host.add(ONE, queue_file().removesuffix(b".\n") + odd)
    host.add(TWO, queue_file(subject="other"))
    found = entries(host, 'header[x-odd]:"one?two"')
    assert [(each["queue_id"], each["subject"]) for each in found] == [(ONE, "Newsletter")]
    assert [each["queue_id"] for each in entries(host, f'header[x-odd]:"?{TWO}" AND header[x-odd]:"end 7 7"')] == [ONE]
    assert [each["queue_id"] for each in entries(host, "NOT header[x-odd]:*")] == [TWO]
    assert entries(host, "header[return-path]:*") == []
    assert [command.argv[0] for command in host.commands] == ["headers"] * 4


def test_only_whole_ids_are_run_and_never_those_inside_another_one(host: SendmailHost) -> None:
    """-qI matches substrings: an ID that another one contains is not run; an empty -qI would run the whole queue."""
    longer = ONE + "7"
    host.add(ONE)
    host.add(longer)
    host.add(TWO)
    result = do(host, "queue_flush", QueueFlush(only(ONE, TWO)))
    assert counts(result) == {"done": 1, "left": 1}
    assert host.calls() == [f"-C /etc/mail/sendmail.cf -v -O MinQueueAge=0 -qI{TWO}"]


def test_held_changed_and_absent_messages_are_not_run(host: SendmailHost) -> None:
    for name in (ONE, TWO):
        host.add(name)
    do(host, "queue_hold", QueueHold(only(ONE)))
    path = host.root / f"mqueue/q1/qf{TWO}"
    host.before[len(host.commands) + 1] = lambda: path.write_bytes(queue_file(arrival=ARRIVAL + 1)) and None
    result = do(host, "queue_flush", QueueFlush(only(ONE, TWO, THREE)))
    assert counts(result) == {"already_gone": 2}
    assert not host.calls()


def test_bounce_takes_held_ones_too_and_only_what_sendmail_says_is_claimed(host: SendmailHost) -> None:
    for name in (ONE, TWO, THREE):
        host.add(name)
    do(host, "queue_hold", QueueHold(only(ONE)))
    assert counts(do(host, "queue_bounce", QueueBounce(only(ONE, TWO)))) == {"done": 2}
    [call] = host.calls()
    assert "Timeout.queuereturn=now" in call
    assert [each["queue_id"] for each in entries(host)] == [THREE]
    with pytest.raises(Unsupported):
        do(host, "queue_bounce", QueueBounce(only(THREE), notify=False))


def test_deliver_runs_one_message_and_tells_what_came_of_it(host: SendmailHost) -> None:
    host.add(ONE, queue_file())
    host.add(TWO)
    (host.root / "answers").write_text("<r1@defer.test>... Deferred: 451 later\n")
    assert do(host, "message_deliver", MessageDeliver(ONE)).data["outcome"] == "deferred"
    do(host, "queue_hold", QueueHold(only(ONE)))
    with pytest.raises(Conflict):
        do(host, "message_deliver", MessageDeliver(ONE))
    (host.root / "answers").write_text("<r1@defer.test>... Sent (ok)\n")
    assert do(host, "message_deliver", MessageDeliver(ONE, release=True)).data["outcome"] == "sent"
    assert [each["queue_id"] for each in entries(host)] == [TWO]
    assert len(host.calls()) == 2
    with pytest.raises(MessageNotFound):
        do(host, "message_deliver", MessageDeliver(ONE))


def test_what_lies_in_the_client_queue_is_delivered_when_that_is_asked_for(host: SendmailHost) -> None:
    """Nobody works on it: it waits for the next run of that queue."""
    host.add(ONE, queue="client")
    (host.root / "answers").write_text("<r1@defer.test>... Sent (ok)\n")
    assert do(host, "message_deliver", MessageDeliver(ONE)).data["outcome"] == "sent"
    assert ["-Ac" in call for call in host.calls()] == [True]


def dialogue(name: str, *parts: str) -> list[str]:
    """The recorded output of the first command that has all these parts."""
    return exchange(f"{SESSIONS}/{name}", *parts).stdout.decode("utf-8", "replace").split("\n")


def entry(queue_id: str, *recipients: str) -> QueueEntry:
    given = [Recipient(each) for each in recipients]
    return QueueEntry(queue_id, "deferred", "queued", ARRIVAL, "news1@bulk.example", given, 500, 1)


def test_recorded_dialogues_are_understood() -> None:
    sent = dialogue("07-force-one", "sudo", f"-v -qI{ONE}")
    result = attempt_result(entry(ONE, "r1@defer.test"), None, "", sent)
    assert (result.data["outcome"], result.data["remote"]) == ("sent", "mx.defer.test")
    bounced = dialogue("10-bounce", "-qI6AKB0Rak000833")
    result = attempt_result(entry("6AKB0Rak000833", "rcpt1@defer.test"), None, "", bounced)
    assert result.data["outcome"] == "bounced"
    assert read_run(bounced)["expired"] == {"6AKB0Rak000833"}


def test_a_server_cannot_speak_for_sendmail() -> None:
    """What it answers begins with its code, so it neither says "Sent" of a recipient nor expires a message."""
    lines = [
        f"Running /q/{ONE} (sequence 1 of 1)",
        "250-<r@x.test>... Sent (ok)",
        "550 <r@x.test>... Cannot send message for too long",
    ]
    assert attempt_result(entry(ONE, "r@x.test"), None, "", lines).data["outcome"] == "left_queue"
    assert not read_run(lines)["expired"]


def test_what_was_not_attempted_is_not_claimed() -> None:
    before = entry(ONE, "r@x.test")
    locked = attempt_result(before, before, "", [f"Running /q/{ONE} (sequence 1 of 1)", f"{ONE}: locked"])
    assert isinstance(locked.error, InDelivery)
    assert attempt_result(before, before, "inside", []).ended is Ended.FAILED
    cut_off = attempt_result(before, before, "", [f"Running /q/{ONE} (sequence 1 of 1)", ">>> DATA"])
    assert cut_off.messages[0].outcome is MessageState.LEFT
    with pytest.raises(MessageNotFound):
        attempt_result(before, None, "absent", [])


@pytest.mark.parametrize("queue_id", [ONE, "6ALC4X1N000155", "6ALC4X1N1000155"])
def test_queue_ids_are_known_by_their_grammar(queue_id: str) -> None:
    assert queue_id_error(queue_id) is None


@pytest.mark.parametrize(
    "queue_id", ["", "-qI", "ALL", f"{ONE}*", f"qf{ONE}", "6AKAxc", "../etc/passwd", f"{ONE}\n", "6AKAxcId"]
)
def test_what_is_no_queue_id_is_refused_before_it_reaches_a_host(queue_id: str) -> None:
    assert queue_id_error(queue_id)
    with pytest.raises(ValueError, match=r"queue ID|mark|kind"):
        messages_input("job-1", [entry(queue_id)])


DISCOVERED = b"""program /usr/sbin/sendmail
version 8.17.1.9
flock yes
config /etc/mail/sendmail.cf
line Kmailertable hash -o /etc/mail/mailertable.db
line Kaccess hash -T<TMPF> /etc/mail/access
line O DaemonPortOptions=Family=inet, Name=MTA-v4, Port=smtp
line O QueueDirectory=/var/spool/mqueue/q*
line Qlarge, P=/var/spool/mqueue/large, F=f
own localhost.lab.test
own SM1.lab.test
config /etc/mail/sendmail-ext.cf
line O DaemonPortOptions=Family=inet6, Name=EXT, Port=2525
line O QueueDirectory=/var/spool/mqueue-ext/q*
config /etc/mail/old.cf
line O QueueDirectory=/var/spool/mqueue-ext/q*
config /etc/mail/submit.cf
line O UseMSP=True
line O QueueDirectory=/var/spool/mqueue-client
end
"""


def test_instances_are_the_configurations_with_a_queue_of_their_own() -> None:
    """submit.cf gives the default instance its client queue; a second file for the same queue is no instance."""
    one, two = parse_instances(Completed(0, DISCOVERED), HostFacts(log_source="/var/log/mail.log"), "mx1")
    assert (one.name, two.name) == ("sendmail", "sendmail-ext")
    assert one.queue_dirs == ("/var/spool/mqueue/q*", "/var/spool/mqueue/large")
    assert one.options["client_queue"] == "/var/spool/mqueue-client"
    assert one.options["access_map"] == "hash:/etc/mail/access"
    assert one.options["own_domains"] == ["localhost.lab.test", "sm1.lab.test"]
    assert (one.options["listen"], two.options["listen"]) == ([["0.0.0.0", 25]], [["::", 2525]])
    assert two.options["client_queue"] == ""
    assert parse_instances(Completed(0, b"absent\n"), HostFacts(), "mx1") == ()
    with pytest.raises(UnparsedOutput):
        parse_instances(Completed(0, DISCOVERED[:-4]), HostFacts(), "mx1")


def test_sudo_allows_exactly_the_root_commands_of_the_queue(host: SendmailHost) -> None:
    """Every script line of the adapter, literal: patterns are escaped, nothing ends in a wildcard."""
    for name in (ONE, TWO):
        host.add(name)
    found = entries(host)
    do(host, "queue_hold", QueueHold(only(ONE)))
    do(host, "queue_release", QueueRelease(only(ONE)))
    do(host, "queue_flush", QueueFlush(only(ONE)))
    do(host, "message_deliver", MessageDeliver(ONE))
    stored = items(found, do(host, "queue_purge", QueuePurge(everything())))
    do(host, "quarantine_restore", QuarantineRestore(stored), undo=True)
    lines = SENDMAIL.sudoers(host.instance(), "fleetops")
    allowed = {line.partition(" -k 5 ")[2].replace("\\", "").partition(" ")[2] for line in lines}
    for command in host.commands:
        assert " ".join([f"{HELPERS}/{command.script}", *command.argv]) in allowed
    assert not any("*" in line.replace("\\*", "") for line in lines)


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("queue_hold", QueueHold(only(ONE))),
        ("queue_purge", QueuePurge(only(ONE))),
        ("queue_purge", QueuePurge(only(ONE), mode="delete")),
        ("queue_flush", QueueFlush(only(ONE))),
    ],
)
def test_a_message_that_the_script_missed_and_that_is_queued_all_the_same_is_left(
    host: SendmailHost, name: str, operation: Any
) -> None:
    """Somebody renamed its file in that moment (sendmail -Q): it is neither purged nor gone."""
    host.add(ONE)
    path, aside = host.root / f"mqueue/q1/qf{ONE}", host.root / "aside"
    host.before = {1: lambda: path.rename(aside) and None, 2: lambda: aside.rename(path) and None}
    before = host.files()
    result = do(host, name, operation)
    assert (result.ended, counts(result)) == (Ended.FAILED, {"left": 1})
    assert host.files() == before


def test_a_message_that_was_held_and_left_the_queue_before_the_proof_is_not_said_to_be_as_it_was(
    host: SendmailHost,
) -> None:
    host.add(ONE)
    host.before[2] = lambda: (host.root / f"mqueue/q1/hf{ONE}").unlink()
    assert counts(do(host, "queue_hold", QueueHold(only(ONE)))) == {"already_gone": 1}


def test_a_full_disk_after_some_messages_were_moved_is_an_unknown_outcome(host: SendmailHost) -> None:
    """They lie in quarantine: only reading back tells of them, so the run must not end as one that changed nothing."""
    full = Completed(73, b"", b"mkdir: cannot create directory: No space left on device\n")
    with pytest.raises(OutcomeUnknown) as caught:
        changed_lines(full, "sendmail_change.sh")
    assert caught.value.data["cause"] == "disk_full"
    with pytest.raises(DiskFull):
        script_lines(full, "sendmail_read.sh")


def test_the_client_queue_runs_in_what_the_main_queue_left_of_the_time(host: SendmailHost) -> None:
    """Both together end within the time that was given: nothing goes on when the outcome is read back."""
    host.add(ONE)
    host.add(TWO, queue="client")
    program = host.root / "sendmail"
    program.write_text(program.read_text().replace("at=0\n", "at=0\ncase $* in *-Ac*) ;; *) sleep 20 ;; esac\n"))
    stdin = messages_input(
        "1", [QueueEntry(n, "deferred", "queued", ARRIVAL, "news@bulk.example", (), 1) for n in (ONE, TWO)]
    )
    done = host.answer(run_queue(host.instance(), "attempt", stdin))
    assert done.stdout == b"run\nend\n"
    assert [call for call in host.calls() if "-Ac" in call] == []
    assert len(host.calls()) == 1


def hold_with(host: SendmailHost, tool: str, fake: str) -> Completed:
    """sendmail_change.sh with another program of that name."""
    tools = host.root / "tools"
    tools.mkdir()
    (tools / tool).write_text(f"#!/bin/sh\n{fake}")
    (tools / tool).chmod(0o755)
    stdin = f"job-1\n{ONE} {ARRIVAL} news@bulk.example\n".encode()
    return run_script(change(host.instance(), "hold", stdin), tools)


def test_a_full_disk_is_named_and_leaves_the_queue_file_as_it_was(host: SendmailHost) -> None:
    host.add(ONE)
    before = host.files()
    done = hold_with(host, "chown", "echo 'chown: No space left on device' >&2; exit 1\n")
    assert host.files() == before
    with pytest.raises(OutcomeUnknown) as caught:
        changed_lines(done, "sendmail_change.sh")
    assert caught.value.data["cause"] == "disk_full"


def test_what_is_written_aside_is_written_into_a_directory_of_our_own(
    host: SendmailHost, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Who owns the queue directory puts a link in the place of the directory that root has just made there."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "kept").write_text("x")
    host.add(ONE)
    planted = f'rmdir "$made"; ln -s {elsewhere} "$made"'
    fake = f'made=$(/usr/bin/mktemp "$@")\ncase $made in *staged*) {planted} ;; esac\necho "$made"\n'
    before = host.files()
    done = hold_with(host, "mktemp", fake)
    assert done.exit_status == 77
    assert [path.name for path in elsewhere.iterdir()] == ["kept"]
    assert host.files() == before
