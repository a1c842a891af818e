"""What stands before the words of a log line: message.trace and message.deliver read the same forms, for every MTA."""

import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from fleet.mta import exim, opensmtpd, postfix, qmail, sendmail
from fleet.mta.logs.heads import without_times
from fleet.mta.opensmtpd.attempt import attempts_of as opensmtpd_attempts
from fleet.mta.operations import MessageTrace
from fleet.mta.postfix.attempt import attempts_of as postfix_attempts
from fleet.mta.postfix.attempt import from_log as postfix_from_log
from fleet.mta.postfix.attempt import requeued, returned
from fleet.mta.qmail.attempt import attempts_of as qmail_attempts
from fleet.mta.queue.delivery import Attempt
from fleet.mta.records import QueueEntry
from fleet.mta.steps import Command
from fleet.ssh.quoting import script_text
from tests.unit.log_host import LogHost

BOM = "\ufeff"
HEADS = {
    "BSD": "Nov 21 19:39:00 mx1 {}[7]: ",
    "BSD with a year": "Nov 21 2026 19:39:00 mx1 {}[7]: ",
    "the year first": "2026 Nov 21 19:39:00 mx1 {}[7]: ",
    "a fraction": "Nov 21 19:39:00.250 mx1 {}[7]: ",
    "ISO": "2026-11-21T19:39:00.169910+00:00 mx1 {}[7]: ",
    "short-iso of journalctl": "2026-11-21T20:39:00+0100 mx1 {}[7]: ",
    "short-unix of journalctl": "1795289940.169910 mx1 {}[7]: ",
    "no host": "Nov 21 19:39:00 {}[7]: ",
    "with its priority": "<22>Nov 21 19:39:00 mx1 {}[7]: ",
    "RFC 5424": "<22>1 2026-11-21T19:39:00Z mx1 {} 7 - - ",
    "RFC 5424 by rsyslog": "<22>1 2026-11-21T19:39:00.169910+00:00 mx1 {} 7 - -  ",
    "RFC 5424 with a BOM": "<22>1 2026-11-21T19:39:00Z mx1 {} 7 - - " + BOM,
    "RFC 5424 with data": '<22>1 2026-11-21T19:39:00Z mx1 {} 7 - [timeQuality tzKnown="1"][m q="a\\]b"] ',
    "RFC 5424 without a pid": "<22>1 2026-11-21T19:39:00Z mx1 {} - - - ",
}
ID = {"exim": "1ZWnkk-000NXb-1K", "postfix": "4A1B2C3D4E", "sendmail": "6ALC00aB008740", "qmail": "3245",
      "opensmtpd": "a4fdd7ea"}  # fmt: skip
SENT = {
    "postfix": [
        ("postfix/qmgr", "4A1B2C3D4E: from=<s@c.example>, size=500, nrcpt=1 (queue active)"),
        ("postfix/smtp", "4A1B2C3D4E: to=<r@d.example>, relay=d.example[192.0.2.9]:25, delay=1, delays=1/0/0/0, "
         "dsn=2.0.0, status=sent (250 ok)"),
        ("postfix/cleanup", "4A1B2C3D4E: message-id=<m1@c.example>"),
        ("postfix/qmgr", "4A1B2C3D4E: removed"),
    ],
    "sendmail": [
        ("sendmail", "6ALC00aB008740: from=<s@c.example>, size=36124, class=0, nrcpts=1, msgid=<m1@c.example>, "
         "proto=ESMTP, daemon=MTA, relay=c.example [192.0.2.4]"),
        ("sendmail", "6ALC00aB008740: to=<r@d.example>, delay=00:00:02, xdelay=00:00:02, mailer=esmtp, pri=66124, "
         "relay=d.example. [192.0.2.9], dsn=2.0.0, stat=Sent (ok)"),
    ],
    "exim": [
        ("exim", "1ZWnkk-000NXb-1K <= s@c.example H=c.example [192.0.2.4] P=esmtp S=1727"),
        ("exim", "1ZWnkk-000NXb-1K => r@d.example R=dnslookup T=remote_smtp H=d.example [192.0.2.9] C=\"250 ok\""),
        ("exim", "1ZWnkk-000NXb-1K Completed"),
    ],
    "qmail": [
        ("qmail", "1795289940.169910 new msg 3245"),
        ("qmail", "1795289940.169911 info msg 3245: bytes 371 from <s@c.example> qp 180 uid 7791"),
        ("qmail", "1795289940.169912 starting delivery 1: msg 3245 to remote r@d.example"),
        ("qmail", "1795289940.169913 delivery 1: success: 192.0.2.9_accepted_message./"),
        ("qmail", "1795289940.169914 end msg 3245"),
    ],
    "opensmtpd": [
        ("smtpd", "b8b4f4bba48aeccc smtp message msgid=a4fdd7ea size=341 nrcpt=1 proto=ESMTP"),
        ("smtpd", "b8b4f4bba48aeccc smtp envelope evpid=a4fdd7ea99fe4f11 from=<s@c.example> to=<r@d.example>"),
        ("smtpd", "b8b4f4bba48aecce mta delivery evpid=a4fdd7ea99fe4f11 from=<s@c.example> to=<r@d.example> rcpt=<-> "
         'source="192.0.2.1" relay="192.0.2.9 (d.example)" delay=1s result="Ok" stat="250 ok"'),
    ],
}  # fmt: skip
TRACES: dict[str, Any] = {
    "postfix": postfix.Postfix, "sendmail": sendmail.Sendmail, "exim": exim.Exim, "qmail": qmail.Qmail,
    "opensmtpd": opensmtpd.OpenSmtpd,
}  # fmt: skip
ATTEMPTS: dict[str, Callable[[list[str], str], Iterable[Attempt]]] = {
    "postfix": postfix_attempts, "qmail": qmail_attempts, "opensmtpd": opensmtpd_attempts,
}  # fmt: skip
"""Of those whose attempts are told by the log."""


def logged(mta: str, head: str) -> list[str]:
    """Postfix and OpenSMTPD always tell their pid."""
    form = HEADS[head]
    if mta in ("qmail", "exim"):
        form = form.replace("[7]", "")
    return [form.format(program) + text for program, text in SENT[mta]]


def forms(mta: str) -> list[str]:
    return [head for head in HEADS if head != "RFC 5424 without a pid" or mta != "postfix"]


@pytest.mark.parametrize(
    ("mta", "head"),
    [(mta, head) for mta in TRACES for head in forms(mta) if mta == "postfix" or "5424" in head or head == "no host"],
)
def test_a_trace_reads_every_form_of_head(mta: str, head: str, tmp_path: Path) -> None:
    host = LogHost(mta, tmp_path)
    host.put("mail.log", "".join(f"{line}\n" for line in logged(mta, head)).encode())
    data = host.data(TRACES[mta].message_trace, MessageTrace(sender="s@c.example"))
    assert [(row["recipient"], row["status"]) for row in data["rows"]] == [("r@d.example", "sent")]
    assert data["read"][0]["untimed"] == 0


@pytest.mark.parametrize(("mta", "head"), [(mta, head) for mta in ATTEMPTS for head in forms(mta)])
def test_an_attempt_is_read_in_every_form_of_head(mta: str, head: str) -> None:
    [attempt] = ATTEMPTS[mta](logged(mta, head), ID[mta])
    assert (attempt.address, attempt.outcome) == ("r@d.example", "sent")


@pytest.mark.parametrize("head", forms("postfix"))
def test_returns_and_new_queue_ids_are_read_in_every_form_of_head(head: str) -> None:
    gone, new = (HEADS[head].format(f"postfix/{program}") for program in ("qmgr", "pickup"))
    assert returned([f"{gone}4A1B2C3D4E: from=<s@c.example>, status=expired, returned to sender"]) == {"4A1B2C3D4E"}
    assert requeued([f"{new}5A1B2C3D4E: uid=0 from=<s@c.example> orig_id=4A1B2C3D4E"]) == {"4A1B2C3D4E": "5A1B2C3D4E"}


@pytest.mark.parametrize("head", forms("postfix"))
def test_the_host_finds_a_messages_lines_in_every_form_of_head(head: str, tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    lines = [*logged("postfix", head), HEADS[head].format("postfix/qmgr") + "5A1B2C3D4E: removed"]
    log.write_text("".join(f"{line}\n" for line in lines))
    entry = QueueEntry(ID["postfix"], "deferred", "deferred", 1.0, "s@c.example", (), 500)
    command = next(postfix_from_log(LogHost("postfix", tmp_path).instance("mail.log"), entry))
    assert isinstance(command, Command)
    script = ["sh", "-c", script_text("postfix_log.sh")[0], "postfix_log.sh", *command.argv]
    done = subprocess.run(script, input=command.stdin, capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == [*lines[:-1], "end"]


@pytest.mark.parametrize("mta", ["postfix", "sendmail", "exim", "opensmtpd"])
@pytest.mark.parametrize(
    ("asked", "stands"),
    [("s@c.example", '"s"@c.example'), ('"s"@c.example', "s@c.example"), ('"s"@c.example', '"s"@c.example')],
)
def test_the_host_finds_an_address_that_was_quoted_without_need(
    mta: str, asked: str, stands: str, tmp_path: Path
) -> None:
    host = LogHost(mta, tmp_path)
    lines = [line.replace("s@c.example", stands) for line in logged(mta, "ISO")]
    host.put("mail.log", "".join(f"{line}\n" for line in lines).encode())
    data = host.data(TRACES[mta].message_trace, MessageTrace(sender=asked))
    assert [(row["recipient"], row["status"]) for row in data["rows"]] == [("r@d.example", "sent")]


RSYSLOG = "<22>1 2026-11-21T19:39:00.169910+00:00 mx1 {} 7 - -  "
"""It cuts a tag off at its slash there: `postfix` is all that it says of the program."""


@pytest.mark.parametrize(
    ("name", "expected"), [("postfix", [("r@d.example", "sent")]), ("postfix-out", []), ("opendkim", [])]
)
def test_postfix_is_known_by_its_name_alone_where_rsyslog_cut_the_program_off(
    name: str, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    lines = [RSYSLOG.format(name) + text for _, text in SENT["postfix"]]
    host = LogHost("postfix", tmp_path)
    host.put("mail.log", "".join(f"{line}\n" for line in lines).encode())
    data = host.data(TRACES["postfix"].message_trace, MessageTrace(sender="s@c.example"))
    assert [(row["recipient"], row["status"]) for row in data["rows"]] == expected
    assert [each.outcome for each in postfix_attempts(lines, ID["postfix"])] == ["sent"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["client=c.example[192.0.2.4]", "message-id=<m1@c.example>", "removed"], [("", "unclear")]),
        (["from=<s@c.example>, size=500, nrcpt=1 (queue active)", "to=<r@d.example>, relay=none, delay=1, "
          "delays=1/0/0/0, dsn=4.4.1, status=deferred (later)", "removed"], [("r@d.example", "removed")]),
        (["message-id=<m1@c.example>", "placed on hold"], [("", "held")]),
        (["hold: header Subject: x from c.example[192.0.2.4]; from=<s@c.example> to=<r@d.example> proto=ESMTP "
          "helo=<c.example>", "message-id=<m1@c.example>"], [("r@d.example", "held")]),
        (["uid=0 from=<s@c.example>", "message-id=<m1@c.example>",
          "from=<s@c.example>, status=expired, returned to sender", "removed"], [("", "unclear")]),
    ],
)  # fmt: skip
def test_what_postfix_says_tells_who_says_it(texts: list[str], expected: list[tuple[str, str]], tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    host.put("mail.log", "".join(f"{RSYSLOG.format('postfix')}4A1B2C3D4E: {text}\n" for text in texts).encode())
    data = host.data(TRACES["postfix"].message_trace, MessageTrace(queue_id="4A1B2C3D4E"))
    assert [(row["recipient"], row["status"]) for row in data["rows"]] == expected


def test_of_equal_lines_that_syslog_wrote_once_an_attempt_is_read() -> None:
    sent = SENT["postfix"][1][1]
    line = f"Nov 21 19:39:00 mx1 postfix/smtp[7]: message repeated 2 times: [ {sent}]"
    assert list(without_times([line])) == [f"mx1 postfix/smtp[7]: {sent}"]
    assert [each.outcome for each in postfix_attempts([line], ID["postfix"])] == ["sent"]
