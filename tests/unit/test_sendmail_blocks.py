"""Blocking senders on Sendmail, against a host played by hand."""

from dataclasses import replace

import pytest

from fleet.mta.address import parse_block_pattern
from fleet.mta.errors import RemoteError, Unsupported
from fleet.mta.operations import BlockList, SenderBlock, SenderUnblock
from fleet.mta.records import Ended
from fleet.mta.sendmail import Sendmail, access, blocks
from tests.unit.list_host import CONTEXT
from tests.unit.map_hosts import SENDER
from tests.unit.map_hosts import SENDMAIL_INSTANCE as INSTANCE
from tests.unit.map_hosts import SENDMAIL_LINES as LINES
from tests.unit.map_hosts import sendmail_host as make_host

SENDMAIL = Sendmail()
BLOCK = SenderBlock(SENDER)
UNBLOCK = SenderUnblock(SENDER)
KEY = f"from:{SENDER}"
VALUE = 'ERROR:5.7.1:"550 Sender address blocked"'


def test_another_text_replaces_our_line() -> None:
    host = make_host()
    host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert host.drive(SENDMAIL.sender_block(INSTANCE, replace(BLOCK, text="100% no"), CONTEXT)).ended is Ended.FAILED
    # The host of this test does not undo %%, so the reply was another one and the first block is back.
    assert host.map[KEY] == VALUE


def test_a_line_for_other_purposes_is_no_conflict() -> None:
    host = make_host(f"{LINES}To:{SENDER}\tREJECT\nConnect:sillyplace.test\tRELAY\n")
    assert host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT)).ended is Ended.SUCCEEDED


def test_an_answer_that_is_not_ours_fails_and_is_taken_back() -> None:
    host = make_host()
    host.judge = lambda found, sender: "451 4.3.0 greylisted" if sender == SENDER and KEY in found.map else ""
    result = host.drive(SENDMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert result.ended is Ended.FAILED
    assert isinstance(result.error, RemoteError)
    assert (host.text, KEY in host.map) == (LINES, False)


def test_without_any_listener_the_map_decides() -> None:
    host = make_host()
    deaf = replace(INSTANCE, options={**INSTANCE.options, "listen": []})
    result = host.drive(SENDMAIL.sender_block(deaf, BLOCK, CONTEXT))
    assert result.ended is Ended.SUCCEEDED
    assert result.after["not_provable"]
    assert host.ports == []


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
