"""What it costs to merge the results of one job: `python -m tests.bench.summaries`; MXFLEET_TEST_DATABASE=postgres too.

Runs are written to a database of its own; the merging is done in a fresh process each, whose memory is its own.
"""

import json
import multiprocessing
import os
import resource
import time
from functools import partial
from typing import Any

from tests import environment  # noqa: F401  # prepares the settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deploy.settings")

import django

from tests.bench.measure import table

ROWS = 1000
SIZES = (300, 5000)
NOW = "2026-11-30T12:00:{:02}.{:06}Z"


def entry(run: int, at: int) -> dict[str, Any]:
    """A message as Postfix's queue tells of it, the older the larger `at` is not."""
    recipient = {"address": f"user{at}@shop{at % 40}.example", "reason": "451 4.7.1 try later", "state": "undelivered"}
    return {
        "queue_id": f"4bF{run:04}{at:04}", "state": "deferred", "native_state": "deferred",
        "arrival_time": NOW.format(at * 60 // ROWS, (at * 997 + run) % 1_000_000 if at % 2 else run),
        "sender": f"news-{at}@bulk{at % 9}.example", "recipients": [recipient], "size": 30_000 + at,
        "attempts": None, "next_attempt": None,
    }  # fmt: skip


def listed(run: int) -> dict[str, Any]:
    """A run's result of queue.list."""
    entries = sorted((entry(run, at) for at in range(ROWS)), key=lambda each: each["arrival_time"])
    counts = {"total": 12_000, "matched": 12_000, "truncated": True, "refused": 0}
    return {"entries": entries, **counts, "taken_at": NOW.format(59, 1), "notes": []}


def counted(run: int, top: int = ROWS) -> dict[str, Any]:
    """A run's result of queue.summary: two lists of groups."""
    some = {"count": 9, "bytes": 900, "oldest_at": NOW.format(0, run), "ages": {"5": 9, "10": 0, "20": 0, "+": 0}}
    groups = [{"value": f"bulk{(run * 7 + at) % 4000}.example", **some} for at in range(top)]
    total = {"count": 9 * top, "bytes": 900 * top, "oldest_at": NOW.format(0, run)}
    both = {"from-domain": groups, "to-domain": groups}
    return {"total": total, "groups": both, "ages": {"5": 9 * top}, "taken_at": NOW.format(59, 1), "refused": 0}


KINDS = {
    f"queue.list, {ROWS:,} entries": ("queue.list", listed, {}),
    "queue.summary, two lists of 10": ("queue.summary", partial(counted, top=10), {"top": 10}),
    f"queue.summary, two lists of {ROWS:,}": ("queue.summary", counted, {"top": ROWS}),
}


def fill(kind: str, runs: int, told: Any) -> None:
    """A job that has ended on so many instances. Tells its id."""
    from django.utils import timezone

    from fleet.models import Instance
    from jobs.models import Account, Job, Run

    operation, result_of, params = KINDS[kind]
    owner, _ = Account.objects.get_or_create(username="bench", kind="person")
    job = Job.objects.create(
        operation=operation, target={}, params=params, state="succeeded", requested_by=owner,
        created_at=timezone.now(), finished_at=timezone.now(),
    )  # fmt: skip
    if Instance.objects.count() < runs:
        _add_instances(runs)
    for start in range(0, runs, 50):
        some = Instance.objects.order_by("pk")[start : min(start + 50, runs)]
        Run.objects.bulk_create(
            Run(job=job, host_id=each.host_id, instance=each, state="succeeded", result=result_of(start + at))
            for at, each in enumerate(some)
        )
    told.put(str(job.pk))


def _add_instances(count: int) -> None:
    from fleet.models import Credential, Customer, Host, Instance

    known = Host.objects.count()
    customers = [Customer.objects.get_or_create(slug=f"c{at}", name=f"c{at}")[0] for at in range(40)]
    keys = {each.pk: Credential.objects.get_or_create(customer=each, name="x")[0] for each in customers}
    for at in range(known, count):
        owner = customers[at % len(customers)]
        host = Host(customer=owner, name=f"mx{at:05}", address="x.example", username="x", credential=keys[owner.pk])
        host.save()
        Instance.objects.create(host=host, name="postfix", mta="postfix", version="3.7", config_dir="/etc/postfix")


def merge(pk: str, told: Any) -> None:
    """Tell seconds of CPU and wall time, MB by which the process grew, bytes of the answer."""
    from api.v1.serializers.summary import JobSummarySerializer, summary_of
    from jobs import selectors
    from jobs.models import Job

    job = Job.objects.get(pk=pk)
    before, cpu, wall = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time(), time.monotonic()
    merged = selectors.merged(job, ROWS)
    content = json.dumps(JobSummarySerializer(summary_of(job, merged)).data, default=str)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    told.put((time.process_time() - cpu, time.monotonic() - wall, grown / 1024, len(content)))


def apart(work: Any, *arguments: Any) -> Any:
    """What `work` tells, done in a process of its own."""
    from django.db import connection

    connection.close()
    context = multiprocessing.get_context("fork")
    told = context.Queue()
    child = context.Process(target=work, args=(*arguments, told))
    child.start()
    found = told.get()
    child.join()
    return found


def main() -> None:
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    import api.v1.urls  # noqa: F401  # so that memory is that of the merging

    call_command("migrate", verbosity=0)
    rows = []
    for runs in SIZES:
        for kind in KINDS:
            cpu, wall, grown, size = apart(merge, apart(fill, kind, runs))
            rows.append([kind, f"{runs:,}", f"{cpu * 1000:,.0f}", f"{wall:.2f}", f"{grown:.0f}", f"{size:,}"])
    headings = (f"{connection.vendor}, result of each run", "runs", "CPU ms", "wall s", "MB", "answer, bytes")
    print(table(headings, rows))


if __name__ == "__main__":
    main()
