"""The audit trail: append in the caller's transaction, sign checkpoints, verify, export.

    append(Entry("acme", "job.submitted", actor, object=str(job.id), job=job.id, data={"operation": "queue.purge"}))

An entry is either committed together with what it tells of, or neither is. One chain per customer ("" for what belongs
to none): `hash = SHA-256("mxfleet-audit-v1\\n" || prev_hash || JCS(event))`, see jobs.audit.verify for the arithmetic.
Secrets and content of messages never go into `data`: digests, counts and names do.
"""

import heapq
import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from django.db import DatabaseError, transaction
from django.db.models import Max, Min, OuterRef, Q, QuerySet, Subquery
from django.utils import timezone

from jobs.actor import Actor
from jobs.audit import marks
from jobs.audit.keys import public_key, public_keys, sign
from jobs.audit.verify import Line, Verdict, checkpoint_content, event_hash, verify_lines
from jobs.audit.window import ALWAYS, Window
from jobs.errors import Unavailable
from jobs.jsonvalues import storable
from jobs.models import AuditChain, AuditCheckpoint, AuditEvent

__all__ = [
    "Entry",
    "append",
    "as_json",
    "checkpoint",
    "checkpoint_line",
    "event_line",
    "export",
    "lines",
    "lock_chains",
    "public_key",
    "verify",
]

BATCH = 1000
LOCK_WAIT = "10s"
MAX_INTEGER = 2**53
ASTRAL = re.compile("[\U00010000-\U0010ffff]")
Row = TypeVar("Row", AuditEvent, AuditCheckpoint)
logger = logging.getLogger("mxfleet.audit.checkpoint")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to be recorded. `customer` is a slug, "" for the installation; `action` a dotted verb.

    `data`: JSON types, times and UUIDs; integers within 2^53, no NaN. `actor` None: the service itself.
    """

    customer: str
    action: str
    actor: Actor | None
    object: str = ""
    job: UUID | None = None
    data: dict[str, Any] = field(default_factory=dict)


def append(*entries: Entry) -> None:
    """Record the entries, in their order, in the transaction that the caller has open.

    Locks the heads of the chains in the order of their names until the caller commits: call it once per transaction,
    late, after the locks of hosts and jobs. Raises TransactionManagementError outside of `transaction.atomic()`,
    TypeError or ValueError for `data` that is no JSON, and Unavailable (`audit_unavailable`) when the database refuses:
    then the caller's transaction must end too, so that nothing is done without a record.
    """
    if not transaction.get_connection().in_atomic_block:
        raise transaction.TransactionManagementError("audit.append() must be called inside transaction.atomic()")
    if not entries:
        return
    at = timezone.now()
    cleaned = [_clean(entry.data, "data") for entry in entries]
    try:
        heads = lock_chains({entry.customer for entry in entries})
        rows = [_link(heads[entry.customer], entry, data, at) for entry, data in zip(entries, cleaned, strict=True)]
        AuditEvent.objects.bulk_create(rows, batch_size=BATCH)
        AuditChain.objects.bulk_update(heads.values(), ["seq", "hash"])
    except DatabaseError as error:
        raise Unavailable("audit_unavailable", "The audit trail cannot be written, so nothing was done.") from error


def lock_chains(names: Iterable[str]) -> dict[str, AuditChain]:
    """The heads, locked until the commit, in the order of their names.

    For a transaction that appends several times: it takes all its chains at first, so that no two of them wait for each
    other. SQLite has no row locks, there the IMMEDIATE transaction keeps every other writer out.
    """
    names = set(names)
    connection = transaction.get_connection()
    if connection.vendor == "postgresql":
        # Whoever blocks the audit trail must make requests fail, not wait: https://www.postgresql.org/docs/current/
        # runtime-config-client.html#GUC-LOCK-TIMEOUT. SQLite waits for `timeout` at BEGIN.
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_WAIT])
    rows = AuditChain.objects.select_for_update(no_key=True).filter(name__in=names).order_by("name")
    heads = {head.name: head for head in rows}
    if len(heads) < len(names):  # a customer's first entry
        missing = [AuditChain(name=name) for name in sorted(names - heads.keys())]
        AuditChain.objects.bulk_create(missing, ignore_conflicts=True)
        heads = {head.name: head for head in rows.all()}
    return heads


def _link(head: AuditChain, entry: Entry, data: Any, at: datetime) -> AuditEvent:
    actor = entry.actor
    row = AuditEvent(
        chain=head.name,
        seq=head.seq + 1,
        at=at,
        actor=actor.account.username if actor else "",
        on_behalf_of=_fit(actor.on_behalf_of, 63) if actor else "",
        channel=actor.channel if actor else "",
        source=_fit(actor.source, 64) if actor else "",
        action=entry.action,
        object=_fit(entry.object, 200),
        job=entry.job,
        data=data,
        prev_hash=head.hash,
    )
    row.hash = event_hash(head.hash, event_line(row))
    head.seq, head.hash = row.seq, row.hash
    return row


def _fit(text: str, length: int) -> str:
    # A name that is too long must not keep an act from being recorded; its beginning is enough to find it by.
    text = storable(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def _clean(value: Any, place: str) -> Any:
    """A copy of JSON types that each database gives back as it was, and that json.dumps writes as RFC 8785 asks.

    RFC 8785 sorts keys by UTF-16 units, so characters beyond U+FFFF are escaped there; it writes 1.0 as 1, and small
    fractions otherwise than Python, so those below 0.0001 become text.
    """
    match value:
        case None | bool():
            return value
        case str():
            return storable(value)
        case int() | float():
            return _number(value, place)
        case datetime():
            return _rfc3339(value)
        case UUID():
            return str(value)
        case list() | tuple():
            return [_clean(item, f"{place}[{index}]") for index, item in enumerate(value)]
        case dict():
            return {_key(key, place): _clean(item, f"{place}.{key}") for key, item in value.items()}
    raise TypeError(f"audit {place}: {type(value).__name__} is no JSON type")


def _key(key: Any, place: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"audit {place}: the key {key!r} is no text")
    return ASTRAL.sub(lambda found: f"\\U{ord(found[0]):08x}", storable(key))


def _number(value: float, place: str) -> float | str:
    if not math.isfinite(value) or abs(value) > MAX_INTEGER:
        raise ValueError(f"audit {place}: {value} is not finite, or beyond 2^53")
    if value == int(value):
        return int(value)
    return value if abs(value) >= 0.0001 else repr(value)


def event_line(row: AuditEvent) -> Line:
    """The entry as exported and hashed; `at` in RFC 3339 with microseconds."""
    return {
        "type": "event",
        "chain": row.chain,
        "seq": row.seq,
        "at": _rfc3339(row.at),
        "actor": row.actor,
        "on_behalf_of": row.on_behalf_of,
        "channel": row.channel,
        "source": row.source,
        "action": row.action,
        "object": row.object,
        "job": str(row.job) if row.job else None,
        "data": row.data,
        "prev_hash": row.prev_hash,
        "hash": row.hash,
    }


def checkpoint_line(row: AuditCheckpoint) -> Line:
    """The checkpoint as exported; its signature is over all but `type`. The first ones name none before them."""
    line = {"type": "checkpoint", "chain": row.chain, "seq": row.seq, "hash": row.hash, "at": _rfc3339(row.at)}
    if row.previous is not None:
        line |= {"previous": row.previous, "previous_hash": row.previous_hash}
    return {**line, "signature": row.signature}


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def checkpoint() -> list[AuditCheckpoint]:
    """Sign how far each chain has got since its last checkpoint; the scheduler calls it each 60 s.

    Nothing is signed while the database lacks what this machine remembers (marks.py): a forgery, or the rest of a
    backup, is never signed as if it followed what was signed before. Each checkpoint is logged as a JSON line by
    `mxfleet.audit.checkpoint` too: who keeps that log where this service cannot delete has the proof against a full
    rewrite. Raises fleet.secrets.SecretError, MarksError, DatabaseError.
    """
    with marks.locked():
        known = marks.read()
        if known is None:
            return []
        now = marks.heads()
        if lost := marks.losses(known, now):
            logger.critical("nothing is signed: %s", "; ".join(map(str, lost)))
            return []
        rows = _sign(now)
        for row in rows:
            logger.info(json.dumps(checkpoint_line(row)))
        if rows:
            signed = {row.chain: marks.Mark(row.seq, row.hash, row.seq, row.hash) for row in rows}
            marks.write({**marks.moved_on(known, now), **signed})
    return rows


def _sign(heads: marks.Marks) -> list[AuditCheckpoint]:
    """Checkpoints of those of the chains that have moved since their last one."""
    newest = AuditCheckpoint.objects.filter(chain=OuterRef("name")).order_by("-seq")[:1]
    chains = AuditChain.objects.annotate(signed=Subquery(newest.values("seq")), of=Subquery(newest.values("hash")))
    last = {name: (seq or 0, of or "") for name, seq, of in chains.values_list("name", "signed", "of")}
    rows = [
        AuditCheckpoint(chain=name, seq=head.seq, hash=head.hash, previous=last[name][0], previous_hash=last[name][1])
        for name, head in heads.items()
        if name in last and last[name][0] < head.seq
    ]
    at = timezone.now()
    for row in rows:
        row.at = at
        row.signature = sign(checkpoint_content(checkpoint_line(row)))
    # Where another machine has signed the same chain in this moment, its checkpoint stands: none has two successors.
    AuditCheckpoint.objects.bulk_create(rows, ignore_conflicts=True)
    stored = AuditCheckpoint.objects.filter(chain__in=[row.chain for row in rows], seq__in=[row.seq for row in rows])
    signatures = set(stored.values_list("signature", flat=True))
    return [row for row in rows if row.signature in signatures]


def verify(chains: Sequence[str] | None = None) -> Verdict:
    """Follow these chains (None: all) to the first bad entry. Streams; raises SecretError, DatabaseError."""
    return verify_lines(lines(chains), public_keys())


def export(chains: Sequence[str] | None = None, window: Window = ALWAYS) -> Iterator[str]:
    """The same as JSON lines, for the offline verifier."""
    return as_json(lines(chains, window))


def as_json(told: Iterable[Line]) -> Iterator[str]:
    """Lines as text, each with its line feed."""
    for line in told:
        yield json.dumps(line, ensure_ascii=False) + "\n"


def lines(chains: Sequence[str] | None = None, window: Window = ALWAYS) -> Iterator[Line]:
    """The chains (None: all), or what of each lies in the window, as the verifier takes them."""
    for name in sorted(_all_chains()) if chains is None else chains:
        yield from _excerpt_lines(name, window) if window else _chain_lines(name)


def _all_chains() -> set[str]:
    # Also from the entries: a chain whose head row was deleted must not fall out of sight.
    return {
        name
        for names in (
            AuditChain.objects.values_list("name", flat=True),
            AuditEvent.objects.order_by().values_list("chain", flat=True).distinct(),
            AuditCheckpoint.objects.order_by().values_list("chain", flat=True).distinct(),
        )
        for name in names
    }


def _chain_lines(name: str) -> Iterator[Line]:
    # Others write meanwhile: what is read before the head is never ahead of it, unless someone forged it.
    events = AuditEvent.objects.filter(chain=name).order_by("seq")
    checkpoints = AuditCheckpoint.objects.filter(chain=name).order_by("seq")
    top = events.aggregate(top=Max("seq"))["top"] or 0
    last_checkpoint = checkpoints.aggregate(last=Max("id"))["last"] or 0
    head = AuditChain.objects.filter(name=name).first()
    end = max(top, head.seq if head else 0)
    yield from _merged(events.filter(seq__lte=end), checkpoints.filter(id__lte=last_checkpoint))
    if head:
        yield {"type": "head", "chain": name, "seq": head.seq, "hash": head.hash}


def _excerpt_lines(name: str, window: Window) -> Iterator[Line]:
    """From the chain's first entry in the window to its last one: those between are there whatever their time is."""
    events = AuditEvent.objects.filter(chain=name).order_by("seq")
    ends = events.filter(window.condition()).aggregate(first=Min("seq"), last=Max("seq"))
    first, last = ends["first"], ends["last"]
    if first is None:
        return
    before = events.filter(seq=first).values_list("prev_hash", flat=True).first()
    yield {"type": "excerpt", "chain": name, "seq": first - 1, "hash": before}
    within = Q(seq__gte=first, seq__lte=last)
    checkpoints = AuditCheckpoint.objects.filter(within, chain=name).order_by("seq")
    yield from _merged(events.filter(within), checkpoints)
    of_last = events.filter(seq=last).values_list("hash", flat=True).first()
    yield {"type": "head", "chain": name, "seq": last, "hash": of_last}


def _merged(events: QuerySet[AuditEvent], checkpoints: QuerySet[AuditCheckpoint]) -> Iterator[Line]:
    """Each checkpoint after the entry that it signs."""
    return heapq.merge(
        (event_line(row) for row in _in_batches(events)),
        (checkpoint_line(row) for row in _in_batches(checkpoints)),
        key=lambda line: (line["seq"], line["type"] == "checkpoint"),
    )


def _in_batches(rows: QuerySet[Row]) -> Iterator[Row]:
    """Rows in the order of `seq`, each batch by a statement of its own: whoever reads slowly has none open meanwhile.

    Also those that somebody forged with a `seq` of another one, though the database refuses them.
    """
    last, yielded = 0, list[int]()
    while batch := list(rows.filter(seq__gte=last).exclude(pk__in=yielded)[:BATCH]):
        yield from batch
        last = batch[-1].seq
        yielded = [row.pk for row in batch if row.seq == last]
