"""What an MTA writes so that the messages of its queue can be changed. The flow around it is in changes.py."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.mta.errors import FleetError
from fleet.mta.operations import ChangesMessages
from fleet.mta.queue.listing import Queue
from fleet.mta.queue.outcome import Chosen, Verb, Word
from fleet.mta.records import Context, InstanceFacts, QueueEntry
from fleet.mta.steps import Steps


@dataclass(frozen=True, slots=True)
class Said:
    """What the host said while messages were changed.

    `words`: of each message it named. `now`: what is queued of them, where the driver had to look again itself, after
    its last change. `places`: what lies in the job's quarantine, as far as the host said so. `new_ids`: queue IDs that
    messages got. `data`: more for the run's result. `notes`: sentences for people. `error`: why nothing was done.
    """

    words: Mapping[str, Word] = field(default_factory=dict)
    now: dict[str, QueueEntry] | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    new_ids: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: FleetError | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """One verb on the chosen messages. `commands`, `notes`: for the plan. `run`: does it; without messages nothing.

    `look`, of TAKE_OUT: the places of what lies in the job's quarantine.
    """

    commands: Sequence[tuple[str, ...]]
    run: Callable[[], Steps[Said]]
    notes: Sequence[str] = ()
    look: Callable[[], Steps[Mapping[str, str]]] | None = None


def _nothing_refused(instance: InstanceFacts, verb: Verb, operation: ChangesMessages) -> None:
    """The default of `check`."""


@dataclass(frozen=True, slots=True)
class QueueDriver:
    """How the messages of an MTA's queue are changed.

    `check` raises what needs no look at the queue. `bounces_held`: a message on hold can be bounced as it is.
    """

    queue: Queue
    act: Callable[[InstanceFacts, Verb, ChangesMessages, Context, Chosen], Act]
    check: Callable[[InstanceFacts, Verb, ChangesMessages], None] = _nothing_refused
    bounces_held: bool = True
