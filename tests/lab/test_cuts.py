"""On every MTA: what is read back of a purge or restore that was cut off is what is so, and no mail is lost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from fleet import match
from fleet.mta.adapter import adapter_for
from fleet.mta.operations import QueueHold, QueueList, QueuePurge, Selection
from fleet.mta.records import Context, Result
from fleet.mta.steps import Steps
from fleet.ssh.endpoint import AddressPolicy
from fleet.ssh.engine import Engine
from tests.lab import test_exim_queue, test_opensmtpd_queue, test_postfix_queue, test_qmail_queue, test_sendmail_queue
from tests.lab.cuts import QUARANTINE, QUEUE, ROUNDS, Case, cut_rounds
from tests.lab.lab import Host, Lab
from tests.lab.qmail.control import SERVICE, fill, start_send, stop_send, violations
from tests.lab.sink import Rule
from tests.lab.test_qmail_cuts import change, snapshot
from tests.lab.test_qmail_queue import QMAIL

pytestmark = [pytest.mark.lab, pytest.mark.timeout(ROUNDS * 30 + 180)]
MESSAGES = 30
LOOK = "[q]mail_change.sh [a-z]"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    found = Engine(AddressPolicy())
    yield found
    found.close()


def filled(host: Host, waiting: Callable[[], int]) -> None:
    """So many messages in the queue, each tried once."""
    given = host.inject(n=MESSAGES, sender="news{i}@bulk.example", recipients=("r{i}@defer.test",), connections=2)
    assert given.accepted == MESSAGES, given.errors
    until = time.monotonic() + 60
    while waiting() != MESSAGES:
        assert time.monotonic() < until, f"{waiting()} of {MESSAGES} messages wait"
        time.sleep(0.2)


def by_find(host: Host, directory: str, expression: str, name: str) -> Callable[[], dict[str, str]]:
    """Where messages lie by their files; in both: the queue. `name`: a sed script that makes the queue ID of a path."""
    command = f"cd {directory} && find . {expression} | sed 's,^./,,' | while read -r path; do "
    command += f"case $path in *mxfleet-*) at={QUARANTINE} ;; *) at={QUEUE} ;; esac; "
    command += f'echo "$(echo "$path" | sed \'{name}\') $at"; done | sort -k 2'

    def places() -> dict[str, str]:  # "quarantine" sorts first, so that "queue" is what stays
        return dict(line.split() for line in host.sh(command).splitlines())

    return places


def postfix(engine: Engine, lab: Lab) -> Case:
    host = lab.host("pf3")
    host.reset()
    remote = test_postfix_queue.Remote(engine, host)
    instance = remote.instance
    filled(host, lambda: list(remote.states().values()).count("deferred"))
    places = by_find(
        host,
        instance.queue_dirs[0],
        "-path ./defer -prune -o -type f -name '[0-9A-Za-z]*' ! -name '*.restored' "
        "-regex '.*/\\(deferred\\|hold\\|active\\|incoming\\|mxfleet-quarantine\\)/.*' -print",
        "s,.*/,,",
    )
    return Case(adapter_for("postfix"), remote, "[p]ostfix_quarantine.sh [a-z]|[p]ostsuper -", places)


def sendmail(engine: Engine, lab: Lab) -> Case:
    host = lab.host("sm2")
    host.reset()
    remote = test_sendmail_queue.Remote(engine, host)
    filled(host, lambda: list(remote.states().values()).count("deferred"))
    places = by_find(host, "/var/spool/mqueue", "-type f -name '[qh]f*'", "s,.*/.f,,")
    return Case(adapter_for("sendmail"), remote, "[s]endmail_change.sh [a-z]", places)


def exim(engine: Engine, lab: Lab) -> Case:
    host = lab.host("ex3")
    host.reset()
    remote = test_exim_queue.Remote(engine, host)
    filled(host, lambda: list(remote.states().values()).count("queued"))
    places = by_find(host, remote.instance.queue_dirs[0], "-type f -name '*-H'", "s,.*/,,;s,-H$,,")
    return Case(adapter_for("exim"), remote, "[e]xim_quarantine.sh [a-z]|[e]xim4 .*-MG", places)


def opensmtpd(engine: Engine, lab: Lab) -> Case:
    host = lab.host("os2")
    host.reset()
    remote = test_opensmtpd_queue.Remote(engine, host, lab)
    filled(host, lambda: [entry["state"] for entry in remote.queue(limit=100)].count("deferred"))
    places = by_find(host, "/var/spool/smtpd", "-type f -name message", "s,/message$,,;s,.*/,,")
    running, guard = "[o]pensmtpd_quarantine.sh /", "[m]xfleet-quarantine/lock"
    return Case(adapter_for("opensmtpd"), remote, running, places, guard)


def qmail(engine: Engine, lab: Lab) -> Case:
    host = lab.host("qm1")
    host.reset()
    stop_send(host)
    fill(host, MESSAGES, "--from", "fill{i}@x.test")
    start_send(host)
    remote = test_qmail_queue.Remote(engine, host)

    def places() -> dict[str, str]:
        areas = {one.number: one.place for one in snapshot(host).values() if not one.sender.startswith("slow")}
        names = {"": QUEUE, "mxfleet-quarantine": QUARANTINE}
        return {name: names.get(area.partition("/job-")[0], area) for name, area in areas.items()}

    def prepare(chance: random.Random) -> None:
        if chance.random() < 0.4:  # a delivery keeps qmail-send from stopping at once
            lab.sink.set("slow.test", Rule(delay=1.5))
            host.inject(sender="slow@x.test", recipients=("r@slow.test",))

    def check() -> None:
        assert ": up" in host.sh(f"svstat {SERVICE}")
        assert host.sh("cat /run/mxfleet-qmail-*.state") == ""
        assert violations(host) == []

    return Case(adapter_for("qmail"), remote, LOOK, places, "[q]mail-guardian", prepare, check)


CASES: dict[str, Callable[[Engine, Lab], Case]] = {
    each.__name__: each for each in (postfix, sendmail, exim, opensmtpd, qmail)
}


@pytest.mark.parametrize("mta", CASES)
def test_what_is_read_back_of_a_cut_purge_or_restore_is_what_is_so(engine: Engine, lab: Lab, mta: str) -> None:
    lab.sink.reset()
    case = CASES[mta](engine, lab)
    before = set(case.places())
    assert len(before) == MESSAGES
    figures = cut_rounds(case)
    assert set(case.places()) == before
    assert figures["cut while they ran"] >= ROUNDS // 4


def test_whoever_looks_starts_qmail_send_when_shell_and_guardian_were_killed(engine: Engine, lab: Lab) -> None:
    case = qmail(engine, lab)
    host, instance = case.remote.host, case.remote.instance
    name = min(case.places())
    context = Context(now=time.time(), job="job-1", frozen=())
    contacts: dict[str, Callable[[], Steps[Result | None]]] = {
        "list": lambda: QMAIL.queue_list(instance, QueueList(match.parse("ALL")), context),
        "look": lambda: QMAIL.read_back(instance, QueueHold(Selection(queue_ids=(name,))), context),
        "purge": lambda: QMAIL.queue_purge(
            instance, QueuePurge(Selection(queue_ids=(name,))), replace(context, frozen=None)
        ),
    }
    for contact in contacts:
        lab.sink.set("slow.test", Rule(delay=3))
        host.inject(sender="slow@x.test", recipients=("r@slow.test",))
        cut = change(host, "quarantine", [one for one in snapshot(host).values() if one.number == name])
        host.sh(awaited(f"svstat {SERVICE} | grep -q 'want down'"))
        host.exec(case.ends["all and guard"])
        cut.wait(30)
        host.sh(awaited(f"svstat {SERVICE} | grep -q ': down'"))
        assert host.sh("cat /run/mxfleet-qmail-*.state") == "stopped up\n"
        told = case.remote.carry(contacts[contact])
        assert [note for note in told.data["notes"] if "cut off before has been put right" in note], contact
        case.check()
    assert case.places()[name] == QUARANTINE  # by the last contact


def awaited(condition: str) -> str:
    return f"for try in $(seq 200); do if {condition}; then exit 0; fi; sleep 0.05; done; exit 1"
