"""Blocking senders on Postfix, against a host played by hand."""

import re
from dataclasses import replace

import pytest

from fleet.mta.errors import Conflict, NeedsWiring, RemoteError, Unsupported
from fleet.mta.operations import BlockList, SenderBlock, SenderUnblock
from fleet.mta.postfix import Postfix, access, blocks
from fleet.mta.records import Ended
from fleet.mta.steps import Completed
from tests.unit.list_host import CONTEXT
from tests.unit.map_hosts import LINES, MAP, OWN, SENDER, WIRED
from tests.unit.map_hosts import POSTFIX_INSTANCE as INSTANCE
from tests.unit.map_hosts import postfix_host as make_host

POSTFIX = Postfix()
BLOCK = SenderBlock(SENDER)
UNBLOCK = SenderUnblock(SENDER)
UNDO = replace(CONTEXT, undo=True)
VALUE = "550 5.7.1 Sender address blocked"
BARE = "smtpd_sender_restrictions = permit_mynetworks\n"
BEHIND = f"smtpd_sender_restrictions = check_sender_access hash:{MAP}, check_sender_access hash:{OWN}\n"


def region(*patterns: str) -> str:
    entries = "".join(f"# mxfleet:job-1 {each}\n{each}\t{VALUE}\n" for each in patterns)
    return f"# BEGIN mxfleet\n{entries}# END mxfleet\n"


def test_an_undo_leaves_the_wiring_that_was_there_before() -> None:
    host = make_host()
    host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, UNDO)).ended is Ended.SUCCEEDED
    assert (host.senders.text, host.main_cf) == (LINES, WIRED)


def test_the_first_block_wires_what_is_not_wired_and_its_undo_takes_all_of_it_back() -> None:
    host = make_host(BARE)
    result = host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert (result.ended, result.after["blocked"]["code"]) == (Ended.SUCCEEDED, "550")
    assert host.plan is not None
    assert host.plan.wiring
    assert [diff.path for diff in host.plan.diffs] == [OWN, "/etc/postfix/main.cf"]
    assert host.main_cf == BARE.replace("permit", f"check_sender_access hash:{OWN}, permit")
    assert host.own.text == access.OWN_HEAD + region(SENDER)
    listed = host.drive(POSTFIX.block_list(INSTANCE, BlockList(), CONTEXT)).data
    assert listed == {"ours": [{"pattern": SENDER, "action": "reject", "reply": VALUE}], "others": []}
    undone = host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, UNDO))
    assert (undone.ended, host.main_cf, host.own.text) == (Ended.SUCCEEDED, BARE, None)


def test_wiring_needs_its_approval_and_a_refused_one_leaves_nothing_behind() -> None:
    host = make_host(BARE)
    with pytest.raises(NeedsWiring):
        host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, replace(CONTEXT, wiring_approved=False)))
    for status, error in ((75, Conflict), (65, RemoteError)):
        host.refusal = Completed(status, stderr=b"mxfleet: postfix check refuses the new main.cf\n")
        with pytest.raises(error, match="refuses"):
            host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert (host.main_cf, host.own.text) == (BARE, None)


def test_a_wiring_after_which_the_sender_is_accepted_is_taken_back_with_the_map() -> None:
    host = make_host(BARE)
    host.judge = lambda found, sender: ""
    result = host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert (result.ended, host.main_cf, host.own.text) == (Ended.FAILED, BARE, None)


def test_restrictions_of_master_cf_are_told_and_nothing_is_changed() -> None:
    host = make_host(BARE)
    host.overrides = "smtp/inet/smtpd_sender_restrictions = reject_unknown_sender_domain permit\n"
    with pytest.raises(Conflict, match=re.escape("master.cf")) as refused:
        host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert OWN in refused.value.hint
    assert (host.changes, host.main_cf) == (0, BARE)


def test_an_undo_leaves_our_map_and_its_wiring_to_whoever_wrote_into_it() -> None:
    for when in ("before the plan", "right before the map goes"):
        host = make_host(BARE)
        host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
        if when == "before the plan":
            host.own.append("his@x.test\tREJECT")
        else:
            host.own.before[host.own.changes] = lambda found: found.append("his@x.test\tREJECT")
        assert host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, UNDO)).ended is Ended.SUCCEEDED
        assert host.own.text == f"{access.OWN_HEAD}his@x.test\tREJECT\n"
        assert ("check_sender_access" in host.main_cf) is (when == "before the plan")


def test_an_unblock_never_takes_the_wiring_and_an_undo_waits_for_the_last_block() -> None:
    host = make_host(BARE)
    for pattern in (SENDER, "other@x.test"):
        host.drive(POSTFIX.sender_block(INSTANCE, SenderBlock(pattern), CONTEXT))
    wired = host.main_cf
    assert host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, UNDO)).ended is Ended.SUCCEEDED
    assert host.drive(POSTFIX.sender_unblock(INSTANCE, SenderUnblock("other@x.test"), CONTEXT)).ended is Ended.SUCCEEDED
    assert (host.main_cf, host.own.text) == (wired, access.OWN_HEAD)


def test_a_block_that_is_there_and_refuses_nobody_is_written_again_and_fails() -> None:
    host = make_host()
    host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    host.judge = lambda found, sender: ""
    assert host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT)).ended is Ended.FAILED
    assert host.changes == 3, "written again, and what was there before put back"
    assert host.senders.text == LINES + region(SENDER)


def test_a_line_that_refuses_some_of_the_senders_only_is_a_conflict() -> None:
    host = make_host()
    host.senders.append("u@xn--exmple-cua.test\tREJECT")
    host.judge = lambda found, sender: "554 5.7.1 Access denied" if sender.startswith("u@") else ""
    with pytest.raises(Conflict):
        host.drive(POSTFIX.sender_block(INSTANCE, SenderBlock("u@ex\u00e4mple.test"), CONTEXT))
    host.senders.append("u@ex\u00e4mple.test\tREJECT")
    result = host.drive(POSTFIX.sender_block(INSTANCE, SenderBlock("u@ex\u00e4mple.test"), CONTEXT))
    assert (result.ended, len(result.data["notes"]), host.changes) == (Ended.UNCHANGED, 2, 0)


def test_a_refusal_for_now_is_none_that_makes_our_block_needless() -> None:
    host = make_host()
    host.senders.append(f"{SENDER}\tDEFER")
    host.judge = lambda found, sender: "450 4.7.1 later" if sender == SENDER else ""
    with pytest.raises(Conflict):
        host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))


def test_the_list_has_every_map_that_smtpd_asks_and_names_those_that_we_do_not_edit() -> None:
    host = make_host(
        BEHIND.replace("\n", ", check_sender_access pcre:/etc/postfix/odd\n"), access.OWN_HEAD + region(SENDER)
    )
    data = host.drive(POSTFIX.block_list(INSTANCE, BlockList(), CONTEXT)).data
    assert [each["pattern"] for each in data["ours"]] == [SENDER]
    assert data["others"] == [
        {"file": MAP, "line": "bad@one.test\tREJECT"},
        {"file": "pcre:/etc/postfix/odd", "line": "(a pcre table, not listed)"},
    ]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ("sillyplace.test", "sillyplace.test"),
        (".sillyplace.test", "sillyplace.test"),
        ("newsletter+x@sillyplace.test", None),
    ],
)
def test_another_block_of_ours_that_still_refuses_the_sender_is_told(other: str, told: str | None) -> None:
    host = make_host()
    for pattern in (other, SENDER):
        host.drive(POSTFIX.sender_block(INSTANCE, SenderBlock(pattern), CONTEXT))
    result = host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert result.ended is Ended.SUCCEEDED
    assert result.data.get("still_refused_by") == ([told] if told else None)


def test_two_blocks_under_one_key_end_one_after_the_other() -> None:
    host = make_host()
    for pattern in ("bulk.test", ".bulk.test"):
        assert host.drive(POSTFIX.sender_block(INSTANCE, SenderBlock(pattern), CONTEXT)).ended is Ended.SUCCEEDED
    first = host.drive(POSTFIX.sender_unblock(INSTANCE, SenderUnblock("bulk.test"), CONTEXT))
    assert (first.ended, first.data["still_refused_by"]) == (Ended.SUCCEEDED, ["bulk.test"])
    read = host.drive(POSTFIX.read_back(INSTANCE, SenderUnblock("bulk.test"), CONTEXT))
    assert read is not None
    assert read.ended is Ended.SUCCEEDED
    second = host.drive(POSTFIX.sender_unblock(INSTANCE, SenderUnblock(".bulk.test"), CONTEXT))
    assert (second.ended, second.data.get("still_refused_by"), host.senders.text) == (Ended.SUCCEEDED, None, LINES)


def test_a_block_in_our_map_is_found_though_somebody_put_another_map_in_front() -> None:
    host = make_host(BARE)
    host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    host.main_cf = BEHIND
    read = host.drive(POSTFIX.read_back(INSTANCE, BLOCK, CONTEXT))
    assert read is not None
    assert read.ended is Ended.SUCCEEDED
    assert host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT)).ended is Ended.SUCCEEDED
    assert host.senders.text == LINES + region(SENDER), "a block is written into the map that is asked first"
    freed = host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert (freed.ended, freed.after["blocked"]["code"]) == (Ended.SUCCEEDED, "250")
    assert (host.senders.text, host.own.text) == (LINES, access.OWN_HEAD)
    assert host.plan is not None
    assert [diff.path for diff in host.plan.diffs] == [MAP, OWN]


def test_a_map_that_smtpd_asks_after_something_else_is_listed_and_found() -> None:
    late = f"smtpd_sender_restrictions = permit_mynetworks, check_sender_access hash:{OWN}\n"
    host = make_host(late, access.OWN_HEAD + region(SENDER))
    listed = host.drive(POSTFIX.block_list(INSTANCE, BlockList(), CONTEXT)).data
    assert [each["pattern"] for each in listed["ours"]] == [SENDER]
    assert host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT)).ended is Ended.SUCCEEDED
    assert host.own.text == access.OWN_HEAD


def test_an_unwired_map_of_ours_is_no_block_that_was_done_nor_one_that_is_listed() -> None:
    host = make_host(BARE, access.OWN_HEAD + region(SENDER))
    listed = host.drive(POSTFIX.block_list(INSTANCE, BlockList(), CONTEXT)).data
    assert listed == {"ours": [], "others": []}
    read = host.drive(POSTFIX.read_back(INSTANCE, BLOCK, CONTEXT))
    assert read is not None
    assert read.ended is Ended.FAILED


@pytest.mark.parametrize("pattern", ["#x@y.test"])
def test_what_a_key_cannot_hold_is_unsupported_and_an_unblock_of_it_unchanged(pattern: str) -> None:
    host = make_host()
    with pytest.raises(Unsupported):
        host.drive(POSTFIX.sender_block(INSTANCE, SenderBlock(pattern), CONTEXT))
    assert host.drive(POSTFIX.sender_unblock(INSTANCE, SenderUnblock(pattern), CONTEXT)).ended is Ended.UNCHANGED
    assert {command.script for command in host.commands} == {"postfix_access_facts.sh"}


@pytest.mark.parametrize("why", ["no map can be built", "no server"])
def test_where_there_can_be_no_list_an_unblock_is_unchanged(why: str) -> None:
    host = make_host(BARE)
    if why == "no server":
        host.services = "== services\npickup unix n - y 60 1 pickup\n"
    else:
        host.types = "pcre texthash"
    with pytest.raises(Unsupported):
        host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    left = host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert (left.ended, len(left.data["notes"]), host.changes) == (Ended.UNCHANGED, 1, 0)


def test_sudo_needs_literal_commands_for_our_map_and_those_that_are_asked() -> None:
    found = [argv for _, argv in blocks.sudo_commands(INSTANCE)]
    maps = (("hash", OWN), ("hash", MAP), ("lmdb", "/etc/postfix/late"))
    for kind, path in maps:
        actions = [argv[1] for argv in found if argv[2:] == ("postfix", "/etc/postfix", path, kind)]
        assert actions == ["read", "query", "apply"]
    wires = [argv[1:] for argv in found if argv[0].endswith("postfix_wire.sh")]
    assert sorted(wires) == [("apply", "/etc/postfix", "hash"), ("read", "/etc/postfix", "hash")]
    assert len(found) == 3 * len(maps) + len(wires)
