"""The main story through the client that openapi-python-client makes of docs/openapi.yaml, without a dictionary in it.

Arguments: the service's address, tokens of who asks, approves, and administers hosts. Runs in the environment of the
generators, as what an integrator would write; test_clients.py checks its types and runs it.
"""

import sys
from io import BytesIO
from uuid import UUID

from mxfleet_client import AuthenticatedClient
from mxfleet_client.api.fleet import post_hosts_import
from mxfleet_client.api.jobs import get_plan, get_runs, post_approve, post_drift, post_jobs, post_undo
from mxfleet_client.models import (
    ApproveRequest,
    DriftResult,
    Imported,
    Job,
    JobState,
    MessagesResult,
    Plan,
    QuarantineRestoreRun,
    QueueListParams,
    QueueListRequest,
    QueueListRequestOperation,
    QueueListResult,
    QueueListRun,
    QueuePurgeParams,
    QueuePurgeRequest,
    QueuePurgeRequestOperation,
    QueuePurgeRun,
    RunPage,
    TargetRequest,
    UndoRequest,
)
from mxfleet_client.types import File

PATIENCE = "wait=30"
MATCH = "from:news@bulk.example"
TARGET = TargetRequest(instances=["mx1/postfix"])


def listed(client: AuthenticatedClient) -> QueueListResult:
    """What is queued of the sender now."""
    request = QueueListRequest(
        operation=QueueListRequestOperation.QUEUE_LIST, target=TARGET, params=QueueListParams(match=MATCH)
    )
    job = post_jobs.sync(client=client, body=request, prefer=PATIENCE)
    assert isinstance(job, Job), job
    assert job.state == JobState.SUCCEEDED
    [run] = runs(client, job.id).results
    assert isinstance(run, QueueListRun)
    assert isinstance(run.result, QueueListResult)
    return run.result


def runs(client: AuthenticatedClient, job: UUID) -> RunPage:
    page = get_runs.sync(job, client=client)
    assert isinstance(page, RunPage), page
    return page


def purge(client: AuthenticatedClient) -> Job:
    """Ask for it: it awaits somebody else's approval."""
    request = QueuePurgeRequest(
        operation=QueuePurgeRequestOperation.QUEUE_PURGE,
        target=TARGET,
        params=QueuePurgeParams(match=MATCH),
        reason="newsletter loop",
        ticket="OPS-123",
    )
    job = post_jobs.sync(client=client, body=request, prefer=PATIENCE)
    assert isinstance(job, Job), job
    assert job.state == JobState.AWAITING_APPROVAL
    return job


def look_again(client: AuthenticatedClient, job: Job) -> DriftResult:
    """Whether the plan still holds."""
    looking = post_drift.sync(job.id, client=client, prefer=PATIENCE)
    assert isinstance(looking, Job), looking
    [run] = runs(client, looking.id).results
    assert run.result is None
    assert isinstance(run.drift, DriftResult)
    return run.drift


def approve(client: AuthenticatedClient, job: Job) -> Plan:
    """Look at the plan, and agree to just that."""
    plan = get_plan.sync(job.id, client=client)
    assert isinstance(plan, Plan), plan
    decided = post_approve.sync(job.id, client=client, body=ApproveRequest(digest=plan.digest, comment="do it"))
    assert isinstance(decided, Job), decided
    assert decided.approval is not None
    assert decided.approval.given == 1
    return plan


def undo(client: AuthenticatedClient, job: Job) -> MessagesResult:
    undone = post_undo.sync(job.id, client=client, body=UndoRequest(reason="it was wanted"), prefer=PATIENCE)
    assert isinstance(undone, Job), undone
    assert undone.state == JobState.SUCCEEDED
    [run] = runs(client, undone.id).results
    assert isinstance(run, QuarantineRestoreRun)
    assert isinstance(run.result, MessagesResult)
    return run.result


def purged(client: AuthenticatedClient, job: Job) -> QueuePurgeRun:
    """The run, once it has ended: a request that waits for the job's end is answered then."""
    while True:
        [run] = runs(client, job.id).results
        assert isinstance(run, QueuePurgeRun)
        if run.finished_at is not None:
            return run


def would_add(client: AuthenticatedClient) -> Imported:
    """What a file of hosts would come to."""
    hosts = "name,customer,address,username,credential\nmx9,acme,mx9.example.com,mxfleet,acme-key\n"
    told = post_hosts_import.sync(client=client, body=File(payload=BytesIO(hosts.encode())), dry_run=True)
    assert isinstance(told, Imported), told
    return told


def main(address: str, asking: str, approving: str, administering: str) -> None:
    alice = AuthenticatedClient(base_url=address, token=asking, timeout=None)
    bob = AuthenticatedClient(base_url=address, token=approving)
    before = listed(alice)
    oldest = before.entries[0]
    print(f"{before.matched} of {before.total} queued, the oldest since {oldest.arrival_time}: {oldest.queue_id}")
    job = purge(alice)
    drift = look_again(bob, job)
    print(f"compared with the plan of {drift.planned}: {drift.gone} gone, {drift.new} new")
    plan = approve(bob, job)
    [part] = plan.instances
    print(f"planned: {part.counts.messages} on {part.instance}, {part.sample[0].queue_id} first")
    run = purged(alice, job)
    assert isinstance(run.result, MessagesResult)
    assert run.evidence.after is not None
    print(f"purged: {run.result.done}, {run.result.left} left; evidence: {run.evidence.after.states.to_dict()}")
    assert listed(alice).matched == 0
    print(f"put back: {undo(alice, job).done}, queued again: {listed(alice).matched}")
    anna = AuthenticatedClient(base_url=address, token=administering, timeout=None)
    print(f"would add: {', '.join(would_add(anna).new)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
