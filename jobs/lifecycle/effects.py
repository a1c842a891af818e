"""What a result means beyond its run: messages, quarantine, holds, instances."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q

from fleet.inventory import instance_facts
from fleet.models import Host, Instance
from fleet.mta.host.names import given_names
from fleet.mta.operations import HostCheck, QueuePurge
from fleet.mta.records import Fingerprint, HostFacts, InstanceFacts, MessageOutcome, MessageState, Result
from fleet.mta.results.host import DiscoveredHost, DiscoveredInstance, HostDiscoverResult
from jobs import blocklist
from jobs.jsonvalues import storable
from jobs.lifecycle import tally
from jobs.lifecycle.hosts import is_touched
from jobs.models import Job, Message, QuarantineItem, QuarantineState, Run
from jobs.operation import fingerprint, operation_for

BATCH = 500
Entries = Sequence[Mapping[str, Any]]
"""As `queue.list` shows messages."""


def apply(job: Job, run: Run, result: Result, found: Sequence[Fingerprint], now: datetime) -> None:
    """Write what one result changed. In the caller's transaction. `found`: the messages as the change found them."""
    _outcomes(run, result.messages)
    _left_on_hold(run, result.data.get("held", []))
    if job.operation == "queue.hold":
        run.messages.filter(outcome=MessageState.DONE).update(is_held_by_us=True)
    elif job.operation == "queue.release":
        _released(run)
    elif job.operation == "queue.purge":
        _quarantined(job, run, result.data.get("places", {}), found, now)
    elif job.operation in ("quarantine.restore", "quarantine.erase"):
        _left_quarantine(job, run, result.messages)
    elif job.operation == HostCheck.name:
        _seen(run.host, result.data["helpers"])
    elif job.operation == "block.list":
        blocklist.compare(run, [line["pattern"] for line in result.data.get("ours", [])], now)


def _outcomes(run: Run, outcomes: tuple[MessageOutcome, ...]) -> None:
    """One UPDATE for each outcome and batch; new queue IDs one by one, since each is its own."""
    by_outcome: dict[str, list[str]] = defaultdict(list)
    for message in outcomes:
        by_outcome[message.outcome].append(message.queue_id)
        if message.new_id:
            run.messages.filter(queue_id=message.queue_id).update(new_id=message.new_id)
    for outcome, ids in by_outcome.items():
        for start in range(0, len(ids), BATCH):
            run.messages.filter(queue_id__in=ids[start : start + BATCH]).update(outcome=outcome)


def _left_on_hold(run: Run, held: list[str]) -> None:
    """What a change had put on hold when it was cut off is ours to release."""
    for start in range(0, len(held), BATCH):
        run.messages.filter(queue_id__in=held[start : start + BATCH]).update(is_held_by_us=True)


def _released(run: Run) -> None:
    """They are nobody's holds any more, whichever job of ours had held them."""
    freed = Message.objects.filter(run=run, outcome=MessageState.DONE).values("queue_id")
    Message.objects.filter(run__instance=run.instance, is_held_by_us=True, queue_id__in=freed).update(
        is_held_by_us=False
    )


def listed(seen: Sequence[tuple[Run, Entries, datetime]]) -> None:
    """What listings of instances showed, each with when it began; queried together whether we hold anything there."""
    if not seen:
        return
    held = Message.objects.filter(run__instance__in=[run.instance_id for run, _, _ in seen], is_held_by_us=True)
    holding = set(held.order_by().values_list("run__instance", flat=True).distinct())
    for run, entries, since in seen:
        # While the host is being changed, a message may be off its hold for a moment only.
        if run.instance_id in holding and not is_touched(run.host_id, since):
            freed(run, _not_held(entries), since)


def _not_held(entries: Entries) -> list[Fingerprint]:
    """What was requested in few fields only may be any message."""
    names = ("queue_id", "arrival_time", "sender", "size")
    whole = (entry for entry in entries if entry.keys() >= {"state", *names} and entry["state"] != "hold")
    return [Fingerprint(*(storable(entry[name]) for name in names)) for entry in whole]


def freed(run: Run, found: Sequence[Fingerprint], since: datetime) -> None:
    """Others released what we had put on hold before then, or it left the queue: a later hold of it is none of ours.

    What lies in our quarantine goes back as it was.
    """
    away = QuarantineItem.objects.filter(instance=run.instance, state=QuarantineState.KEPT).values("queue_id")
    rows = Message.objects.filter(run__instance=run.instance, run__finished_at__lt=since, is_held_by_us=True)
    gone = frozenset(found)
    ids = [row.pk for row in rows.exclude(queue_id__in=away) if fingerprint(row) in gone]
    for start in range(0, len(ids), BATCH):
        Message.objects.filter(pk__in=ids[start : start + BATCH]).update(is_held_by_us=False)


def _quarantined(job: Job, run: Run, places: dict[str, str], found: Sequence[Fingerprint], now: datetime) -> None:
    """What a purge moved out is ours to put back, as it was found: somebody may have held it since the plan."""
    operation = operation_for(job, run)
    if not isinstance(operation, QueuePurge):
        raise TypeError(f"{job.operation} is no purge")
    known = set(QuarantineItem.objects.filter(job=job, instance=run.instance).values_list("queue_id", flat=True))
    expires_at = now + timedelta(seconds=operation.keep)
    items = [
        quarantine_item(run, message, places[message.queue_id], now, expires_at)
        for message in run.messages.filter(outcome=MessageState.DONE).order_by("id")
        if message.queue_id in places and message.queue_id not in known
    ]
    states = {each.queue_id: each.state for each in found}
    for item in items:
        item.native_state = states.get(item.queue_id, item.native_state)
    QuarantineItem.objects.bulk_create(items, batch_size=1000)


def quarantine_item(run: Run, message: Message, place: str, now: datetime, expires_at: datetime) -> QuarantineItem:
    """The row of a message that the run moved to `place`, not stored yet."""
    return QuarantineItem(
        job_id=run.job_id,
        instance=run.instance,
        queue_id=message.queue_id,
        place=place,
        arrival_time=message.arrival_time,
        sender=message.sender,
        recipients=message.recipients,
        subject=message.subject,
        size=message.size,
        native_state=message.state,
        expires_at=expires_at,
        created_at=now,
    )


def _left_quarantine(job: Job, run: Run, outcomes: tuple[MessageOutcome, ...]) -> None:
    erased = QuarantineState.EXPIRED if job.channel == "schedule" else QuarantineState.ERASED
    state = QuarantineState.RESTORED if job.operation == "quarantine.restore" else erased
    done = {message.queue_id: message.new_id for message in outcomes if message.outcome == MessageState.DONE}
    items = QuarantineItem.objects.filter(_requested(job), instance=run.instance, state=QuarantineState.KEPT)
    changed = []
    for item in items:
        if item.queue_id in done:
            item.state, item.new_id = state, done[item.queue_id]
            changed.append(item)
    QuarantineItem.objects.bulk_update(changed, ["state", "new_id"], batch_size=500)
    tally.left_quarantine(state, len(changed))


def _requested(job: Job) -> Q:
    return Q(job=job.undo_of) if job.undo_of_id else Q(pk__in=job.params["ids"])


def discovered_json(host: HostFacts, instances: tuple[InstanceFacts, ...]) -> HostDiscoverResult:
    """The result of host.discover as JSON."""
    return {"host": _host_json(host), "instances": [_instance_json(each) for each in instances], "notes": host.notes}


def _host_json(host: HostFacts) -> DiscoveredHost:
    return {
        "os": host.os,
        "login_shell": host.login_shell,
        "has_sudo": host.has_sudo,
        "is_root": host.is_root,
        "clock_skew": host.clock_skew,
        "service_manager": host.service_manager,
        "log_source": host.log_source,
        "exchange": host.exchange,
        "helpers": [list(each) for each in host.helpers],
        "login_noise": host.login_noise,
    }


def _instance_json(instance: InstanceFacts) -> DiscoveredInstance:
    return {
        "id": instance.id,
        "host": instance.host,
        "name": instance.name,
        "mta": instance.mta,
        "version": instance.version,
        "config_dir": instance.config_dir,
        "queue_dirs": list(instance.queue_dirs),
        "front_ends": list(instance.front_ends),
        "options": instance.options,
    }


def named(host: Host, found: tuple[InstanceFacts, ...]) -> tuple[InstanceFacts, ...]:
    """The instances that were found on the host, as they can be stored and by the names that they have or get.

    Two discoveries of one host name one after the other.
    """
    Host.objects.select_for_update(no_key=True).get(pk=host.pk)
    rows = list(host.instances.select_related("host").order_by("-enabled", "pk"))
    storables = [InstanceFacts(**storable(asdict(facts))) for facts in found]
    return given_names(storables, [instance_facts(row) for row in rows], {row.former_name for row in rows})


def _seen(host: Host, helpers: list[list[str]]) -> None:
    """Our scripts as they lie on the host, from now on called where they are those of this release."""
    row = Host.objects.select_for_update(no_key=True).get(pk=host.pk)
    Host.objects.filter(pk=host.pk).update(facts={**row.facts, "helpers": storable(helpers)})


def discovered(host: Host, facts: HostFacts, instances: tuple[InstanceFacts, ...], now: datetime) -> None:
    """Create and update the host's instances, which `named` gave; one that vanished stays, disabled."""
    Host.objects.filter(pk=host.pk).update(facts=storable(asdict(facts)))
    for found in instances:
        Instance.objects.update_or_create(
            host=host,
            name=found.name,
            defaults={
                "mta": found.mta,
                "version": found.version,
                "config_dir": found.config_dir,
                "queue_dirs": list(found.queue_dirs),
                "front_ends": list(found.front_ends),
                "options": found.options,
                "enabled": True,
            },
        )
    Instance.objects.filter(host=host).exclude(name__in=[found.name for found in instances]).update(
        enabled=False, updated_at=now
    )
