"""Blocking senders on OpenSMTPD, against a host played by hand."""

from dataclasses import replace

import pytest

from fleet.mta.address import parse_block_pattern
from fleet.mta.errors import Conflict, NeedsWiring, RemoteError, UnparsedOutput, Unsupported
from fleet.mta.opensmtpd import OpenSmtpd, blocks
from fleet.mta.opensmtpd.discovery import parse_instance
from fleet.mta.operations import BlockList, SenderBlock, SenderUnblock
from fleet.mta.records import Ended, HostFacts
from fleet.mta.steps import Completed
from tests.unit.list_host import CONTEXT
from tests.unit.opensmtpd_host import RULE, WIRED, Smtpd, instance, looked_up

OPENSMTPD = OpenSmtpd()
SENDER = "newsletter@sillyplace.test"
HERE = instance(
    own_domains=["mx1.test"],
    open_domains=["ok.test"],
    listen=[["127.0.0.1", 25], ["192.0.2.9", 25], ["192.0.2.9", 465]],
)
UNWIRED = f"# mine\nlisten on eth0\n{RULE}match from local for any action out\n"
PLACEHOLDER = "placeholder@blocked.invalid\n"


def wired(text: str = PLACEHOLDER) -> Smtpd:
    return Smtpd(looked_up, text)


def unwired() -> Smtpd:
    return Smtpd(looked_up, None, config=UNWIRED, loaded=UNWIRED)


def test_a_block_in_a_wired_table_is_proven_and_its_undo_gives_back_every_byte() -> None:
    host = wired()
    result = host.drive(OPENSMTPD.sender_block(HERE, SenderBlock(SENDER), CONTEXT))
    assert (result.ended, result.before["blocked"]["code"]) == (Ended.SUCCEEDED, "250")
    assert result.after["blocked"] == {"sender": SENDER, "code": "550", "text": "Invalid recipient: <r@ok.test>"}
    assert result.data["file"] == "/etc/smtpd/blocked"
    assert host.text == f"{PLACEHOLDER}# BEGIN mxfleet\n# mxfleet:job-1 {SENDER}\n{SENDER}\n# END mxfleet\n"
    assert host.plan is not None
    assert not host.plan.wiring
    assert any("newsletter+x@sillyplace.test" in note for note in host.plan.notes)
    assert any("cannot be chosen" in note for note in host.plan.notes)
    assert set(host.ports) == {25}
    freed = host.drive(OPENSMTPD.sender_unblock(HERE, SenderUnblock(SENDER), CONTEXT))
    assert (freed.ended, host.text) == (Ended.SUCCEEDED, PLACEHOLDER)


def test_the_first_block_wires_what_is_not_wired_and_its_undo_takes_all_of_it_back() -> None:
    host = unwired()
    result = host.drive(OPENSMTPD.sender_block(HERE, SenderBlock(SENDER), CONTEXT))
    assert (result.ended, result.after["blocked"]["code"]) == (Ended.SUCCEEDED, "550")
    assert host.plan is not None
    assert host.plan.wiring
    assert "+match from any mail-from <mxfleet_senders> for any reject\n" in host.plan.diffs[1].unified
    assert any("restarted" in note for note in host.plan.notes)
    assert host.text is not None
    assert host.text.startswith(PLACEHOLDER)
    assert host.config.splitlines()[2:6] == [line.strip() for line in blocks.our_lines(HERE)]
    listed = host.drive(OPENSMTPD.block_list(HERE, BlockList(), CONTEXT)).data
    assert [each["pattern"] for each in listed["ours"]] == [SENDER]
    assert listed["others"] == []
    unasked = Smtpd(looked_up, host.text, config=UNWIRED, loaded=UNWIRED)
    assert unasked.drive(OPENSMTPD.block_list(HERE, BlockList(), CONTEXT)).data == {"ours": [], "others": []}
    undone = host.drive(OPENSMTPD.sender_unblock(HERE, SenderUnblock(SENDER), replace(CONTEXT, undo=True)))
    assert undone.ended is Ended.SUCCEEDED
    assert (host.config, host.text) == (UNWIRED, None)


def test_an_undo_leaves_our_table_and_its_wiring_to_whoever_wrote_into_it() -> None:
    undo = replace(CONTEXT, undo=True)
    host = unwired()
    host.drive(OPENSMTPD.sender_block(HERE, SenderBlock(SENDER), CONTEXT))
    wiring = host.config
    host.append("his@x.test")
    assert host.drive(OPENSMTPD.sender_unblock(HERE, SenderUnblock(SENDER), undo)).ended is Ended.SUCCEEDED
    assert (host.config, host.text) == (wiring, f"{PLACEHOLDER}his@x.test\n")


def test_a_line_that_comes_right_before_our_table_would_go_stays_in_it() -> None:
    host = unwired()
    host.drive(OPENSMTPD.sender_block(HERE, SenderBlock(SENDER), CONTEXT))
    host.before[host.changes] = lambda found: found.append("his@x.test")
    host.drive(OPENSMTPD.sender_unblock(HERE, SenderUnblock(SENDER), replace(CONTEXT, undo=True)))
    assert host.text == f"{PLACEHOLDER}his@x.test\n"


def test_wiring_needs_its_approval_and_a_refused_one_leaves_nothing_behind() -> None:
    host = unwired()
    with pytest.raises(NeedsWiring):
        host.drive(OPENSMTPD.sender_block(HERE, SenderBlock(SENDER), replace(CONTEXT, wiring_approved=False)))
    for status, error in ((75, Conflict), (65, RemoteError)):
        host.refusal = Completed(status, stderr=b"mxfleet: 3 envelopes are paused, and a restart would release them\n")
        with pytest.raises(error, match="paused"):
            host.drive(OPENSMTPD.sender_block(HERE, SenderBlock(SENDER), CONTEXT))
    assert (host.config, host.text) == (UNWIRED, None)


def test_a_configuration_that_came_without_its_end_is_no_configuration() -> None:
    for host in (unwired(), wired()):
        host.cut = 3
        with pytest.raises(UnparsedOutput, match="cut off"):
            host.drive(OPENSMTPD.sender_block(HERE, SenderBlock(SENDER), CONTEXT))
        assert host.changes == 0


@pytest.mark.parametrize(
    "config",
    [
        'include "/etc/rules.conf"\n' + RULE,
        "listen on eth0\n",
        RULE + "table mxfleet_senders file:/etc/x\nmatch from any mail-from <mxfleet_senders> for any reject\n",
    ],
)
def test_where_the_first_rule_is_not_plain_the_lines_are_told(config: str) -> None:
    host = Smtpd(looked_up, None, config=config, loaded=config)
    with pytest.raises(Unsupported) as refused:
        host.drive(OPENSMTPD.sender_block(HERE, SenderBlock(SENDER), CONTEXT))
    assert "table mxfleet_senders file:/etc/mxfleet_senders" in (refused.value.hint or "")
    assert host.text is None
    assert host.drive(OPENSMTPD.sender_unblock(HERE, SenderUnblock(SENDER), CONTEXT)).ended is Ended.UNCHANGED
    assert host.changes == 0


@pytest.mark.parametrize(
    ("pattern", "lines"),
    [
        ("a@x.test", ("a@x.test",)),
        ("x.test", ("@x.test",)),
        ("!a|b#c@x.test", ("!a|b#c@x.test",)),
        ('".a"@x.test', None),
        ("<>", None),
        (".x.test", None),
        ('"a b"@x.test', None),
        ("#a@x.test", None),
        ('"@"@x.test', None),
        ("ü@x.test", None),
    ],
)
def test_a_pattern_is_written_as_it_is_or_not_at_all(pattern: str, lines: tuple[str, ...] | None) -> None:
    if lines is not None:
        assert blocks.lines_of(parse_block_pattern(pattern)) == lines
        return
    host = wired()
    with pytest.raises(Unsupported):
        host.drive(OPENSMTPD.sender_block(HERE, SenderBlock(pattern), CONTEXT))
    assert host.text == PLACEHOLDER


def test_discard_is_unsupported_and_an_own_domain_refused() -> None:
    host = wired()
    with pytest.raises(Unsupported, match="discard"):
        host.drive(OPENSMTPD.sender_block(HERE, SenderBlock(SENDER, action="discard"), CONTEXT))
    with pytest.raises(Conflict, match="itself"):
        host.drive(OPENSMTPD.sender_block(HERE, SenderBlock("mx1.test"), CONTEXT))


def test_an_entry_that_refuses_nobody_is_taken_back() -> None:
    host = Smtpd(lambda host, sender: "", PLACEHOLDER)
    result = host.drive(OPENSMTPD.sender_block(HERE, SenderBlock(SENDER), CONTEXT))
    assert (result.ended, host.text) == (Ended.FAILED, PLACEHOLDER)


def test_an_unblock_under_a_wider_entry_says_what_still_refuses() -> None:
    host = wired(f"{PLACEHOLDER}@sillyplace.test\n")
    host.drive(OPENSMTPD.sender_block(HERE, SenderBlock(SENDER), CONTEXT))
    freed = host.drive(OPENSMTPD.sender_unblock(HERE, SenderUnblock(SENDER), CONTEXT))
    assert freed.data["still_refused_by"] == ["@sillyplace.test"]


def test_our_table_behind_a_rule_of_somebody_else_is_looked_at_too() -> None:
    behind = WIRED + "".join(blocks.our_lines(HERE))
    for config, paths in (
        (behind, ["/etc/smtpd/blocked", "/etc/mxfleet_senders"]),
        (WIRED, ["/etc/smtpd/blocked"]),
        (UNWIRED, ["/etc/mxfleet_senders"]),
    ):
        host = Smtpd(looked_up, PLACEHOLDER, config=config, loaded=config)
        assert [site.list_file.path for site in host.drive(blocks.sites(HERE))] == paths


def test_reading_back_claims_what_is_there_and_changes_nothing() -> None:
    host = wired()
    block = SenderBlock(SENDER)
    assert host.drive(OPENSMTPD.read_back(HERE, block, CONTEXT)).ended is Ended.FAILED  # type: ignore[union-attr]
    host.drive(OPENSMTPD.sender_block(HERE, block, CONTEXT))
    changes = host.changes
    assert host.drive(OPENSMTPD.read_back(HERE, block, CONTEXT)).ended is Ended.SUCCEEDED  # type: ignore[union-attr]
    assert host.changes == changes


def test_domains_that_a_table_lists_are_own_domains_too() -> None:
    lines = [
        'table inline { A.test, "b.test" }',
        "table mapped { c.test = x, d.test = y }",
        "table listed file:/etc/smtpd/domains",
        "action in mbox",
        "action out relay",
        "match from any for domain <inline> action in",
        "match from any for domain <mapped> action in",
        "match from any for domain <listed> action in",
        "match from any for domain <absent> action in",
    ]
    said = "\n".join(
        ["version 7.6", "smtpctl /usr/sbin/smtpctl", "smtpd /usr/sbin/smtpd", "config /etc/smtpd.conf"]
        + [f"conf {line}" for line in lines]
        + ["entry listed E.test", "entry listed *.f.test", "end", ""]
    )
    [found] = parse_instance(Completed(0, said.encode()), HostFacts(has_sudo=True), "mx1")
    assert found.options["own_domains"] == ["a.test", "b.test", "c.test", "d.test", "e.test"]
    assert found.options["open_domains"] == found.options["own_domains"]
