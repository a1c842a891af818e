"""Purges of a qmail host that are cut off at random moments: qmail-send runs afterwards, and no mail is lost."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from fleet.mta.steps import Command
from fleet.ssh.quoting import end_mark, render
from tests.lab.cuts import ROUNDS, SEED
from tests.lab.lab import Host, Lab
from tests.lab.qmail.control import SERVICE, fill, start_send, stop_send, violations
from tests.lab.sink import Rule
from tests.lab.waiting import await_true

pytestmark = pytest.mark.lab
QUEUE = "/var/qmail/queue"
LOG = "/var/log/qmail/qmail-send"

# Every file of a message wherever it lies, by number, and its sender.
SNAPSHOT = """
import json, os
os.chdir("/var/qmail/queue")
found = {}
for place, _, names in os.walk("."):
    for name in names:
        path = os.path.relpath(os.path.join(place, name), ".")
        if name.isdigit() and not path.startswith("lock/"):
            one = found.setdefault(name, {"parts": [], "sender": ""})
            is_aside = path.startswith("mxfleet")
            part = path.split("/")[-2 if is_aside else 0]
            one["parts"].append(path if is_aside else part)
            if part in ("info", "mess", "todo"):
                content = open(path, "rb").read()
                if part == "mess":
                    status = os.stat(path)
                    one["size"], one["inode"] = len(content), status.st_ino
                    seconds, rest = divmod(status.st_mtime_ns, 10**9)
                    one["time"] = "%d.%06d" % (seconds, rest // 1000)
                else:
                    one["sender"] = [line for line in content.split(b"\\0") if line[:1] == b"F"][0][1:].decode()
print(json.dumps(found))
"""
# Sessions first: without one no script can begin any more.
QUIET = (
    "state=/run/mxfleet-qmail-$(stat -c %d-%i /var/qmail/queue/.); "
    f"for try in $(seq 900); do if ! pgrep -f '^[s]shd: fleetops' && ! pgrep -f '[q]mail_change.sh [a-z]' && "
    f"flock -n $state.lock true && [ ! -s $state.state ] && "
    f"svstat {SERVICE} | grep ': up' | grep -qv want && [ -z \"$(find {QUEUE}/todo -type f)\" ]; "
    "then exit 0; fi; sleep 0.05; done >&2; "
    f"svstat {SERVICE}; cat $state.state; ps axo pid,args | cut -c1-150; exit 1"
)
ENDS = {
    "client": "",
    "session": "pkill -KILL -f '^sshd: fleetops'",
    "shells": "pkill -KILL -f '^/bin/sh -c #.*[q]mail_change.sh [a-z]'",
    "oldest shell": "pkill -KILL -o -f '^/bin/sh -c #.*[q]mail_change.sh [a-z]'",
    "sudo and timeout": "pkill -KILL -f '^(sudo|timeout) -.*[q]mail_change.sh [a-z]'",
    "timeout's TERM": "pkill -TERM -f '^timeout -.*[q]mail_change.sh [a-z]'",
    "parts": (
        "for try in $(seq 30); do pkill -KILL -x 'awk|mawk|find|grep|mv|rm|stat|touch|tr|xargs'; sleep 0.01; done; true"
    ),
    "nothing": "",
}


@dataclass(frozen=True, slots=True)
class Message:
    number: str
    sender: str
    parts: tuple[str, ...]
    size: int = 0
    time: str = ""
    inode: int = 0

    @property
    def place(self) -> str:
        """The area where the message lies whole: "" for the queue itself; "in pieces" otherwise."""
        areas = {part.rsplit("/", 2)[0] if "/" in part else "" for part in self.parts}
        kinds = sorted(part.split("/")[-2] if "/" in part else part for part in self.parts)
        is_whole = len(areas) == 1 and kinds == ["info", "mess", "remote"] and self.inode == int(self.number)
        return areas.pop() if is_whole else "in pieces"


def snapshot(host: Host) -> dict[str, Message]:
    """Messages by number."""
    found = json.loads(host.exec("python3 -", stdin=SNAPSHOT).stdout)
    return {number: Message(number, **(one | {"parts": tuple(sorted(one["parts"]))})) for number, one in found.items()}


def change(
    host: Host, action: str, messages: Iterable[Message], svc: str = "/usr/bin/svc", seconds: int = 30
) -> subprocess.Popen[str]:
    lines = "".join(f"{one.number} {one.size} {one.time} {one.sender}\n" for one in messages)
    arguments = (action, QUEUE, SERVICE, svc, "/usr/bin/svstat", LOG, str(seconds))
    line = render(Command(arguments, "qmail_change.sh", become=True, mutates=True, timeout=120), "sudo")
    process = subprocess.Popen(
        host.ssh_command(line), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin
    process.stdin.write(f"fence 0\njob-1\n{lines}end\n")
    process.stdin.close()
    return process


def end(host: Host, process: subprocess.Popen[str], how: str) -> str:
    """Cut it off; what it said until then."""
    if how != "nothing":
        host.exec(ENDS[how] or "true")
    if how == "client":
        process.kill()
    assert process.stdout
    said = process.stdout.read().partition(end_mark("0").decode())[0]
    process.wait(60)
    return said


def delivered(lab: Lab, host: Host, count: int) -> list[str]:
    """The senders of all that has arrived once everything was attempted."""
    with lab.sink.answering("defer.test", Rule()):
        for _ in range(10):  # an ALRM that meets qmail-send as it starts is lost
            host.sh(f"svc -a {SERVICE}")
            with contextlib.suppress(TimeoutError):
                lab.sink.wait(count, seconds=3)
                break
        return [one["sender"] for one in lab.sink.messages()]


@pytest.mark.timeout(ROUNDS * 6 + 120)
def test_a_purge_that_is_cut_off_anywhere_leaves_qmail_send_running_and_loses_nothing(lab: Lab, qm1: Host) -> None:
    chance = random.Random(SEED)  # the moments differ from run to run all the same
    lab.sink.set("slow.test", Rule(delay=0.5))
    stop_send(qm1)
    fill(qm1, 150, "--from", "fill{i}@x.test", "--size", "300")
    start_send(qm1)
    kept = {one.sender for one in snapshot(qm1).values()}
    longest, purged, cut_in_time, sent = 1.5, 0, 0, 0
    for turn in itertools.count():
        if turn >= ROUNDS and cut_in_time > ROUNDS // 4:
            break
        queued = [one for one in snapshot(qm1).values() if one.sender in kept]
        asked = chance.sample(queued, min(len(queued), chance.randint(1, 5)))
        how = chance.choice(list(ENDS))
        began = time.monotonic()
        process = change(qm1, "delete", asked)
        if turn % 5 == 0:
            qm1.inject(sender=f"slow{turn}@x.test", recipients=("r@slow.test",))
            sent += 1
        qm1.inject(n=4, sender=f"new{turn}-{{i}}@x.test", recipients=("r@defer.test",), connections=2)
        kept |= {f"new{turn}-{index}@x.test" for index in range(1, 5)}
        if how != "nothing":
            time.sleep(max(0.0, chance.uniform(0.1, longest) - (time.monotonic() - began)))
        is_over = process.poll() is not None
        cut_in_time += not is_over and how != "nothing"
        said = end(qm1, process, how)
        if how == "nothing":
            longest = max(0.5, min(4.0, time.monotonic() - began))
        quiet = qm1.exec(QUIET)
        what = f"seed {SEED}, turn {turn}, {how}: {said[-500:]!r}"
        assert quiet.returncode == 0, f"{what}: {quiet.stdout[-3000:]}"
        assert violations(qm1) == [], what
        found = snapshot(qm1)
        there = {one.sender for one in found.values() if not one.sender.startswith("slow")}
        broken = [one for one in found.values() if one.place and not one.sender.startswith("slow")]
        assert not broken, what
        gone = kept - there
        assert gone <= {one.sender for one in asked}, what
        assert there <= kept, what
        done = {line.split()[0] for line in said.splitlines() if line.endswith(" done")}
        if how == "nothing":
            assert said.endswith("end\n"), what
            assert len(done) == len(asked), what
        assert {one.sender for one in asked if one.number in done} <= gone, what
        purged += len(gone)
        kept -= gone
    print(f"{turn} purges, seed {SEED}, {cut_in_time} cut while they ran, {purged} messages purged, {len(kept)} left")
    lab.sink.wait(sent, "r@slow.test")
    arrived = [sender for sender in delivered(lab, qm1, len(kept) + sent) if "slow" not in sender]
    assert sorted(arrived) == sorted(kept)


def test_a_purge_that_is_killed_as_qmail_send_comes_up_does_not_block_the_next_one(qm1: Host) -> None:
    stop_send(qm1)
    fill(qm1, 3)
    start_send(qm1)
    slow = "/usr/local/bin/slow-svc"
    qm1.sh(f"printf '%s\\n' '#!/bin/sh' 'svc \"$@\"' '[ \"$1\" = -d ] || sleep 2' > {slow}; chmod 755 {slow}")
    messages = list(snapshot(qm1).values())
    process = change(qm1, "delete", messages[:1], slow)
    waited = "for try in $(seq 200); do if pgrep -f '[s]low-svc -u'; then exit 0; fi; sleep 0.05; done; exit 1"
    qm1.sh(waited)
    end(qm1, process, "shells")
    began = time.monotonic()
    assert qm1.exec(QUIET).returncode == 0
    assert time.monotonic() - began < 15
    assert set(snapshot(qm1)) == {one.number for one in messages[1:]}


# action -> where a message lies before and after it
MOVES = {
    "quarantine": ("", "mxfleet-quarantine/job-1"),
    "restore": ("mxfleet-quarantine/job-1", ""),
    "hold": ("", "mxfleet-hold"),
    "release": ("mxfleet-hold", ""),
}


@pytest.mark.timeout(ROUNDS * 6 + 120)
def test_a_move_that_is_cut_off_anywhere_leaves_every_message_whole_in_one_place(qm1: Host) -> None:
    chance = random.Random(SEED)
    stop_send(qm1)
    fill(qm1, 60, "--from", "fill{i}@x.test")
    start_send(qm1)
    every = {one.sender for one in snapshot(qm1).values()}
    for turn in range(ROUNDS):
        here = snapshot(qm1).values()
        action = chance.choice([name for name, (place, _) in MOVES.items() if any(one.place == place for one in here)])
        before, after = MOVES[action]
        there = [one for one in here if one.place == before]
        asked = chance.sample(there, chance.randint(1, min(20, len(there))))
        how = chance.choice(list(ENDS))
        process = change(qm1, action, asked)
        if how != "nothing":
            time.sleep(chance.uniform(0.2, 1.5))
        said = end(qm1, process, how)
        quiet = qm1.exec(QUIET)
        what = f"seed {SEED}, turn {turn}, {action}, {how}: {said[-500:]!r}"
        assert quiet.returncode == 0, f"{what}: {quiet.stdout[-3000:]}"
        assert violations(qm1) == [], what
        found = {one.sender: one for one in snapshot(qm1).values()}
        assert set(found) == every, what
        assert not [one for one in found.values() if one.place == "in pieces"], what
        done = {line.split()[0] for line in said.splitlines() if line.endswith(" done")}
        assert how != "nothing" or len(done) == len(asked), what
        for one in asked:
            assert found[one.sender].place in ((after,) if one.number in done else (before, after)), what


def test_a_delivery_that_outlasts_the_deadline_leaves_everything_as_it_was(lab: Lab, qm1: Host) -> None:
    lab.sink.set("slow.test", Rule(delay=6.0))
    stop_send(qm1)
    fill(qm1, 3)
    start_send(qm1)
    messages = snapshot(qm1)
    qm1.inject(sender="slow@x.test", recipients=("r@slow.test",))
    began = f"grep 'starting delivery.* to remote r@slow.test' {LOG}/current"
    await_true(lambda: qm1.exec(began).stdout, 10, "no delivery began", pause=0.02)
    said = end(qm1, change(qm1, "delete", messages.values(), seconds=2), "nothing").splitlines()
    assert "stopping" in said
    assert not [line for line in said if line.endswith(" done")]
    lab.sink.wait(1, "r@slow.test")
    assert qm1.exec(QUIET).returncode == 0
    assert {one.sender for one in snapshot(qm1).values()} == {one.sender for one in messages.values()}
    assert qm1.inject(recipients=("r@ok.test",)).accepted == 1
    assert lab.sink.wait(1, "r@ok.test")
