"""Blocking senders on the qmail host: real smtpfront-qmail in front."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fleet.mta.blocks.edit import Torn
from fleet.mta.errors import Conflict, DiskFull, Unsupported
from fleet.mta.operations import SenderBlock, SenderUnblock
from fleet.mta.qmail import Qmail
from fleet.mta.records import Ended
from fleet.ssh.quoting import script_text
from tests.lab.blocking import BLOCK, CONTEXT, SENDER, BlockedHost
from tests.lab.config import RELAY_CLIENT
from tests.lab.lab import Host

pytestmark = pytest.mark.lab

SCRIPT, _ = script_text("block_file.sh")
CONTROL = "/var/qmail/control"
LIST = f"{CONTROL}/badmailfrom"
STATE = f"cd {CONTROL}; for file in $(ls | grep -v mxfleet-2); do stat -c '%n %U:%G %a' $file; od -c $file; done"
REPLY = "553 5.1.0 Sorry, your envelope sender is in my badmailfrom list."


@pytest.fixture
def remote(qm1: Host) -> Iterator[BlockedHost]:
    found = BlockedHost(qm1, Qmail())
    yield found
    found.close()


def write(remote: BlockedHost, lines: str, owner: str = "root:nofiles", mode: str = "640") -> None:
    """The administrator's own file."""
    remote.host.exec(f"cat > {LIST} && chown {owner} {LIST} && chmod {mode} {LIST}", stdin=lines)


def test_a_block_is_proven_from_outside_and_undone_without_a_trace(remote: BlockedHost) -> None:
    before = remote.host.sh(STATE)
    services = remote.host.sh("svstat /service/* | sed 's/).*/)/'")
    plan = remote.plan()
    assert f"+{SENDER}" in plan.diffs[0].unified
    assert any("smtpfront-qmail answers" in note for note in plan.notes)
    assert remote.host.sh(STATE) == before

    blocked = remote.block()
    assert blocked.ended is Ended.SUCCEEDED
    assert blocked.before["control"]["reply"].startswith("25")
    assert (blocked.before["blocked"]["code"], blocked.after["blocked"]["code"]) == ("250", "553")
    assert "not_provable" not in blocked.after
    assert remote.reply(SENDER) == REPLY
    assert remote.reply(SENDER.upper()) == REPLY
    assert remote.reply(SENDER, source=RELAY_CLIENT) == REPLY
    assert remote.reply("newsletter+x@sillyplace.test") == "accepted"
    assert remote.reply("other@sillyplace.test") == "accepted"
    assert remote.block().ended is Ended.UNCHANGED

    undone = remote.unblock(context=replace(CONTEXT, undo=True))
    assert (undone.ended, undone.after["blocked"]["code"]) == (Ended.SUCCEEDED, "250")
    assert remote.reply(SENDER) == "accepted"
    assert remote.host.sh(STATE) == before
    assert remote.host.sh("svstat /service/* | sed 's/).*/)/'") == services


@pytest.mark.parametrize(
    "lines",
    ["", "mine@x.test\n", "# mine\nmine@x.test\n\n@Whole.Test  \nlast@x.test", "a@x.test\r\n# b\r\nmine@x.test\r\n"],
)
def test_every_byte_owner_and_mode_of_the_administrators_file_comes_back(remote: BlockedHost, lines: str) -> None:
    write(remote, lines)
    before = remote.host.sh(STATE)
    assert remote.block().ended is Ended.SUCCEEDED
    assert remote.host.sh(f"stat -c '%U:%G %a' {LIST}") == "root:nofiles 640\n"
    assert remote.reply(SENDER) == REPLY
    for sender in ("mine@x.test", "last@x.test", "a@x.test"):
        if sender in lines:
            assert remote.reply(sender) == REPLY
            assert any(sender in each["line"] for each in remote.listed()["others"])
    assert remote.unblock().ended is Ended.SUCCEEDED
    assert remote.host.sh(STATE) == before


def test_under_a_login_with_umask_077_the_new_file_is_readable_for_qmaild(remote: BlockedHost) -> None:
    remote.host.sh(
        "home=$(getent passwd fleetops | cut -d: -f6); sed -i '1i umask 077' $home/.bashrc 2>/dev/null || "
        "echo 'umask 077' > $home/.bashrc; echo 'Defaults umask=0077, umask_override' > /etc/sudoers.d/umask"
    )
    assert remote.block().ended is Ended.SUCCEEDED
    assert remote.host.sh(f"stat -c '%U %a' {LIST}") == "root 644\n"
    assert remote.reply(SENDER) == REPLY


def test_a_file_that_the_front_end_cannot_read_is_never_claimed_as_a_block(remote: BlockedHost) -> None:
    write(remote, "mine@x.test\n", "root:root", "600")
    before = remote.host.sh(STATE)
    result = remote.block()
    assert result.ended is Ended.FAILED
    assert result.error is not None
    assert "account can read" in result.error.hint
    assert remote.host.sh(STATE) == before


@pytest.mark.parametrize(
    "patterns",
    [
        (
            "o'brien@example.test",
            "`id`@example.test",
            "-bd@example.test",
            "a|b{c}$*?~@example.test",
            "!foo@example.test",
        ),
        (
            '"q b"@example.test',
            r'"a\"b\\c"@example.test',
            '"a@b"@example.test',
            '"b "@example.test',
            '":x"@example.test',
        ),
        ("\u00dcb\u00dfer@example.test", "used@ex\u00e4mple.test", "Mixed.Case@example.test", "example.test"),
    ],
)
def test_an_odd_sender_is_blocked_exactly(remote: BlockedHost, patterns: tuple[str, ...]) -> None:
    before = remote.host.sh(STATE)
    for pattern in patterns:
        result = remote.block(SenderBlock(pattern))
        assert result.ended is Ended.SUCCEEDED, pattern
        assert (result.after["blocked"]["code"], result.after.get("not_provable")) == ("553", None), pattern
        assert remote.reply("sender@bulk.example") == "accepted"
        assert remote.unblock(pattern).ended is Ended.SUCCEEDED, pattern
    assert remote.host.sh(STATE) == before


def test_what_the_file_cannot_say_is_unsupported(remote: BlockedHost) -> None:
    before = remote.host.sh(STATE)
    for pattern in ("<>", ".example.test", "#x@example.test", '" x"@example.test', '""@example.test'):
        remote.refused(Unsupported, SenderBlock(pattern))
    remote.refused(Unsupported, replace(BLOCK, action="discard"))
    assert remote.host.sh(STATE) == before


def test_the_administrators_own_line_is_unchanged_and_not_ours_to_unblock(remote: BlockedHost) -> None:
    write(remote, f"{SENDER.upper()}\n")
    before = remote.host.sh(STATE)
    assert remote.block().ended is Ended.UNCHANGED
    assert remote.unblock().ended is Ended.UNCHANGED
    assert remote.host.sh(STATE) == before


def test_a_symbolic_link_is_refused(remote: BlockedHost) -> None:
    remote.host.sh(f"echo mine@x.test > /etc/badmailfrom; ln -s /etc/badmailfrom {LIST}")
    assert "symbolic link" in remote.refused(Unsupported).detail
    assert remote.host.sh("cat /etc/badmailfrom") == "mine@x.test\n"


def test_a_full_disk_leaves_the_file_as_it_was(remote: BlockedHost) -> None:
    remote.host.sh(
        f"cp -a {CONTROL} /tmp/control; mount -t tmpfs -o size=64k tmpfs {CONTROL}; cp -a /tmp/control/. {CONTROL}"
    )
    write(remote, "mine@x.test\n" * 400)
    for filled in range(0, 64, 4):
        remote.host.sh(
            f"cd {CONTROL}; rm -f fill; head -c {filled}k /dev/zero > fill || true; sha256sum badmailfrom > /tmp/before"
        )
        outcome = remote.outcome(lambda: remote.adapter.sender_block(remote.instance, BLOCK, CONTEXT))
        if outcome.error is not None:
            assert isinstance(outcome.error, DiskFull), outcome.error.as_dict()
            remote.host.sh(f"cd {CONTROL}; sha256sum -c /tmp/before; ! ls | grep mxfleet-work")
            break
        remote.host.sh(f"rm {CONTROL}/fill {CONTROL}/*.mxfleet-2*")
        remote.unblock()
    else:
        pytest.fail("the disk never was full")
    remote.host.sh(f"rm -f {CONTROL}/fill {CONTROL}/*.mxfleet-2*")
    assert remote.block().ended is Ended.SUCCEEDED


KILLING = r"""
set -u
script=$1 list=/var/qmail/control/badmailfrom
digest() { sha256sum < $1 | cut -d' ' -f1; }
lost=0 odd=0
for n in $(seq 1 60); do
    { grep -v '^key' $list; echo "key$n@x.test"; } > /tmp/new
    { echo fence 0; digest $list; echo write $(digest /tmp/new); echo 0; cat /tmp/new; } > /tmp/stdin
    setsid sh $script apply qmail /var/qmail $list - < /tmp/stdin > /tmp/out 2>&1 &
    pid=$!
    sleep $(printf '0.%03d' $((n * 8)))
    kill -s KILL -- -$pid 2>/dev/null
    wait $pid 2>/dev/null
    [ "$(head -n 1 $list)" = mine@x.test ] && [ "$(grep -c '^key' $list)" -le 1 ] || lost=$((lost + 1))
    [ "$(stat -c '%U:%G %a' $list)" = 'root:nofiles 640' ] || odd=$((odd + 1))
done
echo "lost $lost odd $odd"
{ cat $list; echo last@x.test; } > /tmp/new
{ echo fence 0; digest $list; echo write $(digest /tmp/new); echo 0; cat /tmp/new; } |
    sh $script apply qmail /var/qmail $list -
ls -d $list.mxfleet-work.* 2>/dev/null
ls $list.mxfleet-2* | wc -l
"""


def test_a_script_killed_at_any_moment_leaves_the_old_file_or_the_new_one(remote: BlockedHost) -> None:
    write(remote, "mine@x.test\n")
    remote.host.exec("cat > /tmp/script.sh", stdin=SCRIPT)
    remote.host.exec("cat > /tmp/killing.sh", stdin=KILLING)
    said = remote.host.exec("sh /tmp/killing.sh /tmp/script.sh 2>&1", timeout=100).stdout.split("\n")
    assert said[0] == "lost 0 odd 0"
    assert said[1].startswith("applied ")
    assert said[2] in "12345"
    assert said[3:] == [""]
    assert remote.block().ended is Ended.SUCCEEDED


EDITING = r"""
for n in $(seq 1 30); do
    echo "admin$n@edit.test" >> /var/qmail/control/badmailfrom
    sleep 0.2
done
"""


def test_no_line_of_an_administrator_who_edits_at_the_same_time_is_lost(remote: BlockedHost) -> None:
    write(remote, "mine@x.test\n")
    remote.host.exec("cat > /tmp/editing.sh", stdin=EDITING)
    remote.host.sh("sh /tmp/editing.sh > /dev/null 2>&1 & echo $! > /tmp/editing.pid")
    ended = []
    for n in range(12):
        outcome = remote.outcome(
            lambda n=n: remote.adapter.sender_block(remote.instance, SenderBlock(f"s{n}@x.test"), CONTEXT)
        )
        assert outcome.error is None or isinstance(outcome.error, Conflict | Torn), outcome.error
        ended.append(outcome.error is None and outcome.value.ended is Ended.SUCCEEDED)
    remote.host.sh("while kill -0 $(cat /tmp/editing.pid) 2>/dev/null; do sleep 0.2; done")
    lines = remote.host.sh(f"cat {LIST}").split("\n")
    assert [n for n in range(1, 31) if f"admin{n}@edit.test" not in lines] == []
    assert any(ended)
    assert [n for n, is_done in enumerate(ended) if is_done and f"s{n}@x.test" not in lines] == []


def test_reading_back_tells_what_was_done(remote: BlockedHost) -> None:
    unblock = SenderUnblock(SENDER)
    assert (remote.read_back().ended, remote.read_back(unblock).ended) == (Ended.FAILED, Ended.SUCCEEDED)
    remote.block()
    assert (remote.read_back().ended, remote.read_back(unblock).ended) == (Ended.SUCCEEDED, Ended.FAILED)


def test_the_root_script_touches_no_file_but_badmailfrom(remote: BlockedHost) -> None:
    remote.host.exec("cat > /tmp/script.sh", stdin=SCRIPT)
    remote.host.sh(
        "mkdir -p /tmp/home/bin /tmp/home/control; cp /bin/true /tmp/home/bin/qmail-queue; chmod 777 /tmp/home"
    )
    for place in (
        "qmail /var/qmail /etc/passwd -",
        f"qmail /var/qmail {CONTROL}/rcpthosts -",
        f"qmail /var/qmail {CONTROL}/../control/badmailfrom -",
        "qmail /tmp/home /tmp/home/control/badmailfrom -",
        "qmail /etc /etc/control/badmailfrom -",
    ):
        done = remote.host.exec(f"sh /tmp/script.sh read {place}")
        assert (done.returncode, done.stdout) == (66, ""), place
    assert remote.host.exec(f"sh /tmp/script.sh read qmail /var/qmail {LIST} -").returncode == 0
