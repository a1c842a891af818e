"""Parameters of operations: strict JSON types, errors that name the field, schemas that agree with the parser."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from fleet.mta import operations as ops
from fleet.mta.params.catalogue import CATALOGUE, QuarantineIds
from fleet.mta.params.parse import ParamErrors, parse_params

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER = "2031-01-01T00:00:00Z"
UUID = "0190a1b2-c3d4-7abc-8def-0123456789ab"

ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("host.discover", {}),
    ("host.check", {}),
    ("queue.list", {}),
    ("queue.list", {"match": "from:a@b.c", "limit": 5, "fields": ["queue_id", "subject"], "order": "size"}),
    ("queue.list", {"match": {"field": "from", "op": "is", "value": "a@b.c"}}),
    ("queue.summary", {"group_by": ["to-domain", "age"], "top": 3}),
    ("message.show", {"queue_id": "4NzQ0z1bDFz2Qx", "parts": ["headers"], "max_bytes": "64K"}),
    ("message.show", {"queue_id": "3f5a", "max_bytes": 300}),
    ("block.list", {}),
    ("log.search", {"contains": "NOQUEUE: reject"}),
    ("log.search", {"regex": "status=(sent|bounced)", "since": "7d", "limit": 10}),
    ("log.search", {"contains": "ü", "since": "2029-12-31T12:00:00+01:00", "until": "2029-12-31T13:00:00Z"}),
    ("message.trace", {"from": "news@bulk.example"}),
    ("message.trace", {"from": "<>", "to": "*@yahoo.com", "queue_id": "3F5A", "message_id": "<1@x.test>"}),
    ("address.test", {"address": '"q b"@example.com'}),
    ("smtp.probe", {"from": "<>", "to": "r@example.com"}),
    ("queue.purge", {"match": "ALL"}),
    ("queue.purge", {"queue_ids": ["3F5A00112233"], "mode": "delete", "keep": "24h", "max_messages": 1}),
    ("queue.hold", {"match": "age>4h", "max_fraction": 0.5}),
    ("queue.hold", {"match": "age>4h", "max_fraction": 1}),
    ("queue.release", {"queue_ids": ["1rAbCd-000123-Xy"]}),
    ("message.deliver", {"queue_id": "42", "verbose": True, "release": False}),
    ("queue.flush", {"match": "ALL"}),
    ("queue.flush", {"match": "to-domain:yahoo.com"}),
    ("queue.bounce", {"match": "to:*@x.test", "notify": False}),
    ("queue.requeue", {"queue_ids": ["A1B2C3"]}),
    ("quarantine.restore", {"ids": [UUID]}),
    ("quarantine.erase", {"ids": [UUID.upper()]}),
    ("sender.block", {"pattern": "spam@example.com"}),
    ("sender.block", {"pattern": "<>", "action": "discard"}),
    ("sender.block", {"pattern": ".example.com", "code": 450, "enhanced": "4.7.1", "text": "Not now", "for": "7d"}),
    ("sender.block", {"pattern": "example.com", "expires_at": "2030-06-01T00:00:00+02:00"}),
    ("sender.unblock", {"pattern": "example.com"}),
]

BAD_QUEUE_IDS = [
    *("ALL", "all", "-", "-d", "--help", "../../etc/passwd", "3F5A*", "3F5A!"),
    *("٣", "", "A 1", "x" * 65, "$(id)"),
]

# operation, params, place, code; these a schema refuses too
BAD_SHAPE: list[tuple[str, Any, str, str]] = [
    ("host.discover", {"x": 1}, "x", "unknown_field"),
    ("block.list", [], "", "wrong_type"),
    ("queue.list", {"limit": "5"}, "limit", "wrong_type"),
    ("queue.list", {"limit": True}, "limit", "wrong_type"),
    ("queue.list", {"limit": 0}, "limit", "out_of_range"),
    ("queue.list", {"limit": 10**9}, "limit", "out_of_range"),
    ("queue.list", {"limit": None}, "limit", "wrong_type"),
    ("queue.list", {"match": 5}, "match", "wrong_type"),
    ("queue.list", {"match": ["ALL"]}, "match", "wrong_type"),
    ("queue.list", {"order": "sender"}, "order", "not_a_choice"),
    ("queue.list", {"fields": "size"}, "fields", "wrong_type"),
    ("queue.list", {"fields": []}, "fields", "out_of_range"),
    ("queue.list", {"fields": ["size", "size"]}, "fields", "duplicate"),
    ("queue.list", {"fields": ["size", "body"]}, "fields[1]", "not_a_choice"),
    ("message.show", {}, "queue_id", "required"),
    ("message.show", {"queue_id": 42}, "queue_id", "wrong_type"),
    ("message.show", {"queue_id": "A1", "max_bytes": "64k"}, "max_bytes", "bad_size"),
    ("message.show", {"queue_id": "A1", "max_bytes": 0}, "max_bytes", "out_of_range"),
    ("message.deliver", {"queue_id": "A1", "verbose": 1}, "verbose", "wrong_type"),
    ("message.deliver", {"queue_id": "A1", "verbose": "true"}, "verbose", "wrong_type"),
    ("log.search", {}, "contains", "required"),
    ("log.search", {"contains": "a", "regex": "b"}, "regex", "mutually_exclusive"),
    ("log.search", {"contains": ""}, "contains", "bad_text"),
    ("log.search", {"contains": "a\nb"}, "contains", "bad_text"),
    ("log.search", {"contains": "x" * 257}, "contains", "bad_text"),
    ("log.search", {"regex": "x" * 257}, "regex", "bad_pattern"),
    ("log.search", {"contains": "a", "limit": 10_001}, "limit", "out_of_range"),
    ("log.search", {"contains": "a", "since": 24}, "since", "wrong_type"),
    ("message.trace", {"since": "1h"}, "from", "required"),
    ("message.trace", {"from": ["a@b.c"]}, "from", "wrong_type"),
    ("message.trace", {"to": "a@b.c\nd"}, "to", "bad_pattern"),
    ("message.trace", {"queue_id": "-x"}, "queue_id", "bad_queue_id"),
    ("address.test", {}, "address", "required"),
    ("address.test", {"address": ["a@b.c"]}, "address", "wrong_type"),
    ("smtp.probe", {"from": 5, "to": "a@b.c"}, "from", "wrong_type"),
    ("smtp.probe", {"from": "", "to": "a@b.c"}, "from", "bad_pattern"),
    ("queue.hold", {}, "match", "required"),
    ("queue.hold", {"match": "ALL", "queue_ids": ["A1"]}, "queue_ids", "mutually_exclusive"),
    ("queue.hold", {"match": "ALL", "max_fraction": 0}, "max_fraction", "out_of_range"),
    ("queue.hold", {"match": "ALL", "max_fraction": True}, "max_fraction", "wrong_type"),
    ("queue.hold", {"queue_ids": []}, "queue_ids", "out_of_range"),
    ("queue.hold", {"queue_ids": "A1"}, "queue_ids", "wrong_type"),
    ("queue.purge", {"match": "ALL", "keep": "1w"}, "keep", "bad_duration"),
    ("queue.purge", {"match": "ALL", "keep": 7}, "keep", "wrong_type"),
    ("queue.flush", {}, "match", "required"),
    ("queue.flush", {"match": "ALL", "queue_ids": ["A1"]}, "queue_ids", "unknown_field"),
    ("quarantine.restore", {"ids": ["x"]}, "ids[0]", "bad_id"),
    ("quarantine.restore", {"ids": [7]}, "ids[0]", "wrong_type"),
    ("sender.block", {}, "pattern", "required"),
    ("sender.block", {"pattern": ""}, "pattern", "bad_pattern"),
    ("sender.block", {"pattern": "a@b.c", "code": 250}, "code", "out_of_range"),
    ("sender.block", {"pattern": "a@b.c", "code": "550"}, "code", "wrong_type"),
    ("sender.block", {"pattern": "a@b.c", "enhanced": "5.7"}, "enhanced", "bad_status"),
    ("sender.block", {"pattern": "a@b.c", "text": "two\nlines"}, "text", "bad_text"),
    ("sender.block", {"pattern": "a@b.c", "text": "x" * 201}, "text", "bad_text"),
    ("sender.block", {"pattern": "a@b.c", "text": " x"}, "text", "bad_text"),
    ("sender.block", {"pattern": "a@b.c", "text": "\u001b[2J"}, "text", "bad_text"),
    ("sender.block", {"pattern": "a@b.c", "for": "1h", "expires_at": LATER}, "for", "mutually_exclusive"),
    ("sender.unblock", {"pattern": ["a@b.c"]}, "pattern", "wrong_type"),
    *[("queue.hold", {"queue_ids": ["A1", bad]}, "queue_ids[1]", "bad_queue_id") for bad in BAD_QUEUE_IDS],
]

# these only the parser knows
BAD_MEANING: list[tuple[str, dict[str, Any], str, str]] = [
    ("queue.list", {"match": "from"}, "match", "bad_pattern"),
    ("queue.list", {"match": ""}, "match", "bad_pattern"),
    ("queue.hold", {"match": "subject=/.*/"}, "match", "matches_all"),
    ("log.search", {"regex": "("}, "regex", "bad_pattern"),
    ("log.search", {"regex": "(a{1000}){1000}"}, "regex", "bad_pattern"),
    ("log.search", {"contains": "a", "since": "367d"}, "since", "out_of_range"),
    ("log.search", {"contains": "a", "since": "1w"}, "since", "bad_time"),
    ("log.search", {"contains": "a", "since": "2030-01-01T12:00:01Z"}, "since", "out_of_range"),
    ("log.search", {"contains": "a", "until": "2030-01-02T00:00:00Z"}, "until", "out_of_range"),
    ("message.trace", {"to": "a@b.c", "since": "1h", "until": "2030-01-01T10:59:59Z"}, "until", "out_of_range"),
    *[
        ("message.trace", {field: pasted}, field, "bad_pattern")
        for field in ("from", "to")
        for pasted in ('"Joe" <joe@d.test>', "<*@d.test>", "mailto:j@d.test", "j@d.test,", " j@d.test", "a b@d.test")
    ],
    ("message.trace", {"message_id": " <1@d.test>"}, "message_id", "bad_text"),
    ("message.trace", {"message_id": "Message-ID: <1@d.test>"}, "message_id", "bad_text"),
    ("message.trace", {"message_id": "<>"}, "message_id", "bad_text"),
    ("address.test", {"address": "<>"}, "address", "bad_pattern"),
    ("address.test", {"address": "a@b.c\r\nDATA"}, "address", "bad_pattern"),
    ("smtp.probe", {"from": "example.com", "to": "a@b.c"}, "from", "bad_pattern"),
    ("queue.flush", {"match": "from:a@b.c"}, "match", "bad_pattern"),
    ("queue.purge", {"match": "ALL", "keep": "1s"}, "keep", "out_of_range"),
    ("message.show", {"queue_id": "A1", "max_bytes": "1G"}, "max_bytes", "out_of_range"),
    # JSON Schema's $ is the very end of a text, that of Python's jsonschema allows a line break behind it
    ("queue.hold", {"queue_ids": ["A1\n"]}, "queue_ids[0]", "bad_queue_id"),
    ("sender.block", {"pattern": "a@b.c", "enhanced": "5.7.1\n"}, "enhanced", "bad_status"),
    ("sender.block", {"pattern": "*@*"}, "pattern", "too_broad"),
    ("sender.block", {"pattern": "postmaster@example.com"}, "pattern", "protected"),
    ("sender.block", {"pattern": "a@b@c"}, "pattern", "bad_pattern"),
    ("sender.block", {"pattern": "a@b.c", "code": 450, "enhanced": "5.7.1"}, "enhanced", "bad_status"),
    *[
        ("sender.block", {"pattern": "a@b.c", "expires_at": time}, "expires_at", code)
        for time, code in (
            ("2029-12-31T23:59:59Z", "out_of_range"),
            ("9999-01-01T00:00:00Z", "out_of_range"),
            ("2030-06-01T00:00:00", "bad_time"),
            ("2030-06-01T23:59:60Z", "bad_time"),
            ("2030-02-30T00:00:00Z", "bad_time"),
            ("tomorrow", "bad_time"),
        )
    ],
]


def errors_of(operation: str, params: Any) -> list[tuple[str, str]]:
    with pytest.raises(ParamErrors) as caught:
        parse_params(operation, params, now=NOW)
    assert all(error.detail for error in caught.value.errors)
    return [(error.field, error.code) for error in caught.value.errors]


@pytest.mark.parametrize(("operation", "params"), ACCEPTED)
def test_good_params_are_accepted_by_parser_and_schema(operation: str, params: dict[str, Any]) -> None:
    assert parse_params(operation, params, now=NOW).operation.name == operation
    Draft202012Validator(CATALOGUE[operation].schema).validate(params)


@pytest.mark.parametrize(("operation", "params", "field", "code"), BAD_SHAPE)
def test_a_bad_shape_is_refused_by_parser_and_schema(operation: str, params: Any, field: str, code: str) -> None:
    assert errors_of(operation, params) == [(field, code)]
    assert not Draft202012Validator(CATALOGUE[operation].schema).is_valid(params)


@pytest.mark.parametrize(("operation", "params", "field", "code"), BAD_MEANING)
def test_a_bad_meaning_is_refused(operation: str, params: dict[str, Any], field: str, code: str) -> None:
    assert errors_of(operation, params) == [(field, code)]


def test_who_mistakes_a_time_is_told_that_a_duration_does_as_well() -> None:
    with pytest.raises(ParamErrors) as caught:
        parse_params("log.search", {"contains": "a", "since": "yesterday", "until": "1h"}, now=NOW)
    told = {error.field: error.detail for error in caught.value.errors}
    assert "'yesterday' is neither a duration such as 24h (s, m, h or d) nor an RFC 3339 time" in told["since"]
    assert "'1h' is no RFC 3339 time with a zone" in told["until"]


def test_every_error_is_reported_at_once() -> None:
    assert sorted(errors_of("sender.block", {"code": "x", "nonsense": 1})) == [
        ("code", "wrong_type"),
        ("nonsense", "unknown_field"),
        ("pattern", "required"),
    ]


def test_every_operation_has_a_valid_schema_and_an_accepted_example() -> None:
    for spec in CATALOGUE.values():
        Draft202012Validator.check_schema(spec.schema)
        assert spec.schema["additionalProperties"] is False
        assert all(kind["description"] for kind in spec.schema["properties"].values())
    assert {name for name, _ in ACCEPTED} == set(CATALOGUE)


def test_the_catalogue_knows_what_changes_and_what_names_one_instance() -> None:
    reading = {
        "host.discover",
        "host.check",
        "queue.list",
        "queue.summary",
        "message.show",
        "block.list",
        "address.test",
        "smtp.probe",
        "log.search",
        "message.trace",
    }
    assert {name for name, spec in CATALOGUE.items() if not spec.changes} == reading
    assert {name for name, spec in CATALOGUE.items() if spec.single_instance} == {"message.show", "message.deliver"}
    assert parse_params("queue.hold", {"queue_ids": ["A1"]}, now=NOW).single_instance
    assert not parse_params("queue.hold", {"match": "ALL"}, now=NOW).single_instance


def test_a_match_error_names_its_column() -> None:
    with pytest.raises(ParamErrors, match="column"):
        parse_params("queue.list", {"match": "from:a@b.c size>many"}, now=NOW)


def test_the_mark_of_a_listing_gets_a_hint() -> None:
    with pytest.raises(ParamErrors, match="write '3F5A'"):
        parse_params("message.show", {"queue_id": "3F5A*"}, now=NOW)


def test_repeated_queue_ids_count_once() -> None:
    parsed = parse_params("queue.hold", {"queue_ids": ["A1", "a1", "A1"]}, now=NOW)
    assert parsed.operation == ops.QueueHold(ops.Selection(None, ("A1", "a1")))


def test_more_queue_ids_than_the_limit_are_refused() -> None:
    assert errors_of("queue.hold", {"queue_ids": ["A1"] * 100_001}) == [("queue_ids", "out_of_range")]


def test_defaults_are_those_of_the_operations() -> None:
    purge = parse_params("queue.purge", {"queue_ids": ["A1"]}, now=NOW).operation
    assert purge == ops.QueuePurge(ops.Selection(None, ("A1",)))
    assert parse_params("sender.block", {"pattern": "a@b.c"}, now=NOW).operation == ops.SenderBlock("a@b.c")
    assert parse_params("message.show", {"queue_id": "A1"}, now=NOW).operation == ops.MessageShow("A1")


def test_the_enhanced_status_follows_the_code() -> None:
    parsed = parse_params("sender.block", {"pattern": "a@b.c", "code": 451}, now=NOW).operation
    assert isinstance(parsed, ops.SenderBlock)
    assert parsed.enhanced == "4.7.1"


def test_a_block_ends_when_asked() -> None:
    assert parse_params("sender.block", {"pattern": "a@b.c"}, now=NOW).expires_at is None
    for_days = parse_params("sender.block", {"pattern": "a@b.c", "for": "2d"}, now=NOW)
    assert for_days.expires_at == NOW + timedelta(days=2)
    at = parse_params("sender.block", {"pattern": "a@b.c", "expires_at": "2030-06-01T02:00:00+02:00"}, now=NOW)
    assert at.expires_at == datetime(2030, 6, 1, tzinfo=UTC)


def test_quarantine_ids_wait_to_be_looked_up() -> None:
    parsed = parse_params("quarantine.erase", {"ids": [UUID.upper(), UUID]}, now=NOW)
    assert parsed.operation == QuarantineIds("quarantine.erase", (UUID,))


def test_an_unknown_operation_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        parse_params("queue.explode", {}, now=NOW)
