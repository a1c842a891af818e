"""Reading back tells where the mail is, on every MTA, also while it moves between the two places that are read."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from fleet.mta import REGISTRY
from fleet.mta.operations import (
    Operation,
    QuarantineErase,
    QuarantineRestore,
    QueueHold,
    QueueList,
    QueuePurge,
    Selection,
)
from fleet.mta.records import Context, Ended, Fingerprint, Result
from fleet.mta.steps import Command, Completed
from tests.contract.document import check_told
from tests.contract.play import Host, Ran, Wire, carry
from tests.contract.test_contract import ALL, NOW, _closed, do, played, quarantined

__all__ = ["_closed"]

EVERY = pytest.mark.parametrize("mta", REGISTRY)
PURGE = QueuePurge(Selection(ALL))
HOLD = QueueHold(Selection(ALL))
NAMES_OF_JOBS = frozenset({"sendmail"})
"""MTAs on whose hosts a hold of ours has the job's name on it."""
DELETE = QueuePurge(Selection(ALL), mode="delete")


@dataclass
class Moving(Wire):
    """`before`: what happens on the host right before the command of that number reaches it."""

    before: dict[int, Callable[[], Ran]] = field(default_factory=dict)

    async def run(self, command: Command) -> Completed:
        if moves := self.before.pop(len(self.commands), None):
            with ThreadPoolExecutor(1) as pool:  # it has an event loop of its own
                assert pool.submit(moves).result().error is None
        return await super().run(command)


def read_back(
    host: Host,
    operation: Operation,
    frozen: tuple[Fingerprint, ...] | None = None,
    before: dict[int, Callable[[], Ran]] | None = None,
) -> Result:
    return read(host, operation, frozen, before).value


def read(
    host: Host,
    operation: Operation,
    frozen: tuple[Fingerprint, ...] | None = None,
    before: dict[int, Callable[[], Ran]] | None = None,
) -> Ran:
    wire = Moving(host, before=before or {})
    context = Context(now=NOW, job="job-1", frozen=frozen)
    ran = carry(wire, host.adapter.read_back(host.instance, operation, context))
    check_told(operation.name, ran.value)
    assert ran.error is None
    assert not wire.before, "it looked fewer times than the mail moved"
    assert not ran.mutated
    return ran


def moments(ran: Ran) -> range:
    """Between which of its commands mail can move."""
    assert len(ran.commands) > 1, "two places are read"
    return range(1, len(ran.commands))


def outcomes(result: Result) -> set[str]:
    return {each.outcome for each in result.messages}


def planned(host: Host, operation: Operation) -> tuple[Fingerprint, ...]:
    return do(host, operation, until_plan=True).value.selected


@EVERY
def test_mail_that_goes_into_quarantine_while_it_is_looked_for_is_found_there(mta: str, tmp_path: Path) -> None:
    still = played(mta, tmp_path / "still")
    for at in moments(read(still, PURGE, planned(still, PURGE))):
        host = played(mta, tmp_path / str(at))
        frozen = planned(host, PURGE)
        told = read_back(host, PURGE, frozen, {at: partial(do, host, PURGE, frozen=frozen)})
        assert host.queued() == {}
        assert (told.ended, outcomes(told)) == (Ended.SUCCEEDED, {"done"})
        assert set(told.data["places"]) == {each.queue_id for each in frozen}


@EVERY
def test_mail_that_comes_back_from_quarantine_while_it_is_looked_for_is_found_in_the_queue(
    mta: str, tmp_path: Path
) -> None:
    still = played(mta, tmp_path / "still")
    for at in moments(read(still, QuarantineRestore(quarantined(still)))):
        host = played(mta, tmp_path / str(at))
        restore = QuarantineRestore(quarantined(host))
        told = read_back(host, restore, before={at: partial(do, host, restore)})
        assert len(host.queued()) == 3
        assert (told.ended, outcomes(told)) == (Ended.SUCCEEDED, {"done"})


@EVERY
def test_mail_that_goes_and_comes_back_while_it_is_looked_for_is_not_gone(mta: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    frozen = planned(host, PURGE)
    restore = QuarantineRestore(quarantined(host))
    told = read_back(host, PURGE, frozen, {1: partial(do, host, restore)})
    assert len(host.queued()) == 3
    assert (told.ended, outcomes(told), told.data["places"]) == (Ended.FAILED, {"left"}, {})


@EVERY
def test_what_lies_still_is_told_as_it_lies(mta: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    frozen = planned(host, PURGE)
    assert outcomes(read_back(host, PURGE, frozen)) == {"left"}
    items = quarantined(host)
    assert outcomes(read_back(host, PURGE, frozen)) == {"done"}
    assert outcomes(read_back(host, QuarantineErase(items))) == {"left"}
    assert outcomes(read_back(host, QuarantineRestore(items))) == {"left"}
    assert do(host, QuarantineErase(items)).error is None
    assert outcomes(read_back(host, QuarantineErase(items))) == {"done"}
    assert outcomes(read_back(host, QuarantineRestore(items))) == {"already_gone"}
    assert outcomes(read_back(host, PURGE, frozen)) == {"already_gone"}


@EVERY
def test_what_was_put_back_into_the_queue_is_not_told_as_erased(mta: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    items = quarantined(host)
    assert do(host, QuarantineRestore(items)).error is None
    assert len(host.queued()) == 3
    assert outcomes(read_back(host, QuarantineErase(items))) == {"already_gone"}


@EVERY
def test_a_deletion_read_back_counts_what_left_the_queue_and_claims_no_more(mta: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    frozen = planned(host, DELETE)
    assert outcomes(read_back(host, DELETE, frozen)) == {"left"}
    done = do(host, DELETE, frozen=frozen[:2]).value
    assert (done.data["done"], done.data["left_queue"]) == (2, 0)
    told = read_back(host, DELETE, frozen)
    assert {name: told.data[name] for name in ("asked", "done", "left_queue", "already_gone", "left")} == {
        "asked": 3,
        "done": 0,
        "left_queue": 2,
        "already_gone": 0,
        "left": 1,
    }
    gone = read_back(host, DELETE, frozen[:2])
    assert (gone.ended, outcomes(gone)) == (Ended.SUCCEEDED, {"left_queue"})
    assert "or delivered" in gone.data["notes"][0]


@EVERY
def test_a_hold_that_somebody_else_made_is_not_claimed_when_ours_is_read_back(mta: str, tmp_path: Path) -> None:
    """Or a release, or an undo, of ours would free it."""
    host = played(mta, tmp_path)
    frozen = planned(host, HOLD)
    assert do(host, HOLD, job="job-2").value.data["done"] == 3
    told = read_back(host, HOLD, frozen)
    assert (told.ended, told.messages, told.data["already"]) == (Ended.UNCHANGED, (), 3)
    assert told.data["held"] == []
    assert "3 messages are on hold" in told.data["notes"][-1]


@EVERY
def test_a_hold_of_ours_is_claimed_when_it_is_read_back_where_the_host_bears_our_jobs_name(
    mta: str, tmp_path: Path
) -> None:
    host = played(mta, tmp_path)
    frozen = planned(host, HOLD)
    assert outcomes(read_back(host, HOLD, frozen)) == {"left"}
    assert do(host, HOLD, frozen=frozen[:2]).value.data["done"] == 2
    told = read_back(host, HOLD, frozen)
    claimed = 2 if mta in NAMES_OF_JOBS else 0
    assert (told.data["done"], told.data["already"], told.data["left"]) == (claimed, 2 - claimed, 1)


@EVERY
def test_a_restore_frees_nothing_that_somebody_holds_since_it_came_back(mta: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    restore = QuarantineRestore(quarantined(host))
    assert do(host, restore, undo=True).value.data["done"] == 3
    assert do(host, HOLD, job="job-2").value.data["done"] == 3
    assert do(host, restore, undo=True).error is None
    entries = do(host, QueueList(ALL)).value.data["entries"]
    assert [each["state"] for each in entries] == ["hold"] * 3


def test_what_exims_links_left_in_both_queues_is_the_queues(tmp_path: Path) -> None:
    host = played("exim", tmp_path)
    frozen = planned(host, PURGE)
    items = quarantined(host)
    spool = Path(host.instance.queue_dirs[0])
    for path in spool.glob("mxfleet-*/input/*-[HD]"):
        os.link(path, spool / "input" / path.name)
    assert outcomes(read_back(host, PURGE, frozen)) == {"left"}
    assert outcomes(read_back(host, QuarantineRestore(items))) == {"done"}
    assert outcomes(read_back(host, QuarantineErase(items))) == {"left"}


@pytest.mark.parametrize("mta", REGISTRY)
def test_a_restore_names_what_lies_nowhere(mta: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    items = quarantined(host)
    assert do(host, QuarantineErase(items)).error is None
    ran = do(host, QuarantineRestore(items))
    assert outcomes(ran.value) == {"already_gone"}
    [note] = [note for note in ran.value.data["notes"] if note.startswith("neither in the quarantine nor in the queue")]
    assert all(item.queue_id in note for item in items)
