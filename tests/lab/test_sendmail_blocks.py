"""Blocking senders on real Sendmail 8.17 (two instances) and 8.18."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fleet.mta.blocks.edit import Torn
from fleet.mta.errors import Conflict, DiskFull, RemoteError, Unsupported
from fleet.mta.operations import SenderBlock, SenderUnblock
from fleet.mta.records import Ended
from fleet.mta.sendmail import Sendmail
from fleet.ssh.quoting import script_text
from tests.lab.blocking import BLOCK, CONTEXT, SENDER, BlockedHost
from tests.lab.config import RELAY_CLIENT
from tests.lab.lab import Host, Lab

pytestmark = pytest.mark.lab

SCRIPT, _ = script_text("block_file.sh")
ACCESS = "/etc/mail/access"
ARGUMENTS = f"sendmail /etc/mail/sendmail.cf {ACCESS} hash"
DUMP = f"makemap -u hash {ACCESS} | sort"
STATE = f"cat {ACCESS}; stat -c '%U:%G %a' {ACCESS} {ACCESS}.db; {DUMP}; ls /etc/mail | grep -v 'mxfleet-2'"


def blocked_hosts(host: Host) -> list[BlockedHost]:
    """One for each instance of the host."""
    with_default = BlockedHost(host, Sendmail())
    return [with_default.of(instance) for instance in with_default.instances]


@pytest.fixture
def first(sm1: Host) -> Iterator[BlockedHost]:
    found = blocked_hosts(sm1)[0]
    yield found
    found.close()


def edit(remote: BlockedHost, lines: str) -> None:
    """The administrator's own edit."""
    remote.host.exec(f"cat >> {ACCESS} && makemap hash {ACCESS} < {ACCESS}", stdin=lines)


@pytest.mark.parametrize("name", ["sm1", "sm2"])
def test_a_block_is_proven_from_outside_and_undone_byte_for_byte(lab: Lab, name: str) -> None:
    lab.reset(name)
    for remote, port in zip(blocked_hosts(lab.host(name)), (25, 2525), strict=False):
        before = remote.host.sh(STATE)
        assert f"+From:{SENDER}\t" in remote.plan().diffs[0].unified
        assert remote.host.sh(STATE) == before

        blocked = remote.block()
        assert blocked.ended is Ended.SUCCEEDED
        assert blocked.before["control"]["reply"].startswith("25")
        assert (blocked.before["blocked"]["code"], blocked.after["blocked"]["code"]) == ("250", "550")
        assert "not_provable" not in blocked.after
        assert remote.reply(SENDER, port) == "550 5.7.1 <r@defer.test>... Sender address blocked"
        assert remote.reply("newsletter+x@sillyplace.test", port).startswith("550")
        assert remote.reply(SENDER, port, source=RELAY_CLIENT).startswith("550")
        assert remote.reply("other@sillyplace.test", port) == "accepted"
        assert remote.block().ended is Ended.UNCHANGED

        undone = remote.unblock(context=replace(CONTEXT, undo=True))
        assert (undone.ended, undone.after["blocked"]["code"]) == (Ended.SUCCEEDED, "250")
        assert remote.reply(SENDER, port) == "accepted"
        assert remote.host.sh(STATE) == before
        remote.close()


def test_the_administrators_lines_modes_and_owners_stay(first: BlockedHost) -> None:
    edit(first, "# mine\nFrom:bad@one.test REJECT\nTo:Other.Test   RELAY\r\nFrom:end@two.test\tREJECT no newline")
    first.host.sh(f"chmod 640 {ACCESS}; chgrp mail {ACCESS}; chmod 644 {ACCESS}.db")
    before = first.host.sh(STATE)
    assert first.block().ended is Ended.SUCCEEDED
    assert first.reply("bad@one.test").startswith("550 5.7.1")
    assert first.host.sh(f"stat -c '%U:%G %a' {ACCESS} {ACCESS}.db") == "root:mail 640\nsmmta:smmsp 644\n"
    listed = first.listed()
    assert [each["pattern"] for each in listed["ours"]] == [SENDER]
    assert {"file": ACCESS, "line": "From:bad@one.test REJECT"} in listed["others"]
    assert first.unblock().ended is Ended.SUCCEEDED
    assert first.host.sh(STATE) == before


def test_an_administrators_line_for_the_same_sender_is_a_conflict(first: BlockedHost) -> None:
    edit(first, f"From:{SENDER.upper()} OK\n")
    before = first.host.sh(STATE)
    assert "already decides" in first.refused(Conflict).detail
    assert first.host.sh(STATE) == before


def test_what_the_administrator_refuses_is_unchanged_until_he_takes_his_line_away(first: BlockedHost) -> None:
    before = first.host.sh(f"cat {ACCESS}")
    edit(first, f"From:{SENDER}\tREJECT\n")
    result = first.block()
    assert (result.ended, result.after["blocked"]["code"]) == (Ended.UNCHANGED, "550")
    assert f"From:{SENDER}\\tREJECT" in result.data["notes"][0]
    assert first.unblock().data["notes"] == result.data["notes"]
    first.host.exec(f"cat > {ACCESS} && makemap hash {ACCESS} < {ACCESS}", stdin=before)
    assert first.block().ended is Ended.SUCCEEDED


def test_a_wrong_line_of_the_administrator_does_not_stand_in_the_way(first: BlockedHost) -> None:
    edit(first, "From:dup@x.test\tREJECT\nFrom:dup@x.test\tOK\nFrom:novalue@x.test\n")
    assert first.block().ended is Ended.SUCCEEDED
    assert first.reply("dup@x.test").startswith("550")


def test_a_source_that_is_newer_than_its_map_is_not_put_into_effect(first: BlockedHost) -> None:
    first.host.sh(f"sleep 1.1; echo 'From:draft@b.test REJECT' >> {ACCESS}")
    assert "older" in first.refused(Conflict).detail
    assert "draft@b.test" not in first.host.sh(DUMP)


@pytest.mark.parametrize(
    "patterns",
    [
        ("o'brien@example.test", "`id`@example.test", "-bd@example.test", "a|b{c}$*?~@example.test"),
        ("#x@example.test", "!foo@example.test", "a!b@example.test", "n+x@example.test", "a%b@example.test"),
        ("used@ex\u00e4mple.test", "Mixed.Case@example.test", "example.test", ".example.test"),
    ],
)
def test_an_odd_sender_is_blocked_exactly(first: BlockedHost, patterns: tuple[str, ...]) -> None:
    before = first.host.sh(STATE)
    for pattern in patterns:
        result = first.block(SenderBlock(pattern))
        assert result.ended is Ended.SUCCEEDED, pattern
        assert (result.after["blocked"]["code"], result.after.get("not_provable")) == ("550", None), pattern
        assert first.unblock(pattern).ended is Ended.SUCCEEDED, pattern
    assert first.host.sh(STATE) == before


def test_what_the_map_cannot_hold_is_unsupported(first: BlockedHost) -> None:
    before = first.host.sh(STATE)
    for pattern in ("<>", '"q b"@x.test', "\u00fcser@x.test"):
        first.refused(Unsupported, SenderBlock(pattern))
    assert first.host.sh(STATE) == before


@pytest.mark.parametrize(
    "operation",
    [
        SenderBlock(SENDER, text="100% two  spaces, (a) <b> it's $x $* %1; `id` ... @ [z]"),
        SenderBlock(SENDER, text="x" * 200),
        SenderBlock(SENDER, code=451, enhanced="4.7.1"),
    ],
)
def test_code_and_text_arrive_as_asked(first: BlockedHost, operation: SenderBlock) -> None:
    result = first.block(operation)
    assert result.ended is Ended.SUCCEEDED
    assert result.after["blocked"]["code"] == str(operation.code)
    assert result.after["blocked"]["text"].endswith(operation.text)


def test_a_discard_is_read_back_in_the_map_because_no_dialogue_shows_it(first: BlockedHost) -> None:
    result = first.block(SenderBlock(SENDER, action="discard"))
    assert result.ended is Ended.SUCCEEDED
    assert "discarded" in result.after["not_provable"]
    assert result.after["lookup"] == {f"from:{SENDER}": "DISCARD"}
    first.host.inject(sender=SENDER, recipients=("r@ok.test",))
    first.host.sh("for try in $(seq 50); do ! grep -q discard /var/log/mail.log || exit 0; sleep 0.1; done; exit 1")


def test_an_answer_that_is_not_ours_fails_and_is_taken_back(first: BlockedHost) -> None:
    before = first.host.sh(STATE)
    # Another map than the daemon's: what we write there is never asked.
    first.host.sh("sed 's,/etc/mail/access,/etc/mail/elsewhere,' -i /etc/mail/sendmail.cf")
    first.host.sh(f"cp -p {ACCESS} /etc/mail/elsewhere; cp -p {ACCESS}.db /etc/mail/elsewhere.db")
    moved = replace(first.instance, options={**first.instance.options, "access_map": "hash:/etc/mail/elsewhere"})
    result = first.of(moved).block()
    assert result.ended is Ended.FAILED
    assert isinstance(result.error, RemoteError)
    first.host.sh(f"cmp {ACCESS} /etc/mail/elsewhere; rm /etc/mail/elsewhere*")
    assert first.host.sh(STATE) == before


def test_a_full_disk_leaves_source_and_map_as_they_were(first: BlockedHost) -> None:
    # Not below /etc/mail: who may write there could exchange the directory.
    first.host.sh(
        "mkdir -p /srv/small && mount -t tmpfs -o size=128k tmpfs /srv/small && "
        "cp -p /etc/mail/access /etc/mail/access.db /srv/small && "
        "sed 's,/etc/mail/access,/srv/small/access,' -i /etc/mail/sendmail.cf"
    )
    first.host.stop_mta()
    first.host.start_mta()
    options = {**first.instance.options, "access_map": "hash:/srv/small/access"}
    remote = first.of(replace(first.instance, options=options))
    for filled in range(0, 128, 8):
        remote.host.sh(
            f"cd /srv/small; rm -f fill; head -c {filled}k /dev/zero > fill || true; "
            "sha256sum access access.db > /tmp/before"
        )
        outcome = remote.outcome(lambda: remote.adapter.sender_block(remote.instance, BLOCK, CONTEXT))
        if outcome.error is not None:
            assert isinstance(outcome.error, DiskFull), outcome.error.as_dict()
            remote.host.sh("cd /srv/small; sha256sum -c /tmp/before; ! ls | grep mxfleet-work")
            break
        remote.host.sh("rm /srv/small/fill /srv/small/*.mxfleet-2*")
        remote.unblock()
    else:
        pytest.fail("the disk never was full")
    remote.host.sh("rm -f /srv/small/fill /srv/small/*.mxfleet-2*")
    assert remote.block().ended is Ended.SUCCEEDED


KILLING = r"""
set -u
script=$1 map=/etc/mail/access
digest() { sha256sum < $1 | cut -d' ' -f1; }
lost=0 odd=0
echo 'From:bad@one.test	REJECT' >> $map; makemap hash $map < $map
for n in $(seq 1 60); do
    { grep -v '^From:key' $map; printf "From:key$n@x.test\tREJECT\n"; } > /tmp/new
    { printf 'fence 0\n%s\nwrite %s\n2\n' $(digest $map) $(digest /tmp/new)
      printf 'from:bad@one.test\tREJECT\n'; printf "from:key$n@x.test\tREJECT\n"; cat /tmp/new; } > /tmp/stdin
    setsid sh $script apply sendmail /etc/mail/sendmail.cf $map hash < /tmp/stdin > /tmp/out 2>&1 &
    pid=$!
    sleep $(printf '0.%03d' $((n * 8)))
    kill -s KILL -- -$pid 2>/dev/null
    wait $pid 2>/dev/null
    makemap -u hash $map > /tmp/dump || lost=$((lost + 1))
    grep -q '^from:bad@one.test.REJECT' /tmp/dump && grep -q '^connect:127.0.0.1.RELAY' /tmp/dump || lost=$((lost + 1))
    grep -q '^From:bad@one.test' $map || lost=$((lost + 1))
    [ "$(stat -c '%U:%G %a' $map.db)" = 'smmta:smmsp 640' ] && [ "$(stat -c %a $map)" = "$2" ] || odd=$((odd + 1))
done
echo "lost $lost odd $odd"
sh $script apply sendmail /etc/mail/sendmail.cf $map hash < /tmp/stdin > /dev/null 2>&1
{ cat $map; printf 'From:last@x.test\tREJECT\n'; } > /tmp/new
{ echo fence 0; digest $map; echo write $(digest /tmp/new); echo 1; printf 'from:last@x.test\tREJECT\n'
  cat /tmp/new; } | sh $script apply sendmail /etc/mail/sendmail.cf $map hash
"""


def test_a_script_killed_at_any_moment_leaves_the_old_map_or_the_new_one(first: BlockedHost) -> None:
    first.host.exec("cat > /tmp/script.sh", stdin=SCRIPT)
    first.host.exec("cat > /tmp/killing.sh", stdin=KILLING)
    mode = first.host.sh(f"stat -c %a {ACCESS}").strip()
    said = first.host.exec(f"sh /tmp/killing.sh /tmp/script.sh {mode} 2>&1", timeout=100).stdout
    assert "lost 0 odd 0" in said
    assert said.strip().split("\n")[-1].startswith("applied ")
    assert first.block().ended is Ended.SUCCEEDED


EDITING = r"""
map=/etc/mail/access
for n in $(seq 1 20); do
    echo "From:admin$n@edit.test	REJECT" >> $map && makemap hash $map < $map
    sleep 0.4
done
"""


def test_no_line_of_an_administrator_who_edits_at_the_same_time_is_lost(first: BlockedHost) -> None:
    first.host.exec("cat > /tmp/editing.sh", stdin=EDITING)
    first.host.sh("sh /tmp/editing.sh > /dev/null 2>&1 & echo $! > /tmp/editing.pid")
    ended = []
    for n in range(12):
        outcome = first.outcome(
            lambda n=n: first.adapter.sender_block(first.instance, SenderBlock(f"s{n}@x.test"), CONTEXT)
        )
        assert outcome.error is None or isinstance(outcome.error, Conflict | Torn), outcome.error
        ended.append(outcome.error is None and outcome.value.ended is Ended.SUCCEEDED)
    first.host.sh("while kill -0 $(cat /tmp/editing.pid) 2>/dev/null; do sleep 0.2; done")
    source = first.host.sh(f"cat {ACCESS}")
    assert [n for n in range(1, 21) if f"admin{n}@edit.test\tREJECT" not in source] == []
    assert any(ended)
    assert [n for n, is_done in enumerate(ended) if is_done and f"s{n}@x.test\tERROR" not in source] == []


def test_reading_back_tells_what_was_done(first: BlockedHost) -> None:
    unblock = SenderUnblock(SENDER)
    assert (first.read_back().ended, first.read_back(unblock).ended) == (Ended.FAILED, Ended.SUCCEEDED)
    first.block()
    assert (first.read_back().ended, first.read_back(unblock).ended) == (Ended.SUCCEEDED, Ended.FAILED)


def test_the_root_script_touches_no_file_but_the_access_map_of_a_configuration(first: BlockedHost) -> None:
    first.host.exec("cat > /tmp/script.sh", stdin=SCRIPT)
    first.host.sh("echo 'Kaccess hash /etc/passwd' > /tmp/evil.cf; ln -s /etc/shadow /etc/mail/linked")
    first.host.sh("sed 's,/etc/mail/access,/etc/mail/linked,' /etc/mail/sendmail.cf > /etc/mail/linked.cf")
    first.host.sh("sed 's,hash -T,hash -f -T,' /etc/mail/sendmail.cf > /etc/mail/folded.cf")
    first.host.sh("chown fleetops /tmp/evil.cf; chmod 644 /etc/mail/linked.cf")
    for place in (
        "sendmail /etc/mail/sendmail.cf /etc/passwd hash",
        "sendmail /tmp/evil.cf /etc/passwd hash",
        "sendmail /etc/mail/linked.cf /etc/mail/linked hash",
        f"sendmail /etc/mail/folded.cf {ACCESS} hash",
        "sendmail /etc/mail/sendmail.cf /etc/mail/../passwd hash",
        f"sendmail /etc/mail/sendmail.cf {ACCESS} dbm",
        f"other /etc/mail/sendmail.cf {ACCESS} hash",
    ):
        done = first.host.exec(f"sh /tmp/script.sh read {place}")
        assert (done.returncode, done.stdout) == (66, ""), place
    assert first.host.exec(f"sh /tmp/script.sh read {ARGUMENTS}").returncode == 0
