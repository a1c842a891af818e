"""Blocking senders on Sendmail, against a host played by hand."""

import re
from dataclasses import replace

import pytest

from fleet.mta.address import parse_block_pattern
from fleet.mta.errors import Conflict, DiskFull, RemoteError, UnparsedOutput, Unsupported
from fleet.mta.operations import BlockList, SenderBlock, SenderUnblock
from fleet.mta.records import Ended, InstanceFacts
from fleet.mta.sendmail import Sendmail, access, blocks
from fleet.mta.steps import Completed
from tests.unit.list_host import CONTEXT, ListHost

SENDMAIL = Sendmail()
SENDER = "newsletter@sillyplace.test"
BLOCK = SenderBlock(SENDER)
UNBLOCK = SenderUnblock(SENDER)
KEY = f"from:{SENDER}"
VALUE = 'ERROR:5.7.1:"550 Sender address blocked"'
LINES = "Connect:127.0.0.1\tRELAY\nTo:defer.test\tRELAY\n"
INSTANCE = InstanceFacts(
    "sm1",
    "sendmail",
    "sendmail",
    "8.17.1.9",
    "/etc/mail",
    ("/var/spool/mqueue/q1",),
    options={
        "config_file": "/etc/mail/sendmail.cf",
        "access_map": "hash:/etc/mail/access",
        "own_domains": ["localhost.lab.test", "sm1.lab.test"],
        "listen": [["127.0.0.1", 25], ["0.0.0.0", 587], ["192.0.2.9", 25]],
    },
)


def looked_up(host: ListHost, sender: str) -> str:
    """What Sendmail does with its map: the address without extension, and every parent domain."""
    local, _, domain = sender.rpartition("@")
    labels = domain.split(".")
    keys = [sender, f"{local.partition('+')[0]}@{domain}", *(".".join(labels[at:]) for at in range(len(labels)))]
    value = next((host.map[f"from:{key}"] for key in keys if f"from:{key}" in host.map), "")
    found = re.fullmatch(r'ERROR:([\d.]+):"(\d+) (.*)"', value)
    return f"{found[2]} {found[1]} <root@sm1.lab.test>... {found[3]}" if found else ""


def make_host(text: str = LINES) -> ListHost:
    host = ListHost(looked_up, text, has_map=True)
    host.map = {line.split("\t")[0].lower(): line.split("\t")[1] for line in text.splitlines() if "\t" in line}
    return host


def test_a_block_is_proven_and_its_undo_gives_back_every_byte() -> None:
    host = make_host()
    result = host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert result.ended is Ended.SUCCEEDED
    assert result.before["blocked"]["code"] == "250"
    assert result.before["lookup"] == {}
    assert result.after["blocked"]["text"] == "5.7.1 <root@sm1.lab.test>... Sender address blocked"
    assert result.after["lookup"] == {KEY: VALUE}
    assert host.text == (f"{LINES}# BEGIN mxfleet\n# mxfleet:job-1 {SENDER}\nFrom:{SENDER}\t{VALUE}\n# END mxfleet\n")
    assert set(host.ports) == {25}
    freed = host.drive(SENDMAIL.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert freed.ended is Ended.SUCCEEDED
    assert freed.after["blocked"]["code"] == "250"
    assert host.text == LINES


def test_the_plan_shows_the_diff_and_what_the_block_means_here() -> None:
    host = make_host()
    plan = host.plan_of(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert f"+From:{SENDER}\t{VALUE}" in plan.diffs[0].unified
    assert plan.commands == (
        (
            "/usr/local/libexec/mxfleet/block_file.sh",
            "apply",
            "sendmail",
            "/etc/mail/sendmail.cf",
            "/etc/mail/access",
            "hash",
        ),
    )
    assert any("newsletter+x@sillyplace.test" in note for note in plan.notes)
    assert any("bounce" in note for note in plan.notes)
    assert host.changes == 0
    plan = host.plan_of(SENDMAIL.sender_block(INSTANCE, SenderBlock("sillyplace.test"), CONTEXT))
    assert any("sub-domains" in note for note in plan.notes)


def test_a_block_that_stands_there_already_is_unchanged() -> None:
    host = make_host()
    host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT)).ended is Ended.UNCHANGED
    assert host.changes == 1


def test_another_text_replaces_our_line() -> None:
    host = make_host()
    host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert host.drive(SENDMAIL.sender_block(INSTANCE, replace(BLOCK, text="100% no"), CONTEXT)).ended is Ended.FAILED
    # The host of this test does not undo %%, so the reply was another one and the first block is back.
    assert host.map[KEY] == VALUE


@pytest.mark.parametrize(
    "line",
    [
        f"From:{SENDER}\tOK",
        f"FROM:{SENDER.upper()} REJECT",
        f"{SENDER}\tRELAY",
    ],
)
def test_a_line_of_the_administrator_for_the_same_sender_is_a_conflict(line: str) -> None:
    host = make_host(f"{LINES}{line}\n")
    with pytest.raises(Conflict) as caught:
        host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert caught.value.data["line"] == 3
    left = host.drive(SENDMAIL.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert (left.ended, len(left.data["notes"])) == (Ended.UNCHANGED, 1)
    assert host.changes == 0


def test_a_line_for_other_purposes_is_no_conflict() -> None:
    host = make_host(f"{LINES}To:{SENDER}\tREJECT\nConnect:sillyplace.test\tRELAY\n")
    assert host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT)).ended is Ended.SUCCEEDED


def test_a_source_that_is_newer_than_its_map_is_not_put_into_effect() -> None:
    host = make_host()
    host.is_stale = True
    with pytest.raises(Conflict):
        host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert host.changes == 0


def test_an_administrators_edit_between_reading_and_writing_is_kept() -> None:
    host = make_host()
    host.before[0] = lambda found: setattr(found, "text", f"{LINES}To:new.test\tRELAY\n")
    assert host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT)).ended is Ended.SUCCEEDED
    assert "To:new.test\tRELAY\n" in (host.text or "")
    host.before = {host.changes + n: lambda found: setattr(found, "text", f"{found.text}#\n") for n in range(2)}
    with pytest.raises(Conflict):
        host.drive(SENDMAIL.sender_block(INSTANCE, SenderBlock("other@x.test"), CONTEXT))


def test_an_answer_that_is_not_ours_fails_and_is_taken_back() -> None:
    host = make_host()
    host.judge = lambda found, sender: "451 4.3.0 greylisted" if sender == SENDER and KEY in found.map else ""
    result = host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert result.ended is Ended.FAILED
    assert isinstance(result.error, RemoteError)
    assert (host.text, KEY in host.map) == (LINES, False)


def test_a_sender_that_was_refused_before_is_not_claimed_as_proven() -> None:
    host = make_host()
    host.judge = lambda found, sender: "553 5.1.8 no such domain" if sender == SENDER else ""
    result = host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert result.ended is Ended.SUCCEEDED
    assert "refused before the block too" in result.after["not_provable"]
    assert result.after["lookup"] == {KEY: VALUE}


def test_where_no_control_is_accepted_the_map_decides() -> None:
    host = make_host()
    host.control = "550 5.1.1 user unknown"
    result = host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert result.ended is Ended.SUCCEEDED
    assert "no control sender was accepted" in result.after["not_provable"]


def test_without_any_listener_the_map_decides() -> None:
    host = make_host()
    deaf = replace(INSTANCE, options={**INSTANCE.options, "listen": []})
    result = host.drive(SENDMAIL.sender_block(deaf, BLOCK, CONTEXT))
    assert result.ended is Ended.SUCCEEDED
    assert result.after["not_provable"]
    assert host.ports == []


def test_a_discard_is_read_back_in_the_map() -> None:
    host = make_host()
    result = host.drive(SENDMAIL.sender_block(INSTANCE, replace(BLOCK, action="discard"), CONTEXT))
    assert result.ended is Ended.SUCCEEDED
    assert "discarded" in result.after["not_provable"]
    assert host.map[KEY] == "DISCARD"
    assert host.drive(SENDMAIL.block_list(INSTANCE, BlockList(), CONTEXT)).data["ours"] == [
        {"pattern": SENDER, "action": "discard", "reply": "DISCARD"}
    ]


def test_the_list_has_our_blocks_and_the_administrators_lines() -> None:
    host = make_host()
    host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    data = host.drive(SENDMAIL.block_list(INSTANCE, BlockList(), CONTEXT)).data
    assert data["ours"] == [{"pattern": SENDER, "action": "reject", "reply": VALUE}]
    assert data["others"] == [{"file": "/etc/mail/access", "line": line} for line in LINES.splitlines()]


def test_a_wider_line_that_still_refuses_the_sender_is_told() -> None:
    host = make_host()
    host.drive(SENDMAIL.sender_block(INSTANCE, SenderBlock("sillyplace.test"), CONTEXT))
    host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    result = host.drive(SENDMAIL.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert result.ended is Ended.SUCCEEDED
    assert result.data["still_refused_by"] == ["from:sillyplace.test"]


def test_an_unblock_after_which_the_sender_is_still_refused_fails() -> None:
    host = make_host()
    host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    reply = "550 5.7.1 <root@sm1.lab.test>... Sender address blocked"
    host.judge = lambda found, sender: reply if sender == SENDER else ""
    assert host.drive(SENDMAIL.sender_unblock(INSTANCE, UNBLOCK, CONTEXT)).ended is Ended.FAILED


def test_a_map_that_is_older_than_its_source_hinders_only_what_would_build_it() -> None:
    host = make_host()
    host.is_stale = True
    assert host.drive(SENDMAIL.sender_unblock(INSTANCE, UNBLOCK, CONTEXT)).ended is Ended.UNCHANGED
    host.is_stale = False
    host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    host.is_stale = True
    with pytest.raises(Conflict):
        host.drive(SENDMAIL.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))


def test_what_was_not_blocked_is_unchanged_by_an_unblock() -> None:
    host = make_host()
    assert host.drive(SENDMAIL.sender_unblock(INSTANCE, UNBLOCK, CONTEXT)).ended is Ended.UNCHANGED
    assert (host.changes, host.text) == (0, LINES)


def test_reading_back_tells_what_was_done() -> None:
    host = make_host()
    assert host.plan_of(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))

    def read(operation: SenderBlock | SenderUnblock) -> Ended:
        result = host.drive(SENDMAIL.read_back(INSTANCE, operation, CONTEXT))
        assert result is not None
        return result.ended

    assert (read(BLOCK), read(UNBLOCK)) == (Ended.FAILED, Ended.SUCCEEDED)
    host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert (read(BLOCK), read(UNBLOCK)) == (Ended.SUCCEEDED, Ended.FAILED)
    host.map = {}
    assert read(BLOCK) is Ended.FAILED
    assert host.drive(SENDMAIL.read_back(INSTANCE, BlockList(), CONTEXT)) is None


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
        host.fails[0] = done
        with pytest.raises(error):
            host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("#x@y.test", "From:#x@y.test"),
        ("a|b{c}$*`id`@y.test", "From:a|b{c}$*`id`@y.test"),
        ("y.test", "From:y.test"),
        (".y.test", "From:y.test"),
        ("u@ex\u00e4mple.test", "From:u@xn--exmple-cua.test"),
    ],
)
def test_keys(pattern: str, key: str) -> None:
    assert access.keys_of(parse_block_pattern(pattern)) == (key,)


@pytest.mark.parametrize("pattern", ["<>", '"q b"@x.test', '"a,b"@x.test', "\u00fcser@x.test"])
def test_what_a_key_cannot_hold_is_unsupported(pattern: str) -> None:
    host = make_host()
    with pytest.raises(Unsupported):
        host.drive(SENDMAIL.sender_block(INSTANCE, SenderBlock(pattern), CONTEXT))
    assert host.commands == []


@pytest.mark.parametrize("text", ['say "no"', "a\\b"])
def test_a_text_that_a_value_cannot_hold_is_unsupported(text: str) -> None:
    with pytest.raises(Unsupported):
        make_host().drive(SENDMAIL.sender_block(INSTANCE, replace(BLOCK, text=text), CONTEXT))


def test_a_percent_sign_stands_for_itself() -> None:
    value = access.value_of(replace(BLOCK, text="100% %1"))
    assert value == 'ERROR:5.7.1:"550 100%% %%1"'
    assert access.is_ours("550 5.7.1 <r@d.test>... 100% %1", value)
    assert not access.is_ours("550 5.7.1 <r@d.test>... 100% %2", value)
    temporary = access.value_of(replace(BLOCK, code=451, enhanced="4.7.1"))
    assert access.is_ours("451 4.7.1 Sender address blocked", temporary)


def test_an_own_domain_is_not_blocked() -> None:
    with pytest.raises(Conflict):
        make_host().drive(SENDMAIL.sender_block(INSTANCE, SenderBlock("sm1.lab.test"), CONTEXT))


def test_without_an_access_map_the_line_for_m4_is_told() -> None:
    bare = replace(INSTANCE, options={**INSTANCE.options, "access_map": ""})
    with pytest.raises(Unsupported) as caught:
        make_host().drive(SENDMAIL.sender_block(bare, BLOCK, CONTEXT))
    assert "FEATURE(`access_db'" in caught.value.hint
    assert blocks.sudo_commands(bare) == []


def test_sudo_needs_the_three_commands_and_no_wildcard() -> None:
    found = blocks.sudo_commands(INSTANCE)
    assert [argv[1] for _, argv in found] == ["read", "query", "apply"]
    assert {argv[2:] for _, argv in found} == {("sendmail", "/etc/mail/sendmail.cf", "/etc/mail/access", "hash")}
