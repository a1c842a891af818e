"""A worker's work: claim a job's runs, let the engine carry them out, record what came. All of it plain and sync.

A thread keeps no connection to the database while it waits for hosts.
"""

import atexit
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from django.db import InterfaceError, OperationalError, connection

from fleet.inventory import instance_facts
from fleet.models import Host
from fleet.mta.adapter import adapter_for, method_for
from fleet.mta.errors import RemoteError, UnparsedOutput
from fleet.mta.host.check import check_host
from fleet.mta.host.discovery import discover_host
from fleet.mta.operations import ChangesMessages, HostCheck, HostDiscover, Operation, SenderBlock, SenderUnblock
from fleet.mta.records import Context, Ended, Result
from fleet.mta.results.changing import SenderResult
from fleet.mta.steps import Steps
from fleet.ssh.engine import Engine, Outcome, Request
from fleet.ssh.gate import Lane
from fleet.ssh.hostkeys import HostKey
from jobs import blocklist, queues
from jobs.administration.addresses import address_policy
from jobs.apart import apart
from jobs.audit.marks import MarksError
from jobs.clock import db_now
from jobs.errors import Unavailable
from jobs.lanes import LaneThreads, lanes
from jobs.lifecycle import reconcile, sweep
from jobs.lifecycle.claim import Claim, applies, claim
from jobs.lifecycle.record import Report, record
from jobs.models import Job, Message, Run
from jobs.operation import fingerprint, frozen_for, meant, operation_for
from jobs.restore import watch
from jobs.worker import leases, orphans, replacing
from jobs.worker.endpoints import changed_since, endpoint_for, inventory_of
from jobs.worker.leases import Lease
from jobs.worker.readbacks import ReadBacks

PATIENCE = (0.2, 1, 2, 5, 10, 20, *(30,) * 18)
"""Seconds between attempts to record: ten minutes in all, then the lease's end makes the outcomes unknown."""

log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def engine() -> Engine:
    """This process's engine: one event loop, one pool of warm connections."""
    made = Engine(address_policy())
    atexit.register(made.close)
    return made


LANES = lanes()
READ_BACKS = ReadBacks()
CATCHING_UP = threading.Lock()


def work(lane: str, queue: str) -> None:
    """Carry out what waits in a lane of this Celery queue. A forged, late or doubled message finds nothing to do."""
    threads = LANES.get(lane)
    if threads is not None:
        threads.run(partial(check_hosts, queue) if lane == Lane.LOOK else partial(_next, threads, queue))


def check_hosts(queue: str) -> bool:
    """Read back unknown outcomes, catch up blocks, try new credentials, inspect quarantines here. False: once each."""
    apart(read_back, queue)
    if not watch.is_paused():
        apart(catch_up, queue)
        apart(replacing.try_next, queue, execute)
    apart(orphans.inspect, queue, execute)
    return False


def _next(lane: LaneThreads, queue: str) -> bool:
    """Carry out the claim whose turn it is. False: there is none."""
    with lane.claiming:
        begun = leases.clock()
        claimed = claim(lane, queue)
    if claimed is not None and _is_remembered(claimed):
        with leases.KEEPER.kept(claimed.job, claimed.runs, begun) as lease:
            _carry_out(claimed, lease)
    let_go()
    return claimed is not None


def _is_remembered(claimed: Claim) -> bool:
    """Keep the intent outside of the database too. False: that has lost something in this moment, so nothing is sent.

    A disk that does not take it keeps nobody from working: the intent is on record, and the mark a little older.
    """
    if not applies(claimed.job):
        return True
    try:
        return not watch.remember()
    except MarksError as error:
        log.critical("what is sent now is not remembered: %s", error)
        return True


def _carry_out(claimed: Claim, lease: Lease) -> None:
    job, runs = claimed.job, claimed.runs
    overtaken = [_overtaken(run, why) for run in runs if applies(job) and (why := blocklist.why_overtaken(run))]
    settled = {report.run.pk for report in overtaken}
    now = db_now().timestamp()
    requests, broken = _each((run for run in runs if run.pk not in settled), partial(_request, job, now, lease))
    if overtaken or broken:
        _store(job, [*overtaken, *broken])
    let_go()
    for outcomes in engine().outcomes(requests, lease.was_cancelled):
        _store(job, _reports(runs, outcomes))
        let_go()


def execute(requests: Sequence[Request[Any]]) -> Iterator[list[Outcome]]:
    """The outcomes of the requests, in the order in which hosts answer."""
    let_go()
    for outcomes in engine().outcomes(requests):
        yield outcomes
        let_go()


def let_go() -> None:
    """Give the connection back: what follows is a wait for hosts, which may be long."""
    if not connection.in_atomic_block:
        connection.close()


def _overtaken(run: Run, why: str) -> Report:
    """Nothing is done: what was requested is no longer wanted by now."""
    now = db_now()
    told: SenderResult = {"notes": [why], "overtaken": True}
    return Report(run, Result(Ended.UNCHANGED, told), None, [], False, now, now)


def _store(job: Job, reports: Sequence[Report]) -> None:
    """Record, and while the database does not answer try again: the hosts' output is known here only."""
    for pause in PATIENCE:
        try:
            _record(job, reports)
            return
        except (OperationalError, InterfaceError, Unavailable) as error:
            log.warning("cannot record %s, trying again in %s s: %s", job.pk, pause, error)
            connection.close()
            time.sleep(pause)
    _record(job, reports)


def _record(job: Job, reports: Sequence[Report]) -> None:
    """Record them together. Where one cannot be stored, each by itself, so that it fails none but its own run."""
    try:
        record(job, reports)
    except (OperationalError, InterfaceError, Unavailable):
        raise
    except Exception as error:  # whatever it is, it is of one of them
        log.warning("a result of %s cannot be stored: %r", job.pk, error)
        if len(reports) == 1:
            record(job, [unstorable(reports[0])])
            return
        for report in reports:
            _record(job, [report])


def unstorable(report: Report) -> Report:
    """The same report without the host's output, which no column takes."""
    error = UnparsedOutput("what the host said cannot be stored: a number or a text is out of all bounds")
    return replace(report, value=None, error=error, is_cancelled=False)


def _each(runs: Iterable[Run], request: Callable[[Run], Request[Any]]) -> tuple[list[Request[Any]], list[Report]]:
    """The runs' requests, and reports of those that cannot be made, as when a credential does not open.

    One such run must not keep the others from being done, or from being read back.
    """
    requests, broken = [], []
    for run in runs:
        try:
            requests.append(request(run))
        except Exception as error:
            log.exception("run %s cannot be begun", run.pk)
            reason = f"internal error: {type(error).__name__}"
            internal = RemoteError(reason, hint="See the worker's log.", internal=True)
            now = db_now()
            broken.append(Report(run, None, internal, [], False, now, now))
    return requests, broken


def _request(job: Job, now: float, lease: Lease, run: Run) -> Request[Any]:
    operation = operation_for(job, run)
    if changed_since(run.host):
        engine().reset(run.host.name)
    return Request(
        key=str(run.pk),
        endpoint=endpoint_for(run.host),
        steps=_steps(run, operation, context_for(job, run, operation, now)),
        until_plan=run.is_planning,
        deadline=operation.deadline,
        may_change=partial(lease.holds, run.pk),
        lane=queues.lane_of(job.is_changing),
    )


def _steps(run: Run, operation: Operation, context: Context) -> Callable[[], Steps[Any]]:
    if isinstance(operation, HostDiscover):
        return partial(discover_host, run.host.name, time.time)
    if isinstance(operation, HostCheck):
        return partial(check_host, inventory_of(run.host), time.time)
    if run.instance is None:
        raise ValueError(f"{operation.name} needs an instance")
    method = method_for(adapter_for(run.instance.mta), operation.name)
    if method is None:
        raise ValueError(f"{run.instance.mta} has no {operation.name}")
    return partial(method, instance_facts(run.instance), operation, context)


def context_for(job: Job, run: Run, operation: Operation, now: float) -> Context:
    """What the operation may know. `now` is moved by the host's clock skew, so that ages are the host's own."""
    return Context(
        now=now + (run.host.facts.get("clock_skew") or 0.0),
        job=str(job.pk),
        frozen=frozen_for(job, run) if job.is_changing else None,
        ours=_held_by_us(run) if isinstance(operation, ChangesMessages) else frozenset(),
        wanted_blocks=_wanted_blocks(run, operation),
        wiring_approved=bool(run.plan and run.plan.get("wiring")),
        undo=meant(job).undo_of_id is not None,
        fence=run.fence if applies(job) else 0,
    )


def _wanted_blocks(run: Run, operation: Operation) -> tuple[str, ...]:
    if isinstance(operation, SenderBlock | SenderUnblock):
        return blocklist.wanted_elsewhere(run, operation.pattern)
    return ()


def _held_by_us(run: Run) -> frozenset[Any]:
    rows = Message.objects.filter(run__instance=run.instance, is_held_by_us=True)
    return frozenset(fingerprint(message) for message in rows)


def _reports(runs: Sequence[Run], outcomes: Iterable[Outcome]) -> list[Report]:
    by_key = {str(run.pk): run for run in runs}
    return [_report(by_key[outcome.key], outcome) for outcome in outcomes]


def _report(run: Run, outcome: Outcome) -> Report:
    return Report(
        run=run,
        value=outcome.value,
        error=outcome.error,
        commands=[
            {
                "argv": list(command.argv),
                "exit_status": command.exit_status,
                "duration_ms": command.duration_ms,
                "stderr_tail": command.stderr_tail,
            }
            for command in outcome.trace.commands
        ],
        mutated=outcome.trace.mutated,
        applied=outcome.trace.applied,
        started_at=outcome.started_at or db_now(),
        finished_at=outcome.finished_at or db_now(),
        is_cancelled=outcome.cancelled,
    )


def read_back(queue: str) -> None:
    """Read back this queue's runs whose outcome is unknown and that are due, all of them at once.

    Settles what any read-back has shown meanwhile, unless another thread is doing that.
    """
    runs = READ_BACKS.new(reconcile.due(db_now(), queue))
    requests, broken = _each(runs, _read_back_request)
    for report in broken:
        _settle(report.run.job, [report])
    let_go()
    READ_BACKS.begin(engine(), runs, requests)
    for looked_at, outcomes in READ_BACKS.outcomes(engine()):
        by_job: dict[Any, list[Report]] = defaultdict(list)
        for report in _reports(looked_at, outcomes):
            by_job[report.run.job_id].append(report)
        for reports in by_job.values():
            _settle(reports[0].run.job, reports)
        let_go()


def _settle(job: Job, reports: Sequence[Report]) -> None:
    """One run that cannot be settled must not keep the others from it: it is looked at again, and not for ever."""
    for report in reports:
        try:
            reconcile.settle(job, report)
        except (OperationalError, InterfaceError, Unavailable) as error:
            log.warning("cannot settle %s, it is looked at again: %s", report.run.pk, error)
            connection.close()
        except Exception:
            log.exception("what reading back %s showed cannot be stored", report.run.pk)
            reconcile.settle(job, unstorable(report))


def _read_back_request(run: Run) -> Request[Any]:
    if run.instance is None:
        raise ValueError("discovery changes nothing, so its outcome is never unknown")
    job = run.job
    operation = operation_for(job, run)
    context = context_for(job, run, operation, db_now().timestamp())
    adapter = adapter_for(run.instance.mta)
    steps = partial(adapter.read_back, instance_facts(run.instance), operation, context)
    return Request(
        str(run.pk), endpoint_for(run.host), steps, until_plan=False, deadline=operation.deadline, lane=Lane.LOOK
    )


def catch_up(queue: str) -> None:
    """Bring blocks of this queue's hosts on, in one thread at most: put all off, then make jobs where hosts answer."""
    if not CATCHING_UP.acquire(blocking=False):
        return
    try:
        now = db_now()
        rows = sweep.put_off(sweep.behind(now, queue), now)
        answering = _answering(sweep.hosts_of(rows))
        sweep.catch_up(row for row in rows if row.instance.host_id in answering)
    finally:
        CATCHING_UP.release()


def _answering(hosts: Sequence[Host]) -> set[int]:
    """The ids of the hosts that can be logged in to now, so that a job is made only when it has a chance."""
    requests = [
        Request(str(h.pk), endpoint_for(h), partial(discover_host, h.name), False, 60.0, lane=Lane.LOOK) for h in hosts
    ]
    let_go()
    return {int(o.key) for outcomes in engine().outcomes(requests) for o in outcomes if o.error is None}


def scan_host_key(host: Host) -> HostKey:
    """The key that the host shows now; nothing is trusted by this. Raises NothingSent errors."""
    jump = endpoint_for(host.jump_host) if host.jump_host else None
    return engine().scan_host_key(host.address, host.port, jump)
