"""A credential that takes the place of another one on all its hosts, host by host.

Each host is tried by a login with the new one, and keeps the old one until that has worked: so at each moment it is
reached by a credential that it has taken. All of it stands in the hosts' rows; a crash costs one more try.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from fleet.models import Credential, Host, HostStatus
from jobs.actor import Actor
from jobs.administration.hosts import NONE_NEXT
from jobs.administration.inventory import must_administer, record
from jobs.audit import trail
from jobs.clock import db_now
from jobs.errors import Clash, Invalid
from jobs.jsonvalues import storable
from jobs.lifecycle.submit import queue_of_host

PAUSES = (
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=12),
)
"""After a login that did not work; the last one again and again. sshd bans who fails often."""
TAKEN = timedelta(minutes=5)
"""A try whose worker was lost is due again after this."""
ROUND = 50
"""Hosts of one round."""
NAMED = 100
"""Hosts whose errors are told."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """How far it has come. `by`: the name of the new one, empty when none takes its place. `left`: hosts that still
    have the old one and are to get it; `failed`: the first of those on which a login did not work, by name."""

    by: str
    left: int
    failed: list[Host]


def begin(actor: Actor, old: Credential, by: str) -> Replacement:
    """Put the customer's credential of that name in the place of `old`; begun again, all that are left are tried now.

    Raises Forbidden, Invalid, Clash.
    """
    must_administer(actor, old.customer)
    new = Credential.objects.filter(customer=old.customer, name=by).first()
    if new is None or new.pk == old.pk:
        raise Invalid.field("by", "invalid", f"{old.customer.slug} has no other credential {by!r}")
    with transaction.atomic():
        hosts = _locked(Host.objects.filter(credential=old))
        if not hosts:
            raise Clash("not_used", f"no host has {old.name}")
        _change(hosts, {**NONE_NEXT, "next_credential": new, "next_credential_due": db_now()})
        names = sorted(each.name for each in hosts)
        record(actor, old.customer.slug, "credential.replacing", old.name, {"by": by, "hosts": names})
    return progress(old)


def stop(actor: Actor, old: Credential) -> None:
    """Leave it where it still is. Raises Forbidden, Clash when nothing takes its place."""
    must_administer(actor, old.customer)
    with transaction.atomic():
        hosts = _locked(_left(old))
        if not hosts:
            raise Clash("not_used", f"nothing takes the place of {old.name}")
        _change(hosts, NONE_NEXT)
        names = sorted(each.name for each in hosts)
        record(actor, old.customer.slug, "credential.replacing_stopped", old.name, {"hosts": names})


def progress(old: Credential) -> Replacement:
    """How far the replacement has come."""
    left = _left(old)
    first = left.select_related("next_credential").first()
    failed = left.exclude(next_credential_error="").order_by("name")[:NAMED]
    by = first.next_credential.name if first is not None and first.next_credential is not None else ""
    return Replacement(by, left.count(), list(failed))


def queues(now: datetime) -> set[str]:
    """The Celery queues whose workers have hosts to try."""
    return {queue_of_host(name, site) for name, site in _due(now).values_list("name", "site")}


def take(now: datetime, queue: str) -> list[Host]:
    """Up to ROUND hosts of this Celery queue that are to be tried now, put off at once so that no one else does."""
    waiting = _due(now).order_by("next_credential_due", "pk").values_list("pk", "name", "site")
    first = [pk for pk, name, site in waiting if queue_of_host(name, site) == queue][:ROUND]
    related = ("customer", "credential__customer", "next_credential__customer", "jump_host__credential__customer")
    return [
        each
        for each in Host.objects.filter(pk__in=first).select_related(*related)
        if Host.objects.filter(pk=each.pk, next_credential_due=each.next_credential_due).update(
            next_credential_due=now + TAKEN
        )
    ]


def took(host: Host) -> None:
    """A login with the new one has worked: it takes the old one's place, unless somebody changed either meanwhile."""
    new = host.next_credential
    if new is None:
        return
    with transaction.atomic():
        now = _locked(Host.objects.filter(pk=host.pk, updated_at=host.updated_at, next_credential=new))
        if not now or not Credential.objects.filter(pk=new.pk, updated_at=new.updated_at).exists():
            return
        is_refused = host.status == HostStatus.REFUSED
        status = {"status": HostStatus.NEW, "status_reason": ""} if is_refused else {}
        _change(now, {**NONE_NEXT, **status, "credential": new, "updated_at": db_now()})
        data = {"credential": new.name, "was": host.credential.name}
        trail.append(trail.Entry(host.customer.slug, "host.credential_replaced", None, object=host.name, data=data))


def refused(host: Host, why: str) -> None:
    """A login did not work, or could not be tried; try again later."""
    pause = PAUSES[min(host.next_credential_tries, len(PAUSES) - 1)]
    Host.objects.filter(pk=host.pk, next_credential=host.next_credential_id).update(
        next_credential_due=db_now() + pause,
        next_credential_tries=host.next_credential_tries + 1,
        next_credential_error=storable(why)[:500],
    )


def _due(now: datetime) -> QuerySet[Host]:
    return Host.objects.filter(
        next_credential__isnull=False, next_credential_due__lte=now, enabled=True, customer__enabled=True
    )


def _left(old: Credential) -> QuerySet[Host]:
    return Host.objects.filter(credential=old, next_credential__isnull=False)


def _locked(hosts: QuerySet[Host]) -> list[Host]:
    return list(hosts.select_for_update(no_key=True).order_by("pk"))


def _change(hosts: Iterable[Host], values: Mapping[str, Any]) -> None:
    Host.objects.filter(pk__in=[each.pk for each in hosts]).update(**values)
