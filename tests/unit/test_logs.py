"""What reaches the log: no secret, no forged line, one JSON object per line where asked."""

import json
import logging

import pytest
import structlog

from deploy.logs import MASK, logging_config, mask_secrets, tidy


@pytest.mark.parametrize(
    "event",
    [
        {"event": "x", "password": "hunter2"},
        {"event": "x", "headers": {"Authorization": "Bearer hunter2"}},
        {"event": "sent Bearer hunter2 to it"},
        {"event": "using mxf_hunter2hunter2"},
        {"event": "connect redis://:hunter2@db:6379"},
        {"event": "x", "rows": [{"private_key": "hunter2"}]},
        {"event": "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY-----"},
        {"event": "x", "exception": "Traceback\nValueError: -----BEGIN PRIVATE KEY-----\nhunter2"},
    ],
)
def test_a_secret_is_masked_wherever_it_stands(event: dict) -> None:
    masked = mask_secrets(None, "info", event)
    assert "hunter2" not in repr(masked)
    assert MASK in repr(masked)


def test_what_is_no_secret_stays() -> None:
    event = {"event": "queue https://mx1:8443/x", "host": "mx1", "count": 3, "has_token": True}
    assert mask_secrets(None, "info", dict(event)) == event


def test_a_remote_text_cannot_forge_a_line_or_speak_to_a_terminal() -> None:
    said = tidy(None, "info", {"event": "said \x1b[2J\n2026 [error] forged", "reason": "a\r\u202eb"})
    assert said == {"event": "said \\x1b[2J\\n2026 [error] forged", "reason": "a\\r\\u202eb"}


def test_the_line_for_each_request_can_be_left_out() -> None:
    levels = [logging_config("text", has_access_log=on)["loggers"]["mxfleet.access"]["level"] for on in (True, False)]
    assert levels == ["INFO", "WARNING"]


@pytest.mark.parametrize("style", ["json", "text"])
def test_an_event_is_one_line_in_either_style(style: str) -> None:
    config = logging_config(style)["formatters"]["line"]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=config["foreign_pre_chain"], processors=config["processors"]
    )
    record = logging.LogRecord("mxfleet", logging.INFO, __file__, 1, "two\nlines of %s", ("it",), None)
    line = formatter.format(record)
    assert "\n" not in line
    if style == "json":
        assert json.loads(line)["event"] == "two\\nlines of it"
    else:
        assert "two\\nlines of it" in line
