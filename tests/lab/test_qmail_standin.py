"""The qmail host's stand-in behaves as the real qmail-send where tests of the adapter rely on it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from tests.lab.config import OUTSIDER, LabError
from tests.lab.lab import Host, Lab
from tests.lab.qmail.control import SERVICE, fill, forget_violations, start_send, stop_send, violations
from tests.lab.sink import Rule
from tests.lab.waiting import await_true

pytestmark = pytest.mark.lab
QUEUE = "/var/qmail/queue"


def numbers(host: Host, part: str = "mess") -> list[int]:
    return [int(name) for name in host.sh(f"find {QUEUE}/{part} -type f -name '[0-9]*' -printf '%f\\n'").split()]


def path(part: str, number: int) -> str:
    return f"{QUEUE}/{part}/{number % 23}/{number}"


def said(host: Host) -> list[str]:
    """qmail-send's log, without its times."""
    return [line.partition(" ")[2] for line in host.sh("cat /var/log/qmail/qmail-send/current").splitlines()]


def wait(condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
    await_true(condition, seconds, what, 0.05)


def wait_said(host: Host, pattern: str, count: int = 1) -> list[str]:
    """The log lines that match, once there are that many."""
    wait(lambda: sum(bool(re.fullmatch(pattern, line)) for line in said(host)) >= count, f"{pattern} in the log")
    return [line for line in said(host) if re.fullmatch(pattern, line)]


def deferred(host: Host, *recipients: str, sender: str = "s@bulk.example") -> int:
    """A new message in the queue that has been tried once; its number."""
    before = set(numbers(host))
    tried = len([line for line in said(host) if ": deferral: " in line])
    assert host.inject(sender=sender, recipients=recipients or ("r@defer.test",)).accepted == 1
    wait_said(host, "delivery .*: deferral: .*", tried + 1)
    (number,) = set(numbers(host)) - before
    return number


def test_the_queue_has_the_true_format(qm1: Host) -> None:
    number = deferred(qm1, "a@defer.test", "b@ok.test", sender='"a b"@x.test')
    wait_said(qm1, "delivery .*: success: .*")
    assert qm1.sh(f"cat {path('info', number)}") == "Fa b@x.test\0"
    assert qm1.sh(f"cat {path('remote', number)}") == "Ta@defer.test\0Db@ok.test\0"
    look = "stat -c '%i %U %a'"
    assert qm1.sh(f"{look} {path('mess', number)}") == f"{number} qmailq 644\n"
    assert qm1.sh(f"{look} {path('remote', number)}").split()[1:] == ["qmails", "600"]
    assert not numbers(qm1, "todo")
    stop_send(qm1)
    qm1.inject(sender="late@bulk.example", recipients=("c@defer.test",))
    (new,) = numbers(qm1, "todo")
    assert numbers(qm1, "intd") == [new]
    assert qm1.sh(f"stat -c %h {QUEUE}/todo/{new}") == "2\n"
    assert re.fullmatch(r"u7791\0p\d+\0Flate@bulk\.example\0Tc@defer\.test\0", qm1.sh(f"cat {QUEUE}/todo/{new}"))
    assert qm1.sh(f"cat {path('mess', new)}").startswith("Received: (qmail ")
    assert qm1.sh("/var/qmail/bin/qmail-qstat").splitlines()[1].endswith(": 1")


def test_the_log_is_qmails(lab: Lab, qm1: Host) -> None:
    qm1.inject(sender="üx@bulk.example", recipients=("no@reject.test",), smtputf8=False)
    wait_said(qm1, "end msg .*", 2)
    shown = [re.sub(r"\b(qp|bytes|msg) \d+", r"\1 N", line) for line in said(qm1)]
    host = lab.sink.messages()[0]["client"].rpartition(".")[0] + ".203"
    failure = f"{host}_does_not_like_recipient./Remote_host_said:_550_5.1.1_sink:_no_such_user,_reject.test"
    assert shown[:9] == [
        "status: local 0/10 remote 0/40",
        "new msg N",
        "info msg N: bytes N from <__x@bulk.example> qp N uid 7791",
        "starting delivery 1: msg N to remote no@reject.test",
        "status: local 0/10 remote 1/40",
        f"delivery 1: failure: {failure}/Giving_up_on_{host}./",
        "status: local 0/10 remote 0/40",
        "bounce msg N qp N",
        "end msg N",
    ]
    assert not numbers(qm1)
    (bounce,) = lab.sink.wait(1)
    assert bounce["sender"] == ""
    assert "Subject: failure notice" in bounce["data"]


def test_a_bounce_that_bounces_goes_to_the_postmaster(qm1: Host) -> None:
    qm1.inject(sender="nobody@reject.test", recipients=("no@reject.test",))
    wait_said(qm1, "delivery .*: success: did_1.0.0/")
    assert "#@[]" in qm1.sh("cat /var/qmail/alias/Maildir/new/*")


def test_the_schedule_is_in_memory_while_it_runs_and_in_the_files_while_it_is_down(qm1: Host) -> None:
    one, two = deferred(qm1), deferred(qm1)
    qm1.sh(f"touch -d @1 {path('remote', one)}")
    stop_send(qm1)
    assert int(qm1.sh(f"stat -c %Y {path('remote', one)}")) > time.time() + 3000
    qm1.sh(f"touch -d @1 {path('remote', two)}")
    start_send(qm1)
    wait_said(qm1, "delivery .*: deferral: .*", 3)
    assert wait_said(qm1, "starting delivery .*")[-1].startswith(f"starting delivery 1: msg {two} ")
    assert [line.split(" ", 1)[1] for line in violations(qm1)] == [
        f"attributes changed remote/{one % 23}/{one}",
    ]
    forget_violations(qm1)


def test_a_message_that_is_too_old_is_returned(lab: Lab, qm1: Host) -> None:
    number = deferred(qm1)
    stop_send(qm1)
    qm1.sh(f"touch -c -d @1 {path('info', number)} {path('remote', number)}")
    start_send(qm1)
    (bounce,) = lab.sink.wait(1, "s@bulk.example")
    assert "has been in the queue too long" in bounce["data"]


def test_alarm_tries_everything_and_hangup_reads_the_domains_again(lab: Lab, qm1: Host) -> None:
    deferred(qm1)
    deferred(qm1)
    with lab.sink.answering("defer.test", Rule()):
        qm1.sh(f"svc -a {SERVICE}")
        assert len(lab.sink.wait(2, "r@defer.test")) == 2
    qm1.sh(f"echo ok.test >> /var/qmail/control/locals; svc -h {SERVICE}")
    qm1.inject(recipients=("fleetops@ok.test",))
    assert wait_said(qm1, "delivery .*: success: did_1.0.0/")


def test_a_stop_waits_for_the_running_delivery_and_starts_no_other(lab: Lab, qm1: Host) -> None:
    lab.sink.set("slow.test", Rule(delay=4.0))
    qm1.inject(recipients=("r@slow.test",))
    wait_said(qm1, "starting delivery .*")
    qm1.sh(f"svc -d {SERVICE}")
    await_true(lambda: "want down" in qm1.sh(f"svstat {SERVICE}"), 1, pause=0.02)
    qm1.inject(recipients=("r@ok.test",))
    stop_send(qm1)
    assert lab.sink.messages("r@slow.test")
    assert not lab.sink.messages("r@ok.test")
    assert len(numbers(qm1, "todo")) == 1
    assert said(qm1)[-1] == "status: exiting"
    start_send(qm1)
    assert lab.sink.wait(1, "r@ok.test")


def test_there_is_only_one_qmail_send(qm1: Host) -> None:
    second = qm1.exec("PATH=/var/qmail/bin:$PATH qmail-start ./Maildir/")
    assert second.returncode == 111
    assert second.stdout == "alert: cannot start: qmail-send is already running\n"


def test_a_full_home_directory_keeps_local_mail_queued(qm1: Host) -> None:
    qm1.sh("chmod +t /home/fleetops")
    number = deferred(qm1, "fleetops@qm1.lab.test")
    assert qm1.sh(f"cat {path('local', number)}") == "Tfleetops@qm1.lab.test\0"


CHANGES = {
    "rm": ("rm {mess}", ["removed mess/{s}/{id}"]),
    "touch": ("touch -d @1 {remote}", ["attributes changed remote/{s}/{id}"]),
    "chmod": ("chmod 644 {info}", ["attributes changed info/{s}/{id}"]),
    "edit": ("printf D | dd of={remote} conv=notrunc status=none", ["modified remote/{s}/{id}"]),
    "sed": ("sed -i s/T/D/ {remote}; rm -f {remote}.*", ["moved in remote/{s}/{id}"]),
    "move out": ("mv {info} /var/qmail/taken", ["moved out info/{s}/{id}"]),
    "move in": ("cp {mess} /var/qmail/x; mv /var/qmail/x {queue}/mess/5/5", ["moved in mess/5/5"]),
    "copy in": ("cp {mess} {queue}/mess/6/6", ["created mess/6/6"]),
    "link in": ("ln {mess} {queue}/todo/5", ["created todo/5"]),
    "new bounce": ("echo no > {queue}/bounce/{id}", ["created bounce/{id}"]),
    "directory": ("mv {queue}/bounce {queue}/b; mv {queue}/b {queue}/bounce", ["moved out ./bounce"]),
    "lock": ("rm {queue}/lock/trigger", ["removed lock/trigger"]),
}


def test_every_change_by_others_while_it_runs_is_recorded(qm1: Host) -> None:
    for name, (command, recorded) in CHANGES.items():
        number = deferred(qm1) if name != "lock" else 0
        places = {part: path(part, number) for part in ("mess", "info", "remote")}
        qm1.sh(command.format(queue=QUEUE, id=number, **places))
        expected = {line.format(s=number % 23, id=number) for line in recorded}
        wait(lambda: bool(violations(qm1)), f"{name} is recorded")
        assert expected <= {line.split(" ", 1)[1] for line in violations(qm1)}, name
        forget_violations(qm1)


def test_a_message_that_is_waiting_in_todo_belongs_to_qmail_send_too(qm1: Host) -> None:
    """It is stopped in its tracks here, so that the message stays there for a moment."""
    qm1.sh("pkill -STOP -x qmail-send")
    qm1.inject(recipients=("r@defer.test",))
    (number,) = numbers(qm1, "todo")
    qm1.sh(f"rm {path('mess', number)}; pkill -CONT -x qmail-send")
    wait(lambda: bool(violations(qm1)), "the removal is recorded")
    assert [line.split(" ", 1)[1] for line in violations(qm1)] == [f"removed mess/{number % 23}/{number}"]
    forget_violations(qm1)


def test_ordinary_life_and_changes_while_it_is_down_are_no_violation(lab: Lab, qm1: Host) -> None:
    qm1.inject(n=150, recipients=("r{i}@ok.test", "r{i}@defer.test"))
    qm1.inject(n=20, recipients=("r{i}@reject.test",), source=OUTSIDER)
    qm1.inject(n=10, recipients=("fleetops@qm1.lab.test",))
    lab.sink.wait(170, seconds=30)
    stop_send(qm1)
    for number in numbers(qm1)[:50]:
        qm1.sh(f"cd {QUEUE}; rm */{number % 23}/{number}")
    start_send(qm1)
    qm1.sh("pkill -KILL -x qmail-send")
    wait(lambda: said(qm1)[-1].startswith("status: local 0/10 remote 0/40"), "it is started again")
    with lab.sink.answering("defer.test", Rule()):
        qm1.sh(f"svc -a {SERVICE}")
        lab.sink.wait(270, seconds=30)
        wait(lambda: not numbers(qm1), "an empty queue")
    assert violations(qm1) == []


def test_thousands_are_put_into_the_queue_at_once(qm1: Host) -> None:
    stop_send(qm1)
    fill(qm1, 2000, "--from", "n{i}@x.test", "--to", "a{i}@defer.test", "--to", "b@ok.test", "--subject", "s {i}")
    fill(qm1, 3, "--todo")
    assert len(numbers(qm1, "remote")) == 2000
    start_send(qm1)
    wait_said(qm1, "delivery .*: deferral: .*", 3)
    listed = qm1.sh("/var/qmail/bin/qmail-qread")
    assert listed.count("\tremote\tb@ok.test\n") == 2000
    assert sum(" GMT  #" in line for line in listed.splitlines()) == 2003
    with pytest.raises(LabError, match="BlockingIOError"):
        fill(qm1, 1)


def test_everything_can_be_stopped_and_started(qm1: Host) -> None:
    qm1.stop_mta()
    assert qm1.exec("pgrep 'svscan|supervise|multilog|tcpserver|qmail'").stdout == ""
    qm1.start_mta()
    assert deferred(qm1)
