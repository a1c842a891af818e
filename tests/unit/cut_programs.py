"""Our scripts on a real queue, with one of the programs that they run ended in the middle of a change.

Each round lists, purges to quarantine, restores or erases. One call of one program, drawn by lot, is ended by a signal
before or after its work, or fails. What is told then must be what lies there, and the same once more must come to its
end.
`MXFLEET_FAULT_ROUNDS` and `MXFLEET_FAULT_SEED` as in docs/reliability.md.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fleet import match
from fleet.mta.errors import FleetError
from fleet.mta.operations import (
    Operation,
    Quarantined,
    QuarantineErase,
    QuarantineRestore,
    QueueList,
    QueuePurge,
    Selection,
)
from fleet.mta.records import Context, Fingerprint, InstanceFacts, Result
from fleet.mta.steps import Command, Completed, Plan, Steps

ROUNDS = int(os.environ.get("MXFLEET_FAULT_ROUNDS", "2"))
SEED = int(os.environ.get("MXFLEET_FAULT_SEED") or random.SystemRandom().randrange(10**6))
NOW = 1_795_180_000.0
QUEUE, QUARANTINE, NOWHERE = "queue", "quarantine", "already_gone"
JOB = "01998b5e-7d2a-7c3e-9f10-2b8d4c6e1f33"
HOW = ("before", "after", "fails")
PROGRAMS = """awk cat chmod chown cmp cp cut date dd find flock grep head ln ls mkdir mktemp mv namei od rm rmdir sed
    setsid sort split stat sync tail touch tr uniq wc xargs"""
CUT = """#!/bin/sh
name=${{0##*/}}
for program in /usr/bin/$name /usr/sbin/$name /bin/$name; do [ ! -x $program ] || break; done
echo "$name $$" >>{tools}/.calls
IFS=' ' read -r wanted number how <{tools}/.cut
[ "$wanted" = "$name" ] || exec $program "$@"
count=0
while IFS=' ' read -r each pid; do
    [ "$each" != "$name" ] || count=$((count + 1))
    [ "$pid" != $$ ] || break
done <{tools}/.calls
[ $count = "$number" ] || exec $program "$@"
: >{tools}/.hit
case $how in
before) kill -KILL $$ ;;
after) $program "$@"; kill -KILL $$ ;;
fails) exit 99 ;;
esac
"""


class Tools:
    """A directory of programs that run the machine's own, and count themselves. One call can be cut."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.is_used = True
        directory.mkdir()
        for name in PROGRAMS.split():
            self.put(name, CUT.format(tools=directory))
        self.uncut()

    def put(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def cut(self, program: str, number: int, how: str) -> None:
        """The call of that number, of that program. Counts from here on."""
        (self.directory / ".hit").unlink(missing_ok=True)
        (self.directory / ".calls").write_text("")
        (self.directory / ".cut").write_text(f"{program} {number} {how}\n")

    def uncut(self) -> None:
        self.cut("-", 0, "-")

    @property
    def is_hit(self) -> bool:
        return (self.directory / ".hit").exists()

    def calls(self) -> list[str]:
        return [line.split()[0] for line in (self.directory / ".calls").read_text().splitlines()]


@dataclass
class Cuttable:
    """A host with messages. `answer`: runs a command with the programs of that directory. `places`: where each message
    lies by its files alone; raises AssertionError for one that is torn where its MTA would work with it, or is not what
    it was. `refill`: puts the messages into the queue that are nowhere. `settle`: waits for what outlives a script.
    `half`: those in the queue of which a restore has something to do still, and which it tells as left.
    """

    adapter: Any
    instance: InstanceFacts
    tools: Tools
    answer: Callable[[Command, Path | None], Completed]
    places: Callable[[], dict[str, str]]
    names: tuple[str, ...]
    refill: Callable[[], None]
    settle: Callable[[], None] = lambda: None
    half: Callable[[], set[str]] = set

    def drive(self, steps: Steps[Any]) -> Any:
        """What the bridge does. The plan of a change that is yielded is not kept."""
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                return end.value
            if isinstance(step, Plan):
                answer = None
                continue
            done = self.answer(step, self.tools.directory if self.tools.is_used else None)
            if step.sink is not None and not done.exit_status:
                step.sink.feed(done.stdout)
                done = replace(done, result=step.sink.close())
            answer = done

    def do(self, operation: Operation, **fields: Any) -> Result:
        method = getattr(self.adapter, operation.name.replace(".", "_"))
        found: Result = self.drive(method(self.instance, operation, Context(now=NOW, job=JOB, **fields)))
        return found

    def read_back(self, operation: Operation, frozen: tuple[Fingerprint, ...]) -> Result:
        context = Context(now=NOW, job=JOB, frozen=frozen)
        found: Result = self.drive(self.adapter.read_back(self.instance, operation, context))
        return found

    def where(self) -> dict[str, str]:
        self.settle()
        return dict.fromkeys(self.names, NOWHERE) | self.places()


@dataclass
class Stage:
    """A step of a round: what it does, from where to where. `calls`: the programs that it called when none was cut."""

    name: str
    source: str
    target: str
    calls: list[str] = field(default_factory=list)


@dataclass
class Story:
    """What is known while rounds go on: the messages as listed, and their places in quarantine."""

    host: Cuttable
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    hits: int = 0

    @property
    def frozen(self) -> tuple[Fingerprint, ...]:
        return tuple(
            Fingerprint(name, each["arrival_time"], each["sender"], each["size"], each["state"])
            for name, each in self.entries.items()
        )

    def operation(self, stage: Stage) -> Operation:
        if stage.name == "list":
            return QueueList(match.parse("ALL"))
        if stage.name == "purge":
            return QueuePurge(Selection(queue_ids=self.host.names))
        items = tuple(
            Quarantined("i", name, self.places[name], each.arrival_time, each.sender, each.size, each.state)
            for name, each in ((each.queue_id, each) for each in self.frozen)
        )
        return QuarantineRestore(items) if stage.name == "restore" else QuarantineErase(items)

    def do(self, stage: Stage) -> Result:
        fields = {"list": {}, "purge": {"frozen": self.frozen}}.get(stage.name, {"undo": True})
        return self.host.do(self.operation(stage), **fields)

    def finish(self, stage: Stage, what: str) -> None:
        """The stage with nothing cut. The first time it is found out what it calls."""
        tools, self.host.tools.is_used = self.host.tools, not stage.calls
        tools.uncut()
        done = self.do(stage)
        stage.calls = stage.calls or tools.calls()
        tools.is_used = True
        assert self.host.where() == dict.fromkeys(self.host.names, stage.target), f"{what}: whole: {done}"
        if stage.name == "list":
            self.entries = {entry["queue_id"]: entry for entry in done.data["entries"]}
            assert set(self.entries) == set(self.host.names), what
        elif stage.name == "purge":
            told = self.host.read_back(self.operation(stage), self.frozen)
            self.places = told.data["places"]
            assert set(self.places) == set(self.host.names), f"{what}: {told}"

    def cut(self, stage: Stage, what: str) -> None:
        """The stage with what is cut by now, what was told of it, and what is read back."""
        try:
            done: Result | None = self.do(stage)
        except FleetError as error:
            done, what = None, f"{what}: {error} {error.data}"
        where = self.host.where()
        self.hits += self.host.tools.is_hit
        self.host.tools.uncut()
        if stage.name == "list":
            assert done is None or {each["queue_id"]: each for each in done.data["entries"]} == self.entries, what
            return
        if done is not None:
            _judge(f"{what}: {done}", stage, done, where, self.host)
        told = self.host.read_back(self.operation(stage), self.frozen)
        _judge(f"{what}: read back: {told}", stage, told, self.host.where(), self.host)


def _judge(what: str, stage: Stage, told: Result, where: dict[str, str], host: Cuttable) -> None:
    """Of every message it is told where it lies."""
    lies = {"done": stage.target, "left": stage.source, "in_delivery": stage.source}
    said = {each.queue_id: lies.get(str(each.outcome), str(each.outcome)) for each in told.messages}
    half = host.half() if stage.name == "restore" else set()
    is_so = {name: stage.source if name in half else place for name, place in where.items()}
    assert said == is_so, f"{what}: {where}"


def cut_rounds(host: Cuttable) -> None:
    """So many rounds, each from a full queue and an empty quarantine to the same."""
    chance = random.Random(SEED)
    story = Story(host)
    stages = (
        Stage("list", QUEUE, QUEUE),
        purge := Stage("purge", QUEUE, QUARANTINE),
        restore := Stage("restore", QUARANTINE, QUEUE),
        Stage("erase", QUARANTINE, NOWHERE),
    )
    for stage in (*stages[:3], purge, stages[3]):
        story.finish(stage, "nothing cut")
    for turn in range(ROUNDS):
        host.refill()
        stage = chance.choice([each for each in stages if each.calls])
        program = chance.choice(sorted(set(stage.calls)))
        number, how = chance.randint(1, stage.calls.count(program)), chance.choice(HOW)
        what = f"seed {SEED}, turn {turn}, {stage.name}: call {number} of {program}, {how}"
        if stage.source == QUARANTINE:
            story.finish(purge, what)
        host.tools.cut(program, number, how)
        story.cut(stage, what)
        story.finish(stage, what)
        if stage is purge:
            story.finish(restore, what)
    assert story.hits * 2 >= ROUNDS  # what outlives a script may be ended before it comes to that call
