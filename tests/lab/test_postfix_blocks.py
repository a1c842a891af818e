"""Blocking senders on real Postfix 3.5, 3.7 (two instances) and 3.10."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from fleet.mta.blocks.edit import Torn
from fleet.mta.errors import Conflict, DiskFull, FleetError, NeedsWiring, RemoteError, Unsupported
from fleet.mta.operations import BlockList, SenderBlock, SenderUnblock
from fleet.mta.postfix import Postfix, discovery
from fleet.mta.records import Context, Ended, HostFacts, InstanceFacts, Result
from fleet.mta.steps import Plan, Steps
from fleet.ssh.endpoint import AddressPolicy, Endpoint
from fleet.ssh.engine import Engine, Outcome, Request
from fleet.ssh.quoting import script_text
from tests.lab.lab import Host, Lab

POSTFIX = Postfix()

pytestmark = pytest.mark.lab

SENDER = "newsletter@sillyplace.test"
BLOCK = SenderBlock(SENDER)
CONTEXT = Context(now=0, job="0190a1b2", wiring_approved=True)
SCRIPT, _ = script_text("block_file.sh")
MAP = "/etc/postfix/senders"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    found = Engine(AddressPolicy())
    yield found
    found.close()


class Remote:
    """One host through the SSH of the product."""

    def __init__(self, engine: Engine, host: Host) -> None:
        self.engine = engine
        self.host = host
        self.endpoint = Endpoint(
            host.name, host.address, 22, host.user, host.private_key.encode(), host_key=host.host_key, become="sudo"
        )

    def outcome(self, steps: Callable[[], Steps[Any]], *, until_plan: bool = False) -> Outcome:
        [[found]] = list(self.engine.outcomes([Request("one", self.endpoint, steps, until_plan, 120)]))
        return found

    def value(self, steps: Callable[[], Steps[Any]], *, until_plan: bool = False) -> Any:
        found = self.outcome(steps, until_plan=until_plan)
        if found.error is not None:
            raise found.error
        return found.value

    def instances(self) -> tuple[InstanceFacts, ...]:
        return self.value(lambda: discovery.discover(HostFacts(), self.host.name))

    def block(self, instance: InstanceFacts, operation: SenderBlock = BLOCK, context: Context = CONTEXT) -> Result:
        return self.value(lambda: POSTFIX.sender_block(instance, operation, context))

    def unblock(self, instance: InstanceFacts, pattern: str = SENDER, context: Context = CONTEXT) -> Result:
        return self.value(lambda: POSTFIX.sender_unblock(instance, SenderUnblock(pattern), context))

    def refused(self, error: type[FleetError], instance: InstanceFacts, operation: SenderBlock = BLOCK) -> FleetError:
        found = self.outcome(lambda: POSTFIX.sender_block(instance, operation, CONTEXT)).error
        assert isinstance(found, error)
        return found

    def files(self, directory: str) -> str:
        """Names and contents of a configuration, our backups left out."""
        return self.host.sh(f"cd {directory}; find . -type f ! -name '*.mxfleet-2*' | sort | xargs sha256sum")


@pytest.fixture
def first(engine: Engine, pf1: Host) -> Remote:
    return Remote(engine, pf1)


def wire_by_hand(remote: Remote, kind: str, lines: str, before: str = "", path: str = MAP) -> InstanceFacts:
    """An administrator's own map, wired in the default instance."""
    remote.host.exec(f"cat > {path}", stdin=lines)
    build = "" if kind == "texthash" else f"postmap {kind}:{path};"
    restrictions = f"{before} check_sender_access {kind}:{path}, permit_mynetworks"
    remote.host.sh(f"{build} postconf -e 'smtpd_sender_restrictions = {restrictions}'; postfix reload")
    return remote.instances()[0]


@pytest.mark.parametrize("name", ["pf1", "pf2", "pf3"])
def test_the_first_block_wires_each_instance_and_its_undo_leaves_no_trace(engine: Engine, lab: Lab, name: str) -> None:
    lab.reset(name)
    remote = Remote(engine, lab.host(name))
    for instance in remote.instances():
        before = remote.files(instance.config_dir)
        plan = remote.value(lambda i=instance: POSTFIX.sender_block(i, BLOCK, CONTEXT), until_plan=True)
        assert isinstance(plan, Plan)
        assert plan.wiring
        assert [diff.path.rpartition("/")[2] for diff in plan.diffs] == ["mxfleet_senders", "main.cf"]
        assert remote.files(instance.config_dir) == before

        blocked = remote.block(instance)
        assert blocked.ended is Ended.SUCCEEDED
        assert blocked.before["control"]["reply"].startswith("25")
        assert blocked.before["blocked"]["code"] == "250"
        assert blocked.after["blocked"]["code"] == "550"
        assert blocked.after["blocked"]["text"].endswith("Sender address blocked")
        assert blocked.after["lookup"] == "550 5.7.1 Sender address blocked"
        assert "not_provable" not in blocked.after
        assert remote.block(instance).ended is Ended.UNCHANGED

        undone = remote.unblock(instance, context=replace(CONTEXT, undo=True))
        assert undone.ended is Ended.SUCCEEDED
        assert undone.after["blocked"]["code"] == "250"
        assert remote.files(instance.config_dir) == before


def test_wiring_that_was_not_approved_changes_nothing(first: Remote) -> None:
    instance = first.instances()[1]
    before = first.files(instance.config_dir)
    with pytest.raises(NeedsWiring):
        first.block(instance, context=replace(CONTEXT, wiring_approved=False))
    assert first.files(instance.config_dir) == before


def test_unblock_never_unwires_and_undo_waits_for_the_last_block(first: Remote) -> None:
    instance = first.instances()[1]
    first.block(instance)
    first.block(instance, SenderBlock(".wholedomain.test"))
    undo = replace(CONTEXT, undo=True)
    first.unblock(instance, context=undo)
    assert first.block(instance, SenderBlock(".wholedomain.test")).ended is Ended.UNCHANGED
    first.unblock(instance, ".wholedomain.test")
    assert "mxfleet_senders" in first.host.sh(f"postconf -c {instance.config_dir} -h smtpd_sender_restrictions")
    assert first.host.sh(f"postmap -s hash:{instance.config_dir}/mxfleet_senders").startswith("placeholder")


def test_undo_keeps_what_somebody_else_edited_meanwhile(first: Remote) -> None:
    instance = first.instances()[0]
    first.host.sh("postconf -e 'smtpd_sender_restrictions = reject_non_fqdn_sender, permit_mynetworks'")
    first.block(instance)
    first.host.sh("postconf -e 'mailbox_size_limit = 51200001'")
    first.unblock(instance, context=replace(CONTEXT, undo=True))
    said = first.host.sh("postconf -h smtpd_sender_restrictions mailbox_size_limit")
    assert said.split("\n")[:2] == ["reject_non_fqdn_sender, permit_mynetworks", "51200001"]


@pytest.mark.parametrize("kind", ["hash", "btree", "lmdb", "texthash"])
def test_an_administrators_map_is_edited_in_a_marked_region_only(first: Remote, kind: str) -> None:
    lines = "# mine\nbad@one.test REJECT\nok@two.test   OK\n  and more\nend@three.test REJECT no newline"
    instance = wire_by_hand(first, kind, lines, before="reject_unknown_sender_domain,")
    first.host.sh(f"chmod 640 {MAP}*; chgrp mail {MAP}*")
    plan = first.value(lambda: POSTFIX.sender_block(instance, BLOCK, CONTEXT), until_plan=True)
    assert not plan.wiring
    assert "check_sender_access" in first.host.sh("postconf -h smtpd_sender_restrictions")
    assert first.block(instance, context=replace(CONTEXT, wiring_approved=False)).ended is Ended.SUCCEEDED
    assert first.host.sh(f"cat {MAP}").startswith(lines)
    assert set(first.host.sh(f"stat -c '%a %G' {MAP} {MAP}.*db 2>/dev/null || true").split("\n")) <= {"640 mail", ""}
    assert first.host.sh(f"postmap -q bad@one.test {kind}:{MAP}") == "REJECT\n"
    listed = first.value(lambda: POSTFIX.block_list(instance, BlockList(), CONTEXT)).data
    assert listed["ours"] == [{"pattern": SENDER, "action": "reject", "reply": "550 5.7.1 Sender address blocked"}]
    assert {"file": MAP, "line": "bad@one.test REJECT"} in listed["others"]
    assert first.unblock(instance, context=replace(CONTEXT, undo=True)).ended is Ended.SUCCEEDED
    assert first.host.sh(f"cat {MAP}") == lines
    assert "check_sender_access" in first.host.sh("postconf -h smtpd_sender_restrictions")


def test_an_administrators_line_for_the_same_sender_is_a_conflict(first: Remote) -> None:
    instance = wire_by_hand(first, "hash", f"a@b.test REJECT\n{SENDER.upper()} OK\n")
    before = first.files("/etc/postfix")
    error = first.refused(Conflict, instance)
    assert f"{MAP} line 2" in error.detail
    assert first.files("/etc/postfix") == before


def test_the_same_line_by_hand_is_unchanged_and_not_ours_to_unblock(first: Remote) -> None:
    instance = wire_by_hand(first, "hash", f"{SENDER} 550 5.7.1 Sender address blocked\n")
    assert first.block(instance).ended is Ended.UNCHANGED
    assert first.unblock(instance).ended is Ended.UNCHANGED


def test_what_the_administrator_refuses_is_unchanged_until_he_takes_his_line_away(first: Remote) -> None:
    instance = wire_by_hand(first, "hash", f"a@b.test REJECT\n{SENDER} REJECT\n")
    result = first.block(instance)
    assert (result.ended, result.after["blocked"]["code"]) == (Ended.UNCHANGED, "554")
    assert f"{MAP} line 2 is the administrator's" in result.data["notes"][0]
    assert first.unblock(instance).data["notes"] == result.data["notes"]
    instance = wire_by_hand(first, "hash", "a@b.test REJECT\n")
    assert first.block(instance).ended is Ended.SUCCEEDED


def test_a_source_that_is_newer_than_its_map_is_not_put_into_effect(first: Remote) -> None:
    instance = wire_by_hand(first, "hash", "a@b.test REJECT\n")
    first.host.sh(f"sleep 1; echo 'draft@b.test REJECT' >> {MAP}")
    error = first.refused(Conflict, instance)
    assert "older" in error.detail
    assert first.host.exec(f"postmap -q draft@b.test hash:{MAP}").returncode == 1


@pytest.mark.parametrize(
    "pattern",
    [
        "o'brien@example.test",
        "`id`@example.test",
        '"quoted local"@example.test',
        '"$(id)"@example.test',
        r'"a\"b\\c"@example.test',
        "-bd@example.test",
        "a|b{c}@example.test",
        "!foo@example.test",
        "üser@example.test",
        "used@exämple.test",
        "<>",
        ".example.test",
        "example.test",
    ],
)
def test_an_odd_sender_is_blocked_exactly(engine: Engine, pf2: Host, pattern: str) -> None:
    remote = Remote(engine, pf2)
    [instance] = remote.instances()
    result = remote.block(instance, SenderBlock(pattern))
    assert result.ended is Ended.SUCCEEDED
    assert result.after["lookup"].startswith("550 5.7.1")
    if pattern.startswith("-"):  # refused without any block: allow_min_user, postconf(5)
        assert "refused before the block too" in result.after["not_provable"]
    else:
        assert (result.after["blocked"]["code"], result.after.get("not_provable")) == ("550", None)
    assert remote.unblock(instance, pattern).ended is Ended.SUCCEEDED
    assert pf2.exec("ls /etc/postfix /tmp / | grep -c PWN").stdout.strip() == "0"


def test_a_key_that_would_be_a_comment_is_unsupported(first: Remote) -> None:
    first.refused(Unsupported, first.instances()[0], SenderBlock("#x@y.test"))


def test_an_own_domain_is_not_blocked(first: Remote) -> None:
    assert "pf1.lab.test" in first.refused(Conflict, first.instances()[0], SenderBlock("pf1.lab.test")).detail


def test_a_discard_is_read_back_in_the_map_because_no_dialogue_shows_it(first: Remote) -> None:
    instance = first.instances()[1]
    result = first.block(instance, SenderBlock(SENDER, action="discard"))
    assert result.ended is Ended.SUCCEEDED
    assert "discarded" in result.after["not_provable"]
    assert result.after["lookup"] == "DISCARD Sender address blocked"


def test_an_answer_that_is_not_ours_fails_and_is_taken_back(first: Remote) -> None:
    instance = wire_by_hand(first, "hash", "a@b.test REJECT\n")
    # master(8) goes on with an override that its file has no longer, so only the answer shows it.
    override = "smtp/inet/smtpd_sender_restrictions"
    first.host.sh(f"postconf -P {override}=permit; postfix reload; sleep 1; postconf -PX {override}")
    before = first.host.sh(f"sha256sum {MAP}; postmap -s hash:{MAP}")
    result = first.block(instance)
    assert result.ended is Ended.FAILED
    assert isinstance(result.error, RemoteError)
    assert first.host.sh(f"sha256sum {MAP}; postmap -s hash:{MAP}") == before


def test_where_no_control_is_accepted_the_lookup_decides(first: Remote) -> None:
    instance = wire_by_hand(first, "hash", "a@b.test REJECT\n")
    first.host.sh("postconf -e 'smtpd_recipient_restrictions = reject'; postfix reload")
    result = first.block(instance)
    assert result.ended is Ended.SUCCEEDED
    assert "no control sender was accepted" in result.after["not_provable"]
    assert result.after["lookup"] == "550 5.7.1 Sender address blocked"


def test_a_full_disk_leaves_source_and_map_as_they_were(first: Remote) -> None:
    path = "/etc/postfix/small/senders"
    first.host.sh("mkdir /etc/postfix/small; mount -t tmpfs -o size=128k tmpfs /etc/postfix/small")
    lines = "".join(f"user{n}@full.test REJECT\n" for n in range(200))
    instance = wire_by_hand(first, "hash", lines, path=path)
    for filled in range(0, 128, 8):
        first.host.sh(
            f"cd /etc/postfix/small; rm -f fill; head -c {filled}k /dev/zero > fill || true; "
            f"sha256sum senders senders.db > /tmp/before"
        )
        outcome = first.outcome(lambda: POSTFIX.sender_block(instance, BLOCK, CONTEXT))
        if outcome.error is not None:
            assert isinstance(outcome.error, DiskFull), outcome.error.as_dict()
            first.host.sh("cd /etc/postfix/small; sha256sum -c /tmp/before; ! ls | grep mxfleet-work")
            break
        first.host.sh("rm /etc/postfix/small/fill /etc/postfix/small/*.mxfleet-2*")
        first.unblock(instance)
    else:
        pytest.fail("the disk never was full")
    first.host.sh("rm -f /etc/postfix/small/fill; rm -f /etc/postfix/small/*.mxfleet-2*")
    assert first.block(instance).ended is Ended.SUCCEEDED


KILLING = r"""
set -u
script=$1 map=$2
digest() { sha256sum < $1 | cut -d' ' -f1; }
lost=0 odd=0 n=0
for delay in $(seq 1 60); do
    n=$((n + 1))
    { grep -v '^key' $map; echo "key$n@x.test 550 5.7.1 n"; } > /tmp/new
    { echo fence 0; digest $map; echo "write $(digest /tmp/new)"; echo 2
      printf 'bad@one.test\tREJECT\n'; printf "key$n@x.test\t550 5.7.1 n\n"; cat /tmp/new; } > /tmp/stdin
    setsid sh $script apply postfix /etc/postfix $map hash < /tmp/stdin > /tmp/out 2>&1 &
    pid=$!
    sleep $(printf '0.%03d' $((delay * 8)))
    kill -s KILL -- -$pid 2>/dev/null
    wait $pid 2>/dev/null
    [ "$(postmap -q bad@one.test hash:$map)" = REJECT ] || lost=$((lost + 1))
    new=$(postmap -q key$n@x.test hash:$map)
    [ -z "$new" ] || [ "$new" = '550 5.7.1 n' ] || odd=$((odd + 1))
    grep -q '^bad@one.test' $map || lost=$((lost + 1))
done
echo "lost $lost odd $odd"
sh $script apply postfix /etc/postfix $map hash < /tmp/stdin > /dev/null 2>&1
{ cat $map; echo 'last@x.test 550 5.7.1 n'; } > /tmp/new
{ echo fence 0; digest $map; echo "write $(digest /tmp/new)"; echo 1
  printf 'last@x.test\t550 5.7.1 n\n'; cat /tmp/new; } |
    sh $script apply postfix /etc/postfix $map hash
"""


def test_a_script_killed_at_any_moment_leaves_the_old_map_or_the_new_one(first: Remote) -> None:
    wire_by_hand(first, "hash", "bad@one.test REJECT\n")
    first.host.exec("cat > /tmp/script.sh", stdin=SCRIPT)
    first.host.exec("cat > /tmp/killing.sh", stdin=KILLING)
    said = first.host.exec(f"sh /tmp/killing.sh /tmp/script.sh {MAP} 2>&1", timeout=100).stdout
    assert "lost 0 odd 0" in said
    assert said.strip().split("\n")[-1].startswith("applied ")


EDITING = r"""
map=$1
for n in $(seq 1 40); do
    echo "admin$n@edit.test REJECT" >> $map && postmap hash:$map
    sleep 0.05
done
"""


def test_no_line_of_an_administrator_who_edits_at_the_same_time_is_lost(first: Remote) -> None:
    instance = wire_by_hand(first, "hash", "bad@one.test REJECT\n")
    first.host.exec("cat > /tmp/editing.sh", stdin=EDITING)
    first.host.sh(f"sh /tmp/editing.sh {MAP} > /dev/null 2>&1 & echo $! > /tmp/editing.pid")
    ended = []
    for n in range(12):
        outcome = first.outcome(lambda n=n: POSTFIX.sender_block(instance, SenderBlock(f"s{n}@x.test"), CONTEXT))
        assert outcome.error is None or isinstance(outcome.error, Conflict | Torn), outcome.error
        ended.append(outcome.error is None)
    first.host.sh("while kill -0 $(cat /tmp/editing.pid) 2>/dev/null; do sleep 0.2; done")
    source = first.host.sh(f"cat {MAP}")
    assert [n for n in range(1, 41) if f"admin{n}@edit.test REJECT" not in source] == []
    assert [n for n, is_done in enumerate(ended) if is_done and f"s{n}@x.test\t550" not in source] == []


def test_reading_back_tells_what_was_done(first: Remote) -> None:
    instance = first.instances()[1]

    def read(operation: SenderBlock | SenderUnblock) -> Ended:
        return first.value(lambda: POSTFIX.read_back(instance, operation, CONTEXT)).ended

    assert read(BLOCK) is Ended.FAILED
    first.block(instance)
    assert read(BLOCK) is Ended.SUCCEEDED
    assert read(SenderUnblock(SENDER)) is Ended.FAILED
    first.unblock(instance)
    assert read(SenderUnblock(SENDER)) is Ended.SUCCEEDED


def test_the_root_scripts_touch_no_file_but_the_maps_of_an_instance(first: Remote) -> None:
    first.host.exec("cat > /tmp/script.sh", stdin=SCRIPT)
    for place in (
        "/etc/postfix /etc/passwd hash",
        "/tmp /tmp/mxfleet_senders hash",
        "/etc/postfix /etc/postfix/x pcre",
    ):
        done = first.host.exec(f"sh /tmp/script.sh read postfix {place}")
        assert (done.returncode, done.stdout) == (66, "")
