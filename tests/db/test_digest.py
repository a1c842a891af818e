"""A digest covers all that its readers read; what is stored is held against it whenever somebody relies on it."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import asyncssh
import pytest
from django.db.models import F

from fleet.models import Credential, Host
from fleet.mta.steps import Plan
from jobs.administration.hosts import update_host
from jobs.clock import db_now
from jobs.errors import Clash
from jobs.lifecycle.approval import approve, confirm
from jobs.lifecycle.frozen import why_changed
from jobs.models import FrozenPlan, Job, Message, Run
from jobs.rules.document import canonical, digest_of_document
from tests.db.fleet import APPLIED, Cast, ask, changed, frozen_before, message, work
from tests.db.test_host_names import rename

MATCH = {"match": "from:*@bulk.example"}


def purge(people: Cast, **fields: Any) -> Job:
    """One that awaits approval."""
    messages = [message(n) for n in range(101)]
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(messages), queue_total=1000, notes=("keeps the inode",))
    people.engine.results["mx1/postfix"] = changed(messages, places={m.queue_id: "/q" for m in messages})
    return work(ask(people.alice, "queue.purge", params=MATCH, ticket="OPS-1", group="loop", **fields))


def of_run(name: str, value: Any) -> Callable[[], None]:
    def change() -> None:
        run = Run.objects.exclude(plan=None).get()
        run.plan[name] = value
        run.save()

    return change


def of_job(**fields: Any) -> Callable[[], int]:
    return lambda: Job.objects.update(**fields)


TAMPERED = {
    "reason": of_job(reason="another"),
    "ticket": of_job(ticket="OPS-2"),
    "group": of_job(group="other"),
    "until when": lambda: Job.objects.update(created_at=F("created_at") + timedelta(days=1)),
    "params": of_job(params={"match": "ALL"}),
    "target": of_job(target={"all": True}),
    "approvals": of_job(approvals_needed=0),
    "role": of_job(approval_role="viewer"),
    "notes": of_run("notes", []),
    "commands": of_run("commands", [["rm"]]),
    "sample": of_run("sample", []),
    "size": lambda: Message.objects.update(size=1),
    "subject": lambda: Message.objects.update(subject="harmless"),
    "one less": lambda: Message.objects.order_by("pk")[:1].get().delete(),
    "another host": lambda: Host.objects.filter(name="mx1").update(address="192.0.2.99"),
    "the document": lambda: FrozenPlan.objects.update(document="{}"),
    "no document": lambda: FrozenPlan.objects.all().delete(),
}


PUBLIC_KEY = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
ELSEWHERE = {
    "address": "192.0.2.99",
    "port": 2222,
    "username": "other",
    "become": "sudo",
    "host_key": PUBLIC_KEY,
    "host_ca": PUBLIC_KEY,
    "jump_host": "mx2",
}
BESIDE = {"labels": {"role": "relay"}, "site": "fra1", "credential": "spare", "name": "mx7"}


def edit(people: Cast, field: str, value: Any) -> None:
    """As by PATCH hosts/mx1/."""
    Credential.objects.create(customer=people.acme, name="spare", private_key="")
    update_host(people.dana, Host.objects.get(name="mx1"), {field: value})


@pytest.mark.parametrize("field", ELSEWHERE)
def test_an_edit_of_how_a_host_is_reached_voids_the_plan_and_says_so(people: Cast, field: str) -> None:
    job = purge(people)
    edit(people, field, ELSEWHERE[field])
    with pytest.raises(Clash, match=r"how a host of it is reached .*submit the job again") as caught:
        approve(people.bob, job, job.digest)
    assert (caught.value.code, job.approvals.count()) == ("conflict", 0)


@pytest.mark.parametrize("field", BESIDE)
def test_an_edit_that_changes_neither_where_nor_how_a_plan_runs_voids_it_not(people: Cast, field: str) -> None:
    job = purge(people)
    edit(people, field, BESIDE[field])
    approve(people.bob, job, job.digest)
    assert work(job).state == "succeeded"


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_changed_since_it_was_approved_is_not_carried_out(people: Cast, what: str) -> None:
    job = purge(people)
    approve(people.bob, job, job.digest)
    TAMPERED[what]()
    job = work(job)
    assert job.error is not None
    assert (job.state, job.error["code"]) == ("failed", "conflict")
    assert ("mx1/postfix", APPLIED) not in people.engine.asked


@pytest.mark.parametrize("what", [name for name in TAMPERED if name != "no document"])
def test_nobody_agrees_to_what_is_not_what_the_digest_says(people: Cast, what: str) -> None:
    job = purge(people, confirm=True)
    TAMPERED[what]()
    with pytest.raises(Clash) as caught:
        confirm(people.alice, job, job.digest)
    assert caught.value.code == "conflict"
    Job.objects.update(confirmed_at=db_now())
    with pytest.raises(Clash) as caught:
        approve(people.bob, job, job.digest)
    assert (caught.value.code, job.approvals.count()) == ("conflict", 0)


def test_the_document_is_stored_once_for_all_and_names_its_parts(people: Cast) -> None:
    job = purge(people)
    parts = json.loads(job.frozen_plan.document)
    assert digest_of_document(job.frozen_plan.document) == job.digest
    assert (parts["version"], parts["reason"], parts["ticket"]) == (2, "newsletter loop", "OPS-1")
    assert (parts["target"], parts["requested_by"]) == ({"instances": ["mx1/postfix"]}, "alice")
    assert parts["instances"]["mx1/postfix"]["notes"] == ["keeps the inode"]
    assert parts["approval"]["approvals_needed"] == 1


def test_a_part_that_the_document_does_not_have_is_no_difference(people: Cast) -> None:
    """As with plans that are frozen before a version that knows one more."""
    job = purge(people)
    parts = json.loads(job.frozen_plan.document)
    del parts["group"], parts["instances"]["mx1/postfix"]["notes"]
    older = canonical(parts)
    FrozenPlan.objects.update(document=older)
    Job.objects.update(digest=digest_of_document(older))
    job.refresh_from_db()
    approve(people.bob, job, job.digest)
    assert work(job).state == "succeeded"


def test_a_job_that_awaits_approval_across_the_upgrade_keeps_its_digest_and_is_approved(people: Cast) -> None:
    job = frozen_before(purge(people))
    approve(people.bob, job, job.digest)
    assert work(job).state == "succeeded"


def test_an_older_plan_that_was_changed_is_not_carried_out_either(people: Cast) -> None:
    job = frozen_before(purge(people))
    approve(people.bob, job, job.digest)
    Message.objects.update(size=1)
    assert work(job).state == "failed"


def test_hosts_that_exchanged_their_names_are_still_the_ones_that_were_meant(people: Cast) -> None:
    messages = tuple(message(n) for n in range(101))
    people.engine.plans["mx1/postfix"] = Plan(selected=messages, queue_total=1000)
    job = work(ask(people.alice, "queue.purge", {"hosts": ["mx1", "mx2"]}, params=MATCH))
    assert job.state == "awaiting_approval"
    for old, new in (("mx1", "mx3"), ("mx2", "mx1"), ("mx3", "mx2")):
        rename(people, new, old)
    job.refresh_from_db()
    assert (job.target, why_changed(job)) == ({"hosts": ["mx2", "mx1"]}, "")
