"""Blocking senders on real Exim 4.96 and 4.98 with Debian's configuration."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fleet.mta.errors import Conflict, Unsupported
from fleet.mta.exim import Exim
from fleet.mta.operations import SenderBlock, SenderUnblock
from fleet.mta.records import Ended
from tests.lab.blocking import BLOCK, SENDER, BlockedHost
from tests.lab.config import RELAY_CLIENT
from tests.lab.lab import Host, Lab

pytestmark = pytest.mark.lab

LIST = "/etc/exim4/local_sender_blacklist"
STATE = f"[ ! -e {LIST} ] || {{ cat {LIST}; stat -c '%U:%G %a' {LIST}; }}; ls /etc/exim4 | grep -v 'mxfleet-2'"


@pytest.fixture
def first(ex2: Host) -> Iterator[BlockedHost]:
    found = BlockedHost(ex2, Exim())
    yield found
    found.close()


@pytest.mark.parametrize("name", ["ex1", "ex3"])
def test_a_block_is_proven_from_outside_and_undone_byte_for_byte(lab: Lab, name: str) -> None:
    lab.reset(name)
    remote = BlockedHost(lab.host(name), Exim())
    before = remote.host.sh(STATE)
    plan = remote.plan()
    assert f"+{SENDER}\n" in plan.diffs[0].unified
    assert any("hosts that may relay" in note for note in plan.notes)
    assert remote.host.sh(STATE) == before

    blocked = remote.block()
    assert blocked.ended is Ended.SUCCEEDED
    assert (blocked.before["blocked"]["code"], blocked.after["blocked"]["code"]) == ("250", "550")
    assert "not_provable" not in blocked.after
    assert "blacklisted" in remote.reply(SENDER)
    assert remote.reply("newsletter+x@sillyplace.test") == "accepted"
    assert remote.reply(SENDER, source=RELAY_CLIENT) == "accepted"
    assert remote.reply(SENDER, recipient=f"postmaster@{name}.lab.test") == "accepted"
    assert remote.block().ended is Ended.UNCHANGED
    assert remote.read_back().ended is Ended.SUCCEEDED

    assert remote.unblock().ended is Ended.SUCCEEDED
    assert remote.reply(SENDER) == "accepted"
    assert remote.host.sh(STATE) == before
    assert remote.read_back(SenderUnblock(SENDER)).ended is Ended.SUCCEEDED
    remote.close()


def test_an_administrators_list_keeps_every_byte_owner_and_mode(first: BlockedHost) -> None:
    first.host.sh(
        f"printf '# ours\\n*@spam.test\\nlast@x.test' > {LIST}; chown root:Debian-exim {LIST}; chmod 640 {LIST}"
    )
    before = first.host.sh(STATE)
    assert first.block().ended is Ended.SUCCEEDED
    assert "blacklisted" in first.reply(SENDER)
    assert "blacklisted" in first.reply("last@x.test")
    assert "blacklisted" in first.reply("any@spam.test")
    assert first.unblock().ended is Ended.SUCCEEDED
    assert first.host.sh(STATE) == before


@pytest.mark.parametrize(
    ("pattern", "refused", "accepted"),
    [
        ("sillyplace.test", "any@sillyplace.test", "any@sub.sillyplace.test"),
        (".sillyplace.test", "any@sub.sillyplace.test", "any@other.test"),
        ("a!b#c*d$x{y}@sillyplace.test", "a!b#c*d$x{y}@sillyplace.test", "a!b#cd$x{y}@sillyplace.test"),
        ('"a b"@sillyplace.test', '"a b"@sillyplace.test', "b@sillyplace.test"),
        ("CaSe@Sillyplace.Test", "case@sillyplace.test", "other@sillyplace.test"),
    ],
)
def test_a_pattern_refuses_what_it_says_and_nothing_else(
    first: BlockedHost, pattern: str, refused: str, accepted: str
) -> None:
    assert first.block(SenderBlock(pattern)).ended is Ended.SUCCEEDED
    assert "blacklisted" in first.reply(refused)
    assert first.reply(accepted) == "accepted"
    assert first.unblock(pattern).ended is Ended.SUCCEEDED
    assert first.reply(refused) == "accepted"


def test_what_the_list_cannot_express_is_refused_and_nothing_is_written(first: BlockedHost) -> None:
    before = first.host.sh(STATE)
    for pattern in (
        "!x@y.test",
        "#x@y.test",
        "^x@y.test",
        "+x@y.test",
        "*x@y.test",
        "/x@y.test",
        '"a #b"@y.test',
        "<>",
    ):
        first.refused(Unsupported, SenderBlock(pattern))
    first.refused(Unsupported, replace(BLOCK, action="discard"))
    first.refused(Conflict, SenderBlock("ex2.lab.test"))
    assert first.host.sh(STATE) == before


def test_a_list_that_ends_in_a_negated_item_keeps_refusing_everybody_else(first: BlockedHost) -> None:
    first.host.sh(f"printf '!friend@x.test\\n' > {LIST}")
    before = first.host.sh(STATE)
    assert "blacklisted" in first.reply("stranger@x.test")
    first.refused(Conflict)
    assert first.host.sh(STATE) == before


def test_without_debians_acl_a_block_is_unsupported_with_the_reason(first: BlockedHost) -> None:
    first.host.sh(
        "sed -i 's/local_sender_blacklist/local_sender_list/' /etc/exim4/exim4.conf.template; update-exim4.conf"
    )
    remote = BlockedHost(first.host, Exim())
    assert remote.instance.options["blacklist_file"] == ""
    assert "hand-written" in remote.refused(Unsupported).detail
    remote.close()
