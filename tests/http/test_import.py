"""A file of hosts: all of them or none, every error at its row and column, and nothing twice."""

import json
from typing import Any

import asyncssh
import pytest

from fleet.models import Credential, Customer, Host
from fleet.ssh.hostkeys import fingerprint
from jobs.administration import many_hosts
from jobs.models import Account, AuditEvent, Role
from tests.http.cast import Caller, World
from tests.http.test_errors import refused

HEADER = "name,customer,address,username,credential,port,labels.role,site"
ROWS = 300


def key() -> str:
    """A new host key."""
    return str(asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip())


FIRST, SECOND = key(), key()


def send(caller: Caller, content: str | bytes, query: str = "", kind: str = "text/csv", **headers: str) -> Any:
    """The answer to that file."""
    raw = content.encode() if isinstance(content, str) else content
    return caller.post(f"hosts/import/{query}", raw, **{"Content-Type": kind, **headers})


def row(name: str, **values: str) -> str:
    """A row of HEADER."""
    all_values = {"address": f"{name}.example.com", "username": "mxfleet", "credential": "acme-key", **values}
    cells = [name, all_values.get("customer", "acme"), *(all_values[each] for each in ("address", "username"))]
    return ",".join([*cells, *(all_values.get(each, "") for each in ("credential", "port", "role", "site"))])


def csv(*rows: str, header: str = HEADER) -> str:
    """A file."""
    return "\n".join([header, *rows, ""])


def errors(answer: Any, status: int = 422, code: str = "invalid") -> list[tuple[str, str]]:
    """(field, code) of each error."""
    return [(each["field"], each["code"]) for each in refused(answer, status, code)["errors"]]


def many(**wrong: str) -> str:
    """300 rows; `wrong`: r7="..." in the place of row 7."""
    return csv(*(wrong.get(f"r{number}", row(f"n{number}", role="mx")) for number in range(ROWS)))


def imported() -> list[AuditEvent]:
    """The entries of imports."""
    return list(AuditEvent.objects.filter(action="hosts.imported").order_by("pk"))


def test_new_changed_and_same_are_told_and_written_once(world: World) -> None:
    assert world.anna.put("hosts/n1/", host("n1", port=22, labels={"role": "mx", "rack": "3"})).status_code == 201
    assert world.anna.put("hosts/n2/", host("n2", port=22, labels={"role": "mx"})).status_code == 201
    content = csv(
        row("n1", port="2222", role="relay"), row("n2", port="22", role="mx"), row("n3", role="mx", site="fra")
    )
    told = {
        "dry_run": True,
        "counts": {"new": 1, "changed": 1, "same": 1},
        "new": ["n3"],
        "changed": [{"name": "n1", "changes": ["port", "labels"]}],
        "same": ["n2"],
    }
    assert send(world.anna, content, "?dry_run=true").json() == told
    assert (Host.objects.filter(name="n3").exists(), imported()) == (False, [])
    answer = send(world.anna, content)
    assert (answer.status_code, answer.json()) == (200, told | {"dry_run": False})
    changed = world.anna.get("hosts/n1/").json()
    assert (changed["port"], changed["labels"]) == (2222, {"role": "relay", "rack": "3"})
    assert world.anna.get("hosts/n3/").json()["site"] == "fra"
    (entry,) = imported()
    assert (entry.chain, entry.actor, list(entry.data["new"])) == ("acme", "anna", ["n3"])
    assert entry.data["changed"] == {"n1": {"port": 2222, "labels": {"role": "relay"}}}
    again = send(world.anna, content).json()
    assert (again["counts"], again["same"]) == ({"new": 0, "changed": 0, "same": 3}, ["n1", "n2", "n3"])
    assert len(imported()) == 1


def host(name: str, **values: Any) -> dict[str, Any]:
    """A host as JSON."""
    base = {"customer": "acme", "address": f"{name}.example.com", "username": "mxfleet", "credential": "acme-key"}
    return {**base, **values}


def test_three_hundred_rows_with_ten_wrong_ones_are_ten_errors_and_nothing_is_written(world: World) -> None:
    wrong = {
        "r3": row("n3", address="127.0.0.1"),
        "r10": row("n10", address="user@n10"),
        "r20": row("n20", port="many"),
        "r33": row("n33", port="65536"),
        "r50": row("n49"),
        "r77": row("bx1"),
        "r100": row("n100", credential="none"),
        "r150": row("n150", username="-l"),
        "r222": row("n222", customer="beta"),
        "r299": row("n299") + ",too,much",
    }
    before = Host.objects.count()
    answer = send(world.anna, many(**wrong))
    assert errors(answer, code="forbidden_range") == [
        ("rows[3].address", "forbidden_range"),
        ("rows[10].address", "invalid"),
        ("rows[20].port", "wrong_type"),
        ("rows[33].port", "invalid"),
        ("rows[50].name", "duplicate"),
        ("rows[77].name", "name_taken"),
        ("rows[100].credential", "invalid"),
        ("rows[150].username", "invalid"),
        ("rows[222].customer", "invalid"),
        ("rows[299]", "invalid"),
    ]
    assert answer.json()["errors"][2]["detail"] == "line 22: expected a number, got 'many'"
    assert (Host.objects.count(), imported()) == (before, [])


def test_three_hundred_hosts_cost_a_few_statements(world: World, django_assert_max_num_queries: Any) -> None:
    with django_assert_max_num_queries(45):  # SQLite takes some 50 rows a statement
        assert send(world.anna, many()).json()["counts"]["new"] == ROWS
    with django_assert_max_num_queries(15):
        assert send(world.anna, many()).json()["counts"]["same"] == ROWS
    moved = many().replace("n7.example.com", "moved.example.com").replace(",mx,", ",relay,")
    with django_assert_max_num_queries(45):
        assert send(world.anna, moved).json()["counts"]["changed"] == ROWS
    assert Host.objects.get(name="n7").address == "moved.example.com"
    assert len(imported()) == 2


@pytest.mark.parametrize(
    ("content", "kind", "told"),
    [
        (
            csv(row("n1", address="root@192.0.2.5")),
            "text/csv",
            "host name or an IP address, without user, port or path",
        ),
        (csv(row("n1", address=" 192.0.2.5")), "text/csv", "host name or an IP address, without user, port or path"),
        (csv(row("n1", address="192.0.2.300")), "text/csv", "not an IP address, and a host name must not end in a"),
        (csv(row("n1", address='"192.0.2.5')), "text/csv", "line 2: a quote does not end; nothing after it was read"),
        ('\n{"name": "n1"', "application/x-ndjson", "line 2: Expecting ',' delimiter at column 14"),
    ],
)
def test_what_would_be_right_is_told(world: World, content: str, kind: str, told: str) -> None:
    [error] = refused(send(world.anna, content, kind=kind), 422, "invalid")["errors"]
    assert told in error["detail"]


def test_json_lines_are_taken_too_and_each_line_is_read_strictly(world: World) -> None:
    lines = [json.dumps({"name": name, **host(name)}) for name in ("n1", "n2")]
    kind = "application/x-ndjson"
    assert send(world.anna, "\ufeff" + "\r\n\r\n".join(lines), kind=kind).json()["new"] == ["n1", "n2"]
    wrong = [
        lines[0],
        '{"name": "n3", "name": "n4"}',
        "[1]",
        "{",
        json.dumps({**host("n5"), "name": "n5", "port": "22"}),
    ]
    found = errors(send(world.anna, "\n".join(wrong), kind=kind))
    assert found == [
        ("rows[1]", "invalid"),
        ("rows[2]", "wrong_type"),
        ("rows[3]", "invalid"),
        ("rows[4].port", "wrong_type"),
    ]


def test_hosts_are_reached_through_others_of_the_same_file_in_any_order(world: World) -> None:
    header = "name,customer,address,username,credential,jump_host"
    links = {"n1": "n2", "n2": "n3", "n3": "mx1", "n4": ""}
    rows = [f"{name},acme,{name}.example.com,mxfleet,acme-key,{through}" for name, through in links.items()]
    assert send(world.anna, csv(*rows, header=header)).json()["new"] == [*links]
    assert Host.objects.get(name="n1").jump_host.jump_host.jump_host.name == "mx1"
    circle = csv("n3,acme,n3.example.com,mxfleet,acme-key,n1", header=header)
    assert errors(send(world.anna, circle)) == [("rows[0].jump_host", "invalid")]
    foreign = csv("n5,acme,n5.example.com,mxfleet,acme-key,bx1", header=header)
    assert errors(send(world.anna, foreign)) == [("rows[0].jump_host", "invalid")]


def test_no_way_gets_too_long_at_its_far_end(world: World) -> None:
    header = "name,customer,address,username,credential,jump_host"
    links = {"n1": "n2", "n2": "n3", "n3": "mx1", "n4": "", "n5": "n4"}
    rows = [f"{name},acme,{name}.example.com,mxfleet,acme-key,{through}" for name, through in links.items()]
    assert send(world.anna, csv(*rows, header=header)).status_code == 200
    refused(world.anna.patch("hosts/mx1/", {"jump_host": "n5"}), 422, "invalid")
    assert world.anna.patch("hosts/mx1/", {"jump_host": "n4"}).status_code == 200
    longer = ("n6,acme,n6.example.com,mxfleet,acme-key,", "n4,acme,n4.example.com,mxfleet,acme-key,n6")
    assert errors(send(world.anna, csv(*longer, header=header))) == [("rows[1].jump_host", "invalid")]


@pytest.mark.parametrize("through", ["import", "put"])
def test_a_pinned_key_is_neither_changed_nor_cleared_without_its_old_fingerprint(world: World, through: str) -> None:
    Host.objects.filter(name="mx1").update(host_key=" ".join(FIRST.split()[:2]))

    def bring(**values: str) -> Any:
        whole = host("mx1", **values)
        if through == "put":
            return world.anna.put("hosts/mx1/", whole)
        return send(world.anna, json.dumps({"name": "mx1", **whole}), kind="application/x-ndjson")

    for change in ({"host_key": SECOND}, {"host_key": ""}, {"host_ca": SECOND}):
        assert errors(bring(**change))[0][1] == "pinned"
        assert errors(bring(**change, old_fingerprint="SHA256:other"))[0][1] == "pinned"
    assert bring(host_key=FIRST).status_code == 200
    assert bring(site="fra").status_code == 200
    assert Host.objects.get(name="mx1").host_key.split()[1] == FIRST.split()[1]
    rebuilt = {"host_key": SECOND, "old_fingerprint": fingerprint(FIRST)}
    assert (bring(**rebuilt).status_code, bring(**rebuilt).status_code) == (200, 200)  # the second time: the same
    assert Host.objects.get(name="mx1").host_key.split()[1] == SECOND.split()[1]


def test_a_change_by_patch_may_name_the_old_fingerprint_too(world: World) -> None:
    assert world.anna.patch("hosts/mx1/", {"host_key": FIRST}).status_code == 200
    stale = {"host_key": SECOND, "old_fingerprint": fingerprint(SECOND)}
    assert errors(world.anna.patch("hosts/mx1/", stale)) == [("old_fingerprint", "pinned")]
    assert world.anna.patch("hosts/mx1/", stale | {"old_fingerprint": fingerprint(FIRST)}).status_code == 200
    refused(world.anna.post("hosts/", {"name": "n9", **host("n9", old_fingerprint="SHA256:x")}), 422, "invalid")


def test_a_host_of_another_customer_is_never_taken_over(world: World) -> None:
    for caller in (world.anna, world.dana):  # who sees the other one, and who does not
        assert errors(send(caller, csv(row("bx1"))), code="name_taken") == [("rows[0].name", "name_taken")]
        refused(caller.put("hosts/bx1/", host("bx1")), 422, "name_taken")
    assert Host.objects.get(name="bx1").customer.slug == "beta"


def test_a_row_of_a_customer_that_the_caller_does_not_administer_is_named(world: World) -> None:
    anna, beta = Account.objects.get(username="anna"), Customer.objects.get(slug="beta")
    Role.objects.create(account=anna, role="viewer", customer=beta)
    mixed = [row("n1"), row("n2", customer="beta", credential="beta-key"), row("n3")]
    problem = refused(send(world.anna, csv(*mixed)), 403, "forbidden")
    assert [(each["field"], each["code"]) for each in problem["errors"]] == [("rows[1].customer", "forbidden")]
    assert problem["errors"][0]["detail"] == "line 3: only an administrator of beta changes that"
    answer = send(world.anna, csv(*mixed, row("n4", port="x")))
    assert errors(answer) == [("rows[1].customer", "forbidden"), ("rows[3].port", "wrong_type")]
    assert not Host.objects.filter(name__startswith="n").exists()


def test_only_an_administrator_of_each_customer_imports(world: World) -> None:
    for caller in (world.alice, world.erin, world.robot):
        refused(send(caller, csv(row("n1"))), 403, "forbidden")
    assert errors(send(world.charlie, csv(row("n1")))) == [("rows[0].customer", "invalid")]
    refused(send(world.token("anna", scopes=["fleet:read"]), csv(row("n1"))), 403, "forbidden")
    both = csv(row("n1"), row("n2", customer="beta", credential="beta-key"))
    assert send(world.dana, both).json()["new"] == ["n1", "n2"]
    assert [entry.chain for entry in imported()] == ["acme", "beta"]


def test_a_file_is_repeated_by_its_key_and_a_dry_run_is_another_request(world: World) -> None:
    content, once = csv(row("n1")), {"Idempotency_Key": "file-1"}
    first = send(world.anna, content, **once)
    again = send(world.anna, content, **once)
    assert (again.headers["Idempotency-Replayed"], again.json()) == ("true", first.json())
    refused(send(world.anna, content, "?dry_run=true", **once), 422, "idempotency_key_reused")


def test_the_customer_of_a_whole_file_stands_in_the_address(world: World) -> None:
    content = "name,address,username,credential\nn1,n1.example.com,mxfleet,acme-key\n"
    assert errors(send(world.anna, content)) == [("rows[0].customer", "required")]
    assert send(world.anna, content, "?customer=acme").json()["new"] == ["n1"]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + csv(row("n1"), row("n2")),
        csv(row("n1"), row("n2")).replace("\n", "\r\n"),
        csv(row("n1"), row("n2")).replace("\n", "\r"),
        csv(row("n1"), row("n2")).replace(",", ";"),
        csv(row("n1"), row("n2")).replace(",", "\t"),
        csv("", row("n1"), ",,,,,,,", "", row("n2"), ""),
        csv(*(",".join(f'"{cell}"' for cell in row(name).split(",")) for name in ("n1", "n2"))),
        csv(row("n1"), row("n2")).rstrip("\n"),
    ],
    ids=["BOM", "CRLF", "CR", "semicolon", "tab", "empty", "quotes", "no last line feed"],
)
def test_what_spreadsheets_write_is_read(world: World, content: str) -> None:
    assert send(world.anna, content).json()["new"] == ["n1", "n2"]


@pytest.mark.parametrize(
    ("content", "status", "field"),
    [
        ("", 422, ""),
        ("\n\n", 422, ""),
        (HEADER, 422, ""),
        (csv(row("n1"), header=HEADER.replace("site", "Site")), 422, "columns[7]"),
        (csv(row("n1"), header=HEADER.replace("site", "port")), 422, "columns[7]"),
        (csv(row("n1"), header=HEADER.replace("site", "labels")), 422, "columns[7]"),
        (csv(row("n1"), header=HEADER.replace("labels.role", "labels.a b")), 422, "columns[6]"),
        (csv(row("n1"), header=HEADER.replace("site", "")), 422, "columns[7]"),
        (csv(row("n1"), header=HEADER.replace("site", "si\0te")), 422, "columns[7]"),
        (csv(row("n1", address="a\0b")), 422, "rows[0].address"),
        (csv(row("n1", role="=1\x1b")), 422, "rows[0].labels.role"),
        (csv(row("n1", site=" fra")), 422, "rows[0].site"),
        (csv(row(" n1")), 422, "rows[0].name"),
        (csv(row("n1", port="２２")), 422, "rows[0].port"),
        (csv(row("n1", port="1e3")), 422, "rows[0].port"),
        (csv(row("n1", port="9" * 5000)), 422, "rows[0].port"),
        (csv(row("")), 422, "rows[0].name"),
        (csv(row("n1", site='a"b')), 422, "rows[0].site"),
        (csv(row("n1"), '"n2'), 422, "rows[1]"),
        (csv(row("n1"), '"n2"x,acme'), 422, "rows[1]"),
        (csv(row("n1"), "x" * 200_000), 422, "rows[1]"),
        (csv(row("n1"), "n2,acme"), 422, "rows[1]"),
        (csv(row("import")), 422, "rows[0].name"),
    ],
)
def test_a_file_that_cannot_be_is_refused_at_its_place(world: World, content: str, status: int, field: str) -> None:
    answer = send(world.anna, content)
    assert answer.status_code == status, answer.content
    assert [each["field"] for each in answer.json()["errors"]] == [field]
    assert Host.objects.count() == 2


def test_what_is_no_such_file_is_refused_whole(world: World) -> None:
    refused(send(world.anna, csv(row("n1")).encode("utf-16")), 400, "bad_request")
    body = refused(send(world.anna, csv(row("n1"), row("n\xe9")).encode("latin-1")), 400, "bad_request")
    assert "line 3" in body["detail"]
    refused(send(world.anna, csv(row("n1")), kind="text/csv; charset=latin-1"), 415, "unsupported_media_type")
    other = send(world.anna, csv(row("n1")), kind="application/json")
    refused(other, 415, "unsupported_media_type")
    assert other.json()["detail"] == "Content-Type must be text/csv or application/x-ndjson"
    refused(send(world.anna, csv(row("n1")), "?dry_run=yes"), 422, "invalid")
    refused(send(world.anna, csv(row("n1")), "?colour=red"), 400, "unknown_parameter")


def test_a_hundred_thousand_rows_are_refused_before_they_are_read(world: World, settings: Any) -> None:
    short = csv(*(f"n{number}" for number in range(100_000)), header="name")
    assert len(short) < settings.IMPORT_LIMIT
    refused(send(world.anna, short), 413, "too_large")
    refused(send(world.anna, "x" * (settings.IMPORT_LIMIT + 1)), 413, "too_large")
    problem = refused(send(world.anna, csv(*("x" for _ in range(500)), header="name")), 422, "invalid")
    assert (len(problem["errors"]), problem["more_errors"]) == (100, 1399)  # two fields, and names that stand twice


def test_a_larger_body_is_taken_at_this_address_only(world: World, settings: Any) -> None:
    settings.BODY_LIMIT = 100
    assert send(world.anna, csv(row("n1"))).status_code == 200
    refused(world.anna.post("hosts/", {"name": "n2", **host("n2")}), 413, "too_large")


def test_a_secret_has_no_column(world: World) -> None:
    assert Credential.objects.exists()
    content = csv("n1,x", header="name,private_key")
    assert errors(send(world.anna, content)) == [("columns[1]", "unknown_field")]


def test_a_name_that_is_taken_in_the_same_moment_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store = many_hosts.store

    def late(decisions: Any) -> None:
        Host.objects.create(customer=world.beta, name="n2", address="x", username="x", credential=world.bx1.credential)
        store(decisions)

    monkeypatch.setattr(many_hosts, "store", late)
    refused(send(world.anna, csv(row("n1"), row("n2"))), 422, "name_taken")
    assert not Host.objects.filter(name__in=["n1", "n2"]).exists()
    assert imported() == []
