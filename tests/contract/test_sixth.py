"""docs/adding-an-mta.md proven: a sixth adapter, written by that page, does what the contract asks of the five."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import fleet.mta
from fleet.mta.records import HostFacts
from fleet.mta.steps import Command, Completed
from fleet.ssh import quoting
from tests import toy
from tests.contract import test_contract as contract
from tests.contract import test_in_quarantine as found
from tests.contract import test_readback as readback
from tests.contract.play import Wire, carry
from tests.contract.test_contract import (
    BAD_IDS,
    CHANGES,
    MOVING,
    OF_MESSAGES,
    OPERATIONS,
    _closed,
    do,
    played,
    prepared,
)

__all__ = ["_closed"]
FOLDER = Path(toy.__file__).parent
Case = Callable[..., None]
OF_EACH: dict[tuple[str, ...], tuple[Case, ...]] = {
    OPERATIONS: (
        contract.test_success,
        contract.test_an_empty_queue_is_nothing_to_do,
        contract.test_a_refusal_of_sudo_changes_nothing,
        contract.test_garbage_is_an_error_and_changes_nothing,
        contract.test_a_cut_off_answer_is_never_taken_for_a_short_one,
    ),
    CHANGES: (contract.test_one_plan_before_the_first_change_and_a_dry_run_changes_nothing,),
    OF_MESSAGES: (
        contract.test_a_worker_that_was_overtaken_changes_nothing,
        contract.test_every_sender_is_handled_and_none_is_an_argument,
    ),
    MOVING: (
        contract.test_with_a_frozen_plan_nothing_else_is_touched,
        contract.test_another_message_under_a_planned_id_is_left_alone,
    ),
}
OF_THE_MTA: tuple[Case, ...] = (
    contract.test_sudo_takes_the_rules_with_an_environment_of_their_own,
    contract.test_what_somebody_else_held_after_our_listing_is_never_ours,
    contract.test_every_sender_is_shown_as_it_is,
    contract.test_a_field_that_the_mta_does_not_keep_is_refused_and_never_ignored,
    readback.test_mail_that_goes_into_quarantine_while_it_is_looked_for_is_found_there,
    readback.test_mail_that_comes_back_from_quarantine_while_it_is_looked_for_is_found_in_the_queue,
    readback.test_mail_that_goes_and_comes_back_while_it_is_looked_for_is_not_gone,
    readback.test_what_lies_still_is_told_as_it_lies,
    readback.test_a_deletion_read_back_counts_what_left_the_queue_and_claims_no_more,
    readback.test_a_hold_that_somebody_else_made_is_not_claimed_when_ours_is_read_back,
    readback.test_a_hold_of_ours_is_claimed_when_it_is_read_back_where_the_host_bears_our_jobs_name,
    readback.test_a_restore_frees_nothing_that_somebody_holds_since_it_came_back,
    found.test_what_a_purge_put_there_is_found_under_its_job_and_at_its_place,
    found.test_looking_is_one_reading_command_that_sudo_may_allow,
    found.test_a_refusal_garbage_and_a_cut_off_answer_are_errors,
    found.test_what_lies_outside_of_the_instances_queues_is_not_believed,
)


def supported() -> Iterator[Any]:
    for names, cases in OF_EACH.items():
        able = (name for name in names if hasattr(toy.Toy, name.replace(".", "_")))
        yield from (pytest.param(case, name, id=f"{name}-{case.__name__}") for name, case in product(able, cases))


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page has one write outside of the MTA's folder."""
    monkeypatch.setitem(fleet.mta.REGISTRY, "toy", "tests.toy.Toy")
    for path in FOLDER.glob("scripts/*.sh"):
        monkeypatch.setitem(quoting.SCRIPTS, path.name, path)


@pytest.mark.parametrize(("case", "name"), list(supported()))
def test_each_operation_of_the_sixth_does_as_those_of_the_five(case: Case, name: str, tmp_path: Path) -> None:
    case("toy", name, tmp_path)


@pytest.mark.parametrize("case", OF_THE_MTA, ids=lambda case: str(case.__name__))
def test_the_sixth_does_as_the_five(case: Case, tmp_path: Path) -> None:
    case("toy", tmp_path)


def test_the_sixth_is_described_whole_and_takes_no_other_queue_id() -> None:
    contract.test_every_operation_is_a_method_of_the_right_form_or_absent_with_a_sentence("toy")
    contract.test_every_mta_has_its_cases("toy")
    for queue_id in BAD_IDS:
        contract.test_what_looks_like_an_option_or_a_path_is_no_queue_id("toy", queue_id)


def test_what_the_daemon_has_taken_meanwhile_is_in_delivery_and_stays(tmp_path: Path) -> None:
    host = played("toy", tmp_path)
    operation = prepared(host, "queue.purge")
    queue = Path(host.instance.queue_dirs[0])

    def taken(number: int, command: Command, done: Completed) -> Completed:
        if number == 0:
            (queue / "A0000001").rename(queue / "A0000001.busy")
        return done

    ran = do(host, operation, Wire(host, taken))
    assert {each.queue_id: each.outcome for each in ran.value.messages} == {
        "A0000000": "done",
        "A0000001": "in_delivery",
        "A0000002": "done",
    }
    assert host.queued() == {"A0000001": "active"}


def test_the_sixth_is_found_by_its_own_words(tmp_path: Path) -> None:
    host = played("toy", tmp_path)
    said = []
    for done in (Completed(0, b"toyd 1.2, queue /var/spool/toy\n"), Completed(127)):
        host.answers["toyd"] = partial(_say, done)
        said.append(carry(Wire(host), toy.Toy().discover(HostFacts(), "toy1")).value)
    [one], none = said
    assert (one.id, one.version, one.queue_dirs, none) == ("toy1/toy", "1.2", ("/var/spool/toy",), ())


def _say(done: Completed, command: Command) -> Completed:
    return done


def test_an_adapter_is_less_than_four_hundred_lines() -> None:
    assert sum(path.read_text().count("\n") for path in FOLDER.rglob("*") if path.suffix in (".py", ".sh")) < 400
