"""Blocking senders on Postfix, against a host played by hand."""

import re
from dataclasses import dataclass, field, replace
from hashlib import sha256

import pytest

from fleet.mta.errors import Conflict, DiskFull, NeedsWiring, RemoteError, UnparsedOutput, Unsupported
from fleet.mta.operations import BlockList, SenderBlock, SenderUnblock
from fleet.mta.postfix import Postfix, access, blocks
from fleet.mta.records import Ended, InstanceFacts
from fleet.mta.steps import Command, Completed
from tests.unit.list_host import CONTEXT, ListHost

POSTFIX = Postfix()
SENDER = "newsletter@sillyplace.test"
BLOCK = SenderBlock(SENDER)
UNBLOCK = SenderUnblock(SENDER)
UNDO = replace(CONTEXT, undo=True)
VALUE = "550 5.7.1 Sender address blocked"
MAP = "/etc/postfix/senders"
OWN = "/etc/postfix/mxfleet_senders"
LINES = "# mine\nbad@one.test\tREJECT\n"
WIRED = f"smtpd_sender_restrictions = check_sender_access hash:{MAP}, permit_mynetworks\n"
BARE = "smtpd_sender_restrictions = permit_mynetworks\n"
BEHIND = f"smtpd_sender_restrictions = check_sender_access hash:{MAP}, check_sender_access hash:{OWN}\n"
INSTANCE = InstanceFacts(
    "pf1",
    "postfix",
    "postfix",
    "3.7.11",
    "/etc/postfix",
    ("/var/spool/postfix",),
    options={
        "default_database_type": "hash",
        "smtpd_sender_restrictions": f"check_sender_access hash:{MAP}, check_sender_access lmdb:/etc/postfix/late",
    },
)
SETTINGS = """parent_domain_matches_subdomains = smtpd_access_maps
smtpd_null_access_lookup_key = <>
recipient_delimiter = +
smtputf8_enable = yes
default_database_type = hash
inet_interfaces = all
myhostname = pf1.lab.test
mydestination = localhost, pf1.lab.test
relay_domains = ok.test
"""
MASTER = "== services\nsmtp inet n - y - - smtpd\n"


def looked_up(host: ListHost, sender: str) -> str:
    """What smtpd finds in the maps that main.cf has it ask, in their order."""
    assert isinstance(host, Smtpd)
    local, _, domain = sender.rpartition("@")
    labels = domain.split(".")
    keys = [sender, f"{local.partition('+')[0]}@{domain}", *(".".join(labels[at:]) for at in range(len(labels)))]
    for path in re.findall(r"check_sender_access hash:([^ ,\n]+)", host.main_cf):
        entries = host.maps[path].map
        code, _, text = next((entries[key] for key in keys if key in entries), "").partition(" 5.7.1 ")
        if code.isdigit():
            return f"{code} 5.7.1 <{sender}>: Sender address rejected: {text}"
    return ""


def make_map(text: str | None) -> ListHost:
    found = ListHost(looked_up, text, has_map=True)
    found.map = {line.split("\t")[0]: line.split("\t")[1] for line in (text or "").splitlines() if "\t" in line}
    return found


@dataclass
class Smtpd(ListHost):
    """`maps` by path. `overrides`: what master.cf sets for the service. `refusal`: of postfix_wire.sh."""

    main_cf: str = WIRED
    maps: dict[str, ListHost] = field(default_factory=lambda: {MAP: make_map(LINES), OWN: make_map(None)})
    overrides: str = ""
    types: str = "hash"
    services: str = MASTER
    refusal: Completed | None = None

    @property
    def senders(self) -> ListHost:
        return self.maps[MAP]

    @property
    def own(self) -> ListHost:
        return self.maps[OWN]

    def _answer(self, command: Command) -> Completed:
        if command.script == "postfix_access_facts.sh":
            sections = f"{self.services}== overrides\n{self.overrides}== types\n{self.types}\n== addresses\n192.0.2.9\n"
            return Completed(0, f"== settings\n{SETTINGS}{self.main_cf}{sections}== end\n".encode())
        if command.script == "postfix_wire.sh":
            return self._wire(command)
        if command.script == "block_file.sh":
            assert command.argv[1:3] == ("postfix", "/etc/postfix")
            self.changes += command.mutates
            return self.maps[command.argv[3]]._answer(command)
        return super()._answer(command)

    def _wire(self, command: Command) -> Completed:
        digest = sha256(self.main_cf.encode()).hexdigest()
        if command.argv[0] == "read":
            return Completed(0, f"{digest} fits\n{self.main_cf}".encode())
        planned, wanted, text = command.stdin.decode().split("\n", 2)
        assert wanted == sha256(text.encode()).hexdigest()
        if planned != digest:
            return Completed(76, stderr=b"mxfleet: main.cf was changed meanwhile\n")
        if self.refusal is None:
            self.main_cf = text
        return self.refusal or Completed(0, f"applied {wanted}\n".encode())


def make_host(main_cf: str = WIRED, own: str | None = None) -> Smtpd:
    host = Smtpd(looked_up, main_cf=main_cf)
    host.maps[OWN] = make_map(own)
    return host


def region(*patterns: str) -> str:
    entries = "".join(f"# mxfleet:job-1 {each}\n{each}\t{VALUE}\n" for each in patterns)
    return f"# BEGIN mxfleet\n{entries}# END mxfleet\n"


def test_a_block_is_proven_and_its_undo_gives_back_every_byte() -> None:
    host = make_host()
    result = host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert result.ended is Ended.SUCCEEDED
    assert result.data == {"pattern": SENDER, "map": f"hash:{MAP}", "keys": [SENDER]}
    assert (result.before["blocked"]["code"], result.before["lookup"]) == ("250", None)
    assert result.after["blocked"]["text"].endswith("Sender address rejected: Sender address blocked")
    assert result.after["lookup"] == VALUE
    assert host.senders.text == LINES + region(SENDER)
    freed = host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, UNDO))
    assert (freed.ended, freed.after["blocked"]["code"], freed.after["lookup"]) == (Ended.SUCCEEDED, "250", None)
    assert (host.senders.text, host.main_cf) == (LINES, WIRED)


def test_the_plan_shows_the_diff_and_what_the_block_means_here() -> None:
    host = make_host()
    plan = host.plan_of(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert f"+{SENDER}\t{VALUE}" in plan.diffs[0].unified
    script = "/usr/local/libexec/mxfleet/block_file.sh"
    assert plan.commands == ((script, "apply", "postfix", "/etc/postfix", MAP, "hash"),)
    assert any("newsletter+x@sillyplace.test" in note for note in plan.notes)
    assert (host.changes, plan.wiring) == (0, False)


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


def test_a_block_that_stands_there_already_is_unchanged() -> None:
    host = make_host()
    host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT)).ended is Ended.UNCHANGED
    assert host.changes == 1


def test_a_block_that_is_there_and_refuses_nobody_is_written_again_and_fails() -> None:
    host = make_host()
    host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    host.judge = lambda found, sender: ""
    assert host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT)).ended is Ended.FAILED
    assert host.changes == 3, "written again, and what was there before put back"
    assert host.senders.text == LINES + region(SENDER)


def test_a_line_of_the_administrator_for_the_same_sender_is_a_conflict() -> None:
    host = make_host()
    host.senders.append(f"{SENDER}\tOK")
    with pytest.raises(Conflict) as caught:
        host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert caught.value.data["line"] == 3
    left = host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert (left.ended, len(left.data["notes"])) == (Ended.UNCHANGED, 1)
    assert host.changes == 0


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


def test_a_source_that_is_newer_than_its_map_hinders_only_what_would_build_it() -> None:
    host = make_host()
    host.senders.is_stale = True
    with pytest.raises(Conflict, match="older") as refused:
        host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert f"postmap hash:{MAP}" in refused.value.hint
    assert host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT)).ended is Ended.UNCHANGED
    assert host.changes == 0


def test_an_administrators_edit_between_reading_and_writing_is_kept() -> None:
    host = make_host()
    host.senders.before[0] = lambda found: found.append("late@x.test\tREJECT")
    assert host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT)).ended is Ended.SUCCEEDED
    assert host.senders.text == f"{LINES}late@x.test\tREJECT\n{region(SENDER)}"


def test_a_sender_that_was_refused_before_is_not_claimed_as_proven() -> None:
    host = make_host()
    host.judge = lambda found, sender: "550 5.1.8 no such domain" if sender == SENDER else ""
    result = host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert (result.ended, result.after["lookup"]) == (Ended.SUCCEEDED, VALUE)
    assert "refused before the block too" in result.after["not_provable"]


def test_where_no_control_is_accepted_the_map_decides() -> None:
    host = make_host()
    host.control = "550 5.1.1 user unknown"
    result = host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert (result.ended, result.after["lookup"]) == (Ended.SUCCEEDED, VALUE)
    assert "no control sender was accepted" in result.after["not_provable"]


def test_a_discard_is_read_back_in_the_map_and_listed_with_its_text() -> None:
    host = make_host()
    result = host.drive(POSTFIX.sender_block(INSTANCE, replace(BLOCK, action="discard"), CONTEXT))
    assert (result.ended, result.after["lookup"]) == (Ended.SUCCEEDED, "DISCARD Sender address blocked")
    assert "discarded" in result.after["not_provable"]
    listed = host.drive(POSTFIX.block_list(INSTANCE, BlockList(), CONTEXT)).data["ours"]
    assert listed == [{"pattern": SENDER, "action": "discard", "reply": "Sender address blocked"}]
    assert host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT)).ended is Ended.SUCCEEDED


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


def test_an_unblock_after_which_the_sender_is_still_refused_fails() -> None:
    host = make_host()
    host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    reply = f"550 5.7.1 <{SENDER}>: Sender address rejected: Sender address blocked"
    host.judge = lambda found, sender: reply if sender == SENDER else ""
    assert host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT)).ended is Ended.FAILED


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


def test_reading_back_tells_what_was_done() -> None:
    host = make_host()
    assert host.plan_of(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))

    def read(operation: SenderBlock | SenderUnblock) -> Ended:
        result = host.drive(POSTFIX.read_back(INSTANCE, operation, CONTEXT))
        assert result is not None
        return result.ended

    assert (read(BLOCK), read(UNBLOCK)) == (Ended.FAILED, Ended.SUCCEEDED)
    host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert (read(BLOCK), read(UNBLOCK)) == (Ended.SUCCEEDED, Ended.FAILED)
    answer, host.judge = host.judge, lambda found, sender: ""
    assert read(BLOCK) is Ended.FAILED, "the entry is there, and the MTA accepts the sender"
    host.judge, host.senders.map = answer, {}
    assert read(BLOCK) is Ended.FAILED
    assert host.drive(POSTFIX.read_back(INSTANCE, BlockList(), CONTEXT)) is None


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


def test_a_full_disk_and_other_failures_of_the_script_are_named() -> None:
    full = Completed(73, stderr=b"cat: write error: No space left on device\nmxfleet: cannot write\n")
    for done, error in (
        (full, DiskFull),
        (Completed(75, stderr=b"mxfleet: another change is running\n"), Conflict),
        (Completed(65, stderr=b"mxfleet: the new map lacks entries\n"), RemoteError),
        (Completed(66, stderr=b"mxfleet: no list\n"), Unsupported),
        (Completed(0), UnparsedOutput),
    ):
        host = make_host()
        host.senders.fails[0] = done
        with pytest.raises(error):
            host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
        assert host.senders.text == LINES


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


def test_an_own_domain_is_not_blocked() -> None:
    with pytest.raises(Conflict):
        make_host().drive(POSTFIX.sender_block(INSTANCE, SenderBlock("pf1.lab.test"), CONTEXT))


def test_sudo_needs_literal_commands_for_our_map_and_those_that_are_asked() -> None:
    found = [argv for _, argv in blocks.sudo_commands(INSTANCE)]
    maps = (("hash", OWN), ("hash", MAP), ("lmdb", "/etc/postfix/late"))
    for kind, path in maps:
        actions = [argv[1] for argv in found if argv[2:] == ("postfix", "/etc/postfix", path, kind)]
        assert actions == ["read", "query", "apply"]
    wires = [argv[1:] for argv in found if argv[0].endswith("postfix_wire.sh")]
    assert sorted(wires) == [("apply", "/etc/postfix", "hash"), ("read", "/etc/postfix", "hash")]
    assert len(found) == 3 * len(maps) + len(wires)
