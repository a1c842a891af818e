"""log.search, message.trace, address.test and smtp.probe over HTTP: params, who may ask, and what is recorded."""

from typing import Any

import pytest

from fleet.models import Host, Instance
from jobs.models import AuditEvent, Job, Run
from tests.http.cast import World

TARGET = {"instances": ["mx1/postfix"]}
GOOD = {
    "log.search": {"contains": "NOQUEUE"},
    "message.trace": {"from": "newsletter@sillyplace.test", "since": "24h"},
    "address.test": {"address": "o'brien@ok.test"},
    "smtp.probe": {"from": "<>", "to": "r@ok.test"},
}


def fields(answer: Any) -> set[tuple[str, str]]:
    """Field and code of each error of a request that was not taken."""
    assert answer.status_code == 422, answer.content
    assert answer.headers["Content-Type"] == "application/problem+json"
    return {(each["field"], each["code"]) for each in answer.json()["errors"]}


def asked(operation: str, params: Any, **more: Any) -> dict[str, Any]:
    return {"operation": operation, "target": TARGET, "params": params, **more}


@pytest.mark.parametrize(
    ("operation", "params", "field", "code"),
    [
        ("log.search", {}, "params.contains", "required"),
        ("log.search", {"contains": "a", "regex": "b"}, "params.regex", "mutually_exclusive"),
        ("log.search", {"contains": ""}, "params.contains", "bad_text"),
        ("log.search", {"contains": "a\nb"}, "params.contains", "bad_text"),
        ("log.search", {"contains": "a\x00b"}, "params.contains", "bad_text"),
        ("log.search", {"contains": "x" * 257}, "params.contains", "bad_text"),
        ("log.search", {"contains": ["a"]}, "params.contains", "wrong_type"),
        ("log.search", {"regex": "["}, "params.regex", "bad_pattern"),
        ("log.search", {"regex": r"(a)\1"}, "params.regex", "bad_pattern"),
        ("log.search", {"regex": "(?=x)"}, "params.regex", "bad_pattern"),
        ("log.search", {"regex": "a{1001}"}, "params.regex", "bad_pattern"),
        ("log.search", {"regex": "a\nb"}, "params.regex", "bad_pattern"),
        ("log.search", {"regex": "x" * 100_000}, "params.regex", "bad_pattern"),
        ("log.search", {"contains": "a", "limit": 0}, "params.limit", "out_of_range"),
        ("log.search", {"contains": "a", "limit": 10_001}, "params.limit", "out_of_range"),
        ("log.search", {"contains": "a", "limit": "9"}, "params.limit", "wrong_type"),
        ("log.search", {"contains": "a", "since": "2099-01-01T00:00:00Z"}, "params.since", "out_of_range"),
        ("log.search", {"contains": "a", "since": "0001-01-01T00:00:00Z"}, "params.since", "out_of_range"),
        ("log.search", {"contains": "a", "since": "0001-01-01T00:00:00+23:59"}, "params.since", "bad_time"),
        ("log.search", {"contains": "a", "since": "999999999999999d"}, "params.since", "bad_time"),
        ("log.search", {"contains": "a", "since": "-1h"}, "params.since", "bad_time"),
        ("log.search", {"contains": "a", "until": "2099-01-01T00:00:00Z"}, "params.until", "out_of_range"),
        ("log.search", {"contains": "a", "until": "2026-02-30T00:00:00Z"}, "params.until", "bad_time"),
        ("log.search", {"contains": "a", "file": "/etc/shadow"}, "params.file", "unknown_field"),
        ("message.trace", {"since": "1h"}, "params.from", "required"),
        ("message.trace", {"from": "a\x00@b"}, "params.from", "bad_pattern"),
        ("message.trace", {"to": "x" * 321}, "params.to", "bad_pattern"),
        ("message.trace", {"queue_id": "../../etc/passwd"}, "params.queue_id", "bad_queue_id"),
        ("message.trace", {"queue_id": "ALL"}, "params.queue_id", "bad_queue_id"),
        ("message.trace", {"queue_id": "1rAbCd-000123-Xy"}, "params.queue_id", "bad_queue_id"),
        ("message.trace", {"message_id": "a\nb"}, "params.message_id", "bad_text"),
        ("address.test", {}, "params.address", "required"),
        ("address.test", {"address": "user@[127.0.0.1]"}, "params.address", "bad_pattern"),
        ("address.test", {"address": "-oQ/tmp"}, "params.address", "bad_pattern"),
        ("address.test", {"address": "<>"}, "params.address", "bad_pattern"),
        ("smtp.probe", {"to": "r@ok.test"}, "params.from", "required"),
        ("smtp.probe", {"from": "<>", "to": "<>"}, "params.to", "bad_pattern"),
        ("smtp.probe", {"from": "<>", "to": "r@[169.254.169.254]"}, "params.to", "bad_pattern"),
        ("smtp.probe", {"from": "<>", "to": "r@ok.test\r\nDATA"}, "params.to", "bad_pattern"),
        ("smtp.probe", {"from": "a" * 65 + "@b.test", "to": "r@ok.test"}, "params.from", "bad_pattern"),
        ("smtp.probe", {"from": "<>", "to": "r@ok.test", "port": 22}, "params.port", "unknown_field"),
    ],
)
def test_bad_params_are_named(world: World, operation: str, params: Any, field: str, code: str) -> None:
    assert fields(world.alice.post("jobs/", asked(operation, params))) == {(field, code)}
    assert not Job.objects.exists()


@pytest.mark.parametrize("operation", GOOD)
def test_a_viewer_may_ask_for_own_hosts_only_and_that_is_recorded(world: World, operation: str) -> None:
    body = asked(operation, GOOD[operation])
    made = world.erin.post("jobs/", body, Idempotency_Key="k1")
    assert made.status_code == 202, made.content
    again = world.erin.post("jobs/", body, Idempotency_Key="k1")
    assert (again.json()["id"], again["Idempotency-Replayed"]) == (made.json()["id"], "true")
    assert Job.objects.count() == 1
    recorded = AuditEvent.objects.get(job=made.json()["id"], action="job.submitted")
    assert (recorded.actor, recorded.data["params"]) == ("erin", GOOD[operation])
    assert {code for _, code in fields(world.charlie.post("jobs/", body))} == {"unknown_target"}
    assert world.charlie.get(f"jobs/{made.json()['id']}/").status_code == 404
    assert world.token("erin", scopes=["jobs:read"]).post("jobs/", body).status_code == 403


def test_a_queue_id_of_another_mta_is_unsupported_there_and_refused_when_it_fits_none(world: World) -> None:
    host = Host.objects.get(name="mx1")
    Instance.objects.create(host=host, name="exim", mta="exim", version="4.96", config_dir="/etc/exim4", options={})
    body = {"operation": "message.trace", "target": {"hosts": ["mx1"]}, "params": {"queue_id": "1rAbCd-000123-Xy"}}
    made = world.alice.post("jobs/", body)
    assert made.status_code == 202, made.content
    states = dict(Run.objects.filter(job_id=made.json()["id"]).values_list("instance__name", "state"))
    assert states == {"exim": "pending", "postfix": "unsupported"}
    body["params"] = {"queue_id": "3f5dd30c44f"}
    refused = world.alice.post("jobs/", body)
    assert fields(refused) == {("params.queue_id", "bad_queue_id")}
    [error] = refused.json()["errors"]
    assert "exim: no Exim message ID" in error["detail"]
    assert "postfix: short queue IDs are upper-case hexadecimal: perhaps '3F5DD30C44F'" in error["detail"]
