"""host.discover: shells, facts and Postfix instances, from answers as real hosts give them."""

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.mta.adapter import REPLACES
from fleet.mta.errors import LoginShell, UnparsedOutput
from fleet.mta.host import discovery
from fleet.mta.postfix.discovery import parse_instances
from fleet.mta.qmail import discovery as qmail
from fleet.mta.records import HostFacts
from fleet.mta.sendmail import discovery as sendmail
from fleet.mta.steps import Command, Completed
from fleet.ssh.quoting import script_text

FACTS = b"""time 1795180000
uid 1000
shell /bin/bash
os Debian GNU/Linux 12 (bookworm)
sudo yes
service init
log /var/log/mail.log
log journald
helper postfix_log.sh 0a1b
end
"""
POSTFIX = b"""instance /etc/postfix
mail_version = 3.7.11
command_directory = /usr/sbin
queue_directory = /var/spool/postfix
multi_instance_name =
authorized_mailq_users = static:anyone
authorized_flush_users = static:anyone
hash_queue_names = deferred, defer
maillog_file =
hold flat
instance /etc/postfixEXT
mail_version = 3.7.11
command_directory = /usr/sbin
queue_directory = /var/spool/postfixEXT
multi_instance_name = postfix-EXT
authorized_mailq_users = root
authorized_flush_users = root
hash_queue_names = deferred, hold
maillog_file = /var/log/ext.log
enable_long_queue_ids = yes
hold flat
instance /etc/postfixOLD
unreadable
end
"""
SENDMAIL = b"""program /usr/sbin/sendmail
version 8.18.1
flock yes
config /etc/mail/sendmail.cf
line O QueueDirectory=/var/spool/mqueue/q*
end
"""
QMAIL = b"""home /var/qmail
queue unreadable
control me mx1.example.com
end
"""


def passwd(shell: str) -> Completed:
    return Completed(0, f"fleetops:x:1000:1000:,,,:/home/fleetops:{shell}\n".encode())


@pytest.mark.parametrize(("said", "is_told"), [(b"exchange none\n", True), (b"exchange perl\n", False), (b"", False)])
def test_instances_know_that_nothing_on_their_host_exchanges_files(said: bytes, is_told: bool) -> None:
    steps = discovery.discover_host("mx1")
    answers = {"discover_host.sh": FACTS.replace(b"end\n", said + b"end\n"), "postfix_discover.sh": POSTFIX}
    answer: Any = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            facts, instances = end.value
            break
        assert isinstance(step, Command)
        answer = Completed(0, answers.get(step.script or "", b"absent\n")) if step.script else passwd("/bin/sh")
    assert facts.exchange == said.decode().partition(" ")[2].strip()
    assert len(instances) == 2
    assert all(instance.options.get(REPLACES, False) is is_told for instance in instances)


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh", "/usr/bin/zsh", "/bin/dash", ""])
def test_posix_shells_are_fine(shell: str) -> None:
    assert discovery.parse_shell(passwd(shell)) == (shell or "/bin/sh")


@pytest.mark.parametrize("shell", ["/usr/bin/fish", "/bin/tcsh", "/bin/csh", "/usr/bin/nu", "/usr/sbin/nologin"])
def test_other_shells_are_refused_by_name(shell: str) -> None:
    with pytest.raises(LoginShell, match=shell):
        discovery.parse_shell(passwd(shell))


@pytest.mark.parametrize(
    "done", [Completed(0), Completed(1, stderr=b"Unknown command"), Completed(0, b"Welcome!\n"), Completed(127)]
)
def test_a_shell_that_does_not_answer_is_refused(done: Completed) -> None:
    with pytest.raises(LoginShell, match="did not run"):
        discovery.parse_shell(done)


def test_facts_are_read_and_the_skew_is_ours_against_theirs() -> None:
    facts = discovery.parse_facts(Completed(0, FACTS), "/bin/bash", 1795179990.0)
    assert facts == HostFacts(
        os="Debian GNU/Linux 12 (bookworm)",
        login_shell="/bin/bash",
        has_sudo=True,
        is_root=False,
        clock_skew=10.5,
        service_manager="init",
        log_source="/var/log/mail.log",
        helpers=(("postfix_log.sh", "0a1b"),),
    )
    assert discovery.parse_facts(Completed(0, FACTS), "/bin/bash", None).clock_skew is None


@pytest.mark.parametrize("answer", [FACTS[:-4], FACTS[:40], b"end\n", b""])
def test_a_description_that_is_cut_off_is_no_description(answer: bytes) -> None:
    with pytest.raises(UnparsedOutput):
        discovery.parse_facts(Completed(0, answer), "/bin/bash", None)


def test_every_instance_is_found_with_what_later_operations_need() -> None:
    first, second = parse_instances(Completed(0, POSTFIX), HostFacts(log_source="journald"), "mx1")
    assert (first.id, second.id) == ("mx1/postfix", "mx1/postfixEXT")
    assert (first.version, first.config_dir, first.queue_dirs) == ("3.7.11", "/etc/postfix", ("/var/spool/postfix",))
    wanted = ("list_as_root", "flush_as_root", "has_long_ids", "can_quarantine", "log_source")
    assert [first.options[key] for key in wanted] == [False, False, False, True, "journald"]
    assert [second.options[key] for key in wanted] == [True, True, True, False, "/var/log/ext.log"]


def test_a_host_without_postfix_has_no_instances() -> None:
    assert parse_instances(Completed(0, b"absent\n"), HostFacts(), "mx1") == ()


def test_an_answer_that_is_cut_off_is_not_a_host_with_fewer_instances() -> None:
    with pytest.raises(UnparsedOutput):
        parse_instances(Completed(0, POSTFIX[:-4]), HostFacts(), "mx1")


def test_the_whole_discovery_asks_shell_host_and_every_adapter() -> None:
    answers = {None: passwd("/bin/bash"), "discover_host.sh": Completed(0, FACTS)}
    answers["postfix_discover.sh"] = Completed(0, POSTFIX)
    times = iter([1795179989.0, 1795179991.0])
    steps = discovery.discover_host("mx1", lambda: next(times))
    answer: Any = None
    while True:
        try:
            command = steps.send(answer)
        except StopIteration as end:
            facts, instances = end.value
            break
        assert not command.mutates
        answer = answers.get(command.script, Completed(0, b"absent\n"))
    assert facts.clock_skew == 10.5
    assert [each.id for each in instances if each.mta == "postfix"] == ["mx1/postfix", "mx1/postfixEXT"]


def test_a_login_that_prints_is_named_with_what_to_do() -> None:
    steps = discovery.discover_host("mx1")
    next(steps)
    steps.send(replace(passwd("/bin/bash"), noise=b"Welcome to mx1\nDisk: 93 %\n"))
    answers = iter([Completed(0, FACTS), *[Completed(0, b"absent\n")] * 9])
    while True:
        try:
            steps.send(next(answers))
        except StopIteration as end:
            facts, _ = end.value
            break
    assert facts.login_noise == "Welcome to mx1\nDisk: 93 %\n"
    assert "'Welcome to mx1'" in facts.notes[0]
    assert "make it silent" in facts.notes[0]


@pytest.mark.parametrize(
    ("age", "has_journal", "told"),
    [(0, True, "file"), (3, True, "file"), (20, True, "journald"), (20, False, "file")],
)
def test_a_log_that_nobody_writes_to_any_more_is_not_the_log_of_a_host_with_a_journal(
    age: int, has_journal: bool, told: str, tmp_path: Path
) -> None:
    (tmp_path / "log").mkdir()
    log = tmp_path / "log/mail.log"
    log.write_text("old\n")
    os.utime(log, (time.time() - age * 86_400,) * 2)
    (tmp_path / "journalctl").write_text("#!/bin/sh\n")
    (tmp_path / "journalctl").chmod(0o755)
    if has_journal:
        (tmp_path / "journal").mkdir()
    text, _ = script_text("discover_host.sh")
    text = text.replace("/var/log", f"{tmp_path}/log").replace("/run/systemd/journal", f"{tmp_path}/journal")
    done = subprocess.run(
        ["sh", "-c", text, "x", "/none"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True
    )
    first = next(line for line in done.stdout.splitlines() if line.startswith("log "))
    assert first == ("log journald" if told == "journald" else f"log {log}")


def test_the_probe_survives_shells_that_are_not_posix() -> None:
    assert not set(discovery.PROBE) & set("\n\\!'")


DENIED = Completed(1, b"", b"sudo: a password is required\n")
"""What `may_be_denied` commands are answered; others never see it."""


def ended(steps: Any, *answers: Completed) -> Any:
    """What the steps return; the last answer is to a command that may be denied."""
    command = next(steps)
    for answer in answers[:-1]:
        command = steps.send(answer)
    assert command.may_be_denied
    with pytest.raises(StopIteration) as end:
        steps.send(answers[-1])
    return end.value.value


def test_sendmail_is_found_before_sudo_allows_anything() -> None:
    """The lines for sudoers are made from what discovery found, so it has to come first."""
    (found,) = ended(sendmail.discover(HostFacts(), "mx1"), Completed(0, SENDMAIL), DENIED)
    assert found.queue_dirs == ("/var/spool/mqueue/q*",)


def test_qmail_is_found_though_sudo_allows_other_commands_only() -> None:
    (found,) = ended(qmail.discover(HostFacts(has_sudo=True), "mx1"), Completed(0, QMAIL), DENIED)
    assert found.options["split"] == 0


@pytest.mark.parametrize(
    ("program", "version"),
    [
        (b"\x7fELF\x00 214 qmail home page: http://pobox.example/qmail.html\0", "1.03"),
        (b"\x7fELF\x00 214 netqmail home page: http://qmail.example/\0", "netqmail"),
        (b"\x7fELF\x00 214 notqmail home page: https://notqmail.example\0", "notqmail"),
        (b"\x7fELF\0", ""),
        (None, ""),
    ],
)
def test_qmails_flavour_is_told_by_its_own_words(program: bytes | None, version: str, tmp_path: Path) -> None:
    for name in ("queue/mess/0", "queue/todo", "control", "bin"):
        (tmp_path / name).mkdir(parents=True)
    if program is not None:
        (tmp_path / "bin/qmail-smtpd").write_bytes(program)
    text, _ = script_text("qmail_discover.sh")
    env = {"PATH": "/usr/bin:/bin", "QMAILHOME": str(tmp_path)}
    done = subprocess.run(["sh", "-c", text, "x"], env=env, capture_output=True)
    answer = qmail.parse_answer(Completed(done.returncode, done.stdout, done.stderr))
    assert next(home.version for home in answer.homes if home.path == str(tmp_path)) == version
