"""The codes that integrations switch on, as the document lists them."""

from collections.abc import Iterator

from fleet.mta.errors import FleetError

PROBLEM_CODES = (
    "already_decided", "already_ended", "ambiguous", "audit_unavailable", "bad_cursor", "bad_pattern", "bad_queue_id",
    "bad_request", "busy", "conflict", "count_differs", "disabled", "duplicate_key", "expired", "forbidden",
    "forbidden_range", "foreign_token", "gap_not_acknowledged", "headers_too_large", "idempotency_in_flight",
    "idempotency_key_reused", "in_use", "internal_error", "invalid", "malformed_header", "malformed_json",
    "matches_all", "method_not_allowed", "name_taken", "no_plan", "no_target", "not_awaiting_approval",
    "not_awaiting_confirmation", "not_confirmed", "not_found", "not_locked", "not_paused", "not_ready",
    "not_retryable", "not_undoable", "not_used", "paused", "plan_changed", "precondition_failed", "protected",
    "rate_limited", "request_timeout", "reserved_name", "scope_mismatch", "self_approval", "too_broad", "too_large",
    "unauthenticated", "unavailable", "unknown_field", "unknown_parameter", "unknown_target", "unsupported",
    "unsupported_media_type", "unusable_key",
)  # fmt: skip
"""`code` of a problem; of a 502 it is the host's own, one of HOST_CODES."""

FIELD_CODES = (
    "bad_duration", "bad_id", "bad_pattern", "bad_queue_id", "bad_size", "bad_status", "bad_text", "bad_time",
    "disabled", "duplicate", "forbidden", "forbidden_range", "invalid", "matches_all", "mutually_exclusive",
    "name_taken", "no_target", "not_a_choice", "out_of_range", "pinned", "protected", "required", "reserved_name",
    "scope_mismatch", "too_broad", "unknown_field", "unknown_target", "unsupported", "unusable_key", "wrong_type",
)  # fmt: skip
"""`code` of one of a problem's `errors`."""


def _codes(kind: type[FleetError]) -> Iterator[str]:
    yield kind.code
    for each in kind.__subclasses__():
        yield from _codes(each)


HOST_CODES = tuple(sorted(set(_codes(FleetError))))
"""`error.code` of jobs, runs, and of a host that was asked."""
