"""What strangers write into logs tells no fate of mail, hides none, and makes no reader slow or large."""

from time import process_time
from typing import Any

import pytest

from fleet.mta.exim.logs import Lines as EximLines
from fleet.mta.logs import rows
from fleet.mta.logs.rows import Delivery, Trace
from fleet.mta.logs.source import Window
from fleet.mta.logs.wanted import Wanted
from fleet.mta.opensmtpd.attempt import attempt_result as opensmtpd_result
from fleet.mta.opensmtpd.logs import Lines as OpenSmtpdLines
from fleet.mta.operations import MessageTrace
from fleet.mta.postfix.attempt import attempt_result as postfix_result
from fleet.mta.postfix.attempt import attempts_of as postfix_attempts
from fleet.mta.postfix.lines import line_of
from fleet.mta.qmail.attempt import attempt_result as qmail_result
from fleet.mta.records import QueueEntry, Recipient
from fleet.mta.sendmail.logs import Lines as SendmailLines
from tests.unit.test_trace_postfix import VIA, A, B, came, parsed, removed, told, went

Told = list[tuple[str, str]]
SENT = "dsn=2.0.0, status=sent (250 ok)"


def trace_of(**criteria: str) -> Trace:
    return Trace(Wanted.of(MessageTrace(**criteria or {"recipient": "*"}), str), Window(0, 1000))


def read(lines: Any, *texts: str) -> list[dict[str, Any]]:
    trace = trace_of()
    reader = lines(trace)
    for at, text in enumerate(texts, 1):
        reader.take(float(at), text)
    return trace.rows()


def entry(queue_id: str, *recipients: str) -> QueueEntry:
    waiting = tuple(Recipient(each) for each in recipients)
    return QueueEntry(queue_id, "deferred", "deferred", 1.0, "s@c.example", waiting, 1)


@pytest.mark.parametrize(
    "cut",
    [
        f'to=<"x, {VIA}, {SENT}',
        f'to=<"x>, {VIA}, {SENT}',
        f'to=<r@d.example>, orig_to=<"x, {VIA}, {SENT}',
        f'to=<", relay=x, orig_to=<v@x.example>, {SENT}',
        f"to=<x, {VIA}, {SENT}",
    ],
)
def test_postfix_fields_within_an_address_that_syslog_cut_are_no_fields(cut: str) -> None:
    data = parsed(*came(), f"smtp[103]: {A}: {cut}", recipient="*")
    assert {status for _, status in told(data)} == {"unclear"}
    assert {each.outcome for each in postfix_attempts([f"mx1 postfix/smtp[1]: {A}: {cut}"], A)} == {"unclear"}


def test_a_line_of_postfix_within_another_programs_line_is_not_postfixs() -> None:
    """Dovecot's tag has no pid, and its login lines have the name that a client gives."""
    forged = f"mx1 dovecot: imap-login: Aborted login: user=<postfix/smtp[1]: {A}: to=<r@d.example>, {VIA}, {SENT}"
    assert line_of(forged) is None
    assert line_of(f"Nov 21 12:00:01 {forged}") is None
    assert postfix_attempts([forged], A) == []


def test_mails_of_a_list_with_one_message_id_do_not_hand_each_other_over() -> None:
    """A list manager gives its copies back by SMTP on loopback."""
    here = "localhost[127.0.0.1]"
    by_local = "relay=local, delay=1, dsn=2.0.0, status=sent (delivered to mailbox)"
    lines = (*came(A, client=here), *came(B, client=here), went(A, by_local), removed(), went(B, by_local), removed(B))
    assert told(parsed(*lines)) == [("r@d.example", "sent")] * 2


SENDMAIL = "mx1 sm-mta[1]: 5AL0d1Xq012345: "
REFUSED = "relay=c.example [192.0.2.4], reject=550 5.7.1 no"


@pytest.mark.parametrize(
    ("fate", "status"),
    [
        ("dsn=5.1.1, reply=550 no, stat=User unknown", "bounced"),
        ("dsn=2.0.0, stat=Sent", "sent"),
        ("dsn=4.0.0, stat=Deferred: 451 later", "deferred"),
        ("dsn=4.0.0, reply=451 x, stat=Sent (250 ok) cut", "unclear"),
    ],
)
@pytest.mark.parametrize("controlling", ['<"joe+x, reply=250 ok"@d.example> (1/1)', '<"joe+, stat=Sent"@d.example>'])
def test_fields_within_sendmails_controlling_address_are_no_fields(controlling: str, fate: str, status: str) -> None:
    [row] = read(SendmailLines, f"{SENDMAIL}to=<r@d.example>, ctladdr={controlling}, delay=00:00:01, mailer=x, {fate}")
    assert row["status"] == status


def test_a_line_of_sendmail_that_was_cut_in_an_address_is_unclear() -> None:
    [row] = read(SendmailLines, f'{SENDMAIL}to=<r@d.example>, ctladdr=<"x, mailer=local, stat=User unknown')
    assert row["status"] == "unclear"


@pytest.mark.parametrize("local", ['", arg2=v@x.example"', '"a>, arg2=b"', "plain", "a.b"])
def test_the_argument_of_a_ruleset_is_the_whole_address(local: str) -> None:
    address = f"{local}@d.example"
    [row] = read(SendmailLines, f"{SENDMAIL}ruleset=check_rcpt, arg1=<{address}>, {REFUSED}")
    assert (row["recipient"], row["status"]) == (address, "rejected")


def test_sendmail_and_opensmtpd_double_backslashes_so_that_a_quote_may_go_on_behind_them() -> None:
    r"""`"a\", mailer=x"@d.example` as str2prt() and vis(3) log it: a reader that does not know ends there."""
    address = r'"a\", mailer=x, dsn=4.0.0, reply=x\""@d.example'
    logged = address.replace("\\", "\\\\")
    fate = "delay=00:00:01, mailer=esmtp, relay=mx [192.0.2.9], dsn=5.1.1, stat=User unknown"
    [row] = read(SendmailLines, f"{SENDMAIL}to=<{logged}>, {fate}")
    assert (row["recipient"], row["status"], row["relay"]) == (address, "bounced", "mx [192.0.2.9]")
    command = f'command="RCPT TO:<{logged}>" result="550 no"'
    [row] = read(OpenSmtpdLines, f"mx1 smtpd[5]: b8b4f4bba48aeccc smtp failed-command {command}")
    assert (row["recipient"], row["status"]) == (address, "rejected")


def test_an_address_that_exim_logs_in_small_letters_is_told_as_it_was_given() -> None:
    line = '=> a, b=sent@d.example <"A, b=Sent"@d.example> R=r T=t H=h.x [192.0.2.9] C="250 ok"'
    [row] = read(EximLines, f"1abcDE-0004Fg-2H {line}")
    assert (row["recipient"], row["orig_to"], row["status"]) == ('"A, b=Sent"@d.example', "", "sent")


def test_a_milter_that_refuses_with_the_word_discarded_discards_nothing() -> None:
    refused = (f"{SENDMAIL}Milter: data, reject=550 5.7.1 discarded", f"{SENDMAIL}to=<r@d.example>, stat=discarded")
    assert [row["status"] for row in read(SendmailLines, *refused)] == ["rejected"]


def test_the_recipient_of_a_refused_command_ends_with_its_bracket() -> None:
    command = 'command="RCPT TO:<r@d.example> to=<v@x.example>" result="550 no"'
    [row] = read(OpenSmtpdLines, f"mx1 smtpd[5]: b8b4f4bba48aeccc smtp failed-command {command}")
    assert row["recipient"] == "r@d.example"


def opensmtpd(user: str, result: str, reply: str) -> str:
    fields = f"evpid=a4fdd7ea0000000{user} from=<s@c.example> to=<{user}@d.example> rcpt=<-> delay=1s"
    return f'mx1 smtpd[5]: b8b4f4bba48aeccc mta delivery {fields} relay="x" result="{result}" stat="{reply}"'


def postfix(user: str, status: str, reply: str) -> str:
    return f"mx1 postfix/smtp[1]: {A}: to=<{user}@d.example>, {VIA}, status={status} ({reply})"


def test_a_bounce_whose_line_a_remote_host_made_unreadable_is_not_sent() -> None:
    """Its reply stands in the line: one recipient is sent, of the other it is not known."""
    two = ("a@d.example", "b@d.example")
    odd = [opensmtpd("a", "Ok", "250 ok"), opensmtpd("b", "PermFail", '550 stat="250 ok')]
    assert opensmtpd_result(entry("a4fdd7ea", *two), None, odd).data["outcome"] == "left_queue"
    odd = [postfix("a", "sent", "250 ok"), postfix("b", "bounced", "550 x, status=sent (250 ok")]
    assert postfix_result(entry(A, *two), None, odd).data["outcome"] == "left_queue"


QMAIL = ["starting delivery 1: msg 7 to remote a@d.example", "starting delivery 2: msg 7 to remote b@d.example",
         "delivery 1: success: ok/"]  # fmt: skip


@pytest.mark.parametrize("lines", [QMAIL, [QMAIL[0], QMAIL[2]]])
def test_a_recipient_whose_line_is_missing_is_not_sent(lines: list[str]) -> None:
    """syslog drops lines of who logs much."""
    two = ("a@d.example", "b@d.example")
    assert qmail_result(entry("7", *two), None, lines).data["outcome"] == "left_queue"
    assert qmail_result(entry("7", two[0], two[0]), None, [QMAIL[0], QMAIL[2]]).data["outcome"] == "sent"
    sent = [postfix("a", "sent", "250 ok")]
    assert postfix_result(entry(A, *two), None, sent).data["outcome"] == "left_queue"
    assert postfix_result(entry(A, two[0]), None, sent).data["outcome"] == "sent"
    ok = [opensmtpd("a", "Ok", "250 ok")]
    assert opensmtpd_result(entry("a4fdd7ea", *two), None, ok).data["outcome"] == "left_queue"


def test_a_mail_to_many_is_read_in_time_that_grows_with_their_number() -> None:
    def cpu(count: int) -> float:
        begun = process_time()
        lines = (f"1abcDE-0004Fg-2H == r{at}@d.example R=r T=t defer (-1): later" for at in range(count))
        read(EximLines, "1abcDE-0004Fg-2H <= s@c.example H=x [192.0.2.4] P=esmtp S=1", *lines)
        return process_time() - begun

    cpu(100)
    assert cpu(4000) < 30 * cpu(400)


def test_recipients_of_open_messages_are_bounded_and_each_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_RECIPIENTS", 100)
    trace = trace_of()
    for at in range(1000):
        trace.delivered("ONE", f"r{at}@d.example", Delivery(1.0, "rejected", reply="x" * 5000))
        message = trace.known("ONE")
        assert message is not None
        assert len(message.recipients) <= 101
        assert {len(each.reply) for each in message.recipients.values()} == {rows.LONGEST_TEXT}
    assert len(trace.rows()) == trace.totals["rejected"] == 1000


def test_a_line_that_was_not_understood_is_cut_and_found_by_all_of_it() -> None:
    line = f"{'x' * 5000} to=<v@x.example>"
    for searched, found in (("v@x.example", [1000]), ("w@x.example", [])):
        trace = trace_of(recipient=searched)
        trace.not_understood("A", 1.0, line)
        assert [len(row["reply"]) for row in trace.rows()] == found
