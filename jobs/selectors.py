"""The readers that the API uses. Everything here is narrowed to what the actor may see."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Count, Exists, F, OuterRef, Prefetch, Q, QuerySet, Subquery, TextField, Value, Window
from django.db.models.functions import Cast, Coalesce, RowNumber

from fleet.models import Credential, Customer, Host, Instance
from fleet.mta.records import MessageState
from jobs.actor import Actor
from jobs.models import (
    Account,
    AccountKind,
    Approval,
    AuditCheckpoint,
    AuditEvent,
    Block,
    BlockInstance,
    Job,
    JobDetails,
    JobEvent,
    Message,
    QuarantineItem,
    Role,
    Run,
)
from jobs.rules.state import JobState, RunState
from jobs.summary.merge import Merged
from jobs.summary.part import Part

FINAL = frozenset(state.value for state in JobState.final())
READ_AT_ONCE = 4
"""Runs whose results are in memory at the same time while they are merged: one may have 8 MiB of log lines."""
NOTHING_DONE = frozenset({JobState.FAILED, JobState.REJECTED, JobState.EXPIRED, JobState.CANCELLED})


def visible_customers(actor: Actor) -> QuerySet[Customer]:
    """The customers that he may read."""
    return actor.customers("read")


def visible_credentials(actor: Actor) -> QuerySet[Credential]:
    """Their credentials."""
    return Credential.objects.filter(_of(actor, "customer")).select_related("customer")


def visible_hosts(actor: Actor) -> QuerySet[Host]:
    """Their hosts."""
    return Host.objects.filter(_of(actor, "customer")).select_related("customer", "credential", "jump_host")


def visible_instances(actor: Actor) -> QuerySet[Instance]:
    """The MTA instances on their hosts."""
    return Instance.objects.filter(_of(actor, "host__customer")).select_related("host__customer", "quarantine_look")


def visible_accounts(actor: Actor, kind: AccountKind) -> QuerySet[Account]:
    """His own account, and those that have a role where he is administrator (all, where he is so everywhere)."""
    rows = Account.objects.filter(kind=kind).prefetch_related("roles__customer")
    if actor.may_everywhere("administer"):
        return rows
    administered = actor.customers("administer")
    return rows.filter(Q(pk=actor.account.pk) | Q(pk__in=_accounts_of(administered)))


def visible_roles(actor: Actor, account: Account) -> list[Role]:
    """His own roles; of others those at customers that he may read, and those that hold for all customers."""
    rows = account.roles.all()  # read already where there are many accounts
    is_own = account.pk == actor.account.pk
    return [row for row in rows if is_own or row.customer_id is None or actor.may("read", [row.customer_id])]


def visible_role_rows(actor: Actor) -> QuerySet[Role]:
    """The same of all accounts."""
    if actor.may_everywhere("read"):
        return Role.objects.all()
    mine = Q(account=actor.account) | Q(customer=None)
    return Role.objects.filter(mine | Q(customer__in=visible_customers(actor)))


def _accounts_of(customers: QuerySet[Customer]) -> QuerySet[Any]:
    return Account.objects.filter(roles__customer__in=customers).values("pk")


def visible_jobs(actor: Actor) -> QuerySet[Job]:
    """Jobs all of whose customers he may read: one that touches others too would show their mail."""
    rows = Job.objects.all()
    if actor.may_everywhere("read"):
        return rows
    return rows.filter(_wholly(actor, Job))


def visible_runs(actor: Actor) -> QuerySet[Run]:
    """The runs of those jobs, with their hosts and instances, and of the job what tells how to read its results.

    These are read for a page's rows alone: joined, PostgreSQL looks for them before it knows which rows are to be seen.
    """
    instances = Prefetch("instance", Instance.objects.select_related("host"))
    rows = Run.objects.prefetch_related("host", instances, Prefetch("job", Job.objects.only("operation", "drift_of")))
    if actor.may_everywhere("read"):
        return rows
    return rows.filter(_wholly(actor, Job, "job"))


def visible_blocks(actor: Actor) -> QuerySet[Block]:
    """Blocks all of whose customers he may read."""
    rows = Block.objects.select_related("owner").prefetch_related("instances__instance__host")
    if actor.may_everywhere("read"):
        return rows
    return rows.filter(_wholly(actor, Block))


def visible_quarantine(actor: Actor) -> QuerySet[QuarantineItem]:
    """Quarantined messages on hosts of customers that he may read."""
    return QuarantineItem.objects.filter(_of(actor, "instance__host__customer")).select_related("instance__host")


def visible_audit(actor: Actor) -> QuerySet[AuditEvent]:
    """The entries of the chains that he may read."""
    chains = audit_chains(actor)
    return AuditEvent.objects.all() if chains is None else AuditEvent.objects.filter(chain__in=chains)


def visible_checkpoints(actor: Actor) -> QuerySet[AuditCheckpoint]:
    """The checkpoints of the chains that he may read."""
    chains = audit_chains(actor)
    return AuditCheckpoint.objects.all() if chains is None else AuditCheckpoint.objects.filter(chain__in=chains)


def audit_chains(actor: Actor) -> list[str] | None:
    """The chains that he may read: his customers'. None: all of them, the installation's own included."""
    if actor.may_everywhere("read"):
        return None
    return sorted(visible_customers(actor).values_list("slug", flat=True))


def _of(actor: Actor, path: str) -> Q:
    if actor.may_everywhere("read"):
        return Q()
    return Q(**{f"{path}__in": visible_customers(actor)})


def _wholly(actor: Actor, model: type[Job] | type[Block], key: str = "pk") -> Q:
    """That he may read all customers of the job or block that the row's column `key` names."""
    through = model.customers.through
    name = str(model._meta.model_name)
    links = through._default_manager.filter(**{name: OuterRef(key)})
    mine = visible_customers(actor)
    return Exists(links.filter(customer__in=mine)) & ~Exists(links.exclude(customer__in=mine))


def with_details(jobs: QuerySet[Job]) -> QuerySet[Job]:
    """The jobs with what their representation needs, in a few statements for a whole page."""
    approvals = Prefetch("approvals", Approval.objects.select_related("person"))
    undos = Prefetch("undos", Job.objects.only("pk", "undo_of_id", "state"))
    return jobs.select_related("requested_by").prefetch_related("customers", approvals, undos)


def detailed(rows: Sequence[Job]) -> list[Job]:
    """Jobs that came from `with_details`, with their `details`, in a few statements for all of them."""
    runs = _runs_by_state([row.pk for row in rows])
    whole = [row for row in rows if row.totals is None]
    gone = gone_messages([row.pk for row in whole if row.is_changing and row.state in FINAL])
    planned = planned_runs([row.pk for row in whole if row.frozen_at])
    for row in rows:
        if row.totals is not None:
            gone[row.pk], planned[row.pk] = Counter(row.totals), row.totals["instances"]
        counts = gone.get(row.pk, Counter())
        undos = [undo.pk for undo in row.undos.all() if undo.state not in NOTHING_DONE]
        row.details = JobDetails(
            runs=runs.get(row.pk, {}),
            done=counts[MessageState.DONE],
            left_queue=counts[MessageState.LEFT_QUEUE],
            planned_instances=planned[row.pk],
            undone_by=max(undos, default=None),
        )
    return list(rows)


def made_now(row: Job) -> Job:
    """A job that was made a moment ago, with its `details`: what it cannot have yet is not looked for."""
    row.details = JobDetails(runs=_runs_by_state([row.pk]).get(row.pk, {}))
    return row


def _runs_by_state(jobs: Iterable[UUID]) -> dict[UUID, dict[str, int]]:
    """{job: {run state: how many}}."""
    found: dict[UUID, dict[str, int]] = {}
    rows = Run.objects.filter(job__in=list(jobs)).order_by().values_list("job", "state").annotate(n=Count("pk"))
    for job, state, count in rows:
        found.setdefault(job, {})[state] = count
    return found


def gone_messages(jobs: Iterable[UUID]) -> dict[UUID, Counter[str]]:
    """{job: how many of its messages are done, and how many had left the queue when a deletion was read back}."""
    outcomes = (MessageState.DONE, MessageState.LEFT_QUEUE)
    rows = Message.objects.filter(run__job__in=list(jobs), outcome__in=outcomes).order_by()
    found: dict[UUID, Counter[str]] = {}
    for job, outcome, count in rows.values_list("run__job", "outcome").annotate(n=Count("pk")):
        found.setdefault(job, Counter())[outcome] = count
    return found


def planned_runs(jobs: Iterable[UUID]) -> Counter[UUID]:
    """{job: how many instances its plan has}."""
    rows = Run.objects.filter(job__in=list(jobs), plan__isnull=False).order_by()
    return Counter(dict(rows.values_list("job").annotate(n=Count("pk"))))


def runs_of(job: Job) -> QuerySet[Run]:
    """The job's runs with their hosts and instances."""
    return job.runs.select_related("host", "instance__host")


def messages_of_job(job: Job) -> QuerySet[Message]:
    """The messages of the job's plan, over all instances."""
    return Message.objects.filter(run__job=job).select_related("run__instance__host", "run__host")


def messages_of_run(run: Run) -> QuerySet[Message]:
    """The messages that a run was to change, and what became of them."""
    return Message.objects.filter(run=run)


def with_messages(rows: Sequence[Run], most: int) -> list[Run]:
    """Runs with their `first_messages`, at most so many, where their result counts messages (else None)."""
    counted = [row.pk for row in rows if isinstance(row.result, dict) and "asked" in row.result]
    found = _first_messages(counted, most) if counted else {}
    for row in rows:
        row.first_messages = found.get(row.pk, []) if row.pk in counted else None
    return list(rows)


def _first_messages(runs: Iterable[UUID], most: int) -> dict[UUID, list[Message]]:
    """The first `most` messages of each run, in one statement."""
    rank = Window(RowNumber(), partition_by=[F("run_id")], order_by=F("id").asc())
    rows = Message.objects.filter(run__in=list(runs)).annotate(rank=rank).filter(rank__lte=most).order_by("id")
    found: dict[UUID, list[Message]] = {}
    for row in rows:
        found.setdefault(row.run_id, []).append(row)
    return found


def merged(job: Job, limit: int) -> Merged:
    """All its runs together, as they are now; of listings at most `limit` rows. Two statements, whatever it has."""
    found = Merged(job.operation, job.params, limit, is_drift=job.drift_of_id is not None)
    with transaction.atomic():  # outside of one, the database would keep a copy of all rows for the cursor
        for part in _parts(job):
            found.add(part)
    return found


def _parts(job: Job) -> Iterator[Part]:
    """Its runs one by one. Results stay text: most of a listing is thrown away unread."""
    nothing = Value("", TextField())
    plan = Cast("plan", TextField()) if job.is_changing else nothing
    rows = Run.objects.filter(job=job).order_by()
    columns = ("instance_id", "host__name", "instance__name", "host__customer__slug", "state", "error")
    blocks = _blocks_of(job) if job.operation.startswith("sender.") else {}
    results = rows.values_list(*columns, Cast("result", TextField()), plan)
    for instance, host, name, customer, state, error, result, plan_text in results.iterator(READ_AT_ONCE):
        yield Part(
            f"{host}/{name}" if name else host,
            host,
            customer,
            RunState(state),
            error,
            result or "",
            plan_text or "",
            blocks.get(instance),
        )


def _blocks_of(job: Job) -> dict[int, tuple[str, str]]:
    """{instance: how the block that the job made or ended stands there, and why}."""
    ours = Q(block__job=job) | Q(block__ended_by=job) | Q(attempt=job)
    rows = BlockInstance.objects.filter(ours).order_by("pk").values_list("instance", "state", "detail")
    return {instance: (state, detail) for instance, state, detail in rows}


def events_after(job: UUID, after: int, most: int) -> list[JobEvent]:
    """What the job's stream tells after the event with that id."""
    return list(JobEvent.objects.filter(job=job, id__gt=after).order_by("id")[:most])


def news_of(jobs: Iterable[UUID]) -> dict[UUID, tuple[str, int]]:
    """{job: its state, and the id of its newest event}, in one statement. Jobs that are not there are left out."""
    newest = JobEvent.objects.filter(job=OuterRef("pk")).order_by("-id").values("pk")[:1]
    rows = Job.objects.filter(pk__in=list(jobs)).order_by().annotate(newest=Coalesce(Subquery(newest), 0))
    return {pk: (state, event) for pk, state, event in rows.values_list("pk", "state", "newest")}
