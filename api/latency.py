"""How long requests took, of this process since its start, by the template of their route and never by their path.

One registry for each process: a web process has an address of its own, Prometheus names it in `instance`, and `rate()`
takes a restart for what it is. prometheus_client's files for many processes behind one address are not needed so.
"""

import re

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, disable_created_metrics

BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
NO_ROUTE = "none"
"""No address of ours, or refused before that was looked at."""
CONVERTED = re.compile(r"<(?:\w+:)?(\w+)>")

disable_created_metrics()  # type: ignore[no-untyped-call]  # says nothing of its types
PROCESS = CollectorRegistry()
ProcessCollector(registry=PROCESS)
_seconds = Histogram(
    "mxfleet_http_request_seconds",
    "time until an answer was made, or began to wait, by route and class of status",
    ["route", "status"],
    buckets=BOUNDS,
    registry=PROCESS,
)


def template(route: str | None) -> str:
    """Django's route as the API's document writes it."""
    return NO_ROUTE if route is None else "/" + CONVERTED.sub(r"{\1}", route)


def observe(route: str, status: int, seconds: float) -> None:
    """Count an answered request."""
    _seconds.labels(route, f"{status // 100}xx").observe(seconds)
