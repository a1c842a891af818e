"""Messages that purge took out of queues and that can be put back."""

from typing import Any

from django.db import models

from fleet.ids import uuid7
from fleet.models import Instance
from jobs.models.job import Job

SENDER_INDEXED = 321
"""Characters of a sender that are in the index, more than an address may have: PostgreSQL refuses a row whose entry
there is longer than 2,700 bytes. With the last one a longer text is never taken for an address that begins like it."""


class IndexedSender(models.Func):
    """A sender as it is looked for. The number is in the SQL: by a parameter SQLite would not know its index."""

    output_field = models.TextField()
    arity = 1
    template = f"LEFT(LOWER(%(expressions)s), {SENDER_INDEXED})"

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = f"SUBSTR(LOWER(%(expressions)s), 1, {SENDER_INDEXED})"
        return self.as_sql(compiler, connection, template=template, **extra)


class QuarantineState(models.TextChoices):
    KEPT = "kept"
    RESTORED = "restored"
    ERASED = "erased"
    EXPIRED = "expired"


class QuarantineItem(models.Model):
    """One message in a host's quarantine. `place` is the adapter's word for where; `native_state` what it had been."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    job = models.ForeignKey(Job, on_delete=models.PROTECT, related_name="quarantined")
    instance = models.ForeignKey(Instance, on_delete=models.PROTECT, related_name="quarantined")
    queue_id = models.CharField(max_length=64)
    new_id = models.CharField(max_length=64, blank=True, default="")
    place = models.TextField()
    arrival_time = models.FloatField()
    sender = models.TextField()
    recipients = models.JSONField(default=list)
    subject = models.TextField(blank=True, default="")
    size = models.BigIntegerField()
    native_state = models.CharField(max_length=16)
    state = models.CharField(max_length=10, choices=QuarantineState.choices, default=QuarantineState.KEPT)
    expires_at = models.DateTimeField()
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["state", "expires_at"]),
            models.Index(fields=["job", "state"]),
            models.Index(IndexedSender("sender"), name="quarantine_by_sender"),
        ]

    def __str__(self) -> str:
        return f"{self.queue_id} of {self.instance}"
