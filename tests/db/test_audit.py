"""The audit trail is written together with what it tells of, or neither is."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from fleet.models import Customer
from jobs.actor import Actor
from jobs.audit import trail
from jobs.audit.trail import Entry, append, verify
from jobs.errors import Unavailable
from jobs.models import Account, AuditChain, AuditEvent
from tests.db.triggers import run

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> Actor:
    return Actor(Account.objects.create_user("alice"), channel="slack", source="192.0.2.7", on_behalf_of="U123")


def test_an_entry_tells_who_did_what_by_which_way(alice: Actor) -> None:
    job = uuid4()
    append(Entry("acme", "job.submitted", alice, object="queue.purge", job=job, data={"planned": 3}))
    row = AuditEvent.objects.get()
    assert (row.chain, row.seq, row.actor, row.on_behalf_of) == ("acme", 1, "alice", "U123")
    assert (row.channel, row.source, row.action, row.object) == ("slack", "192.0.2.7", "job.submitted", "queue.purge")
    assert (row.job, row.data, row.prev_hash) == (job, {"planned": 3}, "")


def test_each_chain_counts_for_itself_and_each_entry_names_the_one_before() -> None:
    append(Entry("b", "x.done", None), Entry("a", "x.done", None), Entry("b", "y.done", None))
    append(Entry("", "z.done", None), Entry("b", "z.done", None))
    rows = list(AuditEvent.objects.order_by("chain", "seq"))
    assert [(row.chain, row.seq) for row in rows] == [("", 1), ("a", 1), ("b", 1), ("b", 2), ("b", 3)]
    assert [row.prev_hash for row in rows[2:]] == ["", rows[2].hash, rows[3].hash]
    assert verify().checked == 5


def test_the_hash_is_the_documented_one() -> None:
    append(Entry("acme", "x.done", None, data={"b": [1.0, None, True], "a": 'é"\n\x1f'}))
    row = AuditEvent.objects.get()
    at = row.at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    text = (
        '{"action":"x.done","actor":"","at":"' + at + '","chain":"acme","channel":"",'
        '"data":{"a":"é\\"\\n\\u001f","b":[1,null,true]},"job":null,"object":"","on_behalf_of":"","seq":1,"source":""}'
    )
    assert row.hash == hashlib.sha256(b"mxfleet-audit-v1\n" + text.encode()).hexdigest()


def test_a_thousand_entries_take_few_statements() -> None:
    with CaptureQueriesContext(connection) as queries:
        append(*(Entry("acme" if number % 2 else "", "run.ended", None) for number in range(1000)))
    assert AuditEvent.objects.count() == 1000
    # SQLite binds at most 999 values in a statement, so Django cuts the insert into pieces of 76 rows.
    assert len(queries) <= (25 if connection.vendor == "sqlite" else 8)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**53 + 1, -(2**60), object(), b"x", {1: 2}, {"a": [{1}]}]
)
def test_data_that_json_cannot_carry_everywhere_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="audit data"):
        append(Entry("acme", "x.done", None, data={"value": value}))
    assert not AuditEvent.objects.exists()


ODD_DATA = {
    "whole": 1.0,
    "half": 0.5,
    "time": datetime(2026, 11, 20, 13, 0, tzinfo=UTC),
    "id": UUID(int=1),
    "tiny": 0.00001,
    "minus zero": -0.0,
    "big": 2**53,
    "none": None,
    "nested": [{"ü": ("a", True)}],
    "nul": "a\0b",
    "byte": "caf\udce9",
    "lone": "\ud800",
    "face": "😀",
    "😀": 1,
}


def test_odd_text_and_numbers_are_kept_so_that_they_still_verify_after_the_database_gave_them_back() -> None:
    append(Entry("acme", "x.done", None, object="a\0b\udcff", data=ODD_DATA))
    row = AuditEvent.objects.get()
    assert row.object == "a\\x00b\\xff"
    assert row.data["nul"] == "a\\x00b"
    assert (row.data["byte"], row.data["lone"], row.data["face"]) == ("caf\\xe9", "\\ud800", "😀")
    assert row.data["tiny"] == "1e-05"
    assert row.data["time"] == "2026-11-20T13:00:00.000000Z"
    assert row.data["\\U0001f600"] == 1
    assert verify().ok


def test_a_long_name_is_shortened_rather_than_the_act_not_recorded(alice: Actor) -> None:
    long = Actor(alice.account, source="s" * 300, on_behalf_of="o" * 300)
    append(Entry("acme", "x.done", long, object="n" * 300))
    row = AuditEvent.objects.get()
    assert (len(row.object), len(row.source), len(row.on_behalf_of)) == (200, 64, 63)
    assert row.object.endswith("n…")
    assert verify().ok


@pytest.mark.django_db(transaction=True)
def test_an_entry_outside_of_a_transaction_is_refused() -> None:
    with pytest.raises(transaction.TransactionManagementError, match=r"transaction\.atomic"):
        append(Entry("acme", "x.done", None))


@pytest.mark.django_db(transaction=True)
def test_an_entry_goes_when_the_act_that_it_tells_of_is_rolled_back() -> None:
    with transaction.atomic():
        append(Entry("acme", "x.done", None))
        transaction.set_rollback(True)
    with transaction.atomic():
        append(Entry("acme", "y.done", None))
    assert [row.action for row in AuditEvent.objects.all()] == ["y.done"]
    assert verify().ok


@transaction.atomic
def create_customer() -> None:
    Customer.objects.create(slug="acme", name="Acme")
    append(Entry("acme", "customer.created", None))


@pytest.mark.django_db(transaction=True)
def test_when_the_record_cannot_be_written_the_act_does_not_happen_either() -> None:
    block = {
        "sqlite": ["CREATE TRIGGER full BEFORE INSERT ON jobs_auditevent BEGIN SELECT RAISE(ABORT, 'disk full'); END"],
        "postgresql": ["ALTER TABLE jobs_auditevent ADD CONSTRAINT full_disk CHECK (seq < 0)"],
    }
    unblock = {
        "sqlite": ["DROP TRIGGER full"],
        "postgresql": ["ALTER TABLE jobs_auditevent DROP CONSTRAINT full_disk"],
    }
    run(connection, block[connection.vendor])
    try:
        with pytest.raises(Unavailable) as caught:
            create_customer()
    finally:
        run(connection, unblock[connection.vendor])
    assert caught.value.code == "audit_unavailable"
    assert not Customer.objects.exists()
    assert not AuditChain.objects.exists()


def append_while_blocked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(trail, "LOCK_WAIT", "100ms")
    try:
        with transaction.atomic():
            append(Entry("acme", "x.done", None))
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_a_blocked_trail_makes_the_act_fail_soon_instead_of_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    with transaction.atomic():
        append(Entry("acme", "x.done", None))
        if connection.vendor == "sqlite":
            # There the act waits at BEGIN already, before it could do anything.
            connection.settings_dict["OPTIONS"]["timeout"], kept = 0.1, connection.settings_dict["OPTIONS"]["timeout"]
        try:
            with ThreadPoolExecutor(1) as pool, pytest.raises((Unavailable, OperationalError)):
                pool.submit(append_while_blocked, monkeypatch).result(5)
        finally:
            if connection.vendor == "sqlite":
                connection.settings_dict["OPTIONS"]["timeout"] = kept
    assert AuditEvent.objects.count() == 1


def append_from_thread(number: int) -> None:
    names = ["acme", "globex", "", f"new{number}"]
    try:
        for turn in range(10):
            order = names if (number + turn) % 2 else names[::-1]
            with transaction.atomic():
                append(*(Entry(name, "x.done", None, data={"thread": number, "turn": turn}) for name in order))
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_writers_at_once_leave_whole_chains() -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(append_from_thread, range(4)))
    verdict = verify()
    assert (verdict.ok, verdict.checked) == (True, 4 * 10 * 4)
