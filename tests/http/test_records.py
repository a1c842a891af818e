"""Blocks, quarantine, audit; health; the OpenAPI document."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.db import transaction
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from api import metrics
from api.v1.serializers.jobs import JobRequestSerializer
from api.v1.serializers.records import AuditSerializer, BlockSerializer, CheckpointSerializer, QuarantineSerializer
from api.v1.urls import urlpatterns
from fleet.mta.params.catalogue import CATALOGUE
from jobs import selectors
from jobs.audit import trail
from jobs.audit.trail import Entry, append
from jobs.models import AuditChain, AuditEvent
from jobs.restore import pause, watch
from tests.http.cast import Caller, World
from tests.http.test_errors import JOB, refused
from tests.http.test_foreign import fill
from tests.http.test_health import QUEUES, live

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.yaml"


def test_a_block_says_how_far_each_instance_has_got(world: World) -> None:
    pk = fill(world)["blocks"]
    body = world.alice.get(f"blocks/{pk}/").json()
    assert set(body) == set(BlockSerializer().fields)
    assert (body["reply"], body["owner"]) == ("550 5.7.1 no", "alice")
    assert body["instances"] == [{"instance": "mx1/postfix", "state": "pending", "detail": ""}]
    for query, count in (
        ("pattern=spam@x.y", 1),
        ("state=pending", 1),
        ("state=applied", 0),
        ("instance=mx1/postfix", 1),
        ("customer=acme", 1),
    ):
        assert len(world.dana.get(f"blocks/?{query}").json()["results"]) == count, query


def test_the_quarantine_is_filtered_by_the_selection_language(world: World) -> None:
    names = fill(world)
    body = world.alice.get(f"quarantine/{names['quarantine']}/").json()
    assert set(body) == set(QuarantineSerializer().fields)
    for query, count in (
        (f"job={names['jobs'].split()[0]}", 1),
        ("state=kept", 1),
        ("state=erased", 0),
        ("instance=mx1/postfix", 1),
        ("match=from:a@b.c", 1),
        ("match=from:other@b.c", 0),
        ("match=from:a@b.c&state=erased", 0),
    ):
        assert len(world.dana.get(f"quarantine/?{query}").json()["results"]) == count, query
    for bad in ("match=from:(", "match=body:x", "match=", "job=x"):
        refused(world.dana.get(f"quarantine/?{bad}"), 422, "invalid")


def test_the_audit_trail_is_listed_and_verified(world: World) -> None:
    job = world.alice.post("jobs/", JOB).json()
    trail.checkpoint()
    page = world.dana.get(f"audit/?job={job['id']}").json()
    entry = page["results"][0]
    assert set(entry) == set(AuditSerializer().fields)
    assert (entry["actor"], entry["action"], entry["customer"]) == ("alice", "job.submitted", "acme")
    assert entry["source"] == "127.0.0.1"
    assert len(world.dana.get("audit/?actor=alice&action=job.submitted&customer=acme").json()["results"]) == 1
    assert world.dana.get("audit/?until=2020-01-01T00:00:00Z").json()["results"] == []
    verdict = world.alice.get("audit/verify/").json()
    assert (verdict["ok"], verdict["first_bad"]) == (True, None)
    assert verdict["checked"] < world.dana.get("audit/verify/").json()["checked"]
    checkpoints = world.alice.get("audit/checkpoints/").json()["results"]
    assert set(checkpoints[0]) == set(CheckpointSerializer().fields)
    assert {row["customer"] for row in checkpoints} == {"acme"}


def test_healthz_is_open_and_says_only_that_the_process_lives(db: None) -> None:
    nobody = Caller("")
    assert nobody.get("/healthz", Host="10.0.0.7:8000").json() == {"status": "ok"}
    refused(nobody.post("/healthz"), 405, "method_not_allowed")


def test_readyz_names_the_part_that_is_not_ready(db: None, settings: Any) -> None:
    settings.ENV = replace(settings.ENV, redis_url="unix:///nonexistent/redis.sock")
    nobody = Caller("")
    body = refused(nobody.get("/readyz"), 503, "not_ready")
    assert body["detail"].startswith("broker")
    assert body["parts"]["database"] == "ok"
    assert "worker" in body["parts"]["worker"]


def test_readyz_is_200_when_all_works(db: None, redis_url: str) -> None:
    live(*QUEUES)
    assert Caller("").get("/readyz").json()["parts"] == {
        "database": "ok",
        "broker": "ok",
        "migrations": "ok",
        "worker": "ok",
        "audit": "ok",
        "dispatch": "ok",
    }


def test_a_pause_is_told_by_readyz_metrics_and_api_and_ended_by_an_administrator(world: World) -> None:
    pause.begin("the database was restored")
    assert refused(Caller("").get("/readyz"), 503, "not_ready")["parts"]["dispatch"].startswith("paused since 20")
    assert b"mxfleet_paused 1.0" in metrics.scrape()
    assert refused(world.alice.post("jobs/", JOB), 503, "paused")["detail"].startswith("the service is paused")
    told = world.alice.get("pause/").json()
    assert (told["paused"], told["reason"], told["found"]) == (True, "the database was restored", None)
    assert world.dana.get("pause/").json()["found"]["jobs"] == {}
    refused(world.anna.post("pause/end/", {"reason": "mine"}), 403, "forbidden")
    refused(world.dana.post("pause/end/", {}), 422, "invalid")
    assert world.dana.post("pause/end/", {"reason": "compared with the hosts"}).status_code == 200
    entry = AuditEvent.objects.get(action="service.resumed")
    assert (entry.actor, entry.data["reason"]) == ("dana", "compared with the hosts")
    assert world.dana.get("pause/").json()["paused"] is False
    refused(world.dana.post("pause/end/", {"reason": "again"}), 409, "not_paused")
    assert world.alice.post("jobs/", JOB).status_code == 202


def test_a_forged_audit_trail_is_told_by_readyz(world: World) -> None:
    with transaction.atomic():
        append(Entry("acme", "x.done", None))
    watch.check()
    AuditChain.objects.filter(name="acme").update(seq=0, hash="")
    told = refused(Caller("").get("/readyz"), 503, "not_ready")["parts"]["audit"]
    assert "restored from a backup, or forged" in told
    assert "acme" not in told, "readyz is open to everybody"


@pytest.fixture(scope="module")
def document() -> Any:
    """The OpenAPI document that the server makes."""
    return SchemaGenerator().get_schema(request=None, public=True)


def test_the_document_is_valid_and_the_committed_one_is_the_same(document: Any) -> None:
    validate_schema(document)
    committed = yaml.safe_load(DOCUMENT.read_text())
    assert json.loads(json.dumps(document)) == json.loads(json.dumps(committed)), "run manage.py spectacular"


def test_the_document_has_every_route(document: Any) -> None:
    routes = [str(pattern.pattern) for pattern in urlpatterns]
    plain = [route for route in routes if route not in ("schema/", "schema/json/", "docs/")]
    assert len(document["paths"]) == len(plain) > 30


def test_the_document_says_what_each_operations_params_are(document: Any) -> None:
    schemas = document["components"]["schemas"]
    mapping = schemas["JobRequest"]["discriminator"]["mapping"]
    assert mapping.keys() == CATALOGUE.keys()
    for name, spec in CATALOGUE.items():
        whole = schemas[mapping[name].rpartition("/")[2]]
        without = set() if spec.changes else {"approval_ttl", "confirm", "dry_run"}
        assert whole["properties"].keys() == JobRequestSerializer().fields.keys() - without
        assert (whole["properties"]["operation"]["enum"], whole["additionalProperties"]) == ([name], False)
        assert ("reason" in whole["required"]) is spec.changes
        params = schemas[whole["properties"]["params"]["$ref"].rpartition("/")[2]]
        assert params["properties"].keys() == spec.params.keys()


def test_the_document_says_what_comes_with_an_answer_besides_its_body(document: Any) -> None:
    paths = document["paths"]
    for path, method, status, names in (
        ("jobs/", "post", "202", {"Location", "Retry-After", "Idempotency-Replayed", "Preference-Applied"}),
        ("hosts/", "post", "201", {"Location", "Idempotency-Replayed"}),
        ("hosts/{name}/", "patch", "200", {"ETag"}),
        ("jobs/{id}/", "get", "429", {"Retry-After"}),
    ):
        assert paths[f"/api/v1/{path}"][method]["responses"][status]["headers"].keys() == names
    assert "text/event-stream" in paths["/api/v1/jobs/{id}/events/"]["get"]["responses"]["200"]["content"]


def test_no_name_of_the_document_has_a_dot(document: Any) -> None:
    assert not [name for name in document["components"]["schemas"] if "." in name]


def test_the_schema_and_its_pages_are_served_without_a_token_and_without_other_hosts(db: None) -> None:
    nobody = Caller("")
    assert yaml.safe_load(nobody.get("schema/").content) == nobody.get("schema/json/").json()
    page = nobody.get("docs/").content.decode()
    assert "swagger-ui" in page
    assert "https://" not in page


def test_of_no_jobs_there_are_no_details(db: None) -> None:
    assert selectors.detailed([]) == []
