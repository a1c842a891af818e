"""Reading a queue, the same for every MTA: queue.list, message.show, and which messages an expression selects.

An adapter describes its queue by a `Queue`: how to list it and how to read headers and bodies. Everything that judges,
keeps, sorts and shows messages is here.
"""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

from fleet.match import Entry, Expression, Judge, unsupported_fields
from fleet.mta.errors import FleetError, MessageNotFound, OutcomeUnknown, Refused, UnparsedOutput, Unsupported
from fleet.mta.operations import MessageShow, QueueList
from fleet.mta.queue.content import Content, Stored, TakeStored, subject_of
from fleet.mta.records import Context, Ended, InstanceFacts, QueueEntry, Recipient, Result
from fleet.mta.results.reading import QueuedMessage, QueueListResult
from fleet.mta.steps import Command, Completed, Steps, run

FIELDS = frozenset(
    {
        *("from", "to", "from-domain", "to-domain", "reason", "id", "state", "size", "age"),
        *("subject", "header", "body", "msgid"),
    }
)
"""Fields of the selection language that a queue tells of, but for the number of attempts, where its MTA keeps all."""


class StreamedEntry(Entry, Protocol):
    """A message while the listing streams in: it can be judged as it is, and copied when somebody keeps it."""

    @property
    def recipients(self) -> Sequence[Recipient]: ...
    @property
    def sender_raw(self) -> bytes | None: ...
    @property
    def held_by(self) -> str: ...

    def entry(self) -> QueueEntry: ...


class Streamed:
    """What the streamed entries of an MTA have in common: most tell no attempts or holders, none subjects."""

    __slots__ = ()
    attempts: int | None = None
    held_by = ""
    next_attempt = None
    subject = None

    def entry(self: StreamedEntry) -> QueueEntry:
        """A copy that stands by itself, and keeps nothing of the output alive."""
        return QueueEntry(
            queue_id=self.queue_id,
            state=self.state,
            native_state=self.native_state,
            arrival_time=self.arrival_time,
            sender=self.sender,
            recipients=self.recipients,
            size=self.size,
            attempts=self.attempts,
            sender_raw=self.sender_raw,
            held_by=self.held_by,
        )


@dataclass(frozen=True, slots=True)
class Listing:
    """How a listing ended. `refused`: messages that could not be read as this MTA's; nothing was guessed of them."""

    total: int = 0
    refused: int = 0
    notes: tuple[str, ...] = ()

    def noted(self, program: str, *notes: str) -> "Listing":
        """The same with these notes, and one on what was refused. `program`: what prints the listing."""
        refused = f"{self.refused} lines of the listing are not what {program} prints; they were left out"
        return replace(self, notes=(*notes, refused) if self.refused else notes)


Consumer = Callable[[StreamedEntry], None]


class WholeConsumer(Protocol):
    """Gets every message of a listing, with its headers where the listing has them."""

    def __call__(self, message: StreamedEntry, content: Stored | None = None) -> None: ...


def read_listing(command: Command, program: str, error_of: Callable[[Completed, str], FleetError]) -> Steps[Listing]:
    """Runs a listing whose sink hands the messages over. Raises the error behind a failure."""
    done = yield from run(command)
    if done.exit_status:
        raise error_of(done, program)
    listing: Listing = done.result
    return listing


@dataclass(frozen=True, slots=True)
class Queue:
    """How one MTA's queue is read. `title`: its name for people. `match_fields`: what of the language it keeps.

    `read` hands every message to the callback while the listing streams in; it raises rather than to take silence for
    an empty queue. `content` reads what a listing does not show; None where no field of the language needs it.
    `read_named`: of messages with these queue IDs alone, where an MTA's host can look for those and nothing else; what
    it does not hand over is not queued.
    `not_kept`: fields of these that an instance lacks by its configuration, and why.
    """

    title: str
    match_fields: frozenset[str]
    read: Callable[[InstanceFacts, Consumer], Steps[Listing]]
    content: Content | None = None
    read_headers: Callable[[InstanceFacts, WholeConsumer], Steps[Listing]] | None = None
    read_named: Callable[[InstanceFacts, Iterable[str], Consumer], Steps[Listing]] | None = None
    not_kept: Callable[[InstanceFacts], Mapping[str, str]] = lambda instance: {}

    def read_contents(
        self, instance: InstanceFacts, entries: Sequence[QueueEntry], take: TakeStored, *, body: bool
    ) -> Steps[None]:
        """Headers and, when asked, bodies of many messages. `take` gets no absent ones."""
        if self.content is not None:
            yield from self.content.read_many(instance, entries, take, body=body)

    def listed(
        self, instance: InstanceFacts, queue_ids: Iterable[str], others: Consumer = lambda message: None
    ) -> Steps[tuple[dict[str, QueueEntry], Listing]]:
        """What is queued now under these IDs, and how the listing ended. `others`: gets the rest of the messages.

        Raises UnparsedOutput: a listing with unreadable messages proves no absence.
        """
        wanted = frozenset(queue_ids)
        entries: dict[str, QueueEntry] = {}

        def take(message: StreamedEntry) -> None:
            if message.queue_id in wanted:
                entries[message.queue_id] = message.entry()
            else:
                others(message)

        if self.read_named and wanted:
            listing = yield from self.read_named(instance, wanted, take)
        else:
            listing = yield from self.read(instance, take)
        if listing.refused:
            raise UnparsedOutput(listing.notes[-1])
        return entries, listing

    def lookup(self, instance: InstanceFacts, queue_ids: Iterable[str]) -> Steps[dict[str, QueueEntry]]:
        """What is queued now under these IDs, for a proof."""
        return (yield from self.listed(instance, queue_ids))[0]

    def proof(self, instance: InstanceFacts, queue_ids: Iterable[str]) -> Steps[dict[str, QueueEntry]]:
        """`lookup` after a change. Without IDs nothing is run. Raises OutcomeUnknown: what was done was not seen."""
        wanted = tuple(queue_ids)
        if not wanted:
            return {}
        try:
            return (yield from self.lookup(instance, wanted))
        except Refused as error:
            raise OutcomeUnknown(f"changed, but then the queue could not be read: {error.detail}") from error

    def find(self, instance: InstanceFacts, queue_id: str) -> Steps[tuple[QueueEntry | None, Listing]]:
        """The message of that ID, and how the listing ended."""
        entries: list[QueueEntry] = []

        def take(message: StreamedEntry) -> None:
            if message.queue_id == queue_id:
                entries.append(message.entry())

        listing = yield from self.read(instance, take)
        return (entries[-1] if entries else None), listing

    def get(self, instance: InstanceFacts, queue_id: str) -> Steps[QueueEntry]:
        """The message of that ID. Raises MessageNotFound."""
        entry, _ = yield from self.find(instance, queue_id)
        if entry is None:
            raise MessageNotFound(f"{queue_id} is not queued")
        return entry

    def check_fields(self, instance: InstanceFacts, expression: Expression) -> None:
        """Raises Unsupported for a field of the selection language that this MTA, or this instance, does not keep."""
        if unknown := unsupported_fields(expression, self.match_fields):
            raise Unsupported(
                f"{self.title} does not keep {', '.join(unknown)}, so it cannot be matched", fields=unknown
            )
        lacking = self.not_kept(instance)
        if unknown := unsupported_fields(expression, self.match_fields - lacking.keys()):
            why = "; ".join(lacking[field] for field in unknown)
            raise Unsupported(
                f"this instance does not keep {', '.join(unknown)} ({why}), so params.match cannot ask for it",
                hint="leave it out of params.match, or select other instances",
                fields=unknown,
            )


class TopMatches:
    """Collects what a judge lets through while the listing streams in.

    `keep` bounds the memory: of more matches the best by `rank` (lowest first) are kept. `relevant` leaves out matches
    that there is nothing to do for; they count in `already`.
    """

    def __init__(
        self,
        *,
        keep: int,
        rank: Callable[[Entry], float] = lambda entry: entry.arrival_time,
        relevant: Callable[[Entry], bool] = lambda entry: True,
    ) -> None:
        self._keep = keep
        self._rank = rank
        self._relevant = relevant
        self._worst: float | None = None
        self._entries: dict[str, QueueEntry] = {}
        self.matched = 0
        self.already = 0

    def add(self, message: StreamedEntry) -> None:
        """A match. A message that moved between queues while it was listed is one message, as seen last."""
        if not self._relevant(message):
            self.already += 1
            return
        self.matched += message.queue_id not in self._entries
        if self._worst is not None and self._rank(message) >= self._worst:
            return
        self._entries[message.queue_id] = message.entry()
        if len(self._entries) >= 2 * self._keep + 100:
            self._trim()

    def best(self) -> list[QueueEntry]:
        """The kept matches, best first."""
        return sorted(self._entries.values(), key=self._rank)[: self._keep]

    def _trim(self) -> None:
        best = self.best()
        self._entries = {entry.queue_id: entry for entry in best}
        self._worst = self._rank(best[-1]) if best else None


def matching(
    queue: Queue, instance: InstanceFacts, expression: Expression, judge: Judge, take: WholeConsumer
) -> Steps[Listing]:
    """Hands every message that matches to `take`, with what had to be read to know. Returns how the listing ended.

    What headers or body must tell is read in batches, and of a batch nothing is kept. Raises Unsupported.
    """
    queue.check_fields(instance, expression)
    envelope, with_content = judge.envelope, judge.with_content
    undecided: dict[str, QueueEntry] = {}

    def sort_out(message: StreamedEntry, content: Stored | None = None) -> None:
        verdict = envelope(message)
        if verdict is None and content is not None:
            verdict = with_content(message, content)
        if verdict is None:
            undecided[message.queue_id] = message.entry()
        elif verdict:
            take(message, content)

    def decide(queue_id: str, content: Stored) -> None:
        if with_content(undecided[queue_id], content):
            take(undecided[queue_id], content)

    if queue.read_headers and expression.needs_headers and not expression.needs_body:
        listing = yield from queue.read_headers(instance, sort_out)
    else:
        listing = yield from queue.read(instance, sort_out)
    if undecided:
        yield from queue.read_contents(instance, list(undecided.values()), decide, body=expression.needs_body)
    return listing


def select(
    queue: Queue, instance: InstanceFacts, expression: Expression, kept: TopMatches, judge: Judge
) -> Steps[Listing]:
    """Runs the queue's matches through `kept`, with their subjects where headers were read."""

    def take(message: StreamedEntry, content: Stored | None = None) -> None:
        if content is not None:
            message = message.entry()
            message.subject = subject_of(content)
        kept.add(message)

    return (yield from matching(queue, instance, expression, judge, take))


def add_subjects(queue: Queue, instance: InstanceFacts, entries: Sequence[QueueEntry]) -> Steps[None]:
    """Fills in `subject` of the entries; a message that is gone meanwhile has an empty one."""
    subjects: dict[str, str] = {}

    def take(queue_id: str, content: Stored) -> None:
        subjects[queue_id] = subject_of(content)

    yield from queue.read_contents(instance, entries, take, body=False)
    for entry in entries:
        entry.subject = subjects.get(entry.queue_id, "")


def queue_list(queue: Queue, instance: InstanceFacts, operation: QueueList, context: Context) -> Steps[Result]:
    """`queue.list`: the oldest (or largest) messages that match, and how many there are in all."""
    judge = operation.match.compile(context.now)
    by_size = operation.order == "size"
    kept = TopMatches(keep=operation.limit, rank=(lambda e: -e.size) if by_size else (lambda e: e.arrival_time))
    listing = yield from select(queue, instance, operation.match, kept, judge)
    entries = kept.best()
    if "subject" in operation.fields:
        yield from add_subjects(queue, instance, entries)
    data: QueueListResult = {
        "entries": [entry_as_json(entry, operation.fields) for entry in entries],
        "total": listing.total,
        "matched": kept.matched,
        "truncated": kept.matched > len(entries),
        "taken_at": context.now,
        "refused": listing.refused,
        "notes": list(listing.notes),
    }
    return Result(Ended.SUCCEEDED, data)


def message_show(queue: Queue, instance: InstanceFacts, operation: MessageShow, context: Context) -> Steps[Result]:
    """`message.show`, of an MTA whose queue has contents. Raises MessageNotFound."""
    if queue.content is None:
        raise ValueError(f"{queue.title} shows nothing but envelopes")
    entry = yield from queue.get(instance, operation.queue_id)
    return Result(Ended.SUCCEEDED, (yield from queue.content.read_one(instance, operation, entry)))


def entry_as_json(entry: QueueEntry, fields: Sequence[str] = ()) -> QueuedMessage:
    """An entry as the API shows it; with `fields`, only those and the queue ID."""
    whole: QueuedMessage = {
        "queue_id": entry.queue_id,
        "state": entry.state,
        "native_state": entry.native_state,
        "arrival_time": entry.arrival_time,
        "sender": entry.sender,
        "recipients": [each.as_json() for each in entry.recipients],
        "size": entry.size,
        "attempts": entry.attempts,
        "next_attempt": entry.next_attempt,
    }
    if entry.subject is not None:
        whole["subject"] = entry.subject
    if entry.sender_raw is not None:
        whole["sender_raw"] = base64.b64encode(entry.sender_raw).decode()
    if not fields:
        return whole
    wanted = {"queue_id", "sender_raw", *fields}
    return cast(QueuedMessage, {name: value for name, value in whole.items() if name in wanted})
