"""An administrator acknowledges that entries of the audit trail are gone, as after a restore: signed, and for ever."""

from django.db import transaction

from jobs.audit import trail
from jobs.audit.keys import public_keys, sign
from jobs.audit.marks import Lost
from jobs.audit.verify import GAP, GAP_ACTION, canonical, is_signed
from jobs.errors import Clash, Invalid
from jobs.jsonvalues import storable
from jobs.models import AuditCheckpoint, AuditEvent
from jobs.restore import pause, watch


def acknowledge(reason: str, by: str) -> list[Lost]:
    """Write a signed entry for each loss that this machine sees or another one has reported. Returns the losses.

    The entry names the numbers that are in doubt and the last hash that was known; the verifier tells of it each time.
    Raises Invalid without a reason, Clash `no_gap`, MarksError, SecretError.
    """
    if not reason.strip():
        raise Invalid.field("reason", "required", "say how the entries were lost")
    seen = {each[:3]: each for each in [*pause.unacknowledged(), *watch.lost()]}
    if not seen:
        raise Clash("no_gap", "nothing is missing in the audit trail as far as this machine knows")
    losses = [seen[key] for key in sorted(seen)]
    with transaction.atomic():
        trail.append(*(_entry(each, reason, by) for each in losses))
    return losses


def _entry(lost: Lost, reason: str, by: str) -> trail.Entry:
    data = {
        "from": last_proven(lost) + 1,
        "to": lost.seq,
        "last_known_hash": lost.hash,
        "reason": storable(reason),
    }
    signature = sign(canonical({**data, "chain": lost.chain}, GAP))
    data |= {"what": lost.reason, "by": by, "signature": signature}
    return trail.Entry(lost.chain, GAP_ACTION, None, object=pause.machine(), data=data)


def last_proven(lost: Lost) -> int:
    """The number of the last entry before the lost one that a checkpoint signed with our key still proves. 0: none."""
    keys = public_keys()
    rows = AuditCheckpoint.objects.filter(chain=lost.chain, seq__lt=lost.seq).order_by("-seq")
    for row in rows.iterator(100):
        is_there = AuditEvent.objects.filter(chain=lost.chain, seq=row.seq, hash=row.hash).exists()
        if is_there and is_signed(trail.checkpoint_line(row), keys):
            return row.seq
    return 0
