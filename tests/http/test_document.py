"""Answers are what the document says of them, down to results, evidence and plans."""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fleet.models import Instance
from fleet.mta.errors import InDelivery
from fleet.mta.queue.outcome import Chosen, Outcomes, evidence, result_of
from fleet.mta.records import MessageState, QueueEntry
from jobs.jsonvalues import readable, shown
from jobs.models import Run
from tests.http.cast import World
from tests.http.test_jobs import planned, succeed

DOCUMENT = Path(__file__).parents[2] / "docs/openapi.yaml"


@cache
def component(name: str) -> jsonschema.Draft202012Validator:
    schemas = yaml.load(DOCUMENT.read_text(), yaml.CSafeLoader)["components"]["schemas"]
    return jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}},
    )


@pytest.fixture
def purged(world: World) -> str:
    """The address of the runs of a purge, of which one message was being delivered."""
    job = planned(world, messages=2)
    run = job.runs.get()
    entry = QueueEntry("3F5A0000", "deferred", "deferred", 1_700_000_000.5, "a@b.c", (), 100)
    result = result_of(
        Chosen((entry,), 2, notes=("a note",)),
        Outcomes({"3F5A0000": MessageState.DONE, "3F5A0001": MessageState.IN_DELIVERY}),
        before=evidence({entry.queue_id: entry}, ["3F5A0000"]),
        after=evidence({}, ["3F5A0000"]),
        more={"already": 0, "places": {"3F5A0000": "/var/spool/postfix/mxfleet-quarantine/j/3F5A0000"}},
    )
    Run.objects.filter(pk=run.pk).update(
        state="failed",
        error=InDelivery("1 message is being delivered", in_delivery=1).as_dict(),
        result=shown(result.data),
        before=readable(result.before),
        after=readable(result.after),
        commands=[{"argv": ["postsuper"], "exit_status": None, "duration_ms": 3, "stderr_tail": ""}],
    )
    succeed(job)
    return f"jobs/{job.pk}/runs/"


def test_a_run_is_served_as_the_document_says(world: World, purged: str) -> None:
    page = world.alice.get(purged).json()
    component("RunPage").validate(page)
    [run] = page["results"]
    one = world.alice.get(f"{purged}{run['id']}/").json()
    component("QueuePurgeRun").validate(one)
    assert (one["operation"], one["result"]["done"], len(one["result"]["messages"]["results"])) == ("queue.purge", 1, 2)


@pytest.mark.parametrize("place", [(), ("result",), ("commands", 0), ("evidence",), ("evidence", "before")])
def test_a_key_of_a_run_that_the_document_does_not_have_is_noticed(
    world: World, purged: str, place: tuple[Any, ...]
) -> None:
    [run] = world.alice.get(purged).json()["results"]
    part = run
    for step in place:
        part = part[step]
    part["undeclared"] = 1
    assert not component("Run").is_valid(run)


def test_runs_cost_the_same_however_many(world: World, django_assert_max_num_queries: Any) -> None:
    job = planned(world)
    Run.objects.bulk_create(
        Run(job=job, host=world.mx1, instance=Instance.objects.create(host=world.mx1, name=f"more{n}", mta="postfix"))
        for n in range(20)
    )
    with django_assert_max_num_queries(9):
        page = world.alice.get(f"jobs/{job.pk}/runs/").json()
    assert [run["operation"] for run in page["results"]] == ["queue.purge"] * 21


def test_a_plan_is_served_as_the_document_says(world: World) -> None:
    job = planned(world)
    plan = world.alice.get(f"jobs/{job.pk}/plan/").json()
    component("Plan").validate(plan)
    plan["instances"][0]["undeclared"] = 1
    assert not component("Plan").is_valid(plan)
