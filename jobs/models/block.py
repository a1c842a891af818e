"""The wanted blocklist, and how far each instance has got with it."""

from django.db import models

from fleet.ids import uuid7
from fleet.models import Customer, Instance
from jobs.models.accounts import Account
from jobs.models.job import Job


class Block(models.Model):
    """A sender that is wanted blocked on a target; hosts that join the target later are included.

    `is_wanted` turns false by unblock, undo or expiry; the row goes on until no instance has the line any more.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    pattern = models.TextField()
    action = models.CharField(max_length=8)
    code = models.PositiveSmallIntegerField(default=550)
    enhanced = models.CharField(max_length=12, default="5.7.1")
    text = models.CharField(max_length=200)
    target = models.JSONField()
    customers = models.ManyToManyField(Customer, related_name="blocks")
    reason = models.TextField()
    ticket = models.CharField(max_length=200, blank=True, default="")
    owner = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="blocks")
    job = models.ForeignKey(Job, on_delete=models.PROTECT, related_name="blocks")
    ended_by = models.ForeignKey(Job, on_delete=models.PROTECT, null=True, blank=True, related_name="blocks_ended")
    expires_at = models.DateTimeField(null=True, blank=True)
    is_wanted = models.BooleanField(default=True)
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["is_wanted", "expires_at"])]

    def __str__(self) -> str:
        return self.pattern

    @property
    def reply(self) -> str:
        """The SMTP reply that refuses the sender."""
        return f"{self.code} {self.enhanced} {self.text}"


class BlockState(models.TextChoices):
    APPLIED = "applied"
    PENDING = "pending"
    REMOVING = "removing"
    FAILED = "failed"
    DRIFTED = "drifted"
    UNSUPPORTED = "unsupported"


class BlockInstance(models.Model):
    """A block on one instance. `next_try_at`: when the catch-up looks at it again; also one that is applied, where it
    is the administrator's line that refuses the sender.

    `attempt`: the catch-up's last job; while that is open no other one is made. `tries`: how many failed in a row.
    """

    block = models.ForeignKey(Block, on_delete=models.CASCADE, related_name="instances")
    instance = models.ForeignKey(Instance, on_delete=models.CASCADE, related_name="blocks")
    state = models.CharField(max_length=12, choices=BlockState.choices, default=BlockState.PENDING)
    detail = models.TextField(blank=True, default="")
    next_try_at = models.DateTimeField(null=True, blank=True)
    attempt = models.ForeignKey(Job, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    tries = models.PositiveSmallIntegerField(default=0)
    changed_at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["block", "instance"], name="block_once_per_instance")]
        indexes = [models.Index(fields=["state", "next_try_at"])]

    def __str__(self) -> str:
        return f"{self.block} on {self.instance}: {self.state}"
