"""Whose job is carried out next, and how much of a worker one caller or customer may have. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Waiting:
    """The job of a customer that has waited longest (`since`: it is ready since then)."""

    job: UUID
    customer: int
    since: datetime


def in_turn(waiting: Iterable[Waiting], at_work: Mapping[int, int], served: Mapping[int, int]) -> list[UUID]:
    """The jobs in the order in which they are tried, each once.

    The customer with the fewest jobs `at_work` comes first; among equals the one whose turn was longest ago (`served`
    grows with each turn); then who waits longest. So nobody's many jobs keep another one's few waiting.
    """
    order = sorted(waiting, key=lambda w: (at_work.get(w.customer, 0), served.get(w.customer, -1), w.since, w.job))
    return list(dict.fromkeys(each.job for each in order))


def caller_share(width: int) -> int:
    """How many jobs of one caller may be at work at once in a lane of so many threads."""
    return max(1, width // 2)


def customer_share(width: int) -> int:
    """How many jobs of one customer may be at work at once in a lane of so many threads."""
    return max(1, width * 3 // 4)
