"""Logs on standard error, one event per line: text for people, JSON (`MXFLEET_LOG=json`) for collectors.

Secrets are masked by the name of their field and by their look, whoever logs them.
"""

import logging.config
import re
from typing import Any

import structlog
from structlog.types import EventDict, WrappedLogger

SECRET_NAME = re.compile(r"password|passwd|secret|token|authorization|private_key|api_key|cookie", re.IGNORECASE)
SECRET_LOOK = re.compile(
    r"mxf_[A-Za-z0-9_\-]{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
    r"|(?<=[Bb]earer )[^\s'\"]+",
    re.DOTALL,
)
MASK = "[masked]"


LEVELS: dict[str, dict[str, Any]] = {
    "django": {"handlers": [], "level": "INFO"},
    "django.request": {"level": "ERROR"},  # a client's mistake is reported to the client
    "asyncssh": {"level": "WARNING"},
    "uvicorn.access": {"level": "WARNING"},
    "celery.worker.strategy": {"level": "WARNING"},
    "celery.app.trace": {"level": "WARNING"},
    "celery.beat": {"level": "WARNING"},
}


def logging_config(style: str, *, has_access_log: bool = True) -> dict[str, Any]:
    """A dictConfig that renders our events and other libraries' records alike. `style`: "text" or "json".

    `has_access_log`: with a line for each HTTP request.
    """
    renderer = structlog.processors.JSONRenderer() if style == "json" else structlog.dev.ConsoleRenderer(colors=False)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]
    if not structlog.is_configured():
        structlog.configure(
            processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=True,
        )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": [structlog.stdlib.ExtraAdder(), *shared],
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, tidy, renderer],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
        "loggers": {**LEVELS, "mxfleet.access": {"level": "INFO" if has_access_log else "WARNING"}},
    }


def apply(style: str) -> None:
    """Take over the process's logging, for programs that do not do it by `django.setup()`."""
    logging.config.dictConfig(logging_config(style))


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace what is a secret by its field's name or by its look, also inside containers and tracebacks."""
    return {name: _masked(name, value) for name, value in event.items()}


def _masked(name: str, value: Any) -> Any:
    if name.startswith("_"):  # structlog's own
        return value
    if SECRET_NAME.search(name) and value not in (None, "", True, False):
        return MASK
    if isinstance(value, str):
        return SECRET_LOOK.sub(MASK, value)
    if isinstance(value, dict):
        return {key: _masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked("", inner) for inner in value]
    return value


def tidy(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape control characters, so that no remote host's text can forge a line or speak to a terminal."""
    event.pop("color_message", None)  # uvicorn's message once more, for terminals
    return {name: _escaped(value) if name != "exception" else value for name, value in event.items()}


def _escaped(value: Any) -> Any:
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in value)
