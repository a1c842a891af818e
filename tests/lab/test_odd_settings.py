"""message.trace and message.deliver on real hosts with odd settings: filters, milters, virtual domains, the journal."""

import contextlib
import queue
import re
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fleet import match
from fleet.mta.errors import Conflict
from fleet.mta.operations import MessageDeliver, MessageTrace, QueueList, QueuePurge, Selection
from fleet.ssh.engine import Engine
from tests.lab.images import ensure_tools
from tests.lab.inject import enter
from tests.lab.lab import Host, Lab
from tests.lab.qmail.control import start_send, stop_send
from tests.lab.sink import Rule
from tests.lab.test_logs import RECIPIENTS, Remote, engine, unique
from tests.lab.waiting import await_true

__all__ = ["engine"]
pytestmark = pytest.mark.lab
Row = dict[str, Any]


@pytest.fixture
def remote(request: pytest.FixtureRequest, lab: Lab, engine: Engine) -> Iterator[Remote]:
    host = lab.host(request.param)
    host.reset()
    lab.sink.reset()
    yield Remote(engine, host)
    host.reset()


@contextlib.contextmanager
def served(host: Host, port: int, talk: Callable[[socket.socket], None]) -> Iterator[None]:
    """Who connects to that port of the host's loopback is answered by `talk`, in threads of the host's network."""
    listening: queue.Queue[socket.socket] = queue.Queue()

    def serve() -> None:
        enter(host.net_namespace)
        with socket.create_server(("127.0.0.1", port)) as listener, contextlib.suppress(OSError):
            listening.put(listener)
            while True:
                threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    listener = listening.get(timeout=10)
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        server.join()


def await_rows(remote: Remote, expected: dict[str, str], **wanted: str) -> list[Row]:
    """The rows of a trace, one for each recipient, once they tell what is expected."""

    def told() -> list[Row]:
        rows: list[Row] = remote.do(MessageTrace(**wanted))["rows"]
        return rows

    def is_told() -> bool:
        return sorted((row["recipient"], row["status"]) for row in told()) == sorted(expected.items())

    await_true(is_told, 5, lambda: str(told()))
    return told()


def listed(remote: Remote, text: str) -> list[Row]:
    entries: list[Row] = remote.do(QueueList(match.parse(text)))["entries"]
    return entries


# FILTER_README, "Advanced content filter example".
BEHIND = """
cat >> /etc/postfix/master.cf <<END
127.0.0.1:10026 inet n - n - - smtpd -o content_filter= -o receive_override_options=no_header_body_checks
  -o smtpd_authorized_xforward_hosts=127.0.0.0/8
scan unix - - n - - smtp -o smtp_send_xforward_command=yes
END
"""
CHECKS = r"""
cat > /etc/postfix/odd <<'END'
/^Subject: hold/ HOLD look at it
/^Subject: discard/ DISCARD thrown away
/^Subject: reject/ REJECT not wanted here
END
postconf -e 'header_checks = regexp:/etc/postfix/odd'
"""
FORGED = "to=<x@ok.test>, relay=none, delay=1, dsn=2.0.0, status=sent (250 ok)"
APPLY = "touch -d '1 minute ago' /etc/postfix/*.cf; postfix reload 2>&1"


def relay(client: socket.socket) -> None:
    """A filter that lets all pass to the smtpd behind it, whose last answer it gives in amavisd's words."""
    words = b"250 2.0.0 from MTA(smtp:[127.0.0.1]:10026): "
    with client, socket.create_connection(("127.0.0.1", 10026)) as server:
        threading.Thread(target=_copy, args=(client, server), daemon=True).start()
        for line in server.makefile("rb"):
            client.sendall(words + line if b"queued as" in line else line)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("transport", ["smtp", "scan"])
@pytest.mark.parametrize("remote", ["pf2"], indirect=True)
def test_a_mail_through_a_content_filter_is_one_with_a_row_for_each_recipient(
    remote: Remote, transport: str, lab: Lab
) -> None:
    remote.host.sh(f"{BEHIND} postconf -e content_filter={transport}:[127.0.0.1]:10025; {CHECKS} {APPLY}")
    with served(remote.host, 10025, relay):
        [first] = remote.host.inject(sender=(sender := unique("filtered")), recipients=tuple(RECIPIENTS)).ids
        rows = await_rows(remote, RECIPIENTS, sender=sender)
        [last] = {row["queue_id"] for row in rows}
        assert last != first
        assert {row["client"] != "" for row in rows} == {True}, "the client of the first way"
        assert await_rows(remote, RECIPIENTS, queue_id=first) == rows
        for recipient, status in RECIPIENTS.items():
            await_rows(remote, {recipient: status}, sender=sender, recipient=recipient)

        [waiting] = listed(remote, f"from:{sender}")
        tried = remote.do(MessageDeliver(waiting["queue_id"]))
        assert (tried["outcome"], "451 4.7.1" in tried["reply"]) == ("deferred", True)
        lab.sink.set("defer.test", Rule())
        assert remote.do(MessageDeliver(waiting["queue_id"]))["outcome"] == "sent"
        await_rows(remote, RECIPIENTS | {"d@defer.test": "sent"}, queue_id=first)

        [held] = remote.host.inject(sender=sender, recipients=("late@ok.test",), subject="hold").ids
        handed = remote.do(MessageDeliver(held, release=True))
        assert (handed["outcome"], handed["recipients"][0]["outcome"]) == ("left_queue", "handed_over")
        await_rows(remote, {"late@ok.test": "sent"}, queue_id=held)


@pytest.mark.parametrize("remote", ["pf2"], indirect=True)
def test_what_header_checks_hold_throw_away_and_refuse_is_told_so(remote: Remote) -> None:
    remote.host.sh(f"{CHECKS} {APPLY}")
    sender, expected = unique("checked"), {}
    for subject, status in (("hold", "held"), ("discard", "discarded"), ("reject", "rejected"), ("none", "sent")):
        remote.host.inject(sender=sender, recipients=(f"{subject}@ok.test",), subject=f"{subject} {FORGED}")
        expected[f"{subject}@ok.test"] = status
    replies = {row["recipient"]: row["reply"] for row in await_rows(remote, expected, sender=sender)}
    assert "not wanted here" in replies["reject@ok.test"]
    [held] = listed(remote, f"from:{sender}")
    assert (held["state"], [each["address"] for each in held["recipients"]]) == ("hold", ["hold@ok.test"])
    with pytest.raises(Conflict):
        remote.do(MessageDeliver(held["queue_id"]))
    assert remote.do(MessageDeliver(held["queue_id"], release=True))["outcome"] == "sent"
    await_rows(remote, expected | {"hold@ok.test": "sent"}, sender=sender)


ASK_MILTER = r"""
cat >> /etc/mail/sendmail.mc <<'END'
INPUT_MAIL_FILTER(`lab', `S=inet:8890@127.0.0.1, F=T')dnl
END
m4 /etc/mail/sendmail.mc > /etc/mail/sendmail.cf
"""
VERDICTS = {
    b"reply": [b"y550 5.7.1 stat=Sent is not what this is\0"],
    b"reject": [b"r"],
    b"later": [b"y451 4.7.1 not yet\0"],
    b"discard": [b"d"],
    b"hold": [b"qlook at it\0", b"c"],
    b"none": [b"c"],
}
"""Answers of the milter at the end of a message (SMFIR_* of mfdef.h), by the word that its sender begins with."""


def milter(mta: socket.socket) -> None:
    """The protocol of mfdef.h, version 2, as far as MAIL and the end of the message: Debian's python3-milter would need
    a library of Sendmail's on the machine that runs the tests."""
    answers: list[bytes] = []
    with mta, mta.makefile("rb") as file:
        while head := file.read(5):
            length, command = struct.unpack(">Ic", head)
            data = file.read(length - 1)
            if command == b"O":
                replies = [b"O" + struct.pack(">III", 2, 0x20, 0x7B)]  # may quarantine; no steps but MAIL and the end
            elif command == b"M":
                replies, answers = [b"c"], VERDICTS[re.findall(rb"[a-z]+", data)[0]]
            elif command == b"E":
                replies = answers
            else:
                replies = []  # macros, and what ends a message or the connection
            for reply in replies:
                mta.sendall(struct.pack(">I", len(reply)) + reply)


@pytest.mark.parametrize("remote", ["sm1"], indirect=True)
def test_what_a_milter_refuses_throws_away_and_quarantines_is_told_so(remote: Remote) -> None:
    remote.host.sh(ASK_MILTER)
    remote.host.stop_mta()
    with served(remote.host, 8890, milter):
        remote.host.start_mta()
        told: dict[str, list[Row]] = {}
        for word, status in (
            ("reply", "rejected"),
            ("reject", "rejected"),
            ("later", "rejected"),
            ("discard", "discarded"),
            ("hold", "held"),
            ("none", "sent"),
        ):
            sender = unique(word)
            given = remote.host.inject(sender=sender, recipients=("a@ok.test", "b@ok2.test"))
            assert given.refused == (status == "rejected")
            # Sendmail logs no recipient of what it throws away.
            recipients = ("",) if status == "discarded" else ("a@ok.test", "b@ok2.test")
            told[word] = await_rows(remote, dict.fromkeys(recipients, status), sender=sender)
        for word, text in (("reply", "550 5.7.1 stat=Sent is not what this is"), ("later", "451 4.7.1 not yet")):
            assert {row["reply"] for row in told[word]} == {text}
        held = told["hold"][0]["queue_id"]
        assert [(each["queue_id"], each["state"]) for each in listed(remote, "ALL")] == [(held, "hold")]
        with pytest.raises(Conflict):
            remote.do(MessageDeliver(held))
        assert remote.do(MessageDeliver(held, release=True))["outcome"] == "sent"
        await_rows(remote, {"a@ok.test": "sent", "b@ok2.test": "sent"}, queue_id=held)


# A home that is sticky defers its mail, until it is not (dot-qmail(5)).
VIRTUAL = """
echo d.example:alias-d >> /var/qmail/control/virtualdomains
for user in alias-d-r alias-d-other; do useradd -m "$user"; chmod +t "/home/$user"; done
"""


@pytest.mark.parametrize("remote", ["qm1"], indirect=True)
def test_mail_for_a_virtual_domain_of_qmail_is_known_by_the_address_that_people_know(
    remote: Remote, engine: Engine
) -> None:
    stop_send(remote.host)  # a HUP would be obeyed at some later moment
    remote.host.sh(VIRTUAL)
    start_send(remote.host)
    remote = Remote(engine, remote.host)
    senders = [unique("first"), unique("second"), unique("other"), unique("new")]
    for sender, to in zip(senders, ("r", "r", "other"), strict=False):
        assert remote.host.inject(sender=sender, recipients=(f"{to}@d.example",)).accepted == 1
        [row] = await_rows(remote, {f"{to}@d.example": "deferred"}, sender=sender)
        assert row["orig_to"] == f"alias-d-{to}@d.example"
    stop_send(remote.host)
    assert remote.host.inject(sender=senders[3], recipients=("r@d.example",)).accepted == 1
    found = listed(remote, "to:r@d.example")
    assert {each["sender"] for each in found} == {senders[0], senders[1], senders[3]}
    assert {each["address"] for entry in found for each in entry["recipients"]} == {"r@d.example"}
    start_send(remote.host)
    await_rows(remote, {"r@d.example": "deferred"}, sender=senders[3])

    [wanted] = [each["queue_id"] for each in found if each["sender"] == senders[0]]
    remote.host.sh("chmod -t /home/alias-d-r")
    sent = remote.do(MessageDeliver(wanted))
    assert (sent["outcome"], sent["recipients"][0]["address"]) == ("sent", "r@d.example")
    rows = remote.do(MessageTrace(recipient="r@d.example"))["rows"]
    assert sorted(row["status"] for row in rows) == ["deferred", "deferred", "sent"]
    purged = remote.do(QueuePurge(Selection(match=match.parse("to:r@d.example"))))
    assert purged["done"] == 2
    assert [each["sender"] for each in listed(remote, "ALL")] == [senders[2]]


MAKE_JOURNAL = "/lib/systemd/systemd-journal-remote"
JOURNALCTL = """
mkdir -p /opt/journal /run/systemd/journal && tar -x -C /opt/journal && cat > /usr/local/bin/journalctl <<'END'
#!/bin/sh
exec /opt/journal/ld-linux* --library-path /opt/journal /opt/journal/journalctl --file /opt/journal/mail.journal "$@"
END
chmod 755 /usr/local/bin/journalctl
mv /var/log/mail.log /root/
"""
LINE = re.compile(r"(\S+) (\S+) ([^\s\[]+)\[(\d+)\]: (.*)")


def exported(line: str, facility: int = 2) -> tuple[float, str]:
    """The time of a line of rsyslog's, and the line as `journalctl -o export` has it."""
    found = LINE.fullmatch(line)
    assert found
    stamp, host, tag, pid, text = found.groups()
    moment = datetime.fromisoformat(stamp).timestamp()
    fields = {
        "__REALTIME_TIMESTAMP": round(moment * 1_000_000),
        "__MONOTONIC_TIMESTAMP": round(moment * 1_000_000) % 10**12,
        "_BOOT_ID": "0123456789abcdef0123456789abcdef",
        "_TRANSPORT": "syslog",
        "PRIORITY": 6,
        "_HOSTNAME": host,
        "SYSLOG_FACILITY": facility,
        "SYSLOG_IDENTIFIER": tag,
        "SYSLOG_PID": pid,
        "_PID": pid,
        "MESSAGE": text,
    }
    return moment, "".join(f"{name}={value}\n" for name, value in fields.items()) + "\n"


def put_journal(host: Host, export: str, directory: Path) -> None:
    """journald's own reader, and a journal made of the export, instead of the host's log file."""
    ensure_tools({MAKE_JOURNAL: "systemd-journal-remote"})  # with it comes journalctl
    journal = directory / "mail.journal"
    subprocess.run([MAKE_JOURNAL, "-o", journal, "-"], input=export.encode(), check=True, capture_output=True)
    program = subprocess.run(["sh", "-c", "command -v journalctl"], check=True, capture_output=True, text=True).stdout
    needs = subprocess.run(["ldd", program.strip()], check=True, capture_output=True, text=True).stdout
    files = [program.strip(), *re.findall(r"(/\S+) \(0x", needs), str(journal)]
    packed = subprocess.run(["tar", "-chP", "--transform=s,.*/,,", *files], check=True, capture_output=True).stdout
    assert host.exec(JOURNALCTL, stdin=packed, text=False).returncode == 0


@pytest.mark.parametrize("remote", ["pf2"], indirect=True)
def test_mail_that_only_the_journal_tells_of_is_traced(remote: Remote, engine: Engine, tmp_path: Path) -> None:
    sender = unique("journal")
    remote.host.inject(sender=sender, recipients=tuple(RECIPIENTS))
    rows = await_rows(remote, RECIPIENTS, sender=sender)
    lines = remote.host.sh("cat /var/log/mail.log").splitlines()
    [queue_id] = {row["queue_id"] for row in rows}
    text = "to=<x@nowhere.test>, relay=none, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (x)"
    stranger = exported(f"{lines[-1].split()[0]} pf2 postfix/smtp[1]: {queue_id}: {text}", facility=3)
    old = exported(re.sub(r"^\S+", "2026-01-02T03:04:05.678901+00:00", lines[0]))
    entries = [old, *map(exported, lines), stranger]
    put_journal(remote.host, "".join(text for _, text in entries), tmp_path)

    remote = Remote(engine, remote.host)
    assert remote.instance.options["log_source"] == "journald"
    data = remote.do(MessageTrace(sender=sender))
    assert data["rows"] == rows
    [read] = data["read"]
    assert (data["files"], read["path"], read["untimed"]) == (["journald"], "journald", 0)
    assert read["first_time"] == pytest.approx(old[0], abs=0.001)
    assert read["last_time"] == pytest.approx(entries[-2][0], abs=0.001)
    assert data["notes"] == []
