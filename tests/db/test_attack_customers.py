"""A job over two customers tells neither of them anything of the other: in no chain, and by no job that follows it."""

import json
from datetime import timedelta
from typing import Any

import pytest

from fleet.models import Host
from fleet.mta.errors import TooMany, Unreachable
from fleet.mta.steps import Plan
from jobs import selectors
from jobs.clock import db_now
from jobs.lifecycle import reconcile
from jobs.lifecycle.approval import approve
from jobs.lifecycle.followup import retry, undo
from jobs.models import AuditEvent, Job, QuarantineItem, Run
from tests.db.fleet import Cast, add_host, ask, changed, claimed, message, work

BOTH = {"instances": ["mx1/postfix", "mx9/postfix"]}
PURGE = {"match": "from:*@bulk.example"}
FOREIGN = {"acme": ('"other"', "mx9", "3F5DD30C009"), "other": ('"acme"', "mx1", "3F5DD30C001")}
"""What the chain of a customer must not tell: name, host and message of the other one."""


def nothing_leaked() -> None:
    """No entry of either chain names what is the other customer's."""
    for chain, words in FOREIGN.items():
        entries = AuditEvent.objects.filter(chain=chain)
        assert entries.exists()
        for entry in entries:
            told = json.dumps([entry.object, entry.data])
            assert not [word for word in words if word in told], (chain, entry.action, told)


def told(job: Job, chain: str, action: str) -> dict[str, Any]:
    """What the chain was told of the job."""
    data: dict[str, Any] = AuditEvent.objects.get(job=job.pk, chain=chain, action=action).data
    return data


def purged(people: Cast) -> Job:
    """A purge of one message on a host of each."""
    for place, one in (("mx1/postfix", message(1)), ("mx9/postfix", message(9))):
        people.engine.plans[place] = Plan(selected=(one,), queue_total=1000)
        people.engine.results[place] = changed([one], places={one.queue_id: f"/q/{one.queue_id}"})
    return work(ask(people.dana, "queue.purge", BOTH, params=PURGE))


def test_each_chain_is_told_of_its_own_hosts_and_what_was_asked_of_all(people: Cast) -> None:
    job = purged(people)
    assert job.state == "succeeded"
    nothing_leaked()
    for chain, host in (("acme", "mx1"), ("other", "mx9")):
        asked = told(job, chain, "job.submitted")
        assert asked["target"] == {"instances": [f"{host}/postfix"]}
        assert (asked["runs"], asked["params"], asked["reason"]) == (1, PURGE, "newsletter loop")


def test_each_chain_is_told_which_of_its_own_quarantined_messages_were_named(people: Cast) -> None:
    purged(people)
    items = {str(item.instance): str(item.pk) for item in QuarantineItem.objects.all()}
    job = ask(people.dana, "quarantine.restore", BOTH, params={"ids": sorted(items.values())})
    assert told(job, "acme", "job.submitted")["params"] == {"ids": [items["mx1/postfix"]]}
    assert told(job, "other", "job.submitted")["params"] == {"ids": [items["mx9/postfix"]]}


def test_a_discovery_of_hosts_of_both_is_told_as_hosts(people: Cast) -> None:
    job = ask(people.dana, "host.discover", {"hosts": ["mx1", "mx9"]})
    assert told(job, "acme", "job.submitted")["target"] == {"hosts": ["mx1"]}
    nothing_leaked()


def test_a_job_of_one_customer_is_told_as_it_was_asked(people: Cast) -> None:
    target = {"customers": ["acme"], "mta": ["postfix"]}
    assert told(ask(people.dana, "queue.list", target), "acme", "job.submitted")["target"] == target


def test_one_customers_full_queue_ends_the_job_and_the_other_is_not_told_whose(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=20)
    people.engine.plans["mx9/postfix"] = TooMany("mx9 has 11 messages, max_messages is 10")
    people.engine.mutates = False
    job = work(ask(people.dana, "queue.hold", BOTH, params=PURGE))
    assert job.state == "failed"
    nothing_leaked()
    assert told(job, "acme", "job.failed")["error"]["code"] == "too_many"
    assert "mx9" in told(job, "other", "job.failed")["error"]["detail"]


def test_one_customers_disabled_host_ends_the_job_and_the_other_is_not_told_which(people: Cast) -> None:
    for place, first in (("mx1/postfix", 1), ("mx9/postfix", 500)):
        selected = tuple(message(n) for n in range(first, first + 101))
        people.engine.plans[place] = Plan(selected=selected, queue_total=1000)
    job = work(ask(people.dana, "queue.purge", BOTH, params=PURGE))
    people.bob.account.roles.update(customer=None)
    approve(people.bob, job, job.digest)
    Host.objects.filter(name="mx9").update(enabled=False)
    assert work(job).state == "failed"
    nothing_leaked()
    assert told(job, "acme", "job.failed")["error"]["code"] == "conflict"


def test_a_lost_worker_is_told_to_the_customer_whose_run_it_had(people: Cast) -> None:
    job = ask(people.dana, "queue.list", BOTH)
    first = claimed(job)
    assert first is not None
    Run.objects.filter(state="running").update(lease_until=db_now() - timedelta(seconds=1))
    assert reconcile.lose(db_now()) == len(first.runs)
    lost = AuditEvent.objects.filter(action="run.lost").values_list("chain", "object")
    assert set(lost) == {(run.host.customer.slug, str(run.instance)) for run in first.runs}
    nothing_leaked()


def test_a_retry_tells_the_target_as_it_was_and_is_seen_by_who_may_see_all_of_it_only(people: Cast) -> None:
    people.engine.results["mx1/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    job = work(ask(people.dana, "queue.list", BOTH))
    again = retry(people.dana, job)
    assert [str(run.instance) for run in again.runs.all()] == ["mx1/postfix"]
    assert again.target == BOTH
    assert not selectors.visible_jobs(people.alice).exists()
    assert again in selectors.visible_jobs(people.dana)
    nothing_leaked()


def test_an_undo_of_one_customers_part_names_nothing_of_the_other(people: Cast) -> None:
    job = purged(people)
    QuarantineItem.objects.filter(instance__host__name="mx9").update(state="restored")
    back = undo(people.dana, job, "wanted after all")
    assert back in selectors.visible_jobs(people.alice)
    assert back.target == {"instances": ["mx1/postfix"]}
    nothing_leaked()


@pytest.mark.parametrize(
    "target",
    [
        {"customers": ["acme", "other"], "labels": {"role": ["mx"]}},
        {"customers": ["acme", "other"], "hosts": ["mx1"]},
        {"hosts": ["mx1", "mx9"], "labels": {"role": ["mx"]}},
        {"hosts": ["mx1", "mx8"]},
    ],
)
def test_whom_a_target_names_is_concerned_though_no_host_of_theirs_is_left(people: Cast, target: dict) -> None:
    Host.objects.filter(name="mx1").update(labels={"role": "mx"})
    add_host(people.other, "mx8")  # not discovered: it has no instance
    job = ask(people.dana, "queue.list", target)
    assert {str(run.host) for run in job.runs.all()} == {"mx1"}
    assert job not in selectors.visible_jobs(people.alice)
    assert told(job, "other", "job.submitted")["target"] == {"instances": []}
    nothing_leaked()
