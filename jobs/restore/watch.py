"""Whether the database is still the one that this machine knows: checked at each start, each claim, and while running.

A database that was restored from a backup has forgotten what was sent to hosts since, and one that was forged denies
it. Either way this machine misses entries of the audit trail that it remembers (jobs/audit/marks.py), and the service
pauses.
"""

import logging
from collections.abc import Iterable
from datetime import timedelta

from django.db import transaction

from fleet.secrets import SecretError
from jobs.audit import marks, trail
from jobs.audit.marks import Lost, MarksError
from jobs.clock import db_now
from jobs.errors import Unavailable
from jobs.models import AuditEvent, WorkerLiveness
from jobs.restore import pause

TRUST = "audit.trust_began"
ALIVE = timedelta(seconds=30)
"""How long a worker counts as alive after it reported so."""
FORGOTTEN = "the audit trail lacks entries that this machine knows: the database was restored from a backup, or forged"
UNKNOWN = "this machine knows nothing of the database, which others watched before: it may be a backup"

UNSURE = (MarksError, SecretError, Unavailable)
"""The marks, the key or the audit trail cannot be used, so nobody can tell; that is no loss yet, and nothing begins."""

log = logging.getLogger(__name__)


def is_paused() -> bool:
    """Whether nothing new may begin now. Pauses the service when this machine misses something."""
    try:
        return bool(_reported(_known())) or pause.is_on()
    except UNSURE as error:
        log.critical("nothing is begun: %s", error)
        return True


def check() -> bool:
    """Take note of what was lost, else of what has come to be. Each worker does so each ten seconds.

    False: what there is cannot be established, so nothing begins on this machine.
    """
    try:
        _known()
        lost = remember()
        if lost:
            log.critical("%s: %s", FORGOTTEN, "; ".join(map(str, lost)))
            pause.begin(FORGOTTEN, lost)
    except UNSURE as error:
        log.critical("what there is cannot be remembered: %s", error)
        return False
    return True


def remember() -> list[Lost]:
    """Keep outside of the database how far the chains have come, unless something is lost: then return that.

    Called after each intent is committed and before its first byte leaves. Raises MarksError.
    """
    with marks.locked():
        known = marks.read()
        if known is None:
            return []
        now = marks.heads()
        found = marks.losses(known, now)
        if lost := _open(found):
            return lost
        gone = {each.chain for each in found}
        kept = {chain: mark for chain, mark in known.items() if chain not in gone}
        fresh = marks.moved_on(kept, now)
        if fresh != known:
            marks.write(fresh)
    return []


def lost() -> list[Lost]:
    """What this machine misses and nobody has acknowledged. Changes nothing; raises MarksError."""
    return _missed(marks.read() or {})


def alarm() -> str:
    """Why the audit trail is not what it was, as this machine sees it; empty when it is. Names no customer.

    Pauses the service when this machine misses something: where no worker runs, nobody else tells of it.
    """
    try:
        count = len(_reported(marks.read() or {}))
    except UNSURE as error:
        return str(error)
    return f"{FORGOTTEN} (chains: {count}); an administrator has to acknowledge that" if count else ""


def _reported(known: marks.Marks) -> list[Lost]:
    """What this machine misses and nobody has acknowledged. With any, the service is paused."""
    lost = _missed(known)
    if lost:
        pause.begin(FORGOTTEN, lost)
    return lost


def _missed(known: marks.Marks) -> list[Lost]:
    return _open(marks.losses(known, marks.heads()))


def _open(found: Iterable[Lost]) -> list[Lost]:
    return [each for each in found if not marks.is_acknowledged(each)]


def _known() -> marks.Marks:
    known = marks.read()
    if known is None:
        _begin()
        known = marks.read()
    if known is None:
        raise MarksError(f"{marks.path()} is gone as soon as it was written")
    return known


def _begin() -> None:
    """Trust the database as it is from now on, by an entry that says so and whether the chains are sound.

    The first start of an installation, or of the version that began to remember, is no loss. Neither is a machine that
    joins others which know the database. But a machine that is alone with a database which was watched before may have
    a backup before it, so that is paused before it is trusted.
    """
    with marks.locked():
        if marks.read() is not None:
            return
        since = db_now() - ALIVE
        begun = AuditEvent.objects.filter(action=TRUST)
        is_watched = begun.filter(at__gt=since).exists() or WorkerLiveness.objects.filter(at__gt=since).exists()
        if begun.exists() and not is_watched:
            pause.begin(UNKNOWN)
        verdict = trail.verify()
        bad = verdict.first_bad
        data = {"entries": verdict.checked, "sound": verdict.ok, "first_bad": bad._asdict() if bad else None}
        with marks.replacing(marks.heads()), transaction.atomic():
            trail.append(trail.Entry("", TRUST, None, object=pause.machine(), data=data))
    log.warning("this machine trusts the audit trail as it is from now on: %s", data)
