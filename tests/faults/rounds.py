"""Rounds: purges under a fault, followed to their end, and what was told of each beside what is so."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from tests.faults import strikes, verdict
from tests.faults.host import SPEED, Host
from tests.faults.plan import dice
from tests.faults.service import World
from tests.lab.service import Json, await_true

END_SECONDS = 420.0
CALM_SECONDS = 12.0
"""Longer than any pause of a worker between two commands, and than it needs to learn that a lease is not its own."""
FOLLOWING_SECONDS = 45.0


@dataclass
class Round:
    """One purge under one kind of fault. `was_hit`: its outcome was unknown for a while, or it ended with an error."""

    kind: str
    host: Host
    sender: str
    before: dict[str, str]
    job: Json = None
    run: Json = None
    was_hit: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        return str(self.job["state"]) if self.job["finished_at"] else "without end"

    def __str__(self) -> str:
        error = (self.run or {}).get("error") or {}
        said = "; ".join(self.problems)
        return f"{self.kind}: {self.job['id']} on {self.host.name} {self.outcome} {error.get('code', '')}: {said}"


def play(world: World, hosts: Sequence[Host], kind: str, count: int) -> list[Round]:
    """So many purges under one kind of fault, as many at once as there are hosts."""
    found: list[Round] = []
    while len(found) < count:
        found += _wave(world, hosts[: count - len(found)], kind, dice(kind, len(found)))
    return found


def _wave(world: World, hosts: Sequence[Host], kind: str, rng: Random) -> list[Round]:
    world.service.await_whole()
    rounds = [_prepared(host, kind, rng) for host in hosts]
    marks = [len(each.host.effects()) + rng.randrange(2 * len(each.before)) for each in rounds]
    for each in rounds:
        each.job = world.alice.submit("queue.purge", each.host.instance, match=f"from:{each.sender}")
    strikes.strike(world, kind, hosts, marks, rng)
    world.service.await_whole()
    _await_ends(world, rounds)
    for each in rounds:
        each.host.set_pause(SPEED)
    _await_calm(rounds)
    for each in rounds:
        _judge(world, each)
    _afterwards(world, rounds)
    return rounds


def _prepared(host: Host, kind: str, rng: Random) -> Round:
    """Messages of a sender that is this round's alone, at most twenty: more would need an approval."""
    sender = f"{rng.getrandbits(40):010x}@bulk.example"
    is_long = kind in strikes.LONG
    host.set_pause(5.0 if is_long else rng.choice((0.05, 0.15, 0.4)))
    return Round(kind, host, sender, host.fill(20 if is_long else rng.randint(8, 20), sender))


def _await_ends(world: World, rounds: Sequence[Round]) -> None:
    """Until all jobs ended. Where nothing has happened for a while, what only waits for time is brought forward."""
    until = time.monotonic() + END_SECONDS
    calm = {each.host.name: _Calm(each.host) for each in rounds}
    while time.monotonic() < until and not world.service.all_ended([each.job for each in rounds]):
        world.service.put_forward([name for name, host in calm.items() if host.lasts()])
        time.sleep(0.5)
    for each in rounds:
        each.job = world.alice.get(f"jobs/{each.job['id']}/")


class _Calm:
    """Whether nothing has changed on a host for CALM_SECONDS, and no command runs there now."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._seen = -1
        self._since = 0.0

    def lasts(self) -> bool:
        count = len(self._host.effects())
        if count != self._seen:
            self._seen, self._since = count, time.monotonic()
        return time.monotonic() - self._since > CALM_SECONDS and not self._host.is_busy


def _await_calm(rounds: Sequence[Round]) -> None:
    """What goes on after its job's end is judged by what comes of it, and is a broken promise itself."""
    calm = [_Calm(each.host) for each in rounds]
    await_true(lambda: sum(host.lasts() for host in calm) == len(calm), 120, "the hosts do not come to rest")


def _judge(world: World, each: Round) -> None:
    each.run = world.alice.only_run(each.job)
    rows = world.alice.all(f"quarantine/?job={each.job['id']}&state=kept")
    told = verdict.Told(each.job["id"], each.run["state"], each.run["result"] or {}, [row["queue_id"] for row in rows])
    each.problems += verdict.problems(told, _truth(each))
    if not each.job["finished_at"]:
        each.problems.append(f"without end: {each.job['state']}, its run {each.run['state']}")
    elif late := [row for row in each.host.effects(each.before) if row["at"] > _seconds(each.job["finished_at"])]:
        each.problems.append(f"changed after its end: {len(late)} ({each.job['state']})")
    unknown = "SELECT 1 FROM jobs_run WHERE job_id = %s AND unknown_at IS NOT NULL"
    each.was_hit = bool(world.service.sql(unknown, each.job["id"])) or each.run["error"] is not None


def _seconds(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


def _truth(each: Round) -> verdict.Truth:
    effects = [(row["what"], row["id"]) for row in each.host.effects(each.before)]
    return verdict.Truth(each.before, each.host.queued(), each.host.kept(), effects)


def _afterwards(world: World, rounds: Sequence[Round]) -> None:
    """The host can be changed again at once, and undo brings all of it back."""
    _change_again(world, rounds)
    _undo(world, rounds)
    for each in rounds:
        held = (each.run["result"] or {}).get("held", ())
        each.problems += verdict.restored(each.before, each.host.queued(), each.host.kept(), held)
        each.host.clear()


def _change_again(world: World, rounds: Sequence[Round]) -> None:
    """A change of another message, which has to be leased the host for it."""
    jobs = []
    for each in rounds:
        each.host.fill(1, f"next-{each.sender}")
        jobs.append(world.alice.submit("queue.hold", each.host.instance, match=f"from:next-{each.sender}"))
    for each, job in zip(rounds, world.ended(jobs, FOLLOWING_SECONDS), strict=True):
        if job["state"] != "succeeded":
            each.problems.append(f"its host stays locked: the next job is {job['state']} after {FOLLOWING_SECONDS} s")


def _undo(world: World, rounds: Sequence[Round]) -> None:
    """Undo of each purge that ended. It may be refused where there is nothing to bring back."""
    jobs: dict[str, Round] = {}
    for each in rounds:
        answer = world.alice.ask("POST", f"jobs/{each.job['id']}/undo/", {"reason": "a round is over"})
        if answer.is_success:
            jobs[answer.json()["id"]] = each
        elif each.host.kept().keys() & each.before.keys():
            each.problems.append(f"undo refused: {answer.status_code} {answer.text[:200]}")
    for job in world.ended([{"id": job} for job in jobs], FOLLOWING_SECONDS):
        if job["state"] != "succeeded":
            jobs[job["id"]].problems.append(f"undo is {job['state']}")


def faulty(rounds: Sequence[Round]) -> Iterator[str]:
    """Each round that broke a promise, in one line."""
    return (str(each) for each in rounds if each.problems)
