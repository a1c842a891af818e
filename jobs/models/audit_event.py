"""The audit trail: append only, one hash chain per customer. Triggers refuse update and delete (migrations)."""

from django.db import models


class AuditChain(models.Model):
    """The head of a chain. `name` is the customer's slug, or empty for what belongs to no customer."""

    name = models.CharField(max_length=63, primary_key=True)
    seq = models.PositiveBigIntegerField(default=0)
    hash = models.CharField(max_length=64, default="")

    def __str__(self) -> str:
        return self.name or "installation"


class AuditEvent(models.Model):
    """One thing that someone did or that was done for him. Names are text: they outlive what they name."""

    chain = models.CharField(max_length=63, blank=True)
    seq = models.PositiveBigIntegerField()
    at = models.DateTimeField()
    actor = models.CharField(max_length=63, blank=True, default="")
    on_behalf_of = models.CharField(max_length=63, blank=True, default="")
    channel = models.CharField(max_length=16, blank=True, default="")
    source = models.CharField(max_length=64, blank=True, default="")
    action = models.CharField(max_length=64)
    object = models.CharField(max_length=200, blank=True, default="")
    job = models.UUIDField(null=True, blank=True)
    data = models.JSONField(default=dict)
    prev_hash = models.CharField(max_length=64, blank=True)
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["chain", "seq"], name="audit_seq_per_chain")]
        indexes = [
            models.Index(fields=["job"]),
            models.Index(fields=["action", "at"]),
            models.Index(fields=["actor"]),
            models.Index(fields=["on_behalf_of"], name="audit_by_principal"),
            models.Index(fields=["at"], name="audit_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.chain or 'installation'} {self.seq}: {self.action}"


class AuditCheckpoint(models.Model):
    """How far a chain had got, signed: shows a cut tail and a full rewrite, which a chain alone does not.

    `previous` and its hash name the entry of the checkpoint before (0: none was); those of mxfleet 0.2 have None there.
    """

    chain = models.CharField(max_length=63, blank=True)
    seq = models.PositiveBigIntegerField()
    hash = models.CharField(max_length=64)
    at = models.DateTimeField()
    previous = models.PositiveBigIntegerField(null=True)
    previous_hash = models.CharField(max_length=64, blank=True, default="")
    signature = models.TextField(help_text="Ed25519, base64, over the canonical JSON of the other fields")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["chain", "seq"], name="checkpoint_per_seq"),
            models.UniqueConstraint(fields=["chain", "previous"], name="checkpoint_has_one_successor"),
        ]

    def __str__(self) -> str:
        return f"{self.chain or 'installation'} at {self.seq}"
