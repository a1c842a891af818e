"""Reading the queue: queue.list, queue.summary, and which messages a change is about."""

import base64
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from fleet.match import Entry, Expression, Judge, unsupported_fields
from fleet.mta.errors import OutcomeUnknown, Refused, UnparsedOutput, Unsupported
from fleet.mta.operations import QueueList
from fleet.mta.postfix.commands import postqueue
from fleet.mta.postfix.content import add_subjects, contents, subject_of
from fleet.mta.postfix.parse import Listed, Listing, QueueSink, error_of
from fleet.mta.types import Completed, Context, Ended, InstanceFacts, QueueEntry, Result, Steps, run

ENVELOPE_FIELDS = frozenset({"from", "to", "from-domain", "to-domain", "reason", "id", "state", "size", "age"})
MATCH_FIELDS = ENVELOPE_FIELDS | {"subject", "header", "body", "msgid"}
EMPTY = b"Mail queue is empty"
DOWN = "the mail system is down; root's listing reads the queue files themselves"


def read_queue(instance: InstanceFacts, take: Callable[[Listed], None]) -> Steps[Listing]:
    """Every message of the queue, handed to `take` while the listing streams in.

    postqueue -j says nothing when the queue is empty, and nothing when it is broken. So silence counts only when
    postqueue -p, asked right after, says that the queue is empty. Raises UnparsedOutput, MtaNotRunning and others.
    """
    for _ in range(3):
        done = yield from run(postqueue(instance, "-j", sink=QueueSink(take)))
        if done.exit_status:
            raise error_of(done, "postqueue")
        listing: Listing = done.result
        if listing.total or listing.refused:
            return _with_notes(listing, done)
        proof = yield from run(postqueue(instance, "-p"))
        if proof.exit_status:
            raise error_of(proof, "postqueue")
        if proof.stdout.strip() == EMPTY:
            return _with_notes(listing, done)
    raise UnparsedOutput("postqueue -j printed nothing, and postqueue -p does not say that the queue is empty")


def _with_notes(listing: Listing, done: Completed) -> Listing:
    notes = [DOWN] if b"Mail system is down" in done.stderr else []
    if listing.refused:
        notes.append(f"{listing.refused} lines of the listing are not what postqueue prints; they were left out")
    return replace(listing, notes=tuple(notes))


def lookup(instance: InstanceFacts, queue_ids: Iterable[str]) -> Steps[dict[str, QueueEntry]]:
    """What the queue holds now under these IDs, for a proof: a listing with unreadable lines proves no absence."""
    wanted = frozenset(queue_ids)
    found: dict[str, QueueEntry] = {}

    def take(message: Listed) -> None:
        if message.queue_id in wanted:
            found[message.queue_id] = message.entry()

    listing = yield from read_queue(instance, take)
    if listing.refused:
        raise UnparsedOutput(listing.notes[-1])
    return found


def proof(instance: InstanceFacts, queue_ids: Iterable[str]) -> Steps[dict[str, QueueEntry]]:
    """`lookup` after a change. Without IDs nothing is run. Raises OutcomeUnknown: what was done could not be seen."""
    wanted = tuple(queue_ids)
    if not wanted:
        return {}
    try:
        return (yield from lookup(instance, wanted))
    except Refused as error:
        raise OutcomeUnknown(f"changed, but then the queue could not be read: {error.detail}") from error


class Kept:
    """Collects what a judge lets through while the listing streams in.

    `keep` bounds the memory: of more matches the best by `rank` (lowest first) are kept. `relevant` leaves out matches
    that there is nothing to do for; they count in `already`. `undecided` need their content read.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        keep: int,
        rank: Callable[[Entry], float] = lambda entry: entry.arrival_time,
        relevant: Callable[[Entry], bool] = lambda entry: True,
    ) -> None:
        self._judge = judge.envelope
        self._keep = keep
        self._rank = rank
        self._relevant = relevant
        self._worst: float | None = None
        self._entries: dict[str, QueueEntry] = {}
        self.undecided: dict[str, QueueEntry] = {}
        self.matched = 0
        self.already = 0

    def take(self, message: Listed) -> None:
        verdict = self._judge(message)
        if verdict is None:
            self.undecided[message.queue_id] = message.entry()
        elif verdict:
            self.add(message)

    def add(self, message: Listed | QueueEntry) -> None:
        """A match. A message that moved between queues while it was listed is one message, as seen last."""
        if not self._relevant(message):
            self.already += 1
            return
        self.matched += message.queue_id not in self._entries
        if self._worst is not None and self._rank(message) >= self._worst:
            return
        self._entries[message.queue_id] = message if isinstance(message, QueueEntry) else message.entry()
        if len(self._entries) >= 2 * self._keep + 100:
            self._trim()

    def best(self) -> list[QueueEntry]:
        """The kept matches, best first."""
        return sorted(self._entries.values(), key=self._rank)[: self._keep]

    def _trim(self) -> None:
        best = self.best()
        self._entries = {entry.queue_id: entry for entry in best}
        self._worst = self._rank(best[-1]) if best else None


def select(instance: InstanceFacts, expression: Expression, kept: Kept, judge: Judge) -> Steps[Listing]:
    """Runs the listing through `kept` and decides what needs content, in batches. Returns how the listing ended."""
    check_fields(expression)
    listing = yield from read_queue(instance, kept.take)
    if kept.undecided:
        found = yield from contents(instance, list(kept.undecided), body=expression.needs_body)
        for name, content in found.items():
            entry = kept.undecided[name]
            if judge.with_content(entry, content):
                entry.subject = subject_of(content)
                kept.add(entry)
    return listing


def check_fields(expression: Expression) -> None:
    """Raises Unsupported for a field of the selection language that Postfix does not keep."""
    if unknown := unsupported_fields(expression, MATCH_FIELDS):
        raise Unsupported(f"Postfix does not keep {', '.join(unknown)}, so it cannot be matched", fields=unknown)


def queue_list(instance: InstanceFacts, operation: QueueList, context: Context) -> Steps[Result]:
    """`queue.list`: the oldest (or largest) messages that match, and how many there are in all."""
    judge = operation.match.compile(context.now)
    by_size = operation.order == "size"
    kept = Kept(judge, keep=operation.limit, rank=(lambda e: -e.size) if by_size else (lambda e: e.arrival_time))
    listing = yield from select(instance, operation.match, kept, judge)
    entries = kept.best()
    if "subject" in operation.fields:
        yield from add_subjects(instance, entries)
    return Result(
        Ended.SUCCEEDED,
        {
            "entries": [shown(entry, operation.fields) for entry in entries],
            "total": listing.total,
            "matched": kept.matched,
            "truncated": kept.matched > len(entries),
            "taken_at": context.now,
            "refused": listing.refused,
            "notes": list(listing.notes),
        },
    )


def shown(entry: QueueEntry, fields: Sequence[str] = ()) -> dict[str, Any]:
    """An entry as the API shows it; with `fields`, only those and the queue ID."""
    whole: dict[str, Any] = {
        "queue_id": entry.queue_id,
        "state": entry.state,
        "native_state": entry.native_state,
        "arrival_time": entry.arrival_time,
        "sender": entry.sender,
        "recipients": [
            {"address": each.address, "reason": each.reason, "state": each.state} for each in entry.recipients
        ],
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
    return {name: value for name, value in whole.items() if name in wanted}
