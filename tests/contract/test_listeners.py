"""What holds for every MTA: a block is proven at each listener of strangers, an unblock says who still refuses."""

from pathlib import Path

import pytest

from fleet.mta.operations import SenderBlock, SenderUnblock
from fleet.mta.records import Ended
from fleet.mta.table import REGISTRY
from tests.contract.play import HOST_ADDRESS, Host
from tests.contract.test_blocks import BLOCK, UNBLOCK, blocked, check_unchanged, read_back
from tests.contract.test_contract import _closed, do, played

__all__ = ["_closed"]
SECOND = "192.0.2.10"
FOREIGN = "554 5.7.1 no mail from here"
SENDER = BLOCK.pattern


def at_two(mta: str, directory: Path, second: str = SECOND) -> Host:
    host = played(mta, directory)
    host.listen_at(second)
    return host


@pytest.mark.parametrize("mta", REGISTRY)
def test_a_block_is_proven_at_each_listener_and_the_evidence_names_them(mta: str, tmp_path: Path) -> None:
    ran = do(at_two(mta, tmp_path), BLOCK, wiring_approved=True)
    assert ran.value.ended is Ended.SUCCEEDED
    found = ran.value.after["listeners"]
    assert [(each["address"], each["port"]) for each in found] == [(HOST_ADDRESS, 25), (SECOND, 25)]
    assert all(each["reply"].startswith("55") for each in found)


@pytest.mark.parametrize("mta", REGISTRY)
def test_a_listener_that_refuses_nobody_has_the_block_taken_back_and_is_named(mta: str, tmp_path: Path) -> None:
    host = at_two(mta, tmp_path)
    host.unguarded = SECOND
    ran = do(host, BLOCK, wiring_approved=True)
    assert ran.value.ended is Ended.FAILED
    assert f"{SECOND} port 25" in ran.value.error.detail
    assert "taken back" in ran.value.error.detail
    assert host.judge(SENDER) == ""
    assert read_back(host, BLOCK).ended is Ended.FAILED


@pytest.mark.parametrize("mta", REGISTRY)
def test_a_listener_that_only_this_host_reaches_is_told_and_decides_nothing(mta: str, tmp_path: Path) -> None:
    host = at_two(mta, tmp_path, "127.0.0.2")
    host.unguarded = "127.0.0.2"
    ran = do(host, BLOCK, wiring_approved=True)
    assert ran.value.ended is Ended.SUCCEEDED
    [inner] = [each for each in ran.value.after["listeners"] if each["address"] == "127.0.0.2"]
    assert "not asked" in inner["not_asked"]
    assert any("127.0.0.2 port 25" in note for note in ran.plans[0][0].notes)


@pytest.mark.parametrize("mta", REGISTRY)
def test_an_answer_of_several_lines_is_judged_by_all_of_them(mta: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    answer = host.judge

    def with_footer(sender: str) -> str:
        *before, last = answer(sender).split("\n")
        return "\n".join([*before, f"{last[:3]}-{last[4:]}", f"{last[:3]} call 555"]) if last else ""

    host.judge = with_footer
    assert do(host, BLOCK, wiring_approved=True).value.ended is Ended.SUCCEEDED
    assert read_back(host, BLOCK).ended is Ended.SUCCEEDED
    host.judge = answer
    assert "still_refused_by" not in do(host, UNBLOCK).value.data


@pytest.mark.parametrize("mta", REGISTRY)
def test_an_unblock_whose_sender_somebody_else_refuses_is_never_a_plain_success(mta: str, tmp_path: Path) -> None:
    host = blocked(mta, tmp_path)
    host.judge = lambda sender: FOREIGN if sender == SENDER else ""
    ran = do(host, UNBLOCK)
    assert (ran.value.ended, ran.value.data["still_refused_by"]) == (Ended.SUCCEEDED, ["not ours"])
    assert FOREIGN in ran.value.data["notes"][0]
    read = read_back(host, UNBLOCK)
    assert (read.ended, read.data["still_refused_by"]) == (Ended.SUCCEEDED, ["not ours"])


@pytest.mark.parametrize("pattern", [SENDER, "bad.test", "#x@y.test", '" a"@x.test', "<>"])
@pytest.mark.parametrize("mta", REGISTRY)
def test_an_unblock_that_finds_nothing_of_ours_says_who_refuses(mta: str, pattern: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    host.judge = lambda sender: "" if "-control@" in sender else FOREIGN
    ran = do(host, SenderUnblock(pattern))
    assert any(FOREIGN in note for note in check_unchanged(ran))
    assert ran.value.data["still_refused_by"] == ["not ours"]


@pytest.mark.parametrize(("mta", "option"), [("exim", "blacklist_file"), ("sendmail", "access_map")])
def test_where_no_list_can_be_an_unblock_says_who_refuses_too(mta: str, option: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    host.instance.options[option] = ""
    host.instance.options["listen"] = [["0.0.0.0", 25]]
    host.judge = lambda sender: FOREIGN if sender == SENDER else ""
    ran = do(host, UNBLOCK)
    assert any(FOREIGN in note and HOST_ADDRESS in note for note in check_unchanged(ran))
    assert ran.value.data["still_refused_by"] == ["not ours"]


@pytest.mark.parametrize("mta", REGISTRY)
def test_a_wider_block_of_ours_is_named_with_the_answer_also_where_ours_is_gone_already(
    mta: str, tmp_path: Path
) -> None:
    host = blocked(mta, tmp_path)
    reply = host.judge(SENDER)
    host.judge = lambda sender: reply if sender.endswith("@bad.test") else ""
    assert do(host, SenderBlock("bad.test"), wiring_approved=True).value.ended is Ended.SUCCEEDED
    for ended in (Ended.SUCCEEDED, Ended.UNCHANGED):
        ran = do(host, UNBLOCK)
        assert ran.value.ended is ended
        [key] = ran.value.data["still_refused_by"]
        assert key.endswith("bad.test")
        assert ran.value.data["notes"][-1].endswith("our block of bad.test")
