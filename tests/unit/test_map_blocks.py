"""Blocking senders in a map that the MTA looks up, the same on Postfix and Sendmail, against hosts played by hand."""

from dataclasses import replace

import pytest

from fleet.mta.errors import Conflict, DiskFull, RemoteError, UnparsedOutput, Unsupported
from fleet.mta.operations import BlockList, SenderBlock, SenderUnblock
from fleet.mta.records import Context, Ended, Result
from fleet.mta.steps import Completed
from tests.unit.list_host import CONTEXT, ListHost
from tests.unit.map_hosts import POSTFIX, SENDER, SENDMAIL, Mapped

BLOCK = SenderBlock(SENDER)
UNBLOCK = SenderUnblock(SENDER)
UNDO = replace(CONTEXT, undo=True)


@pytest.fixture(params=[POSTFIX, SENDMAIL], ids=["postfix", "sendmail"])
def mta(request: pytest.FixtureRequest) -> Mapped:
    found: Mapped = request.param
    return found


@pytest.fixture
def host(mta: Mapped) -> ListHost:
    return mta.make()


def block(mta: Mapped, host: ListHost, operation: SenderBlock = BLOCK) -> Result:
    return host.drive(mta.adapter.sender_block(mta.instance, operation, CONTEXT))


def unblock(mta: Mapped, host: ListHost, operation: SenderUnblock = UNBLOCK, context: Context = CONTEXT) -> Result:
    return host.drive(mta.adapter.sender_unblock(mta.instance, operation, context))


@pytest.mark.parametrize("context", [CONTEXT, UNDO], ids=["unblock", "undo"])
def test_a_block_is_proven_and_its_undo_gives_back_every_byte(mta: Mapped, host: ListHost, context: Context) -> None:
    result = block(mta, host)
    assert result.ended is Ended.SUCCEEDED
    assert result.data == {"pattern": SENDER, **mta.name, "keys": [mta.entry]}
    assert (result.before["blocked"]["code"], result.before["lookup"]) == ("250", mta.lookup(""))
    assert (result.after["blocked"]["text"], result.after["lookup"]) == (mta.reply, mta.lookup(mta.value))
    assert mta.senders(host).text == mta.written
    assert set(host.ports) == {25}
    freed = unblock(mta, host, context=context)
    assert (freed.ended, freed.after["blocked"]["code"]) == (Ended.SUCCEEDED, "250")
    assert (freed.after["lookup"], mta.senders(host).text) == (mta.lookup(""), mta.lines)


def test_the_plan_shows_the_diff_and_what_the_block_means_here(mta: Mapped, host: ListHost) -> None:
    plan = host.plan_of(mta.adapter.sender_block(mta.instance, BLOCK, CONTEXT))
    assert f"+{mta.entry}\t{mta.value}" in plan.diffs[0].unified
    assert plan.commands == (("/usr/local/libexec/mxfleet/block_file.sh", "apply", *mta.command),)
    assert any("newsletter+x@sillyplace.test" in note for note in plan.notes)
    assert any(mta.note in note for note in plan.notes)
    assert (host.changes, plan.wiring) == (0, False)
    plan = host.plan_of(mta.adapter.sender_block(mta.instance, SenderBlock("sillyplace.test"), CONTEXT))
    assert any("sub-domains" in note for note in plan.notes)


def test_a_block_that_stands_there_already_is_unchanged(mta: Mapped, host: ListHost) -> None:
    block(mta, host)
    assert block(mta, host).ended is Ended.UNCHANGED
    assert host.changes == 1


def test_what_was_not_blocked_is_unchanged_by_an_unblock(mta: Mapped, host: ListHost) -> None:
    assert unblock(mta, host).ended is Ended.UNCHANGED
    assert (host.changes, mta.senders(host).text) == (0, mta.lines)


@pytest.mark.parametrize(
    ("only", "line"),
    [
        ("postfix", f"{SENDER}\tOK"),
        ("sendmail", f"From:{SENDER}\tOK"),
        ("sendmail", f"FROM:{SENDER.upper()} REJECT"),
        ("sendmail", f"{SENDER}\tRELAY"),
    ],
)
def test_a_line_of_the_administrator_for_the_same_sender_is_a_conflict(only: str, line: str) -> None:
    mta = {"postfix": POSTFIX, "sendmail": SENDMAIL}[only]
    host = mta.make()
    mta.senders(host).append(line)
    with pytest.raises(Conflict) as caught:
        block(mta, host)
    assert caught.value.data["line"] == 3
    left = unblock(mta, host)
    assert (left.ended, len(left.data["notes"])) == (Ended.UNCHANGED, 1)
    assert host.changes == 0


def test_a_source_that_is_newer_than_its_map_hinders_only_what_would_build_it(mta: Mapped, host: ListHost) -> None:
    mta.senders(host).is_stale = True
    with pytest.raises(Conflict, match="older") as refused:
        block(mta, host)
    assert mta.rebuild in refused.value.hint
    assert (unblock(mta, host).ended, host.changes) == (Ended.UNCHANGED, 0)
    mta.senders(host).is_stale = False
    block(mta, host)
    mta.senders(host).is_stale = True
    with pytest.raises(Conflict):
        unblock(mta, host)


def test_an_administrators_edit_between_reading_and_writing_is_kept(mta: Mapped, host: ListHost) -> None:
    senders = mta.senders(host)
    senders.before[0] = lambda found: found.append("To:late.test\tRELAY")
    assert block(mta, host).ended is Ended.SUCCEEDED
    assert senders.text == mta.written.replace(mta.lines, f"{mta.lines}To:late.test\tRELAY\n")
    senders.before = {
        senders.changes + number: lambda found: setattr(found, "text", f"{found.text}#\n") for number in range(2)
    }
    with pytest.raises(Conflict):
        block(mta, host, SenderBlock("other@x.test"))


def test_a_sender_that_was_refused_before_is_not_claimed_as_proven(mta: Mapped, host: ListHost) -> None:
    host.judge = lambda found, sender: "550 5.1.8 no such domain" if sender == SENDER else ""
    result = block(mta, host)
    assert (result.ended, result.after["lookup"]) == (Ended.SUCCEEDED, mta.lookup(mta.value))
    assert "refused before the block too" in result.after["not_provable"]


def test_where_no_control_is_accepted_the_map_decides(mta: Mapped, host: ListHost) -> None:
    host.control = "550 5.1.1 user unknown"
    result = block(mta, host)
    assert (result.ended, result.after["lookup"]) == (Ended.SUCCEEDED, mta.lookup(mta.value))
    assert "no control sender was accepted" in result.after["not_provable"]


def test_a_discard_is_read_back_in_the_map_and_listed_with_its_text(mta: Mapped, host: ListHost) -> None:
    value, reply = mta.discard
    result = block(mta, host, replace(BLOCK, action="discard"))
    assert (result.ended, result.after["lookup"]) == (Ended.SUCCEEDED, mta.lookup(value))
    assert "discarded" in result.after["not_provable"]
    listed = host.drive(mta.adapter.block_list(mta.instance, BlockList(), CONTEXT)).data["ours"]
    assert listed == [{"pattern": SENDER, "action": "discard", "reply": reply}]
    assert unblock(mta, host).ended is Ended.SUCCEEDED


def test_an_unblock_after_which_the_sender_is_still_refused_fails(mta: Mapped, host: ListHost) -> None:
    block(mta, host)
    host.judge = lambda found, sender: f"550 {mta.reply}" if sender == SENDER else ""
    assert unblock(mta, host).ended is Ended.FAILED


def test_an_unblock_that_no_dialogue_proves_says_so(mta: Mapped, host: ListHost) -> None:
    block(mta, host)
    host.judge = lambda found, sender: "451 4.3.5 Server configuration error"
    for ended in (Ended.SUCCEEDED, Ended.UNCHANGED):
        freed = unblock(mta, host)
        assert freed.ended is ended
        [note] = freed.data["notes"]
        assert note.startswith(f"it is not proven that {SENDER} is accepted at ")
        assert "451 4.3.5 Server configuration error" in note


def test_reading_back_tells_what_was_done(mta: Mapped, host: ListHost) -> None:
    assert host.plan_of(mta.adapter.sender_block(mta.instance, BLOCK, CONTEXT))

    def read(operation: SenderBlock | SenderUnblock) -> Ended:
        result = host.drive(mta.adapter.read_back(mta.instance, operation, CONTEXT))
        assert result is not None
        return result.ended

    assert (read(BLOCK), read(UNBLOCK)) == (Ended.FAILED, Ended.SUCCEEDED)
    block(mta, host)
    assert (read(BLOCK), read(UNBLOCK)) == (Ended.SUCCEEDED, Ended.FAILED)
    answer, host.judge = host.judge, lambda found, sender: ""
    assert read(BLOCK) is Ended.FAILED, "the entry is there, and the MTA accepts the sender"
    host.judge, mta.senders(host).map = answer, {}
    assert read(BLOCK) is Ended.FAILED
    assert host.drive(mta.adapter.read_back(mta.instance, BlockList(), CONTEXT)) is None


@pytest.mark.parametrize(
    ("done", "error"),
    [
        (Completed(73, stderr=b"cat: write error: No space left on device\nmxfleet: cannot write\n"), DiskFull),
        (Completed(75, stderr=b"mxfleet: another change is running\n"), Conflict),
        (Completed(65, stderr=b"mxfleet: the new map lacks entries\n"), RemoteError),
        (Completed(66, stderr=b"mxfleet: no list\n"), Unsupported),
        (Completed(0), UnparsedOutput),
    ],
)
def test_a_full_disk_and_other_failures_of_the_script_are_named(
    mta: Mapped, host: ListHost, done: Completed, error: type[Exception]
) -> None:
    mta.senders(host).fails[0] = done
    with pytest.raises(error):
        block(mta, host)
    assert mta.senders(host).text == mta.lines


def test_an_own_domain_is_not_blocked(mta: Mapped, host: ListHost) -> None:
    with pytest.raises(Conflict):
        block(mta, host, SenderBlock(mta.own_domain))
