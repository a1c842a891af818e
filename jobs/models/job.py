"""A request and its outcome: a Job, its Runs (one per instance), their messages, and the events of their stream."""

from dataclasses import dataclass, field
from uuid import UUID

from django.db import models
from django.db.models import F, Q

from fleet.ids import uuid7
from fleet.models import Customer, Host, Instance
from jobs.models.accounts import Account
from jobs.rules.state import JobState, RunState

FINAL = [state.value for state in JobState.final()]
BEGUN = [JobState.QUEUED.value, JobState.RUNNING.value]
IN_LINE = [RunState.PENDING.value, RunState.RUNNING.value]
OPEN_RUNS = Q(state__in=IN_LINE) | Q(state=RunState.UNKNOWN, reconcile_at__isnull=False)
"""Runs that may still move: what a job waits for, and what keeps a host."""


class Thinned(models.IntegerChoices):
    """How much of an ended job is gone because it is old (jobs/lifecycle/retention.py), with what stands before."""

    NOTHING = 0
    EVENTS = 1
    DETAILS = 2


@dataclass(frozen=True, slots=True)
class JobDetails:
    """What a job's rows in other tables come to.

    `runs`: how many are in each state; `done`, `left_queue`: messages with that outcome; `planned_instances`: runs
    that have a plan; `undone_by`: the newest job that undoes it and did not come to nothing.
    """

    runs: dict[str, int] = field(default_factory=dict)
    done: int = 0
    left_queue: int = 0
    planned_instances: int = 0
    undone_by: UUID | None = None


class Job(models.Model):
    """An operation on a target. `version` counts state changes: each is a conditional UPDATE on (state, version).

    `minted_by`: who had a hand in the tokens that requested and confirmed it, besides the requester; null: nobody.
    `confirm`: once its plan is frozen nobody is asked before the requester has confirmed it. `group`: a word of the
    requester's by which jobs belong together. `drift_of`: the job whose frozen plan this one compares with the queues.
    `totals`: what its messages came to and how many instances its plan had; there from when the rows that tell so go.
    `details` are there once it has been through a selector that says so.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    operation = models.CharField(max_length=32)
    target = models.JSONField()
    params = models.JSONField()
    reason = models.TextField(blank=True, default="")
    ticket = models.CharField(max_length=200, blank=True, default="")
    group = models.CharField(max_length=100, blank=True, default="")
    dry_run = models.BooleanField(default=False)
    confirm = models.BooleanField(default=False)
    start_after = models.DateTimeField(null=True, blank=True, help_text="nothing of it begins before")
    is_changing = models.BooleanField(default=False)
    state = models.CharField(max_length=20, choices=[(s.value, s.value) for s in JobState])
    version = models.PositiveIntegerField(default=0)
    error = models.JSONField(null=True, blank=True)
    requested_by = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="jobs")
    channel = models.CharField(max_length=16, default="api")
    source = models.CharField(max_length=64, blank=True, default="")
    minted_by = models.JSONField(null=True, blank=True)
    customers = models.ManyToManyField(Customer, related_name="jobs")
    undo_of = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="undos")
    retry_of = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="retries")
    drift_of = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="drifts")
    digest = models.CharField(max_length=80, blank=True, default="")
    frozen_at = models.DateTimeField(null=True, blank=True)
    planned_messages = models.PositiveIntegerField(default=0)
    approvals_needed = models.PositiveIntegerField(default=0)
    approval_role = models.CharField(max_length=8, default="approver")
    rule = models.CharField(max_length=200, blank=True, default="")
    why = models.TextField(blank=True, default="", help_text="what the rule saw in the plan")
    approval_ttl = models.PositiveIntegerField(default=3600)
    execution_ttl = models.PositiveIntegerField(default=1800)
    expires_at = models.DateTimeField(null=True, blank=True)
    confirmed_at = models.DateTimeField(null=True, blank=True)
    cancel_asked_at = models.DateTimeField(null=True, blank=True)
    ready_at = models.DateTimeField(null=True, blank=True, help_text="nobody has to agree any more: its place in line")
    wake_at = models.DateTimeField(null=True, blank=True, help_text="when the sweep wakes a worker for it again")
    wakeups = models.PositiveSmallIntegerField(default=0)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    thinned = models.PositiveSmallIntegerField(choices=Thinned.choices, default=Thinned.NOTHING)
    totals = models.JSONField(null=True, blank=True)
    details: JobDetails

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["state", "created_at"]),
            models.Index(fields=["operation", "-id"]),
            models.Index(fields=["thinned", "finished_at"], name="job_by_age"),
            models.Index(fields=["group", "-id"], name="job_by_group"),
            models.Index(fields=["created_at"], name="job_by_creation"),
            models.Index(fields=["ticket"], name="job_by_ticket"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=[s.value for s in JobState]), name="job_state_known"),
            models.CheckConstraint(
                condition=Q(state__in=FINAL, finished_at__isnull=False)
                | (~Q(state__in=FINAL) & Q(finished_at__isnull=True)),
                name="job_finished_exactly_when_final",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=BEGUN, confirm=True, confirmed_at__isnull=True), name="job_begins_confirmed"
            ),
            models.UniqueConstraint(fields=["id", "requested_by", "digest"], name="job_requester_and_digest"),
        ]

    def __str__(self) -> str:
        return f"{self.operation} {self.id}"

    @property
    def is_confirmed(self) -> bool:
        """Whether its requester stands by the frozen plan, as one does who never wanted to see it first."""
        return not self.confirm or self.confirmed_at is not None


class FrozenPlan(models.Model):
    """What a job's digest hashes, as canonical JSON (jobs/rules/document.py). Jobs frozen before that have none."""

    job = models.OneToOneField(Job, on_delete=models.CASCADE, primary_key=True, related_name="frozen_plan")
    document = models.TextField()

    def __str__(self) -> str:
        return f"plan of {self.job_id}"


class Run(models.Model):
    """A job on one instance (on one host, for discovery).

    `dispatched_at` is committed before the first byte of a changing command leaves. `lease_until` is moved on by the
    process (`worker`) that has the run; one whose lease ended was lost. `fence` names the claim and no other one.
    `attempts` counts claims. `slot` and `site` name a queue. `first_messages` are there once it has been through a
    selector that says so.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="runs")
    host = models.ForeignKey(Host, on_delete=models.PROTECT, related_name="runs")
    instance = models.ForeignKey(Instance, on_delete=models.PROTECT, null=True, blank=True, related_name="runs")
    state = models.CharField(max_length=12, choices=[(s.value, s.value) for s in RunState], default=RunState.PENDING)
    slot = models.PositiveSmallIntegerField(default=0, help_text="hash of the host's name; slot modulo shards = shard")
    site = models.CharField(max_length=63, blank=True, default="")
    is_planning = models.BooleanField(default=False)
    plan = models.JSONField(null=True, blank=True)
    error = models.JSONField(null=True, blank=True)
    result = models.JSONField(null=True, blank=True)
    commands = models.JSONField(default=list)
    before = models.JSONField(null=True, blank=True)
    after = models.JSONField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    fence = models.PositiveBigIntegerField(default=0)
    worker = models.CharField(max_length=32, blank=True, default="")
    lease_until = models.DateTimeField(null=True, blank=True)
    dispatched_at = models.DateTimeField(null=True, blank=True)
    unknown_at = models.DateTimeField(null=True, blank=True)
    reconcile_at = models.DateTimeField(null=True, blank=True)
    reconciled = models.PositiveSmallIntegerField(default=0)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    first_messages: "list[Message] | None"

    class Meta:
        ordering = ["id"]
        indexes = [
            models.Index(fields=["job", "state"]),
            models.Index(fields=["state", "lease_until"]),
            models.Index(fields=["state", "reconcile_at"]),
            models.Index(fields=["host", "job"], condition=Q(state__in=IN_LINE), name="run_in_line"),
            models.Index(fields=["worker"], condition=Q(state=RunState.RUNNING.value), name="run_at_work"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["job", "host", "instance"], name="run_once_per_instance"),
            models.CheckConstraint(condition=Q(state__in=[s.value for s in RunState]), name="run_state_known"),
            models.CheckConstraint(condition=Q(attempts__lte=3), name="run_attempts_bounded"),
        ]

    def __str__(self) -> str:
        return f"{self.job_id} on {self.instance or self.host}"

    @property
    def planned_name(self) -> str:
        """Its instance as its frozen plan, and the plan's digest, name it."""
        return (self.plan or {}).get("instance") or str(self.instance or self.host)


class Message(models.Model):
    """A message that a run's plan names, by fingerprint, and what became of it (`outcome` empty until then)."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="messages")
    queue_id = models.CharField(max_length=64)
    arrival_time = models.FloatField(help_text="epoch seconds")
    sender = models.TextField()
    size = models.BigIntegerField()
    state = models.CharField(max_length=16, help_text="state before the change")
    recipients = models.JSONField(default=list)
    subject = models.TextField(blank=True, default="")
    outcome = models.CharField(max_length=16, blank=True, default="")
    new_id = models.CharField(max_length=64, blank=True, default="")
    is_held_by_us = models.BooleanField(default=False)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["run", "queue_id"], name="message_once_per_run")]
        indexes = [
            models.Index(fields=["run", "outcome"]),
            models.Index(fields=["queue_id"]),
            models.Index(fields=["run"], condition=Q(is_held_by_us=True), name="message_on_hold"),
        ]

    def __str__(self) -> str:
        return self.queue_id


class HostLease(models.Model):
    """At most one changing job on a host at a time. `fence` grows with each holder.

    It is never below the database's clock in microseconds, so that it does not go back when a backup is restored.
    """

    host = models.OneToOneField(Host, on_delete=models.CASCADE, primary_key=True, related_name="lease")
    job = models.ForeignKey(Job, on_delete=models.SET_NULL, null=True, related_name="leases")
    fence = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.host_id}: {self.job_id}"


class JobEvent(models.Model):
    """What the event stream tells: `job`, `run` or `progress`, in the order of ids."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=8)
    data = models.JSONField()
    at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["job", "id"])]

    def __str__(self) -> str:
        return f"{self.kind} of {self.job_id}"


class Decision(models.TextChoices):
    APPROVED = "approved"
    REJECTED = "rejected"


class Approval(models.Model):
    """A person's decision on the plan with that digest. The database itself refuses the requester."""

    job = models.ForeignKey(Job, on_delete=models.PROTECT, related_name="approvals")
    digest = models.CharField(max_length=80)
    requested_by = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    person = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="decisions")
    decision = models.CharField(max_length=8, choices=Decision.choices)
    comment = models.TextField(blank=True, default="")
    at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["job", "digest", "person"], name="approval_once_per_person"),
            models.CheckConstraint(condition=~Q(person=F("requested_by")), name="approval_never_by_requester"),
        ]

    def __str__(self) -> str:
        return f"{self.decision} by {self.person}"
