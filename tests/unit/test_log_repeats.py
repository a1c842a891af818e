"""Equal lines that syslogd wrote once: "last message repeated 3 times" counts for the line before it in its file."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from fleet.mta import exim, opensmtpd, postfix, sendmail
from fleet.mta.logs.heads import MOST_REPEATED, Repeats
from fleet.mta.operations import LogSearch, MessageTrace
from fleet.ssh.quoting import script_text
from tests.unit.log_host import LogHost

STAMP = "Nov 21 19:39:00 mx1 "
ENVELOPE = "from=<s@c.example> to=<r@d.example> proto=ESMTP helo=<c.example>"
REFUSED = {
    "postfix": f"postfix/smtpd[1]: NOQUEUE: reject: RCPT from c.example[192.0.2.4]: 550 5.1.1 no; {ENVELOPE}",
    "sendmail": "sendmail[1]: 6ALC00aB008740: ruleset=check_rcpt, arg1=<r@d.example>, relay=c.example [192.0.2.4], "
    "reject=550 5.1.1 <r@d.example>... no",
    "exim": "exim[1]: H=c.example [192.0.2.4] F=<s@c.example> rejected RCPT <r@d.example>: no",
    "opensmtpd": 'smtpd[1]: b8b4f4bba48aeccc smtp failed-command command="RCPT TO:<r@d.example>" result="550 no"',
}
OTHER = REFUSED["postfix"].replace("s@c.example", "x@c.example").replace("r@d.example", "y@e.example")
TWICE = "last message repeated 2 times"
TRACES: dict[str, Any] = {
    "postfix": postfix.Postfix, "sendmail": sendmail.Sendmail, "exim": exim.Exim, "opensmtpd": opensmtpd.OpenSmtpd,
}  # fmt: skip
COUNTED = "lines that could be read in two ways or not at all"


def traced(directory: Path, *lines: str, mta: str = "postfix", **criteria: Any) -> tuple[int, bool]:
    """How much mail was refused, and whether a note counts lines that were not understood."""
    host = LogHost(mta, directory)
    host.put("mail.log", "".join(f"{line if line.startswith('Nov') else STAMP + line}\n" for line in lines).encode())
    data = host.data(TRACES[mta].message_trace, MessageTrace(**criteria or {"recipient": "r@d.example"}))
    return data["totals"]["rejected"], any(COUNTED in note for note in data["notes"])


@pytest.mark.parametrize(
    "said",
    [
        TWICE,
        f"syslogd: {TWICE}",
        f"syslogd[7]: {TWICE}",
        "postfix/smtpd[1]: Last message 'NOQUEUE: reject: RCP' repeated 2 times, suppressed by syslog-ng on mx1",
        f"Nov 21 19:39:00 {TWICE}",
    ],
)
@pytest.mark.parametrize(
    "criteria", [{"recipient": "r@d.example"}, {"sender": "s@c.example"}, {"sender": "?@c.exampl?"}]
)
def test_equal_lines_count_as_often_as_they_came(said: str, criteria: dict[str, str], tmp_path: Path) -> None:
    lines = [OTHER.replace("x@c", "x@f"), REFUSED["postfix"], said]
    assert traced(tmp_path, *lines, **criteria) == (3, False)


@pytest.mark.parametrize("mta", ["sendmail", "exim", "opensmtpd"])
def test_it_is_so_for_every_mta_that_logs_by_syslog(mta: str, tmp_path: Path) -> None:
    """One mail each but for Sendmail, whose queue ID is the dialogue's."""
    expected = 1 if mta == "sendmail" else 3
    assert traced(tmp_path, REFUSED[mta], TWICE, mta=mta, recipient="*@d.example") == (expected, False)


def test_a_front_end_of_qmail_that_logs_by_syslog_is_counted_so_too(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    ours, others = "mailfront[7]: RCPT TO:<r@d.example>", "mailfront[8]: RCPT TO:<x@d.example>"
    log.write_text("".join(f"{STAMP}{line}\n" for line in (others, TWICE, ours, TWICE, TWICE, others, TWICE)))
    script = ["sh", "-c", script_text("read_log.sh")[0], "read_log.sh", "qmail", str(log)]
    done = subprocess.run(script, input="1\nr@d.example\n", capture_output=True, check=True, text=True)
    told = [line.removeprefix(f" {STAMP}") for line in done.stdout.splitlines() if line.startswith(" ")]
    assert told == [ours, TWICE, TWICE]


def test_a_second_count_is_of_the_same_line(tmp_path: Path) -> None:
    assert traced(tmp_path, REFUSED["postfix"], TWICE, "last message repeated 5 times", OTHER) == (8, False)


def test_what_stands_for_a_line_of_somebody_elses_counts_nothing(tmp_path: Path) -> None:
    assert traced(tmp_path, REFUSED["postfix"], OTHER, TWICE, REFUSED["postfix"], OTHER) == (2, False)


@pytest.mark.parametrize("lines", [[TWICE, REFUSED["postfix"]], [REFUSED["postfix"], f"Nov 21 19:39:00 mx2 {TWICE}"]])
def test_what_stands_for_a_line_that_is_not_there_is_told_and_counts_nothing(lines: list[str], tmp_path: Path) -> None:
    """At the beginning of a file; of another host, on a loghost."""
    assert traced(tmp_path, *lines) == (1, True)


def test_a_subject_cannot_pose_as_such_a_line(tmp_path: Path) -> None:
    hold = f"postfix/cleanup[1]: 4A1B2C3D4E: hold: header Subject: {TWICE} from c.example[192.0.2.4]; {ENVELOPE}"
    host = LogHost("postfix", tmp_path)
    host.put("mail.log", f"{STAMP}{REFUSED['postfix']}\n{STAMP}x\n{STAMP}{hold}\n".encode())
    data = host.data(postfix.Postfix.message_trace, MessageTrace(recipient="r@d.example"))
    assert [row["status"] for row in data["rows"]] == ["rejected", "held"]


def test_a_search_shows_the_line_as_it_stands(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    host.put("mail.log", f"{STAMP}x\n{STAMP}{TWICE}\n".encode())
    data = host.data(postfix.Postfix.log_search, LogSearch(contains="last message"))
    assert [each["line"] for each in data["lines"]] == [STAMP + TWICE]


def test_a_count_is_bounded_and_a_new_file_begins_with_nothing_before_it() -> None:
    repeats = Repeats()
    assert repeats.of("mx1 a[1]: x", "one") == ("mx1 a[1]: x", 1)
    assert repeats.of("mx1 last message repeated 999999999 times", "one") == ("mx1 a[1]: x", MOST_REPEATED)
    assert repeats.of(f"mx1 {TWICE}", "two") == (f"mx1 {TWICE}", 0)
