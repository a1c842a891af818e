"""A host that was renamed is meant by whatever named it before; what was frozen or recorded keeps the old name."""

from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction

from fleet.inventory import with_host_renamed
from fleet.models import Host, Instance
from fleet.mta.records import Ended, Result
from fleet.mta.steps import Plan
from jobs.administration.hosts import update_host
from jobs.audit import trail
from jobs.clock import db_now
from jobs.lifecycle import sweep
from jobs.lifecycle.approval import approve
from jobs.lifecycle.followup import retry, undo
from jobs.lifecycle.frozen import plan_rows, why_changed
from jobs.models import AuditEvent, Block, BlockInstance, Job
from tests.db.fleet import APPLIED, PLANNED, Cast, ask, changed, message, work

SENDER = {"pattern": "newsletter@sillyplace.com"}
BOTH, RENAMED = {"hosts": ["mx1", "mx2"]}, {"hosts": ["mx7", "mx2"]}


def rename(people: Cast, new: str = "mx7", old: str = "mx1") -> None:
    """As by PATCH hosts/mx1/."""
    update_host(people.dana, Host.objects.get(name=old), {"name": new})


@pytest.mark.parametrize(
    ("target", "renamed"),
    [
        (BOTH, RENAMED),
        ({"instances": ["mx1/postfix", "mx11/mx1", "mx2/mx1"]}, {"instances": ["mx7/postfix", "mx11/mx1", "mx2/mx1"]}),
        ({"hosts": ["mx1"], "mta": ["exim"]}, {"hosts": ["mx7"], "mta": ["exim"]}),
        ({"customers": ["mx1"], "labels": {"mx1": ["mx1"]}}, {"customers": ["mx1"], "labels": {"mx1": ["mx1"]}}),
        ({"all": True}, {"all": True}),
    ],
)
def test_only_what_names_the_host_is_changed(target: dict[str, Any], renamed: dict[str, Any]) -> None:
    assert with_host_renamed(target, "mx1", "mx7") == renamed


def test_a_block_goes_on_to_mean_the_host_that_was_renamed(people: Cast) -> None:
    work(ask(people.alice, "sender.block", BOTH, params=SENDER))
    rename(people)
    block = Block.objects.get()
    assert (block.target, block.job.target) == (RENAMED, RENAMED)
    late = {"name": "late", "mta": "postfix", "version": "3", "config_dir": "/etc/late", "queue_dirs": ["/late"]}
    Instance.objects.create(host=Host.objects.get(name="mx7"), **late)
    sweep.extend_blocks(db_now())
    assert "mx7/late" in {str(row.instance) for row in BlockInstance.objects.all()}
    assert work(ask(people.alice, "sender.block", RENAMED, params=SENDER)).state == "succeeded"
    assert Block.objects.count() == 1


def test_a_job_that_waits_for_approval_runs_on_the_host_that_was_renamed(people: Cast) -> None:
    messages = [message(number) for number in range(101)]
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(messages), queue_total=1000)
    people.engine.results["mx7/postfix"] = changed(messages, places={each.queue_id: "/q" for each in messages})
    job = work(ask(people.alice, "queue.purge", params={"match": "from:*@bulk.example"}))
    assert job.state == "awaiting_approval"
    before = list(AuditEvent.objects.order_by("pk").values())
    rename(people)
    assert [row.instance for row in plan_rows(job)] == ["mx1/postfix"]
    assert why_changed(Job.objects.get(pk=job.pk)) == ""
    approve(people.bob, job, job.digest, "seen")
    job = work(job)
    assert (job.state, job.target) == ("succeeded", {"instances": ["mx7/postfix"]})
    assert people.engine.asked == [("mx1/postfix", PLANNED), ("mx7/postfix", APPLIED)]
    assert undo(people.alice, job, "it was wanted").target == job.target
    assert list(AuditEvent.objects.order_by("pk").values())[: len(before)] == before
    entry = AuditEvent.objects.get(action="host.updated")
    assert (entry.object, entry.data, trail.verify().ok) == ("mx1", {"name": "mx7"}, True)


def test_a_block_that_failed_is_retried_for_the_host_that_was_renamed(people: Cast) -> None:
    people.engine.results["mx1/postfix"] = Result(Ended.FAILED)
    job = work(ask(people.alice, "sender.block", BOTH, params=SENDER))
    rename(people)
    assert work(retry(people.alice, job)).target == RENAMED
    assert Block.objects.get().target == RENAMED


def test_a_name_that_was_freed_by_a_rename_means_whoever_gets_it(people: Cast) -> None:
    job = ask(people.alice, "queue.list", BOTH)
    rename(people)
    rename(people, "mx1", "mx2")
    job.refresh_from_db()
    assert job.target == {"hosts": ["mx7", "mx1"]}
    assert sorted(str(run.instance) for run in job.runs.all()) == ["mx1/postfix", "mx7/postfix", "mx7/postfixEXT"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no row locks")
def test_a_rename_does_not_wait_for_whoever_changes_a_job_and_may_wait_for_the_host(people: Cast) -> None:
    job = ask(people.alice, "queue.list", BOTH)
    other = connections.create_connection("default")
    try:
        other.ensure_connection()
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT 1 FROM jobs_job WHERE id = %s FOR NO KEY UPDATE", [job.pk])
            with pytest.raises(OperationalError), transaction.atomic():
                rename(people)
    finally:
        other.close()
    assert Host.objects.filter(name="mx1").exists()
    assert Job.objects.get().target == BOTH
    rename(people)
    assert connection.in_atomic_block is False
    assert Job.objects.get().target == RENAMED
