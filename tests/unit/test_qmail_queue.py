"""qmail's queue: listing, contents and every change, by the real scripts on a queue made by hand."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fleet import match
from fleet.mta.errors import Conflict, InDelivery, MtaNotRunning, OutcomeUnknown, UnparsedOutput, Unsupported
from fleet.mta.operations import (
    MessageDeliver,
    MessageShow,
    Quarantined,
    QuarantineErase,
    QuarantineRestore,
    QueueBounce,
    QueueHold,
    QueueList,
    QueuePurge,
    QueueRelease,
    Selection,
)
from fleet.mta.qmail import Qmail
from fleet.mta.qmail.address import address_of, bytes_of
from fleet.mta.qmail.commands import change, parse_answer
from fleet.mta.qmail.parse import QueueSink
from fleet.mta.qmail.queue import QUEUE, read_headers, read_named
from fleet.mta.queue.content import HEADERS
from fleet.mta.records import Ended, QueueEntry
from fleet.mta.steps import Completed
from fleet.ssh.quoting import stdin_of
from tests.unit.qmail_host import LONG_AGO, QmailHost, context
from tests.unit.real_scripts import argv_of, run_script

QMAIL = Qmail()


BOTH = pytest.mark.parametrize("host", [(3, False), (23, True)], ids=["split-3", "split-23-big-todo"], indirect=True)


@pytest.fixture
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[QmailHost]:
    found = QmailHost(tmp_path, *getattr(request, "param", (3, False)))
    yield found
    found.remove_state()


def ids(*names: str) -> Selection:
    return Selection(queue_ids=names)


def quarantined(host: QmailHost, *names: str) -> tuple[Quarantined, ...]:
    """Purges them into quarantine; the items as the service keeps them."""
    result = host.carry(QMAIL.queue_purge(host.instance, QueuePurge(ids(*names)), context()))
    places = result.data["places"]
    return tuple(
        Quarantined(f"q{f.queue_id}", f.queue_id, places[f.queue_id], f.arrival_time, f.sender, f.size, f.state)
        for f in host.plans[-1].selected
        if f.queue_id in places
    )


def test_lists_done_and_undone_recipients_of_both_channels(host: QmailHost) -> None:
    name = host.put(remote=[b"Tr@defer.test", b"Dok@ok.test"], local=[b"Tlocal@qm1.test"])
    [entry] = host.entries().values()
    assert (entry.queue_id, entry.state, entry.sender, entry.size) == (name, "deferred", "news@bulk.example", 18)
    assert {(each.address, each.state) for each in entry.recipients} == {
        ("r@defer.test", "undelivered"),
        ("ok@ok.test", "delivered"),
        ("local@qm1.test", "undelivered"),
    }
    assert int(entry.arrival_time) == LONG_AGO
    assert (entry.attempts, entry.next_attempt) == (None, None)


@BOTH
def test_lists_what_is_in_todo_only(host: QmailHost) -> None:
    name = host.put(is_new=True, remote=[b"Ta@x.test", b"Tb@x.test"])
    entry = host.entries()[name]
    assert (entry.state, [each.address for each in entry.recipients]) == ("incoming", ["a@x.test", "b@x.test"])


@BOTH
def test_a_message_half_taken_in_counts_once_and_with_all_recipients(host: QmailHost) -> None:
    name = host.put(is_new=True, remote=[b"Ta@x.test", b"Tb@x.test"])
    host.path("info", name).write_bytes(b"Fnews@bu")
    host.path("remote", name).write_bytes(b"Ta@x.test\0")
    entry = host.entries()[name]
    assert (entry.state, entry.sender, len(entry.recipients)) == ("incoming", "news@bulk.example", 2)


def test_a_file_in_mess_alone_is_not_queued(host: QmailHost) -> None:
    name = host.put()
    host.path("info", name).unlink()
    assert host.entries() == {}


def test_an_envelope_that_is_cut_off_is_refused_not_guessed(host: QmailHost) -> None:
    name = host.put()
    host.path("info", name).write_bytes(b"Fnews@bulk")
    listed = host.carry(QMAIL.queue_list(host.instance, QueueList(match.parse("ALL")), context()))
    assert (listed.data["total"], listed.data["refused"]) == (0, 1)


@pytest.mark.parametrize("kind", ["info", "local", "remote"])
@pytest.mark.parametrize(("arrived", "refused"), [(1000, 0), (10, 1)], ids=["meanwhile", "long ago"])
def test_a_file_that_is_still_empty_makes_no_envelope_and_no_error(kind: str, arrived: int, refused: int) -> None:
    """Taken in between the two looks into todo/, seen while qmail-send synced another of its files."""
    sizes = {"info": 10, "local": 10, "remote": 10, kind: 0}
    pairs = ["info/1/7\0Fa@x.test\0", "local/1/7\0Tl@x.test\0", "remote/1/7\0Tr@x.test\0"]
    text = ":group\x001000\0" + "".join(pair for pair in pairs if not pair.startswith(kind))
    text += "".join(f"={part}/1/7\0{size}\0" for part, size in sizes.items())
    found: list[QueueEntry] = []
    sink = QueueSink(found.append)
    sink.feed(f"{text}@mess/1/7\x00300 {arrived}.0\0:done\0\0:end\x003\0".encode())
    listing = sink.close()
    assert (found, listing.total, listing.refused) == ([], 0, refused)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"", "<>"),
        (b"a@x.test", "a@x.test"),
        (b"q b@x.test", '"q b"@x.test'),
        (b'a"b@x.test', '"a\\"b"@x.test'),
        (b"#@[]", "#@[]"),
        (b"list-@x.test-@[]", "list-@x.test-@[]"),
        (b"root", "root"),
        (b"a\xff@x.test", "a\\xFF@x.test"),
        ("ü@x.test".encode(), "ü@x.test"),
    ],
)
def test_a_sender_is_shown_as_rfc_5321_has_it_and_found_again(raw: bytes, shown: str) -> None:
    assert address_of(raw) == shown
    assert bytes_of(shown) == raw


@BOTH
def test_awkward_senders_are_listed_and_purged(host: QmailHost) -> None:
    raw = [
        b"",
        b"#@[]",
        b"new\nline@x.test",
        b"a\xff\xfe@x.test",
        b"  blank@x.test",
        b"-rf@x.test",
        b"`id`$(id)@x.test",
    ]
    by_sender = {sender: host.put(sender) for sender in raw}
    entries = host.entries()
    assert entries[by_sender[b"a\xff\xfe@x.test"]].sender_raw == b"a\xff\xfe@x.test"
    result = host.carry(QMAIL.queue_purge(host.instance, QueuePurge(ids(*entries), mode="delete"), context()))
    assert (result.ended, result.data["done"]) == (Ended.SUCCEEDED, len(raw))
    assert host.files() == {}


def named(host: QmailHost, *names: str) -> dict[str, QueueEntry]:
    found: list[QueueEntry] = []
    listing = host.carry(read_named(host.instance, names, lambda message: found.append(message.entry())))
    assert (listing.total, listing.refused) == (len(found), 0)
    return {each.queue_id: each for each in found}


@BOTH
def test_what_is_told_of_some_messages_is_what_the_whole_listing_tells_of_them(host: QmailHost) -> None:
    names = [host.put(local=[b"Tl@qm1.test"]), host.put(b""), host.put(is_new=True), host.put(remote=[])]
    others = [host.put(), host.put(is_new=True)]
    host.path("mess", others[0]).unlink()
    host.carry(QMAIL.queue_hold(host.instance, QueueHold(ids(names[1])), context()))
    whole = host.entries()
    assert named(host, *names, "18446744073709551615") == {name: whole[name] for name in names}
    assert named(host, others[0]) == {}


@pytest.mark.parametrize("split", [3, 23])
def test_a_queue_id_of_many_digits_is_looked_for_in_its_own_directory(tmp_path: Path, split: int) -> None:
    host = QmailHost(tmp_path, split)
    for name in ("9007199254740993", "9223372036854775807", "1000000000", "999999999"):
        made = host.put()
        for kind in ("mess", "info", "remote"):
            host.path(kind, made).rename(host.path(kind, name))
        assert list(named(host, name)) == [name]
    host.remove_state()


def test_a_message_that_cannot_be_read_spoils_no_proof_but_its_own(host: QmailHost) -> None:
    name, other = host.put(), host.put()
    host.path("info", other).write_bytes(b"Fcut")
    assert list(host.carry(QUEUE.lookup(host.instance, [name, "7"]))) == [name]
    with pytest.raises(UnparsedOutput):
        host.carry(QUEUE.lookup(host.instance, [name, other]))


@pytest.mark.parametrize("stdin", [b"0 0\n5\n", b"0 0\n5\n6", b"0 0\n5\n6en", b"0 0\n../5\nend\n", b"0 0\nend\n"])
def test_queue_ids_that_were_cut_off_prove_no_absence(host: QmailHost, stdin: bytes) -> None:
    host.put()
    asked = next(read_named(host.instance, ["5"], lambda message: None))
    assert run_script(replace(asked, stdin=stdin)).exit_status == 64


def test_an_empty_queue_is_said_to_be_empty(host: QmailHost) -> None:
    listed = host.carry(QMAIL.queue_list(host.instance, QueueList(match.parse("ALL")), context()))
    assert (listed.data["total"], listed.data["refused"]) == (0, 0)


def test_a_listing_that_is_cut_off_is_refused(host: QmailHost) -> None:
    host.put()
    sink = QueueSink(lambda message: None)
    sink.feed(b":group\x001700000000\x00info/1/4\x00Fa@x.test\x00")
    with pytest.raises(UnparsedOutput):
        sink.close()


def test_headers_and_bodies_are_matched(host: QmailHost) -> None:
    wanted = host.put(text=b"Subject: Neu\n folded\n\nunder the lake\n")
    host.put(text=b"Subject: other\n\n\0\xffSubject: Neu\n")
    for text in ("subject~folded", "body~lake"):
        listed = host.carry(QMAIL.queue_list(host.instance, QueueList(match.parse(text)), context()))
        assert [each["queue_id"] for each in listed.data["entries"]] == [wanted], text


@BOTH
def test_a_listing_has_each_message_once_with_its_own_header_whatever_that_says(host: QmailHost) -> None:
    texts = {
        host.put(text=b"Subject: end\n\nbody\n"): b"Subject: end\n",
        host.put(text=b"end\n:done\n\n"): b"end\n:done\n",
        host.put(text=b"\nbody alone\n"): b"",
        host.put(is_new=True, text=b"Subject: 7 0 4 0\n\n"): b"Subject: 7 0 4 0\n",
        host.put(text=b"Subject: x\n" * 9_000): (b"Subject: x\n" * 9_000)[:HEADERS],
    }
    held = host.put(text=b"Subject: held\n\n")
    host.carry(QMAIL.queue_hold(host.instance, QueueHold(ids(held)), context()))
    taken: list[tuple[str, bytes | None]] = []
    listing = host.carry(
        read_headers(
            host.instance,
            lambda message, content=None: taken.append((message.queue_id, content and content.raw_headers)),
        )
    )
    assert sorted(taken) == sorted({**texts, held: b"Subject: held\n"}.items())
    assert (listing.total, listing.refused) == (len(taken), 0)


@pytest.mark.parametrize("cut", [1, 2, 7, 1 << 16])
def test_headers_in_a_listing_pose_as_nothing_else_wherever_it_is_cut(
    cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.mta.qmail.parse.BLOCK", 1)
    forged = b"S: \0:headers\0\0end\n8 0 3 0\nS:\n:done\0\0:end\0003\0"
    pairs = b"".join(
        b"info/1/%d\0Fa@x.test\0=info/1/%d\x0010\0@mess/1/%d\x00300 1000.0\0" % (at, at, at) for at in (7, 8, 9)
    )
    text = b"7 0 %d 0\n%s9 absent\nend\n" % (len(forged), forged)
    data = b":group\x001000\0" + pairs + b":headers\0\0" + text + b":done\0\0:end\x003\0"
    taken: dict[str, bytes | None] = {}
    sink = QueueSink(lambda message, content=None: taken.update({message.queue_id: content and content.raw_headers}))
    for at in range(0, len(data), cut):
        sink.feed(data[at : at + cut])
    assert sink.close().total == 3
    assert taken == {"7": forged, "8": None, "9": None}


def test_a_listing_whose_headers_are_cut_off_is_refused() -> None:
    sink = QueueSink(lambda *message: None)
    sink.feed(b":group\x001000\0:headers\0\x007 0 4 0\nS: x\n:done\0\0:end\x003\0")
    with pytest.raises(UnparsedOutput):
        sink.close()


@pytest.mark.parametrize(
    ("text", "headers", "body"),
    [
        (b"Subject: a\r\n\r\nx\r\n", 1, b"x\r\n"),
        (b"Subject: a\n\nno end", 1, b"no end"),
        (b"\nall body\n", 0, b"all body\n"),
        (b"Subject: a\n", 1, b""),
        (b"Subject: a\n\n\n==> mess/1/4 <==\nend\n", 1, b"\n==> mess/1/4 <==\nend\n"),
    ],
)
def test_a_message_is_shown_byte_for_byte(host: QmailHost, text: bytes, headers: int, body: bytes) -> None:
    name = host.put(text=text)
    other = host.put(text=b"Subject: b\n\nb\n")
    asked = MessageShow(name, parts=("envelope", "headers", "body"))
    shown = host.carry(QMAIL.message_show(host.instance, asked, context())).data
    assert (len(shown["headers"]), shown["body"]["text"].encode()) == (headers, body)
    host.carry(QMAIL.queue_hold(host.instance, QueueHold(ids(other)), context()))
    assert host.carry(QMAIL.message_show(host.instance, MessageShow(other), context())).data["state"] == "hold"


@BOTH
@pytest.mark.parametrize("is_new", [False, True], ids=["taken-in", "in-todo"])
def test_hold_moves_a_message_out_of_sight_and_release_brings_every_file_back(host: QmailHost, is_new: bool) -> None:
    name = host.put(is_new=is_new, local=[b"Tl@qm1.test"])
    if not is_new:
        (host.queue / "bounce" / name).write_text("<x>:\nsorry\n")
    before = host.files()
    held = host.carry(QMAIL.queue_hold(host.instance, QueueHold(ids(name)), context()))
    assert (held.ended, host.entries()[name].state) == (Ended.SUCCEEDED, "hold")
    assert all(path.startswith("mxfleet-hold/") for path in host.files())
    released = host.carry(QMAIL.queue_release(host.instance, QueueRelease(ids(name)), context()))
    assert (released.ended, host.files(), host.is_up) == (Ended.SUCCEEDED, before, True)


@pytest.mark.parametrize("action", ["hold", "release", "quarantine", "restore"])
def test_what_a_reboot_cuts_in_two_is_not_yet_old_enough_for_qmail_sends_clean_up(host: QmailHost, action: str) -> None:
    """qmail-send(8) removes a file in mess/ that has no info/ nor todo/ and was not read for 36 hours."""
    name = host.put()
    entry = host.entries()[name]
    for before in {"release": ["hold"], "restore": ["quarantine"]}.get(action, []):
        host.carry(change(host.instance, before, "job-1", [entry]))
    [mess] = host.queue.rglob(f"mess/**/{name}")
    os.utime(mess, ns=(LONG_AGO * 10**9, mess.stat().st_mtime_ns))
    host.carry(change(host.instance, action, "job-1", [entry]))
    [mess] = host.queue.rglob(f"mess/**/{name}")
    assert time.time() - mess.stat().st_atime < 60
    assert f"{mess.stat().st_mtime_ns / 1e9:.3f}" == f"{entry.arrival_time:.3f}"


@BOTH
def test_a_quarantined_message_comes_back_byte_for_byte_held_or_not(host: QmailHost) -> None:
    free, held, new = host.put(), host.put(), host.put(is_new=True)
    host.carry(QMAIL.queue_hold(host.instance, QueueHold(ids(held)), context()))
    before = host.files()
    items = quarantined(host, free, held, new)
    assert host.entries() == {}
    assert all(path.startswith("mxfleet-quarantine/job-1/") for path in host.files())
    restored = host.carry(QMAIL.quarantine_restore(host.instance, QuarantineRestore(items), context(undo=True)))
    assert (restored.ended, restored.data["done"], host.files()) == (Ended.SUCCEEDED, 3, before)


def test_a_restored_message_is_due_at_once_unless_a_purge_is_undone(host: QmailHost) -> None:
    name = host.put()
    for is_undo, due in ((True, False), (False, True)):
        items = quarantined(host, name)
        host.carry(QMAIL.quarantine_restore(host.instance, QuarantineRestore(items), context(undo=is_undo)))
        assert (host.path("remote", name).stat().st_mtime == 1) is due


def test_a_restore_overwrites_nothing(host: QmailHost) -> None:
    items = quarantined(host, host.put())
    name = items[0].queue_id
    host.path("mess", name).write_text("another message")
    restored = host.carry(QMAIL.quarantine_restore(host.instance, QuarantineRestore(items), context()))
    assert (restored.ended, restored.data["left"]) == (Ended.FAILED, 1)
    assert host.path("mess", name).read_text() == "another message"
    assert f"mxfleet-quarantine/job-1/info/{name}" in host.files()


def test_erase_removes_for_good_without_a_stop(host: QmailHost) -> None:
    items = quarantined(host, host.put(), host.put())
    calls = (host.service / "calls").read_text()
    erased = host.carry(QMAIL.quarantine_erase(host.instance, QuarantineErase(items), context()))
    assert (erased.ended, erased.data["done"], host.files()) == (Ended.SUCCEEDED, 2, {})
    assert (host.service / "calls").read_text() == calls
    again = host.carry(QMAIL.quarantine_erase(host.instance, QuarantineErase(items), context()))
    assert again.data["already_gone"] == 2


@pytest.mark.parametrize("changed", ["sender", "size", "time", "inode", "gone"])
def test_a_message_that_is_another_one_by_now_is_left_alone(host: QmailHost, changed: str) -> None:
    name = host.put()
    entry = host.entries()[name]
    if changed == "sender":
        host.path("info", name).write_bytes(b"Fnews@bulk.exampl3\0")
    elif changed == "size":
        entry = replace(entry, size=entry.size + 1)
    elif changed == "time":
        os.utime(host.path("mess", name), ns=(1, int(entry.arrival_time * 1e6) * 1000 + 2000))
    elif changed == "inode":
        text = host.path("mess", name).read_bytes()
        (host.queue / "copy").write_bytes(text)
        (host.queue / "copy").rename(host.path("mess", name))
        os.utime(host.path("mess", name), (1, entry.arrival_time))
        [entry] = host.entries().values()
    else:
        host.path("mess", name).unlink()
    before = host.files()
    answer = host.carry(change(host.instance, "delete", "job-1", [entry]))
    assert answer.verdicts[name].partition(" ")[0] == ("left" if changed == "inode" else "gone")
    assert (host.files(), host.is_up) == (before, True)


def test_a_running_delivery_makes_a_change_give_up_with_nothing_changed(
    host: QmailHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.mta.qmail.commands.STOP_SECONDS", 1)
    name = host.put()
    before = host.files()
    (host.service / "busy").touch()
    result = host.carry(QMAIL.queue_purge(host.instance, QueuePurge(ids(name)), context()))
    assert (result.ended, result.data["left"], host.files(), host.is_up) == (Ended.FAILED, 1, before, True)
    assert isinstance(result.error, InDelivery)


def test_a_qmail_send_that_somebody_else_runs_is_never_worked_beside(
    host: QmailHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.mta.qmail.commands.STOP_SECONDS", 1)
    name = host.put()
    before = host.files()
    mutex = str(host.queue / "lock/sendmutex")
    with subprocess.Popen(["flock", "-n", mutex, "sleep", "3"]) as other:
        time.sleep(0.2)
        result = host.carry(QMAIL.queue_purge(host.instance, QueuePurge(ids(name)), context()))
        other.terminate()
    assert (result.data["left"], host.files(), host.is_up) == (1, before, True)


def test_a_service_that_an_administrator_stopped_stays_stopped(host: QmailHost) -> None:
    name = host.put()
    (host.service / "up").unlink()
    result = host.carry(QMAIL.queue_purge(host.instance, QueuePurge(ids(name)), context()))
    assert (result.ended, host.is_up, (host.service / "calls").exists()) == (Ended.SUCCEEDED, False, False)


def test_a_qmail_send_that_supervise_does_not_start_at_once_is_not_left_down_for_a_second(host: QmailHost) -> None:
    name = host.put()
    svc, slept = host.root / "svc", host.root / "slept"
    svc.write_text(svc.read_text().replace("-u) rm", '-u) [ -e "$2/heard" ] || { touch "$2/heard"; exit; }; rm'))
    host.tools = host.root / "tools"
    host.tools.mkdir()
    (host.tools / "sleep").write_text(f'#!/bin/sh\necho "$1" >>{slept}\nexec /bin/sleep "$1"\n')
    (host.tools / "sleep").chmod(0o755)
    host.carry(QMAIL.queue_purge(host.instance, QueuePurge(ids(name)), context()))
    assert (host.is_up, set(slept.read_text().split())) == (True, {"0.1"})


def test_a_service_without_supervise_changes_nothing(host: QmailHost) -> None:
    name = host.put()
    before = host.files()
    (host.root / "svstat").write_text('#!/bin/sh\necho "$1: supervise not running"\n')
    with pytest.raises(MtaNotRunning):
        host.carry(QMAIL.queue_purge(host.instance, QueuePurge(ids(name)), context()))
    assert host.files() == before
    unsupervised = replace(host.instance, options={})
    with pytest.raises(Unsupported):
        host.carry(QMAIL.queue_purge(unsupervised, QueuePurge(ids(name)), context()))


def a_message() -> QueueEntry:
    return QueueEntry("1", "deferred", "queued", 1.0, "a@x.test", (), 1)


@pytest.mark.parametrize("seed", range(5))
def test_a_kill_at_any_moment_leaves_qmail_send_running_and_every_message_whole(tmp_path: Path, seed: int) -> None:
    host = QmailHost(tmp_path)
    names = [host.put(local=[b"Tl@qm1.test"]) for _ in range(40)]
    chance = random.Random(seed)
    for action in ("quarantine", "hold", "release", "delete"):
        entries = host.entries()
        asked = next(change(host.instance, action, "job-1", list(entries.values())), None) if entries else None
        if asked is None:
            break
        process = subprocess.Popen(
            argv_of(asked),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(stdin_of(asked))
        process.stdin.close()
        time.sleep(chance.uniform(0, 0.6))
        if chance.random() < 0.5:
            os.kill(process.pid, signal.SIGKILL)
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        if host.state.exists():
            host.wait_up()
        assert host.is_up
        listed, files = host.entries(), host.files()
        for name in names:
            mine = [path for path in files if path.rpartition("/")[2] == name]
            assert len(mine) in ((0, 4) if action == "delete" else (4,)), (name, mine)
            away = [path for path in mine if path.startswith("mxfleet-quarantine/")]
            assert (name in listed) == (bool(mine) and not away), (name, mine)
            assert len(away) in (0, 4)
    host.remove_state()


def test_what_cannot_be_proven_is_not_claimed() -> None:
    ended = b"was up\n5 done\nnow /service/qmail-send: up (pid 1) 1 seconds\nend\n"
    assert parse_answer(Completed(0, ended), stops=True).is_up
    with pytest.raises(OutcomeUnknown):
        parse_answer(Completed(0, ended.removesuffix(b"end\n")), stops=True)
    down = ended.replace(b"up (pid 1) 1 seconds", b"down 2 seconds, normally up")
    with pytest.raises(OutcomeUnknown):
        parse_answer(Completed(0, down), stops=True).check_running()
    with pytest.raises(Conflict):
        parse_answer(Completed(75, b"", b"qmail_change: another change is going on"), stops=True)


@pytest.mark.parametrize(
    "stdin",
    [
        b"",
        b"../x\nend\n",
        b"job-1\n",
        b"job-1\n5 1 1.0 a@x.test\n",
        b"job-1\n../5 1 1.000000 a\nend\n",
        b"job-1\n-5 1 1.0 a\nend\n",
    ],
)
def test_the_script_refuses_what_is_no_message(tmp_path: Path, stdin: bytes) -> None:
    host = QmailHost(tmp_path)
    asked = next(change(host.instance, "delete", "job-1", [a_message()]))
    assert host.run(replace(asked, stdin=stdin)).exit_status == 64
    assert not (host.service / "calls").exists()
    host.remove_state()


def test_read_back_says_how_far_a_purge_got(host: QmailHost) -> None:
    away, here = host.put(), host.put()
    operation = QueuePurge(ids(away, here))
    host.carry(QMAIL.queue_purge(host.instance, operation, context(frozen=None)))
    frozen = host.plans[-1].selected
    host.carry(
        QMAIL.quarantine_restore(
            host.instance,
            QuarantineRestore(
                tuple(
                    Quarantined(
                        f.queue_id,
                        f.queue_id,
                        f"{host.queue}/mxfleet-quarantine/job-1/{f.queue_id}",
                        f.arrival_time,
                        f.sender,
                        f.size,
                        f.state,
                    )
                    for f in frozen
                    if f.queue_id == here
                )
            ),
            context(),
        )
    )
    found = host.carry(QMAIL.read_back(host.instance, operation, context(frozen=frozen)))
    assert (found.data["done"], found.data["left"], list(found.data["places"])) == (1, 1, [away])
    assert found.data["service"].endswith("up (pid 77) 5 seconds")


def test_nothing_is_attempted_where_no_log_can_prove_it(host: QmailHost) -> None:
    name = host.put()
    with pytest.raises(Unsupported):
        host.carry(QMAIL.message_deliver(host.instance, MessageDeliver(name), context()))
    with pytest.raises(Unsupported):
        host.carry(QMAIL.queue_bounce(host.instance, QueueBounce(ids(name)), context()))


def test_a_held_message_stays_held_where_a_stopped_service_could_not_attempt_it(host: QmailHost) -> None:
    name = host.put()
    log = host.root / "log"
    log.touch()
    instance = replace(host.instance, options={**host.instance.options, "log_source": str(log)})
    host.carry(QMAIL.queue_hold(instance, QueueHold(ids(name)), context()))
    (host.service / "up").unlink()
    before = host.files()
    with pytest.raises(Conflict, match="qmail-send is down"):
        host.carry(QMAIL.message_deliver(instance, MessageDeliver(name, release=True), context()))
    assert host.files() == before


LOG_OF = """#!/bin/sh
case $1 in
-d) rm -f "$2/up" ;;
-u)
    touch "$2/up"
    [ ! -e "$2/next" ] || {{
        rm "$2/next"
        echo "@400000006b0194f80ff65784 starting delivery 1: msg {name} to remote r@defer.test
@400000006b0194f80ff65785 delivery 1: failure: Sorry" >>"{log}"
        (
            sleep 1.5
            rm -f "{queue}"/*/*/{name}
            printf '%s\\n' "@400000006b0194f80ff65786 {word}" "@400000006b0194f80ff65787 end msg {name}" >>"{log}"
        ) >/dev/null 2>&1 &
    }} ;;
esac
"""


@pytest.mark.parametrize(
    ("sender", "word"),
    [
        (b"news@bulk.example", "bounce msg {name} qp 418"),
        (b"#@[]", "triple bounce: discarding bounce/{name}"),
    ],
)
def test_a_bounce_is_awaited_and_proven_by_the_log(host: QmailHost, sender: bytes, word: str) -> None:
    name = host.put(sender)
    log = host.root / "log"
    log.touch()
    (host.service / "next").touch()
    (host.root / "svc").write_text(LOG_OF.format(name=name, log=log, queue=host.queue, word=word.format(name=name)))
    instance = replace(host.instance, options={**host.instance.options, "log_source": str(log)})
    result = host.carry(QMAIL.queue_bounce(instance, QueueBounce(ids(name)), context()))
    assert (result.ended, result.data["done"]) == (Ended.SUCCEEDED, 1)


def test_qmail_has_no_flush_and_no_requeue() -> None:
    assert not hasattr(QMAIL, "queue_flush")
    assert not hasattr(QMAIL, "queue_requeue")
    assert {"queue.flush", "queue.requeue"} <= QMAIL.notes.keys()


@pytest.mark.parametrize("queue_id", ["", "0", "-1", "abc", "1 2", "1\n", "٣"])
def test_a_queue_id_is_a_decimal_number(queue_id: str) -> None:
    assert QMAIL.queue_id_error(queue_id)
    assert QMAIL.queue_id_error("2154661") is None
