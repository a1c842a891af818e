"""Finding things: several values, search, orders, runs over all jobs, fields; each shows no more than may be seen."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from api import pagination
from api.filters import split
from api.models import Token
from fleet.models import Credential, Customer, Host, Instance
from jobs.audit import trail
from jobs.models import Account, AuditCheckpoint, Block, BlockInstance, Job, Message, QuarantineItem, Role, Run
from tests.http.cast import Caller, World
from tests.http.test_errors import JOB, refused
from tests.http.test_foreign import LISTS, OBJECTS, fill, filled
from tests.http.test_jobs import planned

MOST_STATEMENTS = 12
LONG = "a" * 100_000 + "@b.c"


def named(caller: Caller, path: str, field: str) -> list[Any]:
    """The field of each result."""
    answer = caller.get(path)
    assert answer.status_code == 200, answer.content
    return [row[field] for row in answer.json()["results"]]


def hosts(world: World, query: str) -> list[str]:
    return named(world.dana, f"hosts/?{query}", "name")


def paged(caller: Caller, path: str, field: str) -> Iterator[Any]:
    """The field of each row, page by page."""
    following: str | None = path
    while following:
        page = caller.get(following).json()
        yield from (row[field] for row in page["results"])
        following = page["next"]


def test_a_filter_takes_several_values_and_lets_pass_what_fits_any(world: World) -> None:
    purge, listed = str(planned(world).pk), world.alice.post("jobs/", JOB | {"ticket": "A,B"}).json()["id"]
    other = world.charlie.post("jobs/", JOB | {"target": {"hosts": ["bx1"]}, "ticket": r"C\D"}).json()["id"]
    for query, wanted in (
        ("state=queued,awaiting_approval", [other, listed, purge]),
        ("operation=queue.purge,queue.list", [other, listed, purge]),
        ("customer=acme,beta", [other, listed, purge]),
        ("customer=acme,beta&requested_by=alice,bob", [listed, purge]),
        (r"ticket=A\,B", [listed]),
        ("ticket=A,B", []),
        (r"ticket=C\D,A\,B", [other, listed]),
        (r"ticket=C\\D", [other]),
        ("host=mx1,nowhere", [listed, purge]),
        ("since=2020-01-01T00:00:00Z&host=bx1", [other]),
        ("until=2020-01-01T00:00:00Z", []),
    ):
        assert named(world.dana, f"jobs/?{query}", "id") == wanted, query
    assert sorted(named(world.dana, "instances/?mta=exim,postfix&host=mx1,bx1", "id")) == ["bx1/postfix", "mx1/postfix"]
    assert named(world.dana, "runs/?instance=mx1/postfix,bx1/postfix&state=pending", "job") == [other, listed, purge]
    for bad in (
        "state=failed,",
        "state=failed,nonsense",
        "ticket=a,,b",
        f"ticket={'x,' * 200}x",
        "state=",
        "host=a%00",
    ):
        refused(world.dana.get(f"jobs/?{bad}"), 422, "invalid")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a", ["a"]),
        ("", [""]),
        ("a,b", ["a", "b"]),
        (r"a\,b,c", ["a,b", "c"]),
        (r"a\\,b", ["a\\", "b"]),
        (r"\d\"", [r"\d\""]),
    ],
)
def test_a_comma_in_a_value_is_said_with_a_backslash(text: str, values: list[str]) -> None:
    assert split(text) == values


def test_hosts_are_searched_by_name_address_site_and_labels_literally(world: World) -> None:
    Host.objects.filter(name="mx1").update(site="fra_1", labels={"role": "mx", "note": "100%\\ Äpfel"})
    for query, names in (
        ("search=X1.EXAMPLE", ["bx1", "mx1"]),
        ("search=fra", ["mx1"]),
        ("search=role%3Dmx", ["mx1"]),
        ("search=mx1%20fra_1%20pfel", ["mx1"]),
        ("search=mx1%20ber", []),
        ("search=Äpfel", ["mx1"]),
        ("search=äPFEL", [] if connection.vendor == "sqlite" else ["mx1"]),  # docs/api.md says so
        ("search=0%25\\", ["mx1"]),
        ("search=%25x", []),
        ("search=fra%5F1", ["mx1"]),
        ("search=f_a", []),
        ("search=%7B", []),
        ("search=%22", []),
        ("search=mx1&customer=beta", []),
        ("status=new", ["bx1", "mx1"]),
        ("status=ok,refused", []),
    ):
        assert hosts(world, query) == names, query
    assert named(world.charlie, "hosts/?search=x1", "name") == ["bx1"]
    for bad in ("", "%20", "a" * 101, "a%20" * 9, "a%00"):
        refused(world.dana.get(f"hosts/?search={bad}"), 422, "invalid")


def test_labels_of_one_key_widen_and_keys_narrow_as_in_a_target(world: World) -> None:
    Host.objects.filter(name="mx1").update(labels={"role": "mx", "rack": "r1"})
    Host.objects.filter(name="bx1").update(labels={"role": "relay", "rack": "a,b"})
    assert hosts(world, "label=role=mx,role=relay") == ["bx1", "mx1"]
    assert hosts(world, "label=role=mx,role=relay,rack=r1") == ["mx1"]
    assert hosts(world, r"label=rack=a\,b") == ["bx1"]


@pytest.mark.parametrize("key", ["0", "1", "-1", "99999999999999999999", "a.b", "a/b", 'a"b', "%s", "$", "\\"])
def test_a_label_is_found_by_its_key_as_it_is_written(world: World, key: str) -> None:
    Host.objects.filter(name="mx1").update(labels={key: "x", "other": "y"})
    assert hosts(world, f"label={quote(key)}=x") == ["mx1"]
    assert hosts(world, f"label={quote(key)}=y") == []


@pytest.mark.parametrize("ordering", ["name", "last_added", "customer", "address", "site", "status", "last_seen_at"])
def test_each_order_of_hosts_pages_through_all_of_them_both_ways(world: World, ordering: str) -> None:
    grow(world, 4)
    Host.objects.filter(name="mx1").update(last_seen_at=timezone.now(), site="x", status="ok")
    there = list(paged(world.dana, f"hosts/?limit=2&ordering={ordering}", "name"))
    assert sorted(there) == sorted(Host.objects.values_list("name", flat=True))
    assert list(paged(world.dana, f"hosts/?limit=2&ordering=-{ordering}", "name")) == there[::-1]
    if ordering in ("last_seen_at", "site", "status"):
        assert there[-1] == "mx1"


def test_runs_of_all_jobs_are_listed_newest_first_as_far_as_their_jobs_may_be_seen(world: World) -> None:
    first = str(planned(world).pk)
    second = world.charlie.post("jobs/", JOB | {"target": {"hosts": ["bx1"]}}).json()["id"]
    both = world.dana.post("jobs/", {"operation": "queue.list", "target": {"all": True}}).json()["id"]
    assert named(world.dana, "runs/", "job") == [both, both, second, first]
    assert list(paged(world.dana, "runs/?limit=1", "job")) == [both, both, second, first]
    assert named(world.alice, "runs/", "job") == [first]
    assert named(world.charlie, "runs/?host=bx1,mx1", "job") == [second]
    for query, wanted in (
        ("operation=queue.purge", [first]),
        (f"job={second}", [second]),
        ("host=bx1", [both, second]),
        ("customer=acme&operation=queue.list", [both]),
        ("since=2020-01-01T00:00:00Z&state=failed", []),
        ("until=2020-01-01T00:00:00Z", []),
    ):
        assert named(world.dana, f"runs/?{query}", "job") == wanted, query
    row = world.alice.get("runs/").json()["results"][0]
    run = world.alice.get(f"jobs/{first}/runs/").json()["results"][0]
    assert row == run
    assert (row["job"], row["operation"]) == (first, "queue.purge")


def test_the_quarantine_is_searched_by_sender_whatever_its_case_and_length(world: World) -> None:
    item = QuarantineItem.objects.get(pk=fill(world)["quarantine"])
    for sender in ("News@Bulk.example", "<>", LONG, "n@x.y"):
        item.pk, item.sender = None, sender
        item.pk = item._meta.pk.get_default()
        item.save(force_insert=True)
    for query, senders in (
        ("news@bulk.EXAMPLE", ["News@Bulk.example"]),
        ("<>,n@x.y", ["n@x.y", "<>"]),
        ("a" * 320, []),
        ("%25", []),
    ):
        assert sorted(named(world.dana, f"quarantine/?sender={query}", "sender")) == sorted(senders)
    assert named(world.charlie, "quarantine/?sender=n@x.y", "sender") == []
    refused(world.dana.get(f"quarantine/?sender={'a' * 321}"), 422, "invalid")


def test_users_are_found_by_a_role_where_they_have_it_and_never_by_one_that_is_not_to_be_seen(world: World) -> None:
    Role.objects.create(account=world.people["bob"], role="admin", customer=world.beta)
    for caller, query, names in (
        (world.dana, "role=approver,viewer", ["bob", "erin"]),
        (world.dana, "role=admin&customer=beta", ["bob"]),
        (world.dana, "role=approver&customer=beta", []),
        (world.dana, "customer=beta", ["bob", "charlie"]),
        (world.dana, "role=admin", ["anna", "bob", "dana"]),
        (world.anna, "role=admin", ["anna"]),
        (world.anna, "customer=beta", []),
        (world.anna, "role=approver", ["bob"]),
        (world.charlie, "role=admin", []),
    ):
        assert named(caller, f"users/?{query}", "username") == names, query
    assert named(world.dana, "service-accounts/?role=operator&customer=acme", "username") == ["robot"]


def test_a_block_is_found_by_the_state_on_the_very_instance_that_is_asked_for(world: World) -> None:
    block = Block.objects.get(pk=fill(world)["blocks"])
    other = Instance.objects.exclude(pk=world.postfix.pk).get()
    BlockInstance.objects.create(block=block, instance=other, state="failed", changed_at=timezone.now())
    for query, count in (
        ("state=failed,pending", 1),
        ("state=failed&instance=bx1/postfix", 1),
        ("state=failed&instance=mx1/postfix", 0),
        ("instance=mx1/postfix,bx1/postfix&customer=acme,beta", 1),
    ):
        assert len(named(world.dana, f"blocks/?{query}", "id")) == count, query


def test_only_the_fields_that_are_asked_for_are_sent_with_a_tag_of_their_own(world: World) -> None:
    whole = world.alice.get("hosts/mx1/")
    part = world.alice.get("hosts/mx1/?fields=name,site")
    assert part.json() == {"name": "mx1", "site": ""}
    assert part.headers["ETag"] != whole.headers["ETag"]
    assert world.alice.get("hosts/mx1/?fields=site,name", If_None_Match=part.headers["ETag"]).status_code == 304
    assert world.alice.get("hosts/?fields=name").json()["results"] == [{"name": "mx1"}]
    assert world.alice.get("whoami/?fields=username").json() == {"username": "alice"}
    assert world.alice.get("audit/verify/?fields=ok").json() == {"ok": True}
    assert world.dana.get("operations/?fields=name").json()["results"][0].keys() == {"name"}
    assert "mtas" in world.dana.get("operations/").json()["results"][0]
    job = planned(world)
    assert world.alice.get(f"jobs/{job.pk}/plan/?fields=digest,messages&limit=1").json().keys() == {
        "digest",
        "messages",
    }
    Host.objects.filter(name="mx1").update(site="fra")
    changed = world.alice.get("hosts/mx1/?fields=name,site", If_None_Match=part.headers["ETag"])
    assert changed.json() == {"name": "mx1", "site": "fra"}


def test_a_field_that_is_not_there_is_an_error_that_names_those_that_are(world: World) -> None:
    names, looked_at = fill(world), 0
    trail.checkpoint()
    for path in [*LISTS, *(filled(route, names) for route in OBJECTS)]:
        whole = world.dana.get(path)
        if path == "" or whole.status_code != 200 or whole["Content-Type"] != "application/json":
            continue  # addresses only, POST only, or no JSON
        content = whole.json()
        row = content["results"][0] if "results" in content else content
        told = refused(world.dana.get(f"{path}?fields=nothing,at"), 400, "unknown_field")["detail"]
        assert {*row} <= {*told.partition("known: ")[2].split(", ")}, path
        one = sorted(row)[0]
        part = world.dana.get(f"{path}?fields={one}").json()
        assert (part["results"][0] if "results" in content else part) == {one: row[one]}, path
        looked_at += 1
    assert looked_at > 25


def test_fields_are_no_parameter_where_nothing_is_read_and_secrets_are_no_fields(world: World) -> None:
    refused(world.anna.post("jobs/?fields=id", JOB), 400, "unknown_parameter")
    refused(world.anna.patch("hosts/mx1/?fields=name", {"site": "x"}), 400, "unknown_parameter")
    refused(world.anna.get("credentials/?fields=private_key"), 400, "unknown_field")
    refused(world.anna.get("hosts/?fields="), 400, "unknown_field")
    refused(world.anna.get("operations/?fields="), 400, "unknown_field")
    refused(world.anna.get("hosts/?fields=name&fields=site"), 400, "unknown_parameter")


def grow(world: World, count: int) -> None:
    """So many more of everything that is listed."""
    number, now = Host.objects.count(), timezone.now()
    numbers = range(number, number + count)
    customers = Customer.objects.bulk_create(Customer(slug=f"more{n}", name="x") for n in numbers)
    people = [Account(username=f"more{n}") for n in numbers] + [
        Account(username=f"robot{n}", kind="service") for n in numbers
    ]
    Account.objects.bulk_create(people)
    Role.objects.bulk_create(Role(account=each, role="viewer", customer=customers[0]) for each in people)
    Token.objects.bulk_create(Token(account=each, name="x", digest=f"{each.pk:064}") for each in people)
    key = Credential.objects.bulk_create(Credential(customer=each, name="k") for each in customers)
    made = Host.objects.bulk_create(
        Host(
            customer=each.customer,
            name=each.customer.slug,
            address="a",
            username="u",
            credential=each,
            labels={"a": "b"},
        )
        for each in key
    )
    instances = Instance.objects.bulk_create(Instance(host=each, name="postfix", mta="postfix") for each in made)
    jobs = Job.objects.bulk_create(
        Job(operation="queue.list", target={}, params={}, state="queued", requested_by=people[0], created_at=now)
        for _ in numbers
    )
    for job, customer in zip(jobs, customers, strict=True):
        job.customers.add(customer)
    runs = Run.objects.bulk_create(
        Run(job=job, host=each.host, instance=each, state="succeeded", result={"asked": 1})
        for job, each in zip(jobs, instances, strict=True)
    )
    Message.objects.bulk_create(Message(run=run, queue_id="A", arrival_time=1.0, sender="a", size=1) for run in runs)
    blocks = Block.objects.bulk_create(
        Block(pattern="a@b.c", action="reject", text="x", target={}, owner=people[0], job=job, created_at=now)
        for job in jobs
    )
    BlockInstance.objects.bulk_create(
        BlockInstance(block=block, instance=each, changed_at=now) for block, each in zip(blocks, instances, strict=True)
    )
    QuarantineItem.objects.bulk_create(
        QuarantineItem(
            job=job, instance=each, queue_id="A", arrival_time=1.0, sender="a", size=1, expires_at=now, created_at=now
        )
        for job, each in zip(jobs, instances, strict=True)
    )
    trail.append(*(trail.Entry(each.slug, "x.done", None) for each in customers))
    AuditCheckpoint.objects.bulk_create(AuditCheckpoint(chain=each.slug, seq=1, at=now) for each in customers)


FILTERED = [
    "hosts/?search=more&status=new,ok&label=a=b&ordering=-last_seen_at",
    "jobs/?state=queued&host=more2,more3,more4,more5,more6,more7,more8,more9",
    "runs/?state=succeeded&operation=queue.list&since=2020-01-01T00:00:00Z",
    "quarantine/?sender=a&state=kept",
    "users/?role=viewer&customer=more2,more12",
    "blocks/?state=pending&customer=acme,more2",
    "audit/?action=x.done&since=2020-01-01T00:00:00Z",
]


@pytest.mark.parametrize("who", ["dana", "bob"])
def test_a_list_of_many_rows_takes_as_many_statements_as_one_of_ten(world: World, who: str) -> None:
    paths = [*sorted({*LISTS} - {"", "pause/", "audit/verify/"}), *FILTERED]
    caller = world.callers[who]
    grow(world, 10)
    let_see_all(world.people["bob"])
    caller.get("whoami/")  # which notes that the token was used
    few = {path: statements(caller, path) for path in paths}
    grow(world, 25)
    let_see_all(world.people["bob"])
    assert {path: statements(caller, path) for path in paths} == few
    assert max(few.values()) <= MOST_STATEMENTS


def test_the_longest_page_takes_few_statements_though_its_rows_are_read_in_parts(world: World) -> None:
    grow(world, 2)
    for page in ("jobs/", "blocks/", "users/", "runs/"):
        world.dana.get(page)
        few = statements(world.dana, page)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pagination, "BATCH", 1)
            assert few < statements(world.dana, f"{page}?limit=2") <= few + 2 < MOST_STATEMENTS, page


def let_see_all(account: Account) -> None:
    """By a role at each customer, not by one that holds for all."""
    others = Customer.objects.exclude(roles__account=account, roles__role="admin")
    Role.objects.bulk_create(Role(account=account, role="admin", customer=each) for each in others)


def statements(caller: Caller, path: str) -> int:
    with CaptureQueriesContext(connection) as asked:
        answer = caller.get(path)
    assert answer.status_code == 200, answer.content
    return len(asked)
