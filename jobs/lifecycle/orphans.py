"""Messages that lie in a host's quarantine and of which no row tells.

What a purge of ours left there gets its row, and is kept as long from then on as the purge said. Anything else is
reported and never touched: nothing that has no row is ever erased.
"""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from fleet.models import Instance, QuarantineLook
from fleet.mta.errors import ConnectionLost, FleetError, NothingSent
from fleet.mta.operations import QueuePurge
from fleet.mta.records import Found, InQuarantine
from jobs.audit import trail
from jobs.clock import db_now
from jobs.jsonvalues import storable
from jobs.lifecycle import effects
from jobs.lifecycle.claim import with_hosts
from jobs.lifecycle.hosts import is_touched
from jobs.lifecycle.submit import queue_of_host
from jobs.models import OPEN_RUNS, Job, Message, QuarantineItem, QuarantineState, Run
from jobs.operation import operation_for

EVERY = timedelta(days=1)
FIRST = timedelta(hours=1)
"""How long an instance is known before its first look: also one on which no purge is on record, as after the database
was restored from a backup that is older than the purge."""
TAKEN = timedelta(minutes=15)
"""A look whose worker was lost is due again after this."""
SOON = timedelta(minutes=10)
AGAIN = timedelta(hours=1)
"""When a host that could not be reached is looked at again."""
ROUND = 20
"""Instances of one round."""
JOBS = 20
"""Purges of one instance whose messages get their rows in one round."""
NAMED = 20
BATCH = 500

Key = tuple[str, str]
"""What the quarantine calls the job, and a queue ID."""
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Compared:
    """A look beside the table. `orphans`: to be reported; `ours`: by the run whose purge may have put them there.

    `is_early`: something must wait for a run that is not over, or for the next round.
    """

    orphans: list[Found] = field(default_factory=list)
    ours: dict[UUID, list[Found]] = field(default_factory=lambda: defaultdict(list))
    is_early: bool = False


def enroll() -> None:
    """Give each instance that discovery has found its first look, FIRST after that."""
    fresh = Instance.objects.filter(quarantine_look=None).only("created_at")
    looks = [QuarantineLook(instance=each, due_at=each.created_at + FIRST) for each in fresh]
    QuarantineLook.objects.bulk_create(looks, batch_size=BATCH, ignore_conflicts=True)


def due(now: datetime) -> QuerySet[Instance]:
    """Instances to be looked at now, the most overdue first. Not while a changing job has the host."""
    return (
        Instance.objects.filter(
            quarantine_look__due_at__lte=now,
            enabled=True,
            host__enabled=True,
            host__customer__enabled=True,
        )
        .exclude(host__lease__job__isnull=False)
        .order_by("quarantine_look__due_at", "pk")
    )


def queues(now: datetime) -> set[str]:
    """The Celery queues whose workers have instances to look at."""
    hosts = due(now).order_by().values_list("host__name", "host__site").distinct()
    return {queue_of_host(name, site) for name, site in hosts}


def take(now: datetime, queue: str) -> list[Instance]:
    """Up to ROUND instances of this Celery queue that are due, put off at once so that no one else looks."""
    waiting = due(now).values_list("pk", "host__name", "host__site")
    first = [pk for pk, name, site in waiting if queue_of_host(name, site) == queue][:ROUND]
    related = ("host__customer", "host__credential__customer", "host__jump_host__credential__customer")
    return [
        each
        for each in Instance.objects.filter(pk__in=first).select_related(*related)
        if QuarantineLook.objects.filter(instance=each, due_at__lte=now).update(due_at=now + TAKEN)
    ]


def inspect_soon(instance: Instance) -> None:
    """Look at it in the next round."""
    QuarantineLook.objects.update_or_create(instance=instance, defaults={"due_at": db_now()})


def put_off(instance: Instance, error: FleetError | None = None) -> None:
    """Look again: soon, or after an error when that may have passed."""
    later, reason = SOON, ""
    if error is not None:
        later = AGAIN if isinstance(error, NothingSent | ConnectionLost) else EVERY
        reason = storable(f"{error.code}: {error.detail}")[:500]
    QuarantineLook.objects.filter(instance=instance).update(due_at=db_now() + later, error=reason)


def compare(instance: Instance, there: InQuarantine, mark: Callable[[str], str]) -> Compared:
    """What of a look no row tells of. `mark`: the adapter's quarantine_mark."""
    kept, ended = _rows(instance, there.found, mark)
    missing = [each for each in there.found if _key(each) not in kept]
    compared = Compared()
    if not missing:
        return compared
    touched = _purges(instance, mark)
    open_runs = set(Run.objects.filter(OPEN_RUNS, instance=instance).values_list("pk", flat=True))
    named = _named(instance, {each.queue_id for each in missing})
    for each in missing:
        run = touched.get(each.job)
        if run in open_runs:  # reading back settles it
            compared.is_early = True
        elif run is None or _key(each) in ended or (run, each.queue_id) not in named:
            compared.orphans.append(each)
        elif run in compared.ours or len(compared.ours) < JOBS:
            compared.ours[run].append(each)
        else:
            compared.is_early = True
    return compared


def _key(found: Found) -> Key:
    return found.job, found.queue_id


def _rows(instance: Instance, found: Sequence[Found], mark: Callable[[str], str]) -> tuple[set[Key], set[Key]]:
    """What rows say that is kept there, and what they say that is no longer."""
    kept: set[Key] = set()
    ended: set[Key] = set()
    items = QuarantineItem.objects.filter(instance=instance).order_by()
    for ids in _batches({each.queue_id for each in found}):
        for job, queue_id, state in items.filter(queue_id__in=ids).values_list("job_id", "queue_id", "state"):
            (kept if state == QuarantineState.KEPT else ended).add((mark(str(job)), queue_id))
    return kept, ended


def _purges(instance: Instance, mark: Callable[[str], str]) -> dict[str, UUID]:
    """The runs of purges that may have changed the instance, by the mark of their job."""
    rows = Run.objects.filter(instance=instance, job__operation="queue.purge", dispatched_at__isnull=False)
    return {mark(str(job)): run for run, job in rows.order_by().values_list("pk", "job_id")}


def _named(instance: Instance, queue_ids: set[str]) -> set[tuple[UUID, str]]:
    """(run, queue ID) of the messages that plans on this instance name."""
    rows = Message.objects.filter(run__instance=instance).order_by()
    return {
        pair for ids in _batches(queue_ids) for pair in rows.filter(queue_id__in=ids).values_list("run_id", "queue_id")
    }


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    every = sorted(names)
    return (every[start : start + BATCH] for start in range(0, len(every), BATCH))


def messages_of(run: Run, found: Sequence[Found]) -> list[Message]:
    """The messages of the run's plan that were found."""
    ids = [each.queue_id for each in found]
    return [row for batch in _batches(ids) for row in run.messages.filter(queue_id__in=batch).order_by("id")]


def runs_of(compared: Compared) -> list[Run]:
    """The runs whose messages were found, with all that is needed to ask their hosts."""
    return list(with_hosts(Run.objects.filter(pk__in=compared.ours)).select_related("job__undo_of"))


def adopt(run: Run, found: Sequence[Found], places: dict[str, str], began: datetime) -> list[Found] | None:
    """Give what the host proved to lie where it was found its rows. Returns the rest; None: not now.

    `places`: what reading the purge back showed of these messages. `began`: when the look did.
    """
    proven = [each for each in found if places.get(each.queue_id) == each.place]
    rest = [each for each in found if places.get(each.queue_id) != each.place]
    if not proven:
        return rest
    instance = run.instance
    operation = operation_for(run.job, run)
    if instance is None or not isinstance(operation, QueuePurge):
        raise TypeError(f"{run} is no purge of an instance")
    with transaction.atomic():
        Job.objects.select_for_update(no_key=True).get(pk=run.job_id)  # as recording does: each message gets one row
        if is_touched(instance.host_id, began) or Run.objects.filter(OPEN_RUNS, pk=run.pk).exists():
            return None
        now = db_now()
        have = set(QuarantineItem.objects.filter(job=run.job_id, instance=instance).values_list("queue_id", flat=True))
        items = [
            effects.quarantine_item(run, row, places[row.queue_id], now, now + timedelta(seconds=operation.keep))
            for row in messages_of(run, proven)
            if row.queue_id not in have
        ]
        QuarantineItem.objects.bulk_create(items, batch_size=1000)
        if items:
            data = {"run": str(run.pk), "count": len(items), "named": names(proven)}
            trail.append(_entry(instance, "quarantine.found", data, run.job_id))
            log.warning("%s: %d messages of job %s lay in quarantine without a row", instance, len(items), run.job_id)
    return rest


def _entry(instance: Instance, action: str, data: dict[str, object], job: UUID | None = None) -> trail.Entry:
    slug = instance.host.customer.slug
    return trail.Entry(customer=slug, action=action, actor=None, object=str(instance), job=job, data=data)


def names(found: Sequence[Found]) -> list[str]:
    """Some of them, as JOB/QUEUE_ID; both had to fit a grammar, the length is what is left to bound."""
    return [storable(f"{each.job}/{each.queue_id}")[:120] for each in sorted(found)[:NAMED]]


def settle(instance: Instance, there: InQuarantine, orphans: Sequence[Found], *, is_early: bool) -> None:
    """Store what a look showed, and report it when it is not what was reported last."""
    digest = _digest(there, orphans)
    with transaction.atomic():
        look = QuarantineLook.objects.select_for_update().get(instance=instance)
        now = db_now()
        look.looked_at, look.due_at, look.error = now, now + (SOON if is_early else EVERY), ""
        look.orphans, look.more, look.odd, look.sample = len(orphans), there.more, there.odd, names(orphans)
        if digest and digest != look.reported:
            data = {"count": len(orphans), "more": there.more, "odd": there.odd, "named": look.sample}
            trail.append(_entry(instance, "quarantine.orphaned", data))
            log.warning("%s: in quarantine without a row, left alone: %s", instance, data)
        look.reported = digest
        look.save()


def _digest(there: InQuarantine, orphans: Sequence[Found]) -> str:
    """Empty when there is nothing to report, as when there is just more than one look tells of."""
    if not (orphans or there.odd):
        return ""
    lines = [str(there.odd), *(f"{each.job} {each.queue_id} {each.place}" for each in sorted(orphans))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
