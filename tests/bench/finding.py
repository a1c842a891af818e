"""Lists with 100,000 jobs, a million runs, 10,000 hosts and a million audit entries: milliseconds and statements.

A private PostgreSQL, then the same rows in SQLite; no mail host, no farm: the requests are made in the process, as in
tests/http. `python -m tests.bench.finding explain` shows PostgreSQL's plan of each list's longest statement too.
"""

import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from tests.bench.farm import Farm
from tests.bench.measure import table, verdict

ROUNDS = 5
JOBS, RUNS_EACH, ENTRIES = 100_000, 10, 1_000_000
TIMED = 200
"""Rows of the page whose time is told."""
MOST_STATEMENTS = 12
GOAL_MS = 200
QUERIES = (
    "hosts/?limit={limit}",
    "hosts/?search=mx0423&limit={limit}",
    "hosts/?search=rack%3Dr17%20fra&limit={limit}",
    "hosts/?search=nothing-has-this&limit={limit}",
    "hosts/?status=unreachable,refused&ordering=-last_seen_at&limit={limit}",
    "hosts/?label=role%3Drelay&limit={limit}",
    "jobs/?limit={limit}",
    "jobs/?state=failed,partly_failed&limit={limit}",
    "jobs/?host=mx00003&limit={limit}",
    "jobs/?customer=c03&limit={limit}",
    "jobs/?since={week}&limit={limit}",
    "jobs/?until={week}&operation=queue.purge&limit={limit}",
    "jobs/?ticket=OPS-77&limit={limit}",
    "jobs/?group=nothing-has-this&limit={limit}",
    "jobs/?requested_by=dana&limit={limit}",
    "runs/?limit={limit}",
    "runs/?state=failed,unreachable&limit={limit}",
    "runs/?state=unknown&limit={limit}",
    "runs/?host=mx00003&limit={limit}",
    "runs/?instance=mx00003/postfix&limit={limit}",
    "runs/?operation=queue.purge&state=failed&since={week}&limit={limit}",
    "runs/?since={week}&limit={limit}",
    "runs/?customer=c03&limit={limit}",
    "runs/?customer=c03&state=unknown&limit={limit}",
    "runs/?operation=nothing.has.this&limit={limit}",
    "quarantine/?instance=mx00003/postfix&limit={limit}",
    "quarantine/?sender=news7@BULK.example&limit={limit}",
    "quarantine/?limit={limit}",
    "users/?role=operator&customer=c03&limit={limit}",
    "audit/?limit={limit}",
    "audit/?customer=c03&since={week}&limit={limit}",
    "audit/?since={week}&until={week}&limit={limit}",
    "audit/?actor=user3&limit={limit}",
    "audit/?actor=nobody&limit={limit}",
    "audit/?action=job.approved,job.rejected&limit={limit}",
)
UUID7 = """(lpad(to_hex((extract(epoch FROM {at}) * 1000)::bigint), 12, '0') || '7' || substr(md5({n}::text), 1, 3)
    || '8' || substr(md5({n}::text), 4, 15))::uuid"""
AT = "now() - interval '365 days' + interval '365 days' * n / {count}"


ARGV = (sys.executable, "-m", "tests.bench.finding")


def run(farm: Farm) -> str:
    """Measure in a process of its own, whose settings are those of tests, and tell in Markdown."""
    return subprocess.run(ARGV, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main(explains: bool) -> None:
    """On PostgreSQL, and in another process on SQLite."""
    _set_up("postgres")
    _fill()
    _measure("PostgreSQL", explains)
    subprocess.run([*ARGV, "sqlite", os.environ["MXFLEET_TEST_DATABASE_URL"]], check=True)


def on_sqlite(filled: str) -> None:
    """`filled`: the URL of the PostgreSQL that has the rows."""
    from tests.bench.same_rows import copy_from

    _set_up("sqlite")
    copy_from(filled)
    _measure("SQLite", explains=False)


def _set_up(database: str) -> None:
    """Tests' settings, and a database without rows."""
    os.environ |= {"MXFLEET_TEST_DATABASE": database, "DJANGO_SETTINGS_MODULE": "deploy.settings"}
    __import__("tests.environment")
    import django

    django.setup()
    from django.core.management import call_command
    from django.test.utils import setup_test_environment

    setup_test_environment()
    call_command("migrate", verbosity=0)


def _measure(database: str, explains: bool) -> None:
    callers = {who: _caller(who) for who in ("dana", "erin")}
    rows = [_measured(who, caller, query, explains) for who, caller in callers.items() for query in QUERIES]
    headings = (f"{database}: caller, list", "rows", "statements for 10, 100, 500 rows", "ms", "")
    print(table(headings, rows), end="\n\n", flush=True)


def _fill() -> None:
    """A year of an MSP with forty customers. `dana` sees all of it, `erin` the fortieth part."""
    from django.db import connection, transaction

    with transaction.atomic(), connection.cursor() as cursor:
        _seed()
        for statement in _statements():
            cursor.execute(statement)
            cursor.execute("ANALYZE")


def _seed() -> None:
    """What the others are copies of: one row of each kind."""
    from django.utils import timezone

    from fleet.models import Credential, Customer, Host, Instance
    from jobs.models import Account, AuditEvent, Job, QuarantineItem, Role, Run

    now = timezone.now()
    customers = Customer.objects.bulk_create(Customer(slug=f"c{n:02}", name=f"Customer {n}") for n in range(40))
    people = [Account.objects.create_user(f"user{n}") for n in range(200)]
    Role.objects.bulk_create(
        Role(account=each, role="operator", customer=customers[n % 40]) for n, each in enumerate(people)
    )
    for name, role, customer in (("dana", "admin", None), ("erin", "admin", customers[3])):
        Role.objects.create(account=Account.objects.create_user(name), role=role, customer=customer)
    credential = Credential.objects.create(customer=customers[0], name="key", private_key="x", public_key="x")
    host = Host.objects.create(
        customer=customers[0], name="seed", address="seed", username="x", credential=credential, labels={"role": "mx"}
    )
    instance = Instance.objects.create(
        host=host, name="postfix", mta="postfix", version="3.7", config_dir="/etc/postfix"
    )
    job = Job.objects.create(
        operation="queue.list", target={"all": True}, params={}, state="succeeded", requested_by=people[0],
        created_at=now, finished_at=now,
    )  # fmt: skip
    Run.objects.create(job=job, host=host, instance=instance, state="succeeded", result={"total": 12, "entries": []})
    QuarantineItem.objects.create(
        job=job, instance=instance, queue_id="3F5A0000", place="x", arrival_time=1.0, sender="a@b.c", size=1,
        native_state="deferred", expires_at=now, created_at=now,
    )  # fmt: skip
    AuditEvent.objects.create(chain="c00", seq=0, at=now, action="job.submitted", hash="x", data={"operation": "x"})


def _statements() -> Iterator[str]:
    """The copies, and what ties them together."""
    from fleet.models import Host, Instance
    from jobs.models import AuditEvent, Job, QuarantineItem, Run

    yield "CREATE TEMP TABLE customer AS SELECT id, row_number() OVER (ORDER BY slug) - 1 AS number FROM fleet_customer"
    yield _copies(
        Host,
        f"{_series(10_000)} JOIN customer c ON c.number = n % 40",
        id="1000 + n",
        name="'mx' || lpad(n::text, 5, '0')",
        address="'mx' || n || '.example.com'",
        customer_id="c.id",
        site="(array['fra', 'ber', 'muc', 'ham'])[n % 4 + 1]",
        labels="jsonb_build_object('role', (array['mx', 'relay'])[n % 2 + 1], 'rack', 'r' || n % 50)",
        status="(array['ok', 'ok', 'ok', 'ok', 'unreachable'])[n % 5 + 1]",
        last_seen_at="now() - interval '1 minute' * (n % 999)",
    )
    yield _copies(Instance, _series(10_000), id="1000 + n", host_id="1000 + n")
    created = AT.format(count=JOBS)
    yield _copies(
        Job,
        _series(JOBS),
        id=UUID7.format(at=created, n="n"),
        created_at=created,
        finished_at=created,
        state="CASE WHEN n % 50 = 0 THEN 'failed' WHEN n % 77 = 0 THEN 'partly_failed' ELSE 'succeeded' END",
        operation="(array['queue.list', 'queue.summary', 'queue.purge', 'message.trace', 'sender.block'])[n % 5 + 1]",
        ticket="CASE WHEN n % 9 = 0 THEN 'OPS-' || n % 1000 ELSE '' END",
    )
    yield (
        "INSERT INTO jobs_job_customers (job_id, customer_id) SELECT j.id, c.id FROM"
        " (SELECT id, row_number() OVER (ORDER BY id) AS n FROM jobs_job) j JOIN customer c ON c.number = j.n % 40"
    )
    host = "1000 + (c.number + 40 * ((hashtext(j.id::text) & 65535) % 83 + 83 * k)) % 10000"
    yield _copies(
        Run,
        f"generate_series(0, {RUNS_EACH - 1}) k, jobs_job j JOIN jobs_job_customers l ON l.job_id = j.id"
        " JOIN customer c ON c.id = l.customer_id",
        id=UUID7.format(at="j.created_at", n="(j.id::text || k)"),
        job_id="j.id",
        host_id=host,
        instance_id=host,
        state="CASE WHEN hashtext(j.id::text || k) % 40 = 0 THEN 'failed'"
        " WHEN hashtext(j.id::text || k) % 9999 = 1 THEN 'unknown' ELSE 'succeeded' END",
    )
    sender = "'news' || n % 999 || '@bulk.example'"
    yield _copies(
        QuarantineItem, _series(100_000), id="gen_random_uuid()", instance_id="1000 + n % 10000", sender=sender
    )
    yield _copies(
        AuditEvent,
        _series(ENTRIES),
        id="1000 + n",
        chain="'c' || lpad((n % 40)::text, 2, '0')",
        seq="n / 40 + 1",
        at=AT.format(count=ENTRIES),
        actor="'user' || n % 200",
        hash="md5(n::text)",
        action="(array['job.submitted', 'job.finished', 'run.changed', 'job.approved', 'x.y'])[n % 5 + 1]",
    )


def _series(count: int) -> str:
    return f"generate_series(0, {count - 1}) n"


def _copies(model: Any, rows: str, **others: str) -> str:
    """A copy of the model's one row for each of the `rows`, with the `others` columns as they say."""
    columns = [each.column for each in model._meta.concrete_fields]
    values = ", ".join(others.get(name, f't."{name}"') for name in columns)
    names, table_name = ", ".join(f'"{name}"' for name in columns), model._meta.db_table
    return f"INSERT INTO {table_name} ({names}) SELECT {values} FROM {table_name} t, {rows}"


def _measured(who: str, caller: Any, query: str, explains: bool) -> list[str]:
    """A line of the table. Ten rows cost as many statements as 100; more than that are read in parts of 101."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext
    from django.utils import timezone

    week = (timezone.now() - timezone.timedelta(days=7)).strftime("%Y-%m-%dT%H:%M:%SZ")
    counts, walls, found = [], [], 0
    for limit in (10, 500, 100, *[TIMED] * ROUNDS):
        with CaptureQueriesContext(connection) as asked:
            begun = time.monotonic()
            answer = caller.get(query.format(limit=limit, week=week))
            walls.append((time.monotonic() - begun) * 1000)
        assert answer.status_code == 200, answer.content
        counts.append(len(asked))
        found = len(answer.json()["results"])
    if explains:
        _explain(f"{who} {query}", max(asked.captured_queries, key=lambda each: float(each["time"]))["sql"])
    wall = statistics.median(walls[3:])
    is_same = counts[0] == counts[2] and max(counts) <= MOST_STATEMENTS
    shown = f"{who}, `{query.removesuffix('limit={limit}').rstrip('?&').replace('{week}', '7d')}`"
    fits = verdict(wall, GOAL_MS, at_least=False)
    return [
        shown,
        str(found),
        f"{counts[0]}, {counts[2]}, {counts[1]}{'' if is_same else ' MORE'}",
        f"{wall:.0f}",
        fits,
    ]


def _caller(who: str) -> Any:
    from api.auth import digest
    from api.models import Token
    from jobs.models import Account
    from tests.http.cast import Caller

    text = f"mxf_{secrets.token_urlsafe(32)}"
    Token.objects.create(account=Account.objects.get(username=who), name="bench", digest=digest(text))
    caller = Caller(text)
    caller.get("whoami/")  # which notes that the token was used
    return caller


def _explain(title: str, sql: str) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, COSTS OFF) {sql}")
        print(title, *(line for (line,) in cursor.fetchall()), sep="\n    ", end="\n\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["sqlite"]:
        on_sqlite(sys.argv[2])
    else:
        main("explain" in sys.argv)
