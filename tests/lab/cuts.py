"""Purges and restores that are cut off at random moments, the same on every MTA: what is read back is what is so.

Each round purges or restores a few messages through the product, ends something on the way, reads back at once (while
the change may still run) and once more when nothing of ours runs any more. The first look may give up or see less; what
it says is done stays done, and nothing is ever gone. The second says of every message where it lies, and the quarantine
holds nothing else.

`MXFLEET_FAULT_ROUNDS`: how many rounds. `MXFLEET_FAULT_SEED`: the choices again; the moments differ all the same.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fleet.mta.adapter import Adapter
from fleet.mta.errors import FleetError
from fleet.mta.operations import Operation, Quarantined, QuarantineRestore, QueuePurge, Selection
from fleet.mta.records import Context, Fingerprint, InstanceFacts, Result
from fleet.mta.steps import Steps
from tests.lab.lab import Host

ROUNDS = int(os.environ.get("MXFLEET_FAULT_ROUNDS", "12"))
SEED = int(os.environ.get("MXFLEET_FAULT_SEED") or random.SystemRandom().randrange(10**6))
MOST = 5
"""Messages of one change."""
QUEUE, QUARANTINE = "queue", "quarantine"


class Remote(Protocol):
    """A host through the product's SSH, as each MTA's tests have it."""

    host: Host

    @property
    def instance(self) -> InstanceFacts: ...

    def carry(self, steps: Callable[[], Steps[Any]], *, until_plan: bool = False) -> Any: ...


@dataclass(frozen=True)
class Case:
    """One MTA. `running`: what matches the processes of a change of ours, and no shell that looks for them; `guard`:
    who takes over from them. `places`: where the messages lie by the files alone, "queue" or "quarantine" by queue ID.
    `prepare`: what may happen right before a change. `check`: what must hold after each round.
    """

    adapter: Adapter
    remote: Remote
    running: str
    places: Callable[[], dict[str, str]]
    guard: str = ""
    prepare: Callable[[random.Random], None] = lambda chance: None
    check: Callable[[], None] = lambda: None

    @property
    def ends(self) -> dict[str, str]:
        """How a change is cut off: a command for the host."""
        found = {
            "nothing": "true",
            "session": "pkill -KILL -f '^[s]shd: fleetops'",
            "all": f"pkill -KILL -f '{self.running}'",
            "oldest": f"pkill -KILL -o -f '{self.running}'",
            "newest": f"pkill -KILL -n -f '{self.running}'",
            "timeout's TERM": f"pkill -TERM -f '^timeout -.*({self.running})'",
        }
        if self.guard:
            found["all and guard"] = f"pkill -KILL -f '{self.running}|{self.guard}'"
        return found


@dataclass
class Story:
    """What the rounds came to. `rows`: what we believe to lie in quarantine, as the service keeps it; `half`: those of
    them that a restore brought back to the queue and did not finish."""

    chance: random.Random
    rows: dict[str, Quarantined] = field(default_factory=dict)
    half: set[str] = field(default_factory=set)
    longest: float = 1.0
    counts: Counter[str] = field(default_factory=Counter)


def cut_rounds(case: Case, rounds: int = ROUNDS) -> Counter[str]:
    """So many rounds on a host with messages in its queue, and more until a quarter of them were cut while they ran.

    What they came to is printed too, with the seed.
    """
    story = Story(random.Random(SEED))
    turn = 0
    while turn < rounds or (story.counts["cut while they ran"] < rounds // 4 and turn < 3 * rounds):
        _round(case, story, turn)
        turn += 1
    figures = ", ".join(f"{name} {count}" for name, count in sorted(story.counts.items()))
    print(f"{case.adapter.mta}: {turn} rounds, seed {SEED}: {figures}")
    return story.counts


def _round(case: Case, story: Story, turn: int) -> None:
    queued = [name for name, place in case.places().items() if place == QUEUE and name not in story.half]
    is_restore = bool(story.rows) and (not queued or story.chance.random() < 0.5)
    # A lost session leaves the change running: what is looked at then moves.
    how = "nothing" if turn < 2 else story.chance.choice([*sorted(case.ends), *["session"] * 4])
    case.prepare(story.chance)
    if is_restore:
        chosen = story.chance.sample(sorted(story.rows), min(len(story.rows), story.chance.randint(1, MOST)))
        operation: Operation = QuarantineRestore(tuple(story.rows[name] for name in chosen))
        context = Context(now=time.time(), job=f"job-{turn}", undo=True)
    else:
        operation, context = _purge(case, queued, story, turn)
    asked = [each.queue_id for each in context.frozen or getattr(operation, "items", ())]
    what = f"seed {SEED}, turn {turn}, {operation.name} of {asked}, {how}"
    cut = _cut_off(case, story, operation, context, how)
    first = _look(case, operation, context)
    quiet = case.remote.host.exec(_until_quiet(case))
    assert quiet.returncode == 0, f"{what}: {quiet.stdout[-3000:]}"
    last = _look(case, operation, context)
    assert isinstance(last, Result), f"{what}: {last!r}"
    places = case.places()
    _judge(what, is_restore, asked, places, {"cut": cut, "at once": first}, last)
    _keep_rows(story, is_restore, context, last, places)
    assert {name for name, place in places.items() if place == QUARANTINE} == story.rows.keys() - story.half, what
    case.check()
    _count(story, operation, how, cut, first, last)


def _purge(case: Case, queued: Collection[str], story: Story, turn: int) -> tuple[QueuePurge, Context]:
    chosen = story.chance.sample(sorted(queued), min(len(queued), story.chance.randint(1, MOST)))
    operation = QueuePurge(Selection(queue_ids=tuple(chosen)))
    context = Context(now=time.time(), job=f"job-{turn}")
    instance = case.remote.instance
    plan = case.remote.carry(lambda: _method(case, operation)(instance, operation, context), until_plan=True)
    return operation, replace(context, frozen=plan.selected)


def _method(case: Case, operation: Operation) -> Any:
    return getattr(case.adapter, operation.name.replace(".", "_"))


def _cut_off(case: Case, story: Story, operation: Operation, context: Context, how: str) -> Result | FleetError:
    """Carries it out, and ends something at a random moment meanwhile. What the product said of it."""
    instance = case.remote.instance

    def change() -> Result | FleetError:
        try:
            return case.remote.carry(lambda: _method(case, operation)(instance, operation, context))
        except FleetError as error:
            return error

    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(change)
        if how != "nothing":
            time.sleep(story.chance.uniform(0, story.longest))
            is_running = not said.done()
            story.counts["cut while they ran"] += is_running
            story.counts[f"by {how}"] += is_running
            if not is_running:  # it may have been slow only while the first ones were timed
                story.longest = max(0.1, story.longest * 0.8)
            case.remote.host.exec(case.ends[how])
        found = said.result(150)
    if how == "nothing":
        story.longest = max(0.3, min(5.0, time.monotonic() - began))
    return found


def _look(case: Case, operation: Operation, context: Context) -> Result | FleetError | None:
    instance = case.remote.instance
    try:
        return case.remote.carry(lambda: case.adapter.read_back(instance, operation, context))
    except FleetError as error:
        return error


def _until_quiet(case: Case) -> str:
    """Waits until nothing of ours runs; who was not killed ends by himself."""
    ours = "|".join(filter(None, (case.running, case.guard)))
    return (
        f"for try in $(seq 1200); do pgrep -f '{ours}' >/dev/null || exit 0; sleep 0.05; done; "
        f"ps axo pid,args | cut -c1-150; exit 1"
    )


def _judge(
    what: str,
    is_restore: bool,
    asked: Collection[str],
    places: dict[str, str],
    said: dict[str, Result | FleetError | None],
    last: Result,
) -> None:
    """Every word that was said before may be less than the truth, never more; the last is the truth."""
    target, source = (QUEUE, QUARANTINE) if is_restore else (QUARANTINE, QUEUE)
    for when, result in said.items():
        for name in _done(result):
            assert places.get(name) == target, f"{what}: {when}, {name} is told as done and lies in {places.get(name)}"
        gone = _told(result, "already_gone")
        assert not gone, f"{what}: {when}, {gone} are told as gone and lie in {[places.get(name) for name in gone]}"
    told = {each.queue_id: str(each.outcome) for each in last.messages}
    assert set(told) == set(asked), what
    for name, outcome in told.items():
        assert places.get(name) in (target, source), f"{what}: {name} is lost"
        if places[name] == source:
            assert outcome in ("left", "in_delivery"), f"{what}: {name} is told as {outcome} and did not move"
        else:
            is_left_on_hold = is_restore and outcome == "left"  # the restore's last step is still to do
            assert outcome == "done" or is_left_on_hold, f"{what}: {name} is told as {outcome} and lies in {target}"


def _done(result: Result | FleetError | None) -> list[str]:
    return _told(result, "done")


def _told(result: Result | FleetError | None, outcome: str) -> list[str]:
    messages = result.messages if isinstance(result, Result) else ()
    return [each.queue_id for each in messages if each.outcome == outcome]


def _keep_rows(story: Story, is_restore: bool, context: Context, last: Result, places: dict[str, str]) -> None:
    """As the service does with what was told at last."""
    done = _done(last)
    if is_restore:
        for name in done:
            del story.rows[name]
        left = _told(last, "left")
        story.half = (story.half - set(done)) | {name for name in left if places[name] == QUEUE}
        return
    by_id: dict[str, Fingerprint] = {each.queue_id: each for each in context.frozen or ()}
    for name in done:
        one, place = by_id[name], last.data["places"][name]
        story.rows[name] = Quarantined(name, name, place, one.arrival_time, one.sender, one.size, one.state)


def _count(story: Story, operation: Operation, how: str, cut: object, first: object, last: Result) -> None:
    done = len(_done(last))
    story.counts[operation.name] += 1
    story.counts[f"{operation.name} cut"] += isinstance(cut, FleetError) and how != "nothing"
    story.counts["messages moved"] += done
    story.counts["messages left"] += len(last.messages) - done
    story.counts["looks at once that gave no verdict"] += not isinstance(first, Result)
    is_all_done = isinstance(first, Result) and len(_done(first)) == len(first.messages)
    story.counts["looks at once that saw all done"] += is_all_done
