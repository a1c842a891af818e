"""What every adapter must do with blocks of senders, the same cases for all."""

from dataclasses import replace
from pathlib import Path

import pytest

from fleet.mta import REGISTRY, operations
from fleet.mta.errors import Conflict, Unsupported
from fleet.mta.records import Context, Ended, Result
from fleet.mta.steps import Command, Completed
from tests.contract.document import check_told
from tests.contract.play import Host, Ran, Wire, carry
from tests.contract.test_contract import NOW, _closed, do, played

__all__ = ["_closed"]
UNBLOCK = operations.SenderUnblock("spam@bad.test")


def check_unchanged(ran: Ran) -> list[str]:
    """Nothing was done, one plan, and the notes of both are the same; returns them."""
    assert ran.error is None
    assert ran.value.ended is Ended.UNCHANGED
    assert not ran.mutated
    [(plan, _)] = ran.plans
    notes: list[str] = ran.value.data["notes"]
    assert tuple(notes) == plan.notes
    return notes


@pytest.mark.parametrize("mta", REGISTRY)
def test_an_unblock_of_what_nobody_blocked_is_unchanged(mta: str, tmp_path: Path) -> None:
    assert check_unchanged(do(played(mta, tmp_path), UNBLOCK)) == []


@pytest.mark.parametrize("mta", REGISTRY)
def test_an_unblock_of_what_the_administrator_blocked_is_unchanged_and_says_so(mta: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    host.block_by_hand("spam@bad.test")
    [note] = check_unchanged(do(host, UNBLOCK))
    assert "administrator" in note
    assert "spam@bad.test" in note


@pytest.mark.parametrize("pattern", ["<>", ".x.test", "#x@y.test", '" a"@x.test'])
@pytest.mark.parametrize("mta", REGISTRY)
def test_an_unblock_of_what_cannot_be_blocked_here_is_unchanged(mta: str, pattern: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    blocked = do(host, operations.SenderBlock(pattern), until_plan=True)
    notes = check_unchanged(do(host, operations.SenderUnblock(pattern)))
    if blocked.error is not None:
        assert isinstance(blocked.error, Unsupported)
        assert notes == [blocked.error.detail]


def no_list(number: int, command: Command, done: Completed) -> Completed:
    """What the script says of a file that it does not edit."""
    is_list = command.script == "block_file.sh" and command.argv[0] == "read"
    return Completed(66, stderr=b"mxfleet: /list is a symbolic link\n") if is_list else done


@pytest.mark.parametrize("mta", REGISTRY)
def test_where_the_list_is_none_that_we_edit_an_unblock_is_unchanged_if_the_mta_accepts_the_sender(
    mta: str, tmp_path: Path
) -> None:
    host = played(mta, tmp_path)
    assert isinstance(do(host, operations.SenderBlock("spam@bad.test"), Wire(host, no_list)).error, Unsupported)
    assert check_unchanged(do(host, UNBLOCK, Wire(host, no_list))) == ["/list is a symbolic link"]
    host.judge = lambda sender: "550 no" if sender == "spam@bad.test" else ""
    assert isinstance(do(host, UNBLOCK, Wire(host, no_list)).error, Unsupported)


@pytest.mark.parametrize(("mta", "option"), [("exim", "blacklist_file"), ("sendmail", "access_map")])
def test_where_no_list_is_at_all_an_unblock_is_unchanged(mta: str, option: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    host.instance = replace(host.instance, options={**host.instance.options, option: ""})
    assert isinstance(do(host, operations.SenderBlock("spam@bad.test")).error, Unsupported)
    [note] = check_unchanged(do(host, UNBLOCK))
    assert len(note.split()) > 3


BLOCK = operations.SenderBlock("spam@bad.test")


def blocked(mta: str, directory: Path) -> Host:
    """A host on which the sender of `BLOCK` is blocked by us."""
    host = played(mta, directory)
    assert do(host, BLOCK, wiring_approved=True).value.ended is Ended.SUCCEEDED
    return host


def read_back(host: Host, operation: operations.Operation) -> Result:
    context = Context(now=NOW, job="job-1")
    ran = carry(Wire(host), host.adapter.read_back(host.instance, operation, context))
    check_told(operation.name, ran.value)
    assert (ran.error, ran.mutated) == (None, False)
    result: Result = ran.value
    return result


@pytest.mark.parametrize("mta", REGISTRY)
def test_a_block_is_never_read_back_as_done_against_the_answer_of_the_mta(mta: str, tmp_path: Path) -> None:
    host = blocked(mta, tmp_path)
    assert read_back(host, BLOCK).ended is Ended.SUCCEEDED
    host.judge = lambda sender: ""
    assert read_back(host, BLOCK).ended is Ended.FAILED


@pytest.mark.parametrize("mta", REGISTRY)
def test_a_block_that_is_there_and_refuses_nobody_is_written_again_and_fails_unproven(mta: str, tmp_path: Path) -> None:
    host = blocked(mta, tmp_path)
    assert do(host, BLOCK).value.ended is Ended.UNCHANGED
    host.judge = lambda sender: ""
    ran = do(host, BLOCK)
    assert (ran.error, ran.mutated) == (None, True)
    assert ran.value.ended is Ended.FAILED


@pytest.mark.parametrize("mta", REGISTRY)
def test_a_block_of_what_the_administrator_refuses_is_unchanged_and_names_his_line(mta: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    host.block_by_hand(BLOCK.pattern)
    ran = do(host, BLOCK)
    assert (ran.error, ran.mutated, len(ran.plans)) == (None, False, 1)
    assert ran.value.ended is Ended.UNCHANGED
    assert ran.value.after["blocked"]["code"].startswith("5")
    [note] = ran.value.data["notes"]
    assert "administrator" in note
    assert BLOCK.pattern in note
    assert note in ran.plans[0][0].notes
    assert check_unchanged(do(host, UNBLOCK)) == [note]


@pytest.mark.parametrize("mta", REGISTRY)
def test_a_line_of_the_administrator_that_refuses_nobody_is_no_block(mta: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    host.block_by_hand(BLOCK.pattern)
    host.judge = lambda sender: ""
    ran = do(host, BLOCK)
    assert isinstance(ran.error, Conflict) or ran.value.ended is Ended.FAILED
    assert check_unchanged(do(host, UNBLOCK))


@pytest.mark.parametrize("mta", REGISTRY)
def test_an_own_domain_that_only_the_host_knew_of_is_a_conflict(mta: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    own = host.instance.options.get("own_domains", ["mx1.test"])[0]
    for pattern in (own, f".{own}"):
        ran = do(host, operations.SenderBlock(pattern), wiring_approved=True)
        assert isinstance(ran.error, Conflict)
        assert own in ran.error.detail
        assert not ran.mutated
    assert do(host, operations.SenderBlock(f"news@{own}"), until_plan=True).error is None


@pytest.mark.parametrize("mta", REGISTRY)
def test_an_unblock_is_done_though_a_wider_block_of_ours_still_refuses_the_sender(mta: str, tmp_path: Path) -> None:
    reply = blocked(mta, tmp_path / "one").judge(BLOCK.pattern)
    host = played(mta, tmp_path / "two")
    host.judge = lambda sender: reply if sender.endswith("@bad.test") else ""
    for pattern in ("bad.test", BLOCK.pattern):
        assert do(host, operations.SenderBlock(pattern), wiring_approved=True).value.ended is Ended.SUCCEEDED
    ran = do(host, UNBLOCK)
    assert ran.error is None
    assert ran.value.ended is Ended.SUCCEEDED
    [wider] = ran.value.data["still_refused_by"]
    assert wider.endswith("bad.test")
    assert not wider.endswith(BLOCK.pattern)
