"""A fleet that answers from memory in place of the SSH engine, and the fixed cast.

Alice requests for acme, Bob approves there, Charlie belongs to another customer, Dana is admin for all.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any
from uuid import UUID

from django.utils import timezone

from fleet.models import Credential, Customer, Host, Instance
from fleet.mta.errors import FleetError
from fleet.mta.records import Ended, Fingerprint, MessageOutcome, MessageState, Result
from fleet.mta.steps import Plan
from fleet.ssh.drive import CommandRecord, Trace
from fleet.ssh.engine import Outcome, Request
from jobs import queues
from jobs.actor import Actor
from jobs.lifecycle.claim import Claim, claim
from jobs.lifecycle.frozen import plan_rows
from jobs.lifecycle.submit import Request as Asked
from jobs.lifecycle.submit import submit
from jobs.models import Account, AccountKind, FrozenPlan, Job, Role, Run
from jobs.rules.plan import digest_of
from jobs.worker import leases, runner

PLANNED, APPLIED = "planned", "applied"
NIL = UUID(int=0)


def message(number: int, state: str = "deferred") -> Fingerprint:
    """A queued message."""
    return Fingerprint(f"3F5DD30C{number:03X}", 1_795_172_380.0 + number, f"news{number}@bulk.example", 722, state)


def changed(messages: Sequence[Fingerprint], outcome: MessageState = MessageState.DONE, **data: Any) -> Result:
    """The result of a change in which all messages came to the same outcome."""
    counts = {"asked": len(messages), **{state.value: 0 for state in MessageState}, outcome.value: len(messages)}
    ended = Ended.FAILED if outcome in (MessageState.LEFT, MessageState.IN_DELIVERY) else Ended.SUCCEEDED
    outcomes = tuple(MessageOutcome(m.queue_id, outcome) for m in messages)
    return Result(ended, data={**counts, **data}, messages=outcomes)


Answer = Plan | Result | FleetError | tuple[Any, ...]


@dataclass
class FakeEngine:
    """Answers by instance id (`mx1/postfix`) or host name; else an empty plan and an empty success."""

    plans: dict[str, Answer] = field(default_factory=dict)
    results: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    before: Callable[[str, str], None] = lambda place, phase: None
    mutates: bool = True
    found: dict[str, Plan] = field(default_factory=dict)
    """What a change finds of its plan, by instance id."""

    were_reset: list[str] = field(default_factory=list)
    is_running: bool = True

    def begin(self, requests: Sequence[Request[Any]], ready: SimpleQueue[list[Outcome]]) -> None:
        for request in requests:
            ready.put([self._outcome(request, bool)])

    def reset(self, name: str) -> None:
        self.were_reset.append(name)

    def outcomes(
        self, requests: Sequence[Request[Any]], cancelled: Callable[[], bool] = bool
    ) -> Iterator[list[Outcome]]:
        for request in requests:
            yield [self._outcome(request, cancelled)]

    def _outcome(self, request: Request[Any], cancelled: Callable[[], bool]) -> Outcome:
        place = request.endpoint.name
        if len(request.key) == len(str(NIL)):
            run = Run.objects.select_related("instance__host", "host").get(pk=request.key)
            place = str(run.instance or run.host)
        phase = PLANNED if request.until_plan else APPLIED
        leases.KEEPER.note_cancelled()
        if cancelled():
            return Outcome(request.key, cancelled=True)
        self.asked.append((place, phase))
        self.steps.append(getattr(request.steps, "func", request.steps).__name__)
        self.before(place, phase)
        table, empty = (self.plans, Plan()) if request.until_plan else (self.results, Result(Ended.SUCCEEDED))
        answer = table.get(place, empty)
        now = timezone.now()
        is_error = isinstance(answer, FleetError)
        trace = Trace([CommandRecord(("true",), 0, 3, "")], mutated=phase == APPLIED and self.mutates)
        trace.applied = self.found.get(place) if phase == APPLIED else None
        return Outcome(
            request.key,
            value=None if is_error else answer,
            error=answer if is_error else None,
            trace=trace,
            started_at=now,
            finished_at=now,
        )


@dataclass
class Cast:
    acme: Customer
    other: Customer
    alice: Actor
    bob: Actor
    charlie: Actor
    dana: Actor
    engine: FakeEngine


def person(username: str, role: str, customer: Customer | None, kind: str = AccountKind.PERSON) -> Actor:
    """An account with one role."""
    account = Account.objects.create_user(username, kind=kind)
    Role.objects.create(account=account, role=role, customer=customer)
    return Actor(account)


def cast(engine: FakeEngine) -> Cast:
    """Two customers; acme has mx1 with two Postfix instances and mx2 with one, other has mx9."""
    acme = Customer.objects.create(slug="acme", name="Acme")
    other = Customer.objects.create(slug="other", name="Other")
    add_host(acme, "mx1", "postfix", "postfixEXT")
    add_host(acme, "mx2", "postfix")
    add_host(other, "mx9", "postfix")
    return Cast(
        acme,
        other,
        person("alice", "operator", acme),
        person("bob", "approver", acme),
        person("charlie", "operator", other),
        person("dana", "admin", None),
        engine,
    )


def add_host(customer: Customer, name: str, *instances: str) -> Host:
    """A host with Postfix instances."""
    credential, _ = Credential.objects.get_or_create(customer=customer, name="key", defaults={"private_key": ""})
    host = Host.objects.create(
        customer=customer, name=name, address="192.0.2.1", username="fleetops", credential=credential
    )
    for instance in instances:
        Instance.objects.create(
            host=host,
            name=instance,
            mta="postfix",
            version="3.7.11",
            config_dir=f"/etc/{instance}",
            queue_dirs=[f"/var/spool/{instance}"],
        )
    return host


def ask(actor: Actor, operation: str, target: dict[str, Any] | None = None, **fields: Any) -> Job:
    """Submit a job, with a reason unless one is given."""
    fields.setdefault("reason", "newsletter loop")
    if target is None:
        target = {"instances": ["mx1/postfix"]}
    return submit(actor, Asked(operation=operation, target=target, **fields))


def frozen_before(job: Job) -> Job:
    """The job as it would be had it been frozen before digests hashed a stored document."""
    FrozenPlan.objects.filter(job=job).delete()
    Job.objects.filter(pk=job.pk).update(digest=digest_of(job.operation, job.params, plan_rows(job)))
    return Job.objects.get(pk=job.pk)


def claimed(job: Job) -> Claim | None:
    """What a worker takes next in the lane and on the queue of the job's first run."""
    return claim(runner.LANES[queues.lane_of(job.is_changing)], queues.queue_of(job.runs.order_by("id")[0]))


def work(job: Job) -> Job:
    """Let the workers do all they can do for the job now."""
    found = sorted({queues.queue_of(run) for run in job.runs.all()})
    for queue in found * min(len(found), 2):  # what ends on one of them may let another one go on
        runner.work(queues.lane_of(job.is_changing), queue)
    job.refresh_from_db()
    return job
