"""A trace by a recipient tells "nothing found" from "could not know": mail whose recipients the log names not all."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fleet.mta import exim, opensmtpd, postfix, qmail, sendmail
from fleet.mta.operations import MessageTrace
from tests.unit.log_host import LogHost

A, E, S = "4A1B2C3D4E", "1ZWnkk-000NXb-1K", "6ALC00aB008740"
C = "c.example[192.0.2.4]"
ENVELOPE = "from=<s@c.example> to=<r@d.example> proto=ESMTP helo=<c.example>"
CLIENT = f"postfix/smtpd[100]: {A}: client={C}"
H = "H=c.example [192.0.2.4]"
SESSION = "b8b4f4bba48aeccc smtp"
TRACES: dict[str, Any] = {
    "postfix": postfix.Postfix, "sendmail": sendmail.Sendmail, "exim": exim.Exim, "qmail": qmail.Qmail,
    "opensmtpd": opensmtpd.OpenSmtpd,
}  # fmt: skip

UNNAMED = [
    ("postfix", [CLIENT, f"postfix/cleanup[1]: {A}: hold: header Subject: x from {C}; {ENVELOPE}"]),
    ("postfix", [CLIENT, f"postfix/cleanup[1]: {A}: discard: header Subject: x from {C}; {ENVELOPE}: spam"]),
    ("postfix", [CLIENT, f"postfix/cleanup[1]: {A}: discard: body x from {C}; {ENVELOPE}: spam"]),
    ("postfix", [CLIENT, f"postfix/cleanup[1]: {A}: reject: header Subject: x from {C}; {ENVELOPE}: 5.7.1 no"]),
    ("postfix", [CLIENT, f"postfix/cleanup[1]: {A}: milter-hold: END-OF-MESSAGE from {C}: action; {ENVELOPE}"]),
    ("postfix", [CLIENT, f"postfix/cleanup[1]: {A}: milter-discard: END-OF-MESSAGE from {C}: action; {ENVELOPE}"]),
    ("postfix", [CLIENT, f"postfix/cleanup[1]: {A}: milter-reject: END-OF-MESSAGE from {C}: 5.7.1 no; {ENVELOPE}"]),
    ("postfix", [CLIENT, f"postfix/smtpd[1]: {A}: reject: DATA from {C}: 550 5.5.3 no; from=<s@c.example> "
                 "proto=ESMTP helo=<c.example>"]),
    ("postfix", [f"postfix/smtpd[1]: proxy-reject: END-OF-MESSAGE from {C}: 554 5.7.0 no; {ENVELOPE}"]),
    ("postfix", [f"postfix/smtpd[100]: NOQUEUE: hold: RCPT from {C}: <x>: no; {ENVELOPE}", CLIENT]),
    ("postfix", [f"postfix/smtpd[100]: NOQUEUE: discard: RCPT from {C}: <x>: no; {ENVELOPE}", CLIENT]),
    ("sendmail", [f"sendmail[1]: {S}: from=<s@c.example>, size=500, class=0, nrcpts=2, msgid=<m1@c.example>, "
                  "proto=ESMTP, daemon=MTA, relay=c.example [192.0.2.4]", f"sendmail[1]: {S}: Milter: data, discard"]),
    ("sendmail", [f"sendmail[1]: {S}: discarded"]),
    ("sendmail", [f"sendmail[1]: {S}: ruleset=check_eom, arg1=500, relay=c.example [192.0.2.4], discard"]),
    ("exim", [f"{E} <= s@c.example {H} P=esmtp S=500", f"{E} => blackhole (DATA ACL discarded recipients)",
              f"{E} Completed"]),
    ("exim", [f"{E} <= s@c.example {H} P=esmtp S=500", f"{E} frozen by ACL"]),
    ("exim", [f"{E} {H} F=<s@c.example> rejected after DATA: spam"]),
    ("exim", [f"{E} {H} F=<s@c.example> rejected during MIME ACL checks: no"]),
    ("exim", [f"{E} {H} F=<s@c.example> rejected by local_scan(): no"]),
    ("opensmtpd", [f'smtpd[1]: {SESSION} failed-command command="." result="550 spam"']),
    ("opensmtpd", [f'smtpd[1]: {SESSION} failed-command command="DATA" result="451 later"']),
    ("qmail", ["mailfront[1]: MAIL FROM:<s@c.example>", "mailfront[1]: RCPT TO:<t@d.example>",
               "mailfront[1]: RCPT TO:<r@d.example>", "mailfront[1]: 554 spam"]),
]  # fmt: skip
NAMED = [
    ("postfix", [f"postfix/smtpd[1]: NOQUEUE: reject: RCPT from {C}: 550 5.1.1 no; {ENVELOPE}"]),
    ("postfix", [*UNNAMED[0][1], f"postfix/qmgr[1]: {A}: from=<s@c.example>, size=500, nrcpt=1 (queue active)",
                 f"postfix/smtp[1]: {A}: to=<r@d.example>, relay=d.example[192.0.2.9]:25, delay=1, delays=1/0/0/0, "
                 "dsn=2.0.0, status=sent (ok)", f"postfix/qmgr[1]: {A}: removed"]),
    ("sendmail", [*UNNAMED[11][1], f"sendmail[1]: {S}: discarded",
                  f"sendmail[1]: {S}: to=<r@d.example>, delay=00:00:01, pri=500, stat=discarded"]),
    ("exim", [f"{H} F=<s@c.example> rejected RCPT <r@d.example>: no"]),
    ("exim", [f"{E} <= s@c.example {H} P=esmtp S=500 for r@d.example",
              f"{E} => blackhole (DATA ACL discarded recipients)", f"{E} Completed"]),
    ("opensmtpd", [f'smtpd[1]: {SESSION} failed-command command="RCPT TO:<r@d.example>" result="550 no"']),
    ("qmail", ["mailfront[1]: MAIL FROM:<s@c.example>", "mailfront[1]: RCPT TO:<t@d.example>", "mailfront[1]: 550 no",
               "mailfront[1]: RCPT TO:<r@d.example>", "mailfront[1]: 550 never"]),
]  # fmt: skip


def traced(directory: Path, mta: str, lines: list[str], **criteria: Any) -> tuple[list[tuple[str, str]], int]:
    """Recipients with their fates, and of how many mails the run says that they may have been for the one asked for."""
    host = LogHost(mta, directory)
    head = "2026-11-21 19:39:00Z " + ("" if mta in ("qmail", "exim") else "mx1 ")
    host.put("mail.log", "".join(f"{head}{line}\n" for line in lines).encode())
    data = host.data(TRACES[mta].message_trace, MessageTrace(**criteria))
    counts = [re.search(r"not every recipient: (\d+);", note) for note in data["notes"]]
    return [(row["recipient"], row["status"]) for row in data["rows"]], sum(int(count[1]) for count in counts if count)


@pytest.mark.parametrize(("mta", "lines"), UNNAMED)
def test_mail_that_may_have_been_for_the_recipient_too_is_counted(mta: str, lines: list[str], tmp_path: Path) -> None:
    asked = "other@d.example" if mta != "qmail" else "t@d.example"
    assert traced(tmp_path, mta, lines, recipient=asked) == ([], 1)


@pytest.mark.parametrize(("mta", "lines"), NAMED)
def test_mail_whose_recipients_are_all_named_is_not_counted(mta: str, lines: list[str], tmp_path: Path) -> None:
    assert traced(tmp_path, mta, lines, recipient="other@d.example") == ([], 0)


@pytest.mark.parametrize(("mta", "lines"), [UNNAMED[0], UNNAMED[5]])
def test_who_is_found_was_not_missed(mta: str, lines: list[str], tmp_path: Path) -> None:
    [(recipient, _)], counted = traced(tmp_path, mta, lines, recipient="r@d.example")
    assert (recipient, counted) == ("r@d.example", 0)


@pytest.mark.parametrize(
    "criteria",
    [
        {"sender": "s@c.example"},
        {"recipient": "other@d.example", "sender": "x@c.example"},
        {"recipient": "other@d.example", "until": datetime(2026, 11, 21, 19, 30, tzinfo=UTC)},
        {"recipient": "other@d.example", "since": timedelta(seconds=10)},
    ],
)
def test_only_mail_that_fits_what_else_is_asked_for_is_counted(criteria: dict[str, Any], tmp_path: Path) -> None:
    assert traced(tmp_path, *UNNAMED[0], **criteria)[1] == 0
