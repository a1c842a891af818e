"""Wall and CPU times of contenders that run side by side, and the tables in which they are shown."""

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

Timed = tuple[float, float]
"""Seconds of wall time, seconds of CPU time."""


@dataclass
class Contender:
    """Something to be measured. `run` does it once and returns what it took; `rounds`: how often at most."""

    name: str
    run: Callable[[], Timed]
    rounds: int = 100
    taken: list[Timed] = field(default_factory=list)

    @property
    def wall(self) -> float:
        """The median in seconds."""
        return statistics.median(wall for wall, _ in self.taken)

    @property
    def cpu(self) -> float:
        """The mean in seconds: the kernel counts CPU in ticks of 10 ms, and what one round misses another has."""
        return statistics.fmean(cpu for _, cpu in self.taken)


def side_by_side(contenders: Sequence[Contender], rounds: int) -> dict[str, Contender]:
    """Run them in turn, round after round, so that what else the machine does falls on all alike."""
    for number in range(rounds):
        for contender in contenders:
            if number < contender.rounds:
                contender.taken.append(contender.run())
    return {contender.name: contender for contender in contenders}


def of_children(work: Callable[[], None]) -> Timed:
    """What `work` took, with the CPU of the processes that it started and waited for."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    work()
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cpu_of(pids: Sequence[int]) -> float:
    """CPU seconds of these processes, of all their descendants, and of those that ended and were waited for."""
    total = 0.0
    for root in map(psutil.Process, pids):
        for process in [root, *root.children(recursive=True)]:
            try:
                total += sum(process.cpu_times()[:4])
            except psutil.NoSuchProcess:
                continue
    return total


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def verdict(value: float, goal: float, *, at_least: bool) -> str:
    """`value` beside its goal."""
    is_met = value >= goal if at_least else value <= goal
    return f"{'met' if is_met else 'MISSED'} ({'>=' if at_least else '<='} {goal:g})"
