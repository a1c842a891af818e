"""The name that an instance had before is still found by every path; answers give the one that it has.

A host that was renamed is known by its new name alone.
"""

from typing import Any

import pytest
from django.utils import timezone

from fleet.models import Instance
from jobs.models import Block, BlockInstance, Job, QuarantineItem
from tests.http.cast import World
from tests.http.test_jobs import planned

LIST: dict[str, Any] = {"operation": "queue.list", "target": {"instances": ["mx1/smtpd"]}}


@pytest.fixture
def world(world: World) -> World:
    """The instance of mx1 was renamed."""
    Instance.objects.filter(host__name="mx1").update(name="opensmtpd", former_name="smtpd", mta="opensmtpd")
    return world


def test_an_instance_is_shown_by_both_names_to_those_who_may_see_it(world: World) -> None:
    by_old = world.alice.get("instances/mx1/smtpd/").json()
    assert by_old == world.alice.get("instances/mx1/opensmtpd/").json()
    assert by_old["id"] == "mx1/opensmtpd"
    assert world.charlie.get("instances/mx1/smtpd/").status_code == 404
    assert world.alice.get("instances/mx1/smtp/").status_code == 404


def test_a_job_that_names_it_as_before_is_told_with_the_present_name(world: World) -> None:
    made = world.alice.post("jobs/", LIST)
    assert made.status_code == 202, made.content
    assert made.json()["target"] == {"instances": ["mx1/opensmtpd"]}
    (run,) = world.alice.get(f"jobs/{made.json()['id']}/runs/?instance=mx1/smtpd").json()["results"]
    assert run["instance"] == "mx1/opensmtpd"


@pytest.mark.parametrize("path", ["quarantine/", "blocks/"])
def test_lists_are_filtered_by_both_names(world: World, path: str) -> None:
    job = Job.objects.get(pk=world.alice.post("jobs/", LIST).json()["id"])
    instance, now = Instance.objects.get(host__name="mx1"), timezone.now()
    QuarantineItem.objects.create(
        job=job, instance=instance, queue_id="1", place="x", arrival_time=1.0, sender="", size=1, native_state="x",
        expires_at=now, created_at=now,
    )  # fmt: skip
    block = Block.objects.create(
        pattern="a@b.c", action="reject", text="", target=job.target, reason="x", owner=job.requested_by, job=job,
        created_at=now,
    )  # fmt: skip
    block.customers.add(*job.customers.all())
    BlockInstance.objects.create(block=block, instance=instance, changed_at=now)
    rows = {name: world.alice.get(f"{path}?instance=mx1/{name}").json()["results"] for name in ("smtpd", "opensmtpd")}
    assert rows["smtpd"] == rows["opensmtpd"]
    assert len(rows["smtpd"]) == 1
    assert world.alice.get(f"{path}?instance=mx1/smtp").json()["results"] == []


def test_a_frozen_plan_is_told_with_the_name_that_it_was_made_with(world: World) -> None:
    job = planned(world, target=LIST["target"])
    run = job.runs.get()
    run.plan = {"instance": "mx1/smtpd", **run.plan}
    run.save()
    plan = world.alice.get(f"jobs/{job.pk}/plan/").json()
    assert [part["instance"] for part in plan["instances"]] == ["mx1/smtpd"]
    assert {row["instance"] for row in plan["messages"]["results"]} == {"mx1/smtpd"}
    assert world.alice.get(f"jobs/{job.pk}/runs/").json()["results"][0]["instance"] == "mx1/opensmtpd"


def test_a_job_tells_the_new_name_of_a_host_that_was_renamed_meanwhile(world: World) -> None:
    job = world.alice.post("jobs/", LIST).json()["id"]
    assert world.anna.patch("hosts/mx1/", {"name": "mx7"}).status_code == 200
    assert world.alice.get(f"jobs/{job}/").json()["target"] == {"instances": ["mx7/opensmtpd"]}
    assert world.alice.get("instances/mx1/opensmtpd/").status_code == 404
    assert world.alice.post("jobs/", LIST).status_code == 422
    [entry] = world.anna.get("audit/?action=host.updated").json()["results"]
    assert (entry["object"], entry["data"]) == ("mx1", {"name": "mx7"})
