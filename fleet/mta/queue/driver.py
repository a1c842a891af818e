"""What an MTA writes so that the messages of its queue can be changed.

The flows around it are in changes.py, quarantine.py and readback.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fleet.mta.errors import FleetError
from fleet.mta.operations import ChangesMessages, Quarantined
from fleet.mta.queue.in_quarantine import Layout
from fleet.mta.queue.listing import Queue
from fleet.mta.queue.outcome import Chosen, Verb, Word
from fleet.mta.records import Context, Ended, Fingerprint, InstanceFacts, QueueEntry, Result
from fleet.mta.results.changing import MoreOfChanges
from fleet.mta.steps import Steps

Wanted = Mapping[str, Fingerprint]
"""Messages by queue ID."""
Jobs = Mapping[str, Sequence[Quarantined]]
"""What lies in quarantine, by the name there of the job that put it there."""


@dataclass(frozen=True, slots=True)
class Reported:
    """What the host reported while messages were changed.

    `words`: of each message it named. `now`: what is queued of them, where the driver had to look again itself, after
    its last change. `places`: what lies in the job's quarantine, as far as the host reports it. `new_ids`: queue IDs
    that messages got. `data`: more for the run's result. `notes`: sentences for people. `error`: why nothing was done.
    """

    words: Mapping[str, Word] = field(default_factory=dict)
    now: dict[str, QueueEntry] | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    new_ids: Mapping[str, str] = field(default_factory=dict)
    data: MoreOfChanges = field(default_factory=MoreOfChanges)
    notes: tuple[str, ...] = ()
    error: FleetError | None = None

    def applied(self, result: Result) -> Result:
        """The result, failed where nothing was done."""
        return replace(result, ended=Ended.FAILED, error=self.error) if self.error else result


@dataclass(frozen=True, slots=True)
class Act:
    """One verb on the chosen messages. `commands`, `notes`: for the plan. `run`: does it; without messages nothing.

    `looks_again`, of TAKE_OUT: what seems gone is looked for in the job's quarantine once more.
    """

    commands: Sequence[tuple[str, ...]]
    run: Callable[[], Steps[Reported]]
    notes: Sequence[str] = ()
    looks_again: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """PUT_BACK or ERASE. `commands`, `notes`: for the plan. `run`: does it for the messages of one job; its `places`
    are all that lies in that job's quarantine afterwards. `settle`: with those that the queue holds again and all that
    was reported, what is to be done with them there; what it reports as left is not restored.
    """

    commands: Sequence[tuple[str, ...]]
    run: Callable[[str, Sequence[Quarantined]], Steps[Reported]]
    notes: Sequence[str] = ()
    settle: Callable[[Mapping[str, QueueEntry], Reported], Steps[Reported]] | None = None


@dataclass(frozen=True, slots=True)
class QueueDriver:
    """How the messages of an MTA's queue are changed, and what lies in its quarantine.

    `verbs`: what can be done to messages of this MTA; the operations follow from them.
    `layout`: how that lies in the queue directories; `lying`: its places for one job, for what a verb is about. `move`:
    puts back or erases. `check` raises what needs no look at the queue. `bounces_held`: a message on hold can be
    bounced as it is. `is_back`: whether an item that is queued is wholly restored. `readable`: verbs of which queue and
    quarantine tell afterwards. `holds_first`: what was cut off can leave messages on hold. `settles`: verbs of which
    `lying` first puts right what was cut off, also where nothing goes into the quarantine.
    """

    queue: Queue
    act: Callable[[InstanceFacts, Verb, ChangesMessages, Context, Chosen], Act]
    layout: Layout
    lying: Callable[[InstanceFacts, str, Verb, Wanted], Steps[Reported]]
    move: Callable[[InstanceFacts, Verb, Context, Jobs], Move]
    verbs: frozenset[Verb]
    check: Callable[[InstanceFacts, Verb, ChangesMessages], None] = lambda instance, verb, operation: None
    bounces_held: bool = True
    is_back: Callable[[Quarantined, QueueEntry], bool] = lambda item, entry: True
    readable: frozenset[Verb] = frozenset({Verb.HOLD, Verb.RELEASE, Verb.DELETE, Verb.TAKE_OUT})
    holds_first: bool = False
    settles: frozenset[Verb] = frozenset()
