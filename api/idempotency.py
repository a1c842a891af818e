"""Idempotency-Key: a repeated POST gets the answer of the first one.

The key's row is written in the same transaction as the work, so that a crash leaves both or neither: a repetition
then does the work, once. An answer that is held (`Prefer: wait`) is stored at once as it would be without waiting,
marked as in flight; it is completed when the waiting ends, and good as it stands when we died meanwhile.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from rest_framework.utils.encoders import JSONEncoder

from api.errors import Problem
from api.models import StoredAnswer
from fleet.secrets import open_sealed, seal
from jobs.actor import Actor
from jobs.models import Job

BATCH = 500
IN_FLIGHT = timedelta(seconds=40)
"""Longer than any answer is held or any host takes; whoever is not done by then has died."""


@dataclass(slots=True)
class Answer:
    """What a POST is answered with. `job`: the job it made, if any.

    `in_flight`: its row, while that waits for the answer to be complete.
    """

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    job: Job | None = None
    in_flight: StoredAnswer | None = None


Work = Callable[[], Answer]
Hold = Callable[[Answer], None]


def check_key(key: str) -> None:
    """Raises Problem 400. A comma would be two keys: that is how HTTP joins repeated headers (RFC 9110 5.3)."""
    if not 1 <= len(key) <= 255 or any(not "!" <= char <= "~" or char == "," for char in key):
        detail = "Idempotency-Key must be 1 to 255 visible ASCII characters without comma, and given once"
        raise Problem(400, "malformed_header", detail)


def fingerprint(token: UUID | None, method: str, path: str, body: Any) -> str:
    """What makes two requests the same: also the token, for a narrower one must not get what a wider one got."""
    content = json.dumps([str(token), method, path, body], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def once(actor: Actor, key: str, digest: str, work: Work, *, is_held: bool = False) -> Answer:
    """Do `work` unless this caller's `key` is known. An answer that is then held, `complete` ends.

    `digest`: the request's fingerprint. Raises Problem 409 (in flight) and 422 (key used for another request), and
    what `work` raises: then nothing is stored.
    """
    known = _find(actor, key)
    if known is not None:
        return _replay(known, digest)
    try:
        with transaction.atomic():
            row = StoredAnswer.objects.create(account=actor.account, key=key, fingerprint=digest)
            answer = work()
            _store(row, answer, is_done=not is_held)
    except IntegrityError:
        known = _find(actor, key)
        if known is None:
            raise
        return _replay(known, digest)
    answer.in_flight = row if is_held else None
    return answer


def complete(first: Answer, last: Answer) -> None:
    """Store what an answer came to that was held, where it was requested with a key."""
    if first.in_flight is not None:
        _store(first.in_flight, last, is_done=True)


def once_outside(actor: Actor, key: str, digest: str, work: Work) -> Answer:
    """As `once`, for work that takes long and writes nothing: it runs outside of a transaction."""
    known = _find(actor, key)
    if known is not None:
        return _replay(known, digest)
    try:
        row = StoredAnswer.objects.create(account=actor.account, key=key, fingerprint=digest)
    except IntegrityError:
        known = _find(actor, key)
        if known is None:
            raise
        return _replay(known, digest)
    try:
        answer = work()
    except BaseException:
        row.delete()
        raise
    _store(row, answer, is_done=True)
    return answer


def _find(actor: Actor, key: str) -> StoredAnswer | None:
    """The row, unless it is too old or was left behind by a crash without any answer; then it goes."""
    now = timezone.now()
    rows = StoredAnswer.objects.filter(account=actor.account, key=key)
    rows.filter(too_old(now) | Q(status=None, body="", created_at__lt=now - IN_FLIGHT)).delete()
    return rows.first()


def too_old(now: datetime) -> Q:
    """Answers that are kept no longer."""
    return Q(created_at__lt=now - timedelta(seconds=settings.ENV.keep.answers))


def forget() -> None:
    """Delete those, in small batches."""
    old = StoredAnswer.objects.filter(too_old(timezone.now())).order_by("created_at").values_list("pk", flat=True)
    while ids := list(old[:BATCH]):
        StoredAnswer.objects.filter(pk__in=ids).delete()


def _store(row: StoredAnswer, answer: Answer, *, is_done: bool) -> None:
    row.status = answer.status if is_done else None
    content = json.dumps([answer.status, answer.body], cls=JSONEncoder).encode()
    row.body = seal(content, **_place(row))
    row.headers = answer.headers
    row.save(update_fields=["status", "body", "headers"])


def _replay(row: StoredAnswer, digest: str) -> Answer:
    if row.fingerprint != digest:
        raise Problem(422, "idempotency_key_reused", "this Idempotency-Key was used for another request")
    if row.status is None and timezone.now() - row.created_at < IN_FLIGHT:
        detail = "the first request with this Idempotency-Key is not answered yet"
        raise Problem(409, "idempotency_in_flight", detail, {"Retry-After": "1"})
    status, body = json.loads(open_sealed(row.body, **_place(row)))
    return Answer(status, body, {**row.headers, "Idempotency-Replayed": "true"})


def _place(row: StoredAnswer) -> dict[str, str]:
    # Sealed, because an answer may hold a new token, and of tokens only the digest may lie in the database.
    return {"customer": "", "table": "api_storedanswer", "row": f"{row.account_id} {row.key}", "field": "body"}
