"""20,000 queued messages on each MTA of the lab: listed, matched on a header, purged by pattern.

Each step beside a plain shell pipeline that takes the same steps on the host itself, without SSH and without proof of
what became of a single message. `python -m tests.bench.queues [HOST...]`; needs root, as the lab does.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.measure import Timed, cpu_of, of_children, table, verdict
from tests.bench.stream import forget_peak, kilobytes
from tests.lab.lab import Host, Lab
from tests.lab.sink import Rule

SENDER = "news@bulk.example"
OTHER = "u@ok.test"
HEADER = "letter 17*"
PIPELINE_GOAL = 1.5
MEMORY_GOAL = 30
ROUNDS = 3
AT_REST = 0.03
"""Seconds of CPU that an MTA with nothing to do may use in one."""
PURGED = 10
"""One message in so many is the sender's whose mail is purged."""


@dataclass(frozen=True)
class Peer:
    """The pipelines of one MTA, as root on the host. `fill` queues so many messages; `count` prints how many there are.

    `listing`: the MTA's own list command where it has one. `purge`: the sender's messages, for good, with the listings
    before and after that ours has too; our quarantine is measured beside it, too.
    """

    host: str
    instance: str
    messages: int
    fill: Callable[[Host, int], None]
    count: str
    listing: str
    header: str
    purge: str


def by_smtp(host: Host, messages: int) -> None:
    """Through the front door, twenty connections at once."""
    spam = messages // PURGED
    for sender, count in ((SENDER, spam), ("u{i}@ok.test", messages - spam)):
        host.inject(n=count, sender=sender, recipients=("r{i}@defer.test",), subject="letter {i}", size=2000)


def cloned(script: str) -> Callable[[Host, int], None]:
    """A message of each sender through the front door, and a script that copies their queue files on the host."""

    def fill(host: Host, messages: int) -> None:
        for sender in (SENDER, OTHER):
            host.inject(sender=sender, recipients=("r@defer.test",), subject="letter 00000", size=2000)
        time.sleep(5)
        spam = messages // PURGED
        text = (Path(__file__).parent / script).read_text()
        done = host.exec(f"sh -s {SENDER} {spam - 1} {OTHER} {messages - spam - 1}", stdin=text, timeout=600)
        if done.returncode:
            raise SystemExit(f"{script}: {done.stderr}")

    return fill


def by_program(host: Host, messages: int) -> None:
    """qmail's queue files as the lab's own program makes them, while qmail-send is down."""
    spam = messages // PURGED
    fill = "cd /usr/local/lib/qmail-lab && python3 -m tests.lab.qmail.fill --subject 'letter {i}' --size 2000"
    others = f"{fill} --from 'u{{i}}@ok.test' {messages - spam}"
    host.exec(
        f"svc -d /service/qmail-send; until svstat /service/qmail-send | grep -q ': down'; do sleep 0.1; done;"
        f" {fill} --from {SENDER} {spam}; {others}; svc -u /service/qmail-send",
        timeout=600,
    )


POSTFIX_LIST = "postqueue -j >/tmp/l"
POSTFIX_IDS = rf"""sed -n '/"sender": "{SENDER}"/s/.*"queue_id": "\([^"]*\)".*/\1/p' /tmp/l >/tmp/ids"""
SENDMAIL_FILES = "find q* -name '[qh]f*'"
SENDMAIL_LIST = "cd /var/spool/mqueue; mailq >/tmp/l"
SENDMAIL_REMOVE = 'while IFS=/ read -r q f; do flock -n -E 75 "$q/$f" rm "$q/$f" "$q/df${f#?f}"; done'
EXIM_LIST = (
    "exim4 -bp >/tmp/l; cd /var/spool/exim4/msglog; find . -type f -print0 | xargs -0 grep -h ' defer (' >/tmp/reasons"
)
EXIM_IDS = f"""awk '$4 == "<{SENDER}>" {{ print $3 }}' /tmp/l"""
QMAIL_LIST = r"""cd /var/qmail/queue; find mess -type f -printf '%f %s %T@\n' >/tmp/l
find info -type f -print0 | xargs -0 grep -azH '^F' | tr '\0' '\n' >/tmp/info
find remote local -type f -print0 | xargs -0 grep -azH '^[TD]' | tr '\0' '\n' >/tmp/to"""
QMAIL_STOP = "svc -d /service/qmail-send; until svstat /service/qmail-send | grep -q ': down'; do sleep 0.1; done"
QMAIL_REMOVE = rf"""sed -n 's|^info/[0-9]*/\([0-9]*\):F{SENDER}$|\1|p' /tmp/info |
awk '{{ s = $1 % 23; print "mess/" s "/" $1; print "info/" s "/" $1; print "remote/" s "/" $1 }}' | xargs rm"""
SMTPD_LIST = "smtpctl show queue >/tmp/l"
SMTPD_IDS = f"""awk -F'|' '$5 == "{SENDER}" {{ print $1 }}' /tmp/l"""
PEERS = (
    Peer(
        host="pf2",
        instance="postfix",
        messages=20_000,
        fill=by_smtp,
        count="find /var/spool/postfix/deferred -type f | wc -l",
        listing=POSTFIX_LIST,
        header=f"{POSTFIX_LIST}; cd /var/spool/postfix; find deferred hold -type f -print0 |"
        " xargs -0 postcat -h | grep -c '^Subject: letter 17'",
        purge=f"{POSTFIX_LIST}; {POSTFIX_LIST}; {POSTFIX_IDS}; postsuper -h - deferred </tmp/ids >/tmp/said 2>&1;"
        f" {POSTFIX_LIST}; postsuper -d - hold </tmp/ids >/tmp/said 2>&1; {POSTFIX_LIST}",
    ),
    Peer(
        host="sm1",
        instance="sendmail",
        messages=20_000,
        fill=cloned("clone_sendmail.sh"),
        count="find /var/spool/mqueue -name 'qf*' | wc -l",
        listing=SENDMAIL_LIST,
        header=f"{SENDMAIL_LIST}; {SENDMAIL_FILES} | xargs grep -l 'Subject: letter 17' | wc -l",
        purge=f"{SENDMAIL_LIST}; {SENDMAIL_LIST}; {SENDMAIL_FILES} | xargs grep -l '^S<{SENDER}>' | {SENDMAIL_REMOVE};"
        f" {SENDMAIL_LIST}",
    ),
    Peer(
        host="ex1",
        instance="exim",
        messages=20_000,
        fill=cloned("clone_exim.sh"),
        count="find /var/spool/exim4/input -name '*-H' | wc -l",
        listing=EXIM_LIST,
        header=f"{EXIM_LIST}; cd /var/spool/exim4/input; find . -name '*-H' |"
        " xargs grep -l 'Subject: letter 17' | wc -l",
        purge=f"{EXIM_LIST}; {EXIM_LIST}; {EXIM_IDS} | xargs exim4 -Mrm >/tmp/said; {EXIM_LIST}",
    ),
    Peer(
        host="qm1",
        instance="qmail",
        messages=20_000,
        fill=by_program,
        count="find /var/qmail/queue/info -type f | wc -l",
        listing=QMAIL_LIST,
        header=f"{QMAIL_LIST}; find mess -type f -print0 | xargs -0 grep -l '^Subject: letter 17' | wc -l",
        purge=f"{QMAIL_LIST}; {QMAIL_LIST}; {QMAIL_STOP}; {QMAIL_REMOVE}; svc -u /service/qmail-send; {QMAIL_LIST}",
    ),
    Peer(
        host="os1",
        instance="opensmtpd",
        messages=2_000,
        fill=by_smtp,
        count="smtpctl show queue | wc -l",
        listing=SMTPD_LIST,
        header=f"{SMTPD_LIST}; cd /var/spool/smtpd/queue; find . -type f -name message |"
        " xargs grep -l 'Subject: letter 17' | wc -l",
        purge=f"{SMTPD_LIST}; {SMTPD_LIST}; {SMTPD_IDS} | while read -r id; do smtpctl remove $id; done >/tmp/said;"
        f" {SMTPD_LIST}",
    ),
)


def run(lab: Lab, names: list[str]) -> str:
    """Measure the hosts of these names, or all, and tell in Markdown."""
    rows = [row for peer in PEERS if not names or peer.host in names for row in measured(lab, peer)]
    headings = ("host, step", "ours s", "pipeline s", "ratio", "", "ours CPU s", "pipeline CPU s", "ratio", "")
    return table((*headings, "memory grew by MB", "", "remote commands"), rows)


def measured(lab: Lab, peer: Peer) -> list[list[str]]:
    """A row for each step, medians of ROUNDS in turn. Each purge needs a queue of its own."""
    host = lab.host(peer.host)
    refill(lab, host, peer)
    rows = []
    for step, command in (("list", peer.listing), ("match a header", peer.header), ("quarantine", peer.purge)):
        ours, theirs = [], []
        for _ in range(ROUNDS):
            if step == "quarantine":
                refill(lab, host, peer)
            ours.append(asked(peer, step))
            if step == "quarantine":
                refill(lab, host, peer)
            theirs.append(timed(host, command))
        rows.append(row(peer, step, ours, theirs))
    return rows


def row(peer: Peer, step: str, ours: list[dict[str, Any]], theirs: list[Timed]) -> list[str]:
    """What a step took us, beside the pipeline."""
    figures: list[str] = []
    for at, kind in enumerate(("wall", "cpu")):
        mine, other = median(each[kind] for each in ours), median(each[at] for each in theirs)
        figures += [f"{mine:.2f}", f"{other:.2f}", f"{mine / other:.2f}"]
        figures.append(verdict(mine / other, PIPELINE_GOAL, at_least=False))
    grown = max(each["grown"] for each in ours)
    figures += [f"{grown:.1f}", verdict(grown, MEMORY_GOAL, at_least=False), str(ours[0]["commands"])]
    return [f"{peer.host}, {step}: {ours[0]['found']} of {peer.messages}", *figures]


def refill(lab: Lab, host: Host, peer: Peer) -> None:
    """As many messages as the benchmark wants, all of them deferred, and the MTA at rest."""
    host.reset()
    lab.sink.reset()
    lab.sink.set("defer.test", Rule("451 4.7.1 sink: later", "rcpt"))
    peer.fill(host, peer.messages)
    until = time.monotonic() + 600
    while int(host.sh(peer.count)) < peer.messages:
        if time.monotonic() > until:
            raise SystemExit(f"{peer.host}: {host.sh(peer.count)} of {peer.messages} messages are queued")
        time.sleep(1)
    pids = [first_process(host)]
    used = cpu_of(pids)
    time.sleep(1)
    while cpu_of(pids) - used > AT_REST:
        if time.monotonic() > until:
            raise SystemExit(f"{peer.host} is not at rest")
        used = cpu_of(pids)
        time.sleep(1)


def timed(host: Host, command: str) -> Timed:
    """What a shell command on the host took, and the host's MTA for it."""
    before = cpu_of([first_process(host)])
    wall, cpu = of_children(lambda: host.exec(command, timeout=600))
    return wall, cpu + cpu_of([first_process(host)]) - before


def first_process(host: Host) -> int:
    """All that the host runs is below it, but for what `exec` brings in from outside."""
    process = host.machine.process
    if process is None:
        raise SystemExit(f"{host.name} is not up")
    return process.pid


def asked(peer: Peer, step: str) -> dict[str, Any]:
    """Our own way, in a process of its own, so that one step's memory is not another's."""
    argv = [sys.executable, "-m", "tests.bench.queues", "--ours", peer.host, peer.instance, step]
    return dict(json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout))


def ours(host: Host, name: str, step: str) -> dict[str, Any]:
    """What a worker does for the step, warm: discovery has opened the connection before the clock starts."""
    from dataclasses import replace

    from fleet.match import parse
    from fleet.mta.adapter import adapter_for, method_for
    from fleet.mta.host.discovery import discover_host
    from fleet.mta.operations import Limits, Operation, QueueList, QueuePurge, Selection
    from fleet.mta.records import Context
    from fleet.mta.steps import Plan
    from fleet.ssh.endpoint import AddressPolicy, Endpoint
    from fleet.ssh.engine import Engine, Outcome, Request

    endpoint = Endpoint(
        host.name, host.address, 22, host.user, host.private_key.encode(), host_key=host.host_key, become="sudo"
    )
    engine = Engine(AddressPolicy())

    def done(steps: Callable[[], Any], *, until_plan: bool = False) -> Outcome:
        request = Request("bench", endpoint, steps, until_plan, 600)
        [outcome] = [each for batch in engine.outcomes([request]) for each in batch]
        if outcome.error:
            raise outcome.error
        return outcome

    _, instances = done(lambda: discover_host(host.name, time.time)).value
    instance = next(each for each in instances if each.name == name)
    adapter = adapter_for(instance.mta)
    context = Context(now=time.time(), job="bench")

    def carried(operation: Operation, context: Context, *, until_plan: bool = False) -> Outcome:
        method = method_for(adapter, operation.name)
        if method is None:
            raise SystemExit(f"{instance.mta} has no {operation.name}")
        return done(lambda: method(instance, operation, context), until_plan=until_plan)

    before = forget_peak()
    pids = [os.getpid(), first_process(host)]
    begun, used = time.monotonic(), cpu_of(pids)
    if step == "quarantine":
        selection = Selection(match=parse(f"from:{SENDER}"))
        purge = QueuePurge(selection, Limits(), mode=step)
        planned = carried(purge, context, until_plan=True)
        plan = planned.value
        if not isinstance(plan, Plan):
            raise SystemExit(f"no plan: {plan}")
        applied = carried(purge, replace(context, frozen=plan.selected))
        found = applied.value.data["done"]
        commands = len(planned.trace.commands) + len(applied.trace.commands)
    else:
        match = "ALL" if step == "list" else f'subject:"{HEADER}"'
        outcome = carried(QueueList(parse(match)), context)
        found, commands = outcome.value.data["matched"], len(outcome.trace.commands)
    wall, cpu = time.monotonic() - begun, cpu_of(pids) - used
    grown = (kilobytes("VmHWM") - before) / 1024
    engine.close()
    return {"wall": wall, "cpu": cpu, "grown": grown, "found": found, "commands": commands}


if __name__ == "__main__":
    laboratory = Lab()
    if sys.argv[1:2] == ["--ours"]:
        print(json.dumps(ours(laboratory.host(sys.argv[2]), *sys.argv[3:])))
    else:
        laboratory.up(*sys.argv[1:])
        print(run(laboratory, sys.argv[1:]))
