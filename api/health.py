"""healthz: the process answers. readyz: what it stands on works. metrics: what the database says, for Prometheus."""

import json
import threading
from collections.abc import Callable
from typing import Any

import redis
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from rest_framework.exceptions import APIException
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from api.auth import scoped_actor
from api.errors import Problem, respond
from api.metrics import SCRAPED, Cached
from api.origin import is_forwarding, is_inside
from jobs.actor import Actor
from jobs.restore import pause, watch
from jobs.worker import liveness

BROKER_TIMEOUT = 1.0
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def healthz(request: HttpRequest) -> HttpResponse:
    """200: the process lives."""
    return _refused(request) or JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> HttpResponse:
    """200, or 503 with the first part that does not work; `parts` has each. Why, only those are told who may scrape."""
    refused = _refused(request)
    if refused:
        return refused
    parts: dict[str, str] = json.loads(CACHED_REPORT.get())
    bad = next((name for name, wrong in parts.items() if wrong), None)
    if bad is None:
        return JsonResponse({"status": "ok", "parts": dict.fromkeys(parts, "ok")})
    if not _may_know(request):
        parts = {name: wrong and "failed" for name, wrong in parts.items()}
    problem = Problem(503, "not_ready", f"{bad}: {parts[bad]}", {"Retry-After": "5"})
    problem.extra = {"parts": {name: wrong or "ok" for name, wrong in parts.items()}}
    return respond(request, problem)


class MayScrape(BasePermission):
    """Who comes straight from a network that needs no token, or has one with `fleet:read` for all customers."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return _is_near(request) or _knows_fleet(request.auth)


class Metrics(APIView):
    """From the database and not from memory, so that it is true for any number of processes."""

    schema = None
    permission_classes = [MayScrape]

    def get(self, request: Request) -> HttpResponse:
        return HttpResponse(SCRAPED.get(), content_type=METRICS_TYPE)


def _is_near(request: HttpRequest | Request) -> bool:
    source = request.META.get("REMOTE_ADDR") or ""
    return is_inside(source, settings.ENV.metrics_networks) and not any(map(is_forwarding, request.headers))


def _knows_fleet(actor: Any) -> bool:
    return isinstance(actor, Actor) and actor.has_scope("fleet:read") and actor.may_everywhere("read")


def _may_know(request: HttpRequest) -> bool:
    """MayScrape for a view that answers everybody, also when the database does not."""
    if _is_near(request):
        return True
    try:
        return _knows_fleet(
            scoped_actor(request.headers.get("Authorization"), request.META.get("REMOTE_ADDR") or "", "fleet:read")
        )
    except (APIException, Problem, DatabaseError):
        return False


def _refused(request: HttpRequest) -> HttpResponse | None:
    if request.method in ("GET", "HEAD"):
        return None
    return respond(request, Problem(405, "method_not_allowed", "only GET is known here", {"Allow": "GET, HEAD"}))


def report() -> bytes:
    """What does not work, by part, as JSON; empty where it does."""
    return json.dumps({name: _wrong(check) for name, check in PARTS.items()}).encode()


def _wrong(check: Callable[[], str]) -> str:
    """What a check says does not work, or the database's error that kept it from telling."""
    try:
        return check()
    except DatabaseError as error:
        return type(error).__name__


def once_good(check: Callable[[], str]) -> Callable[[], str]:
    """`check` until it has found nothing wrong, and then no more in this process."""
    is_good = threading.Event()

    def remembered() -> str:
        wrong = "" if is_good.is_set() else check()
        if not wrong:
            is_good.set()
        return wrong

    return remembered


def _database() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return ""


def _migrations() -> str:
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return f"{len(missing)} migrations are missing; run manage.py migrate" if missing else ""


def _broker() -> str:
    client = redis.Redis.from_url(
        settings.ENV.redis_url, socket_timeout=BROKER_TIMEOUT, socket_connect_timeout=BROKER_TIMEOUT
    )
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        return type(error).__name__
    finally:
        client.close()
    return ""


def _worker() -> str:
    silent = sorted(queue for queue, alive in liveness.workers().items() if not alive)
    return f"no worker has said for {watch.ALIVE.seconds} seconds that it lives: {', '.join(silent)}" if silent else ""


PARTS: dict[str, Callable[[], str]] = {
    "database": _database,
    "broker": _broker,
    "migrations": once_good(_migrations),  # 25 ms, and nobody takes one back below a running process
    "worker": _worker,
    "audit": watch.alarm,
    "dispatch": pause.status,
}

CACHED_REPORT = Cached(report, 1.0, serves_stale=False)
"""This process's. Probes wait for no turn, so however many ask, one of them looks."""
