"""Blocking senders on qmail, against a host played by hand."""

from dataclasses import replace

import pytest

from fleet.mta.adapter import REPLACED, REPLACES, adapter_for, method_for
from fleet.mta.address import parse_block_pattern
from fleet.mta.blocks.listfile import fold
from fleet.mta.errors import UnparsedOutput, Unsupported
from fleet.mta.operations import BlockList, SenderBlock, SenderUnblock
from fleet.mta.qmail import Qmail, blocks
from fleet.mta.records import Ended, InstanceFacts
from tests.unit.list_host import CONTEXT, ListHost

QMAIL = Qmail()
SENDER = "newsletter@sillyplace.test"
BLOCK = SenderBlock(SENDER)
UNBLOCK = SenderUnblock(SENDER)
REPLY = "553 5.1.0 Sorry, your envelope sender is in my badmailfrom list."
INSTANCE = InstanceFacts(
    "qm1",
    "qmail",
    "qmail",
    "",
    "/var/qmail/control",
    ("/var/qmail/queue",),
    front_ends=("smtpfront-qmail",),
    options={
        "home": "/var/qmail",
        "own_domains": ["defer.test", "qm1.lab.test"],
        "listen": [["0.0.0.0", 25]],
    },
)
BOTH = replace(
    INSTANCE,
    front_ends=("smtpfront-qmail", "qmail-smtpd"),
    options={**INSTANCE.options, "listen": [["0.0.0.0", 25], ["0.0.0.0", 2525]]},
)


def refused(host: ListHost, sender: str) -> str:
    plain = fold(sender.replace('"', ""))
    return REPLY if {plain, "@" + plain.rpartition("@")[2]} & host.in_effect().keys() else ""


def make_host(text: str | None = None) -> ListHost:
    return ListHost(refused, text, refused_at_mail=True)


@pytest.mark.parametrize("operation", [BLOCK, UNBLOCK])
def test_a_plan_says_where_files_cannot_be_exchanged_in_one_step(operation: SenderBlock | SenderUnblock) -> None:
    method = method_for(adapter_for("qmail"), operation.name)
    assert method is not None
    without = replace(INSTANCE, options={**INSTANCE.options, REPLACES: True})
    host = make_host()
    if operation is UNBLOCK:
        host.drive(QMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert REPLACED not in host.plan_of(method(INSTANCE, operation, CONTEXT)).notes
    assert REPLACED in host.plan_of(method(without, operation, CONTEXT)).notes


@pytest.mark.parametrize("text", [None, "", "mine@x.test\n", "# no end\nmine@x.test\r\n last@x.test"])
def test_a_block_is_proven_and_its_undo_gives_back_every_byte(text: str | None) -> None:
    host = make_host(text)
    result = host.drive(QMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert result.ended is Ended.SUCCEEDED
    assert (result.before["blocked"]["code"], result.before["lookup"]) == ("250", {})
    assert f"{result.after['blocked']['code']} {result.after['blocked']['text']}" == REPLY
    assert result.after["lookup"] == {SENDER: ""}
    assert (host.text or "").startswith(text or "#")
    assert host.drive(QMAIL.sender_block(INSTANCE, BLOCK, CONTEXT)).ended is Ended.UNCHANGED
    assert host.drive(QMAIL.sender_unblock(INSTANCE, UNBLOCK, CONTEXT)).ended is Ended.SUCCEEDED
    assert host.text == text


def test_every_front_end_is_asked_and_must_refuse() -> None:
    host = make_host()
    result = host.drive(QMAIL.sender_block(BOTH, BLOCK, CONTEXT))
    assert result.ended is Ended.SUCCEEDED
    assert set(host.ports) == {25, 2525}
    assert [each["blocked"]["code"] for each in result.after["also"]] == ["553"]
    host.drive(QMAIL.sender_unblock(BOTH, UNBLOCK, CONTEXT))

    only_one = host.ports
    host.judge = lambda found, sender: refused(found, sender) if only_one[-1] == 25 else ""
    result = host.drive(QMAIL.sender_block(BOTH, BLOCK, CONTEXT))
    assert result.ended is Ended.FAILED
    assert host.text is None


def test_a_front_end_that_cannot_read_the_file_fails_the_block_and_it_is_taken_back() -> None:
    host = make_host("mine@x.test\n")
    host.judge = lambda found, sender: ""
    result = host.drive(QMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert result.ended is Ended.FAILED
    assert result.error is not None
    assert "account can read" in result.error.hint
    assert host.text == "mine@x.test\n"


def test_the_plan_says_what_differs_on_this_host() -> None:
    notes = make_host().plan_of(QMAIL.sender_block(BOTH, BLOCK, CONTEXT)).notes
    for part in ("smtpfront-qmail answers", "qmail-smtpd answers", "extension", "RELAYCLIENT", "local programs"):
        assert any(part in note for note in notes), part
    notes = make_host().plan_of(QMAIL.sender_block(INSTANCE, SenderBlock("x.test"), CONTEXT)).notes
    assert any("does not catch its sub-domains" in note for note in notes)
    assert not any("qmail-smtpd answers" in note for note in notes)


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        ('"q b"@x.test', "q b@x.test"),
        (r'"a\"b\\c"@x.test', r'a"b\c@x.test'),
        ("x.test", "@x.test"),
        ("-bd@x.test", "-bd@x.test"),
        ("\u00fcser@x.test", "\u00fcser@x.test"),
    ],
)
def test_lines(pattern: str, line: str) -> None:
    assert blocks.lines_of(parse_block_pattern(pattern)) == (line,)


@pytest.mark.parametrize("pattern", ["<>", ".x.test", "#x@y.test", '" a"@x.test', '""@x.test', '"@b"@x.test'])
def test_what_a_line_cannot_say_is_unsupported(pattern: str) -> None:
    host = make_host()
    with pytest.raises(Unsupported):
        host.drive(QMAIL.sender_block(INSTANCE, SenderBlock(pattern), CONTEXT))
    assert host.commands == []


def test_a_discard_is_unsupported() -> None:
    with pytest.raises(Unsupported):
        make_host().drive(QMAIL.sender_block(INSTANCE, replace(BLOCK, action="discard"), CONTEXT))


def test_the_administrators_own_line_is_unchanged_and_not_ours_to_unblock() -> None:
    host = make_host(f"{SENDER.upper()}\n")
    assert host.drive(QMAIL.sender_block(INSTANCE, BLOCK, CONTEXT)).ended is Ended.UNCHANGED
    left = host.drive(QMAIL.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert left.ended is Ended.UNCHANGED
    assert "/var/qmail/control/badmailfrom line 1 is the administrator's" in left.data["notes"][0]
    assert host.changes == 0
    listed = host.drive(QMAIL.block_list(INSTANCE, BlockList(), CONTEXT)).data
    assert listed == {"ours": [], "others": [{"file": "/var/qmail/control/badmailfrom", "line": SENDER.upper()}]}


def test_the_administrators_domain_still_refuses_after_the_unblock_and_that_is_told() -> None:
    host = make_host("@sillyplace.test\n")
    result = host.drive(QMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert result.ended is Ended.SUCCEEDED
    assert "refused before the block too" in result.after["not_provable"]
    freed = host.drive(QMAIL.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert freed.ended is Ended.SUCCEEDED
    assert freed.data["still_refused_by"] == ["@sillyplace.test"]


def test_a_file_that_somebody_made_meanwhile_is_kept() -> None:
    host = make_host()
    host.before[0] = lambda found: setattr(found, "text", "mine@x.test\n")
    assert host.drive(QMAIL.sender_block(INSTANCE, BLOCK, CONTEXT)).ended is Ended.SUCCEEDED
    host.drive(QMAIL.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert host.text == "mine@x.test\n"


def test_reading_back_tells_what_was_done() -> None:
    host = make_host()

    def read(operation: SenderBlock | SenderUnblock) -> Ended:
        result = host.drive(QMAIL.read_back(INSTANCE, operation, CONTEXT))
        assert result is not None
        return result.ended

    assert (read(BLOCK), read(UNBLOCK)) == (Ended.FAILED, Ended.SUCCEEDED)
    host.drive(QMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert (read(BLOCK), read(UNBLOCK)) == (Ended.SUCCEEDED, Ended.FAILED)


def test_only_letters_of_ascii_are_folded() -> None:
    host = make_host("\u00fcb\u00dfer@x.test\n")
    result = host.drive(QMAIL.sender_block(INSTANCE, SenderBlock("\u00dcb\u00dfER@x.test"), CONTEXT))
    assert result.ended is Ended.SUCCEEDED
    assert result.after["lookup"] == {"\u00dcb\u00dfer@x.test": ""}


def test_a_file_that_changes_while_it_is_read_is_read_again() -> None:
    host = make_host("mine@x.test\n")
    host.while_read = [lambda found: setattr(found, "text", f"{found.text}more@x.test\n") for _ in range(2)]
    assert host.drive(QMAIL.sender_block(INSTANCE, BLOCK, CONTEXT)).ended is Ended.SUCCEEDED
    assert (host.text or "").startswith("mine@x.test\nmore@x.test\nmore@x.test\n# BEGIN")


def test_a_file_that_always_comes_without_its_end_is_an_error() -> None:
    host = make_host("mine@x.test\n")
    host.while_read = [lambda found: setattr(found, "text", f"{found.text}more@x.test\n") for _ in range(3)]
    with pytest.raises(UnparsedOutput):
        host.drive(QMAIL.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert host.changes == 0
