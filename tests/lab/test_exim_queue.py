"""Every queue operation on real Exim hosts, over the product's own SSH: 4.96 (split and flat spool) and 4.98.

What the adapter says is compared with exim -bp, with the spool files and with what arrives.
"""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from fleet import match
from fleet.mta.errors import Conflict, InDelivery, MessageNotFound
from fleet.mta.exim import Exim
from fleet.mta.host.commands import HELPERS, sudoers_section
from fleet.mta.host.discovery import discover_host
from fleet.mta.operations import (
    MessageDeliver,
    MessageShow,
    Quarantined,
    QuarantineErase,
    QuarantineRestore,
    QueueBounce,
    QueueFlush,
    QueueHold,
    QueueList,
    QueuePurge,
    QueueRelease,
    Selection,
)
from fleet.mta.records import Context, Ended, Result
from fleet.mta.steps import Plan, Steps
from fleet.ssh.endpoint import AddressPolicy, Endpoint
from fleet.ssh.engine import Engine, Request
from fleet.ssh.quoting import SCRIPTS, script_text
from tests.lab.lab import Host, Lab
from tests.lab.waiting import await_true, tries

pytestmark = pytest.mark.lab
EXIM = Exim()
JOB = "0199b0c2-7f3e-7abc-8def-0123456789ab"
QUARANTINE = "mxfleet-7f3e7abc8def0123456789ab"
HOSTS = ("ex1", "ex2", "ex3")
SPOOL = "/var/spool/exim4"
SUMS = f"cd {SPOOL} && find . -type f ! -path './db/*' | xargs -r sha256sum | sed 's| .*/| |' | sort"
ODD = b"From: x@y.test\r\nTo: z@y.test\r\nX-Odd: yes\r\nSubject: odd\r\n\r\n.from the lab\r\n"
LISTED = re.compile(r"^ *\d+[mhd] +(\S+) (\S+) <(.*)>(?: \((.*)\))?( \*\*\* frozen \*\*\*)?$")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    found = Engine(AddressPolicy())
    yield found
    found.close()


class Remote:
    """The Exim of a host, through the product's SSH."""

    def __init__(self, engine: Engine, host: Host) -> None:
        self.engine = engine
        self.host = host
        key = host.private_key.encode()
        self.endpoint = Endpoint(host.name, host.address, 22, host.user, key, host_key=host.host_key, become="sudo")
        _, instances = self.carry(lambda: discover_host(host.name, time.time))
        [self.instance] = [each for each in instances if each.mta == "exim"]

    def carry(self, steps: Callable[[], Steps[Any]], *, until_plan: bool = False) -> Any:
        [[found]] = list(self.engine.outcomes([Request("one", self.endpoint, steps, until_plan, 120)]))
        if found.error is not None:
            raise found.error
        return found.value

    def do(self, name: str, operation: Any, **fields: Any) -> Any:
        context = Context(**{"now": time.time(), "job": JOB, **fields})
        return self.carry(lambda: getattr(EXIM, name)(self.instance, operation, context))

    def plan(self, name: str, operation: Any) -> Plan:
        context = Context(now=time.time(), job=JOB)
        found = self.carry(lambda: getattr(EXIM, name)(self.instance, operation, context), until_plan=True)
        assert isinstance(found, Plan)
        return found

    def queue(self, text: str = "ALL") -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.do("queue_list", QueueList(match.parse(text))).data["entries"]
        return entries

    def states(self) -> dict[str, str]:
        return {entry["queue_id"]: entry["native_state"] for entry in self.queue()}

    def await_states(self, state: str, count: int) -> list[str]:
        """The queue IDs once so many messages are in that state."""
        for _ in tries(20):
            found = [name for name, each in self.states().items() if each == state]
            if len(found) == count:
                return found
        raise AssertionError(f"not {count} messages {state}: {self.states()}")

    def items(self, plan: Plan, result: Result) -> tuple[Quarantined, ...]:
        return tuple(
            Quarantined(
                each.queue_id,
                each.queue_id,
                result.data["places"][each.queue_id],
                each.arrival_time,
                each.sender,
                each.size,
                each.state,
            )
            for each in plan.selected
        )


@pytest.fixture(params=HOSTS)
def remote(request: pytest.FixtureRequest, engine: Engine, lab: Lab) -> Remote:
    host = lab.host(request.param)
    host.reset()
    lab.sink.reset()
    return Remote(engine, host)


@pytest.fixture
def flat(engine: Engine, ex2: Host) -> Remote:
    return Remote(engine, ex2)


def by(text: str) -> Selection:
    return Selection(match=match.parse(text))


def ids(*names: str) -> Selection:
    return Selection(queue_ids=names)


def outcomes(result: Result) -> dict[str, str]:
    return {each.queue_id: each.outcome.value for each in result.messages}


def shown_by_exim(host: Host) -> dict[str, tuple[str, list[str]]]:
    """exim -bp: ID to sender and recipients; done ones begin with "D ". 4.96 cuts nothing of a short ID."""
    found: dict[str, tuple[str, list[str]]] = {}
    name = ""
    for line in host.sh("exim4 -bp").splitlines():
        if head := LISTED.match(line):
            name = head[2]
            found[name] = (head[3] or "<>", [])
        elif line.strip():
            found[name][1].append(line.strip())
    return found


def test_odd_addresses_are_listed_exactly_as_exim_lists_them(remote: Remote) -> None:
    assert remote.queue() == []
    senders = ['"a b"@x.test', "\"'; rm -rf /;'\"@x.test", "-bd@x.test", "a%b!c=d+e@x.test", "", "CaSe@Bulk.Example"]
    for sender in senders:
        remote.host.inject(sender=sender, recipients=("-odq@defer.test", "Done@Ok.Test"), data=ODD)
    remote.await_states("queued", len(senders))
    theirs = shown_by_exim(remote.host)
    ours = {
        entry["queue_id"]: (
            entry["sender"],
            [("D " if each["state"] == "delivered" else "") + each["address"] for each in entry["recipients"]],
        )
        for entry in remote.queue()
    }
    assert ours == theirs
    assert {sender for sender, _ in ours.values()} == {sender or "<>" for sender in senders}
    [entry] = remote.queue("from:-bd@x.test reason~451 to:-odq@defer.test")
    assert entry["recipients"][0]["reason"].endswith("451 4.7.1 sink: try later, defer.test")
    stored = remote.host.sh(f"exim4 -Mvc {entry['queue_id']}")
    assert entry["size"] == len(stored.encode())
    assert len(remote.queue('header[X-Odd]:yes body~"lab"')) == len(remote.queue("body~lab"))
    shown = remote.do("message_show", MessageShow(entry["queue_id"], ("envelope", "headers", "body"))).data
    assert [each["state"] for each in shown["envelope"]["recipients"]] == ["undelivered", "delivered"]
    assert stored.endswith(shown["body"]["text"])
    assert "X-Odd" in [each["name"] for each in shown["headers"]]


def test_purge_of_the_frozen_plan_and_its_undo_bring_back_the_same_bytes(remote: Remote) -> None:
    remote.host.inject(n=4, sender="news{i}@bulk.example", recipients=("r{i}@defer.test",))
    names = remote.await_states("queued", 4)
    remote.host.sh(f"exim4 -Mf {names[0]}")
    before = remote.host.sh(SUMS)
    plan = remote.plan("queue_purge", QueuePurge(by("from:news*")))
    assert plan.foreign_holds == 1
    assert remote.host.sh(SUMS) == before
    remote.host.inject(n=1, sender="news9@bulk.example", recipients=("r9@defer.test",))
    remote.await_states("queued", 4)

    result = remote.do("queue_purge", QueuePurge(by("from:news*")), frozen=plan.selected)
    assert outcomes(result) == dict.fromkeys(names, "done")
    [newcomer] = remote.queue()
    assert newcomer["sender"] == "news9@bulk.example"
    assert remote.host.sh("exim4 -bpc").strip() == "1"
    assert remote.host.sh(f"exim4 -qG{QUARANTINE} -bpc").strip() == "4"

    items = remote.items(plan, result)
    restored = remote.do("quarantine_restore", QuarantineRestore(items), undo=True)
    assert outcomes(restored) == dict.fromkeys(names, "done")
    remote.do("queue_purge", QueuePurge(ids(newcomer["queue_id"]), mode="delete"))
    assert remote.host.sh(SUMS) == before
    assert remote.states()[names[0]] == "frozen"
    assert "mxfleet" not in remote.host.sh(f"ls {SPOOL}")


def test_an_erased_message_is_gone_for_good_and_a_restored_one_is_attempted(remote: Remote, lab: Lab) -> None:
    remote.host.inject(n=2, sender="news{i}@bulk.example", recipients=("r{i}@defer.test",))
    remote.await_states("queued", 2)
    plan = remote.plan("queue_purge", QueuePurge(by("ALL")))
    first, second = remote.items(plan, remote.do("queue_purge", QueuePurge(by("ALL")), frozen=plan.selected))
    erased = remote.do("quarantine_erase", QuarantineErase((first,)))
    assert outcomes(erased) == {first.queue_id: "done"}
    log = f"grep -c '{second.queue_id} == ' /var/log/exim4/mainlog"
    tried = int(remote.host.sh(log))
    restored = remote.do("quarantine_restore", QuarantineRestore((first, second)))
    assert outcomes(restored) == {first.queue_id: "already_gone", second.queue_id: "done"}
    assert int(remote.host.sh(log)) == tried + 1
    assert list(remote.states()) == [second.queue_id]


def test_a_message_in_delivery_is_never_claimed_and_is_delivered_once(remote: Remote, lab: Lab) -> None:
    remote.host.inject(n=2, sender="slow{i}@bulk.example", recipients=("r{i}@slow.test",))
    names = remote.await_states("delivering", 2)
    for name, operation in (
        ("queue_purge", QueuePurge(by("ALL"))),
        ("queue_purge", QueuePurge(by("ALL"), mode="delete")),
        ("queue_hold", QueueHold(by("ALL"))),
        ("queue_bounce", QueueBounce(by("ALL"))),
    ):
        result = remote.do(name, operation)
        assert outcomes(result) == dict.fromkeys(names, "in_delivery")
        assert isinstance(result.error, InDelivery)
    with pytest.raises(InDelivery):
        remote.do("message_deliver", MessageDeliver(names[0]))
    await_true(lambda: not remote.states(), 20)
    assert sorted(message["sender"] for message in lab.sink.messages()) == ["slow1@bulk.example", "slow2@bulk.example"]


def test_hold_and_release_read_the_state_back_and_free_only_ours(remote: Remote) -> None:
    remote.host.inject(n=2, sender="news{i}@bulk.example", recipients=("r{i}@defer.test",))
    ours, others = remote.await_states("queued", 2)
    remote.host.sh(f"exim4 -Mf {others}")
    held = remote.do("queue_hold", QueueHold(by("ALL")))
    assert (outcomes(held), held.data["already"]) == ({ours: "done"}, 1)
    assert set(remote.states().values()) == {"frozen"}
    assert "*** frozen ***" in remote.host.sh(f"exim4 -bp {ours}")
    [fingerprint] = [
        each for each in remote.plan("queue_purge", QueuePurge(by("ALL"))).selected if each.queue_id == ours
    ]
    released = remote.do("queue_release", QueueRelease(by("ALL")), ours=frozenset({fingerprint}))
    assert outcomes(released) == {ours: "done"}
    assert remote.states() == {ours: "queued", others: "frozen"}
    assert remote.do("queue_release", QueueRelease(by("state:hold"))).ended is Ended.SUCCEEDED


def test_exactly_one_message_is_attempted_with_its_dialogue(remote: Remote, lab: Lab) -> None:
    remote.host.inject(n=2, sender="news{i}@bulk.example", recipients=("r{i}@defer.test",))
    one, other = remote.await_states("queued", 2)
    log = "grep -c '{} == ' /var/log/exim4/mainlog"
    before = remote.host.sh(log.format(other))
    result = remote.do("message_deliver", MessageDeliver(one, verbose=True))
    assert result.data["outcome"] == "deferred"
    assert result.data["reply"] == "451 4.7.1 sink: try later, defer.test"
    assert any("SMTP<< 451" in line for line in result.data["dialogue"])
    assert remote.host.sh(log.format(other)) == before
    remote.host.sh(f"exim4 -Mf {one}")
    with pytest.raises(Conflict):
        remote.do("message_deliver", MessageDeliver(one))
    with pytest.raises(MessageNotFound):
        remote.do("message_deliver", MessageDeliver("1AAAAA-000000-00"))
    assert not lab.sink.messages()


def test_flush_and_bounce_are_proven_and_leave_frozen_mail(remote: Remote, lab: Lab) -> None:
    remote.host.inject(n=3, sender="news{i}@bulk.example", recipients=("r{i}@defer.test",))
    first, frozen, last = remote.await_states("queued", 3)
    remote.host.sh(f"exim4 -Mf {frozen}")
    flushed = remote.do("queue_flush", QueueFlush(by("to-domain:defer.test")))
    assert outcomes(flushed) == dict.fromkeys((first, last), "done")
    assert remote.states()[frozen] == "frozen"
    bounced = remote.do("queue_bounce", QueueBounce(ids(first)))
    assert outcomes(bounced) == {first: "done"}
    [notice] = lab.sink.wait(1)
    assert notice["sender"] == ""
    assert set(remote.states()) == {frozen, last}


def test_a_move_that_was_cut_off_loses_nothing_and_is_finished_by_the_next(flat: Remote) -> None:
    flat.host.inject(n=4, sender="news{i}@bulk.example", recipients=("r{i}@defer.test",))
    flat.await_states("queued", 4)
    before = flat.host.sh(SUMS)
    plan = flat.plan("queue_purge", QueuePurge(by("ALL")))
    a, b, c, d = (each.queue_id for each in plan.selected)
    flat.host.sh(f"""cd {SPOOL} && mkdir -p {QUARANTINE}/input {QUARANTINE}/msglog
        chown -R Debian-exim: {QUARANTINE}
        for id in {a} {b} {c}; do ln msglog/$id {QUARANTINE}/msglog/; ln input/$id-D {QUARANTINE}/input/; done
        for id in {b} {c}; do ln input/$id-H {QUARANTINE}/input/; done
        rm input/{c}-H""")
    read = flat.carry(
        lambda: EXIM.read_back(flat.instance, QueuePurge(by("ALL")), Context(0, job=JOB, frozen=plan.selected))
    )
    assert outcomes(read) == {a: "left", b: "left", c: "done", d: "left"}
    done = flat.do("queue_purge", QueuePurge(by("ALL")), frozen=plan.selected)
    assert outcomes(done) == {a: "done", b: "done", c: "already_gone", d: "done"}
    read = flat.carry(
        lambda: EXIM.read_back(flat.instance, QueuePurge(by("ALL")), Context(0, job=JOB, frozen=plan.selected))
    )
    assert set(outcomes(read).values()) == {"done"}
    items = flat.items(plan, read)
    flat.host.sh(f"""cd {SPOOL} && for id in {a} {b} {c}; do ln {QUARANTINE}/msglog/$id msglog/; done
        for id in {b} {c}; do ln {QUARANTINE}/input/$id-D input/; done
        ln {QUARANTINE}/input/{c}-H input/""")
    restored = flat.do("quarantine_restore", QuarantineRestore(items), undo=True)
    assert set(outcomes(restored).values()) == {"done"}
    assert flat.host.sh(SUMS) == before


def test_a_purge_that_is_killed_leaves_every_message_whole_in_one_place(flat: Remote) -> None:
    """Each round kills Exim, xargs and the script at another moment."""
    flat.host.inject(n=120, sender="news{i}@bulk.example", recipients=("r{i}@defer.test",))
    flat.await_states("queued", 120)
    before = flat.host.sh(SUMS)
    plan = flat.plan("queue_purge", QueuePurge(by("ALL")))
    flat.host.exec("cat > /root/quarantine.sh", stdin=script_text("exim_quarantine.sh")[0])
    flat.host.exec("cat > /root/ids", stdin="".join(f"{each.queue_id}\n" for each in plan.selected))
    for pause in ("0", "0.01", "0.02", "0.04", "0.08"):
        flat.host.exec(
            f"(echo fence 0; echo {QUARANTINE.removeprefix('mxfleet-')}; cat /root/ids) |"
            f" setsid sh /root/quarantine.sh out /usr/sbin/exim4 {SPOOL} >/dev/null & "
            f"sleep {pause}; kill -s KILL -- -$! 2>/dev/null; wait"
        )
        halves = flat.host.sh(
            f"cd {SPOOL}; find input {QUARANTINE}/input -name '*-H' -printf '%f\\n' 2>/dev/null | sort -u | wc -l"
        )
        assert int(halves) == 120
        flat.do("queue_purge", QueuePurge(by("ALL")), frozen=plan.selected)
        there = flat.carry(
            lambda: EXIM.read_back(flat.instance, QueuePurge(by("ALL")), Context(0, job=JOB, frozen=plan.selected))
        )
        assert there.data["done"] == 120
        restored = flat.do("quarantine_restore", QuarantineRestore(flat.items(plan, there)), undo=True)
        assert restored.data["done"] == 120
        assert flat.host.sh(SUMS) == before


def test_the_sudoers_lines_are_enough_and_other_commands_are_refused(engine: Engine, ex2: Host) -> None:
    for script in SCRIPTS.values():
        ex2.exec(
            f"mkdir -p {HELPERS} && cat > {HELPERS}/{script.name} && chmod 755 {HELPERS}/{script.name}",
            stdin=script.read_text(),
        )
    remote = Remote(engine, ex2)
    lines = sudoers_section("fleetops", 1, EXIM.sudoers(remote.instance, "fleetops"))
    facts, _ = remote.carry(lambda: discover_host("ex2", time.time))
    remote.endpoint = replace(remote.endpoint, helpers=frozenset(facts.helpers))
    ex2.inject(sender="news@bulk.example", recipients=("r@defer.test",))
    [name] = remote.await_states("queued", 1)
    ex2.exec("cat > /etc/sudoers.d/fleetops && chmod 440 /etc/sudoers.d/fleetops && visudo -c", stdin=lines)
    assert outcomes(remote.do("queue_hold", QueueHold(ids(name)))) == {name: "done"}
    assert remote.do("message_deliver", MessageDeliver(name, release=True)).data["outcome"] == "deferred"
    assert outcomes(remote.do("queue_purge", QueuePurge(ids(name)))) == {name: "done"}
    refused = subprocess.run(
        ex2.ssh_command("sudo -n /usr/sbin/exim4 -be '${run{/bin/id}}'"), capture_output=True, text=True, check=False
    )
    assert "a password is required" in refused.stderr
