"""Every error is a problem of RFC 9457, and bad input is refused by name. Rows: the bad-input corpus."""

import re

import pytest

from tests.http.cast import Caller, World

MEMBERS = {"type", "title", "status", "detail", "code", "request_id", "errors"}
JOB = {"operation": "queue.list", "target": {"hosts": ["mx1"]}}


def refused(answer: object, status: int, code: str) -> dict:
    """The problem that an answer is."""
    assert answer.status_code == status, answer.content
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert set(body) >= MEMBERS
    assert body["status"] == status
    assert body["code"] == code
    assert body["request_id"] == answer.headers["X-Request-ID"]
    return body


def test_an_unknown_address_is_a_problem(world: World) -> None:
    refused(world.dana.get("/nothing"), 404, "not_found")
    refused(world.dana.get("nothing/"), 404, "not_found")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "BREW", "PATCH"])
def test_a_method_that_is_not_there_is_405(world: World, method: str) -> None:
    body = refused(world.dana.send(method, "jobs/"), 405, "method_not_allowed")
    assert method in ("TRACE", "BREW") or body["detail"] == "this address takes GET, POST, HEAD"


def test_what_a_token_lacks_is_named(world: World) -> None:
    answer = world.token("dana", scopes=["jobs:read"]).get("audit/")
    refused(answer, 403, "forbidden")
    assert answer.json()["detail"] == "the token lacks the scope audit:read"


def test_a_method_is_not_overridden_by_a_header(world: World) -> None:
    assert world.dana.post("jobs/", JOB, X_HTTP_Method_Override="DELETE").status_code == 202


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "malformed_json"),
        (b"\xff{}", "malformed_json"),
        (b'\xef\xbb\xbf{"operation": "x"}', "malformed_json"),
        (b'{"operation": "a", "operation": "b"}', "duplicate_key"),
        (b'{"target": {"hosts": [], "hosts": ["mx1"]}}', "duplicate_key"),
        (b'{"params": NaN}', "malformed_json"),
        (b'{"params": -Infinity}', "malformed_json"),
        (b'{"params": 1e999}', "malformed_json"),
        (b'{"params": -7.2e124}', "malformed_json"),
        (b'{"params": 9007199254740993}', "malformed_json"),
        (b'{"params": ' + b"9" * 5000 + b"}", "malformed_json"),
        (b"[" * 100_000, "malformed_json"),
        (b'{"params": ' + b"[" * 30 + b"]" * 30 + b"}", "malformed_json"),
        (rb'{"reason": "\ud800"}', "malformed_json"),
        (rb'{"\udc00": 1}', "malformed_json"),
    ],
)
def test_a_body_that_two_parsers_could_read_differently_is_400(world: World, body: bytes, code: str) -> None:
    refused(world.alice.post("jobs/", body), 400, code)


def test_a_body_over_256_kib_is_413(world: World) -> None:
    refused(world.alice.post("jobs/", b" " * 262_145), 413, "too_large")
    ids = b'{"params": {"queue_ids": [' + b",".join([b'"3F5A1"'] * 1_000_001) + b"]}}"
    refused(world.alice.post("jobs/", ids), 413, "too_large")


def test_a_body_of_exactly_256_kib_is_read(world: World) -> None:
    body = b'{"operation": "queue.list", "target": {"hosts": ["mx1"]}}'
    assert world.alice.post("jobs/", body + b" " * (262_144 - len(body))).status_code == 202


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Encoding": "gzip"},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"Content_Type": "application/json; charset=utf-16"},
    ],
)
def test_a_body_that_is_not_plain_json_is_415(world: World, headers: dict[str, str]) -> None:
    refused(world.alice.post("jobs/", JOB, **headers), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"state": "approved"}, "state", "unknown_field"),
        ({"tenant": 2}, "tenant", "unknown_field"),
        ({"requester": 1}, "requester", "unknown_field"),
        ({"__proto__": {}}, "__proto__", "unknown_field"),
        ({"dry_run": "true"}, "dry_run", "wrong_type"),
        ({"dry_run": 1}, "dry_run", "wrong_type"),
        ({"dry_run": None}, "dry_run", "wrong_type"),
        ({"reason": []}, "reason", "wrong_type"),
        ({"reason": 5}, "reason", "wrong_type"),
        ({"target": []}, "target", "wrong_type"),
        ({"target": None}, "target", "wrong_type"),
        ({"target": {}}, "target", "required"),
        ({"params": "x"}, "params", "wrong_type"),
        ({"operation": 1}, "operation", "wrong_type"),
        ({"operation": "queue.burn"}, "operation", "invalid"),
        ({"approval_ttl": 60}, "approval_ttl", "wrong_type"),
        ({"approval_ttl": "1 hour"}, "approval_ttl", "invalid"),
        ({"approval_ttl": "0s"}, "approval_ttl", "invalid"),
        ({"reason": "x" * 2001}, "reason", "invalid"),
        ({"reason": "a\x00b"}, "reason", "invalid"),
    ],
)
def test_a_wrong_field_is_422_and_named(world: World, change: dict, field: str, code: str) -> None:
    body = refused(world.alice.post("jobs/", JOB | change), 422, "invalid")
    assert (field, code) in {(error["field"], error["code"]) for error in body["errors"]}


@pytest.mark.parametrize(("missing", "field"), [("operation", "operation"), ("target", "target")])
def test_a_missing_field_is_422_required(world: World, missing: str, field: str) -> None:
    body = refused(world.alice.post("jobs/", {k: v for k, v in JOB.items() if k != missing}), 422, "invalid")
    assert [(error["field"], error["code"]) for error in body["errors"]] == [(field, "required")]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ([], "^expected an object, got array$"),
        (JOB | {"params": {"limit": 0}}, "^params.limit: 0 is not between 1 and 100000$"),
        (JOB | {"operation": "queue.purge"}, "^reason: a changing operation needs a reason$"),
        (dict.fromkeys("abcde", 1), "a: there is no field 'a' here; b: there is no field 'b' here; c: there is no"),
        (dict.fromkeys("abcde", 1), "field 'c' here; and 4 more"),
    ],
)
def test_the_detail_names_the_fields_and_says_how_many_it_leaves_out(world: World, body: object, detail: str) -> None:
    assert re.search(detail, refused(world.alice.post("jobs/", body), 422, "invalid")["detail"])


def test_a_megabyte_of_reason_is_refused_before_it_is_read(world: World) -> None:
    refused(world.alice.post("jobs/", JOB | {"reason": "x" * 1_000_000}), 413, "too_large")


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"1", b"null", b"true"])
def test_a_body_that_is_no_object_is_422(world: World, body: bytes) -> None:
    refused(world.alice.post("jobs/", body), 422, "invalid")


@pytest.mark.parametrize(
    "query", ["tenant=2&tenant=1", "scope=all&user=x", "format=api", "state=running&state=failed", "limit=1&limit=2"]
)
def test_an_unknown_or_doubled_parameter_is_400(world: World, query: str) -> None:
    refused(world.alice.get(f"jobs/?{query}"), 400, "unknown_parameter")


def test_a_parameter_on_a_post_is_400(world: World) -> None:
    refused(world.alice.post("jobs/?dry_run=true", JOB), 400, "unknown_parameter")


@pytest.mark.parametrize(
    "query",
    ["limit=-1", "limit=0", "limit=1e9", "limit=501", "limit=", "limit=٣", "ordering=password", "ordering=-id"],
)
def test_a_page_that_cannot_be_is_422(world: World, query: str) -> None:
    refused(world.alice.get(f"jobs/?{query}"), 422, "invalid")


@pytest.mark.parametrize("cursor", ["x", "AAAA", "", "eyJhIjoxfQ", "%00", "a" * 5000])
def test_a_forged_cursor_is_400(world: World, cursor: str) -> None:
    refused(world.alice.get(f"jobs/?cursor={cursor}"), 400, "bad_cursor")


@pytest.mark.parametrize("query", ["state=bad", "created_after=yesterday", "created_before=2026-02-30T00:00:00Z"])
def test_a_filter_value_that_cannot_be_is_422(world: World, query: str) -> None:
    refused(world.alice.get(f"jobs/?{query}"), 422, "invalid")


def test_a_nul_in_a_filter_is_422(world: World) -> None:
    refused(world.alice.get("jobs/?ticket=%00"), 422, "invalid")


@pytest.mark.parametrize(
    "path",
    [
        "jobs/0194AAAA-0000-7000-8000-000000000000/",
        "jobs/c232ab00-9414-11ec-b3c8-9f68deced846/",
        "hosts/..%2f..%2fetc/",
        "hosts/%00/",
        "jobs/1/",
        "instances/mx1/../",
        "hosts/mx1",
    ],
)
def test_a_path_that_names_nothing_is_404(world: World, path: str) -> None:
    refused(world.alice.get(path), 404, "not_found")


def test_a_foreign_host_header_is_400(world: World) -> None:
    body = refused(world.alice.get("whoami/", Host="evil.example"), 400, "bad_request")
    assert "MXFLEET_ALLOWED_HOSTS" in body["detail"]


def test_no_cross_origin_is_ever_allowed(world: World) -> None:
    answer = world.alice.get("whoami/", Origin="null")
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_a_harmless_request_id_is_kept_and_another_one_replaced(world: World) -> None:
    assert world.alice.get("whoami/", X_Request_ID="abc-1.2_3").headers["X-Request-ID"] == "abc-1.2_3"
    for bad in ("a b", "x" * 65, "<script>", "a\tb"):
        assert world.alice.get("whoami/", X_Request_ID=bad).headers["X-Request-ID"] != bad


def test_an_answer_is_not_stored_by_caches_nor_sniffed(world: World) -> None:
    answer = world.alice.get("whoami/")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_bug_is_a_problem_that_tells_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("the secret is swordfish")

    monkeypatch.setattr("api.v1.people.effective_scopes", broken)
    answer = world.alice.get("whoami/")
    refused(answer, 500, "internal_error")
    assert b"swordfish" not in answer.content


def test_a_database_that_refuses_is_503_with_retry_after(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    def full(*_: object) -> None:
        raise OperationalError("attempt to write a readonly database")

    monkeypatch.setattr("jobs.audit.trail.append", full)
    answer = world.alice.post("jobs/", JOB)
    refused(answer, 503, "unavailable")
    assert answer.headers["Retry-After"]


def test_text_is_kept_as_it_is(world: World) -> None:
    for text in ('=HYPERLINK("http://x")', "@SUM", "{{7*7}}", "%s%n", "${jndi:}", "\x1b[2J", "x\nINFO approved", "<b>"):
        made = world.alice.post("jobs/", JOB | {"reason": text})
        assert made.status_code == 202
        assert made.json()["reason"] == text


def test_a_caller_in_a_hurry_is_told_to_wait(world: World, settings: object) -> None:
    settings.API_RATE = (0.001, 2)
    caller = Caller(world.dana.token)
    assert {caller.get("whoami/").status_code for _ in range(5)} >= {429}
    answer = caller.get("whoami/")
    refused(answer, 429, "rate_limited")
    assert int(answer.headers["Retry-After"]) >= 1
