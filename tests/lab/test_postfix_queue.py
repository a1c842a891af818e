"""Every queue operation on real Postfix hosts, over the product's own SSH: 3.5, 3.7 (two instances) and 3.10."""

import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import pytest

from fleet import match
from fleet.mta.errors import Conflict, FleetError, LoginShell, MessageNotFound, MtaNotRunning, SudoDenied
from fleet.mta.host.discovery import discover_host
from fleet.mta.operations import (
    MessageDeliver,
    MessageShow,
    Quarantined,
    QuarantineRestore,
    QueueBounce,
    QueueFlush,
    QueueHold,
    QueueList,
    QueuePurge,
    QueueRelease,
    QueueRequeue,
    Selection,
)
from fleet.mta.postfix import Postfix
from fleet.mta.records import Context, Ended, InstanceFacts, Result
from fleet.mta.steps import Plan, Steps
from fleet.ssh.endpoint import AddressPolicy, Endpoint
from fleet.ssh.engine import Engine, Request
from fleet.ssh.quoting import script_text
from tests.lab.lab import Host, Lab
from tests.lab.waiting import tries

pytestmark = pytest.mark.lab
POSTFIX = Postfix()
HOSTS = ("pf1", "pf2", "pf3")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    found = Engine(AddressPolicy())
    yield found
    found.close()


class Remote:
    """The last instance of a host (pf1: the second one), through the product's SSH."""

    def __init__(self, engine: Engine, host: Host, user: str = "") -> None:
        self.engine = engine
        self.host = host
        key = host.private_key.encode()
        self.endpoint = Endpoint(
            host.name, host.address, 22, user or host.user, key, host_key=host.host_key, become="sudo"
        )

    @cached_property
    def instance(self) -> InstanceFacts:
        _, instances = self.carry(lambda: discover_host(self.host.name, time.time))
        return instances[-1]

    def carry(self, steps: Callable[[], Steps[Any]], *, until_plan: bool = False) -> Any:
        [[found]] = list(self.engine.outcomes([Request("one", self.endpoint, steps, until_plan, 120)]))
        if found.error is not None:
            raise found.error
        return found.value

    def do(self, name: str, operation: Any, **fields: Any) -> Result:
        instance = self.instance
        context = Context(now=time.time(), job="job-1", **fields)
        return self.carry(lambda: getattr(POSTFIX, name)(instance, operation, context))

    def plan(self, name: str, operation: Any) -> Plan:
        instance = self.instance
        context = Context(now=time.time(), job="job-1")
        return self.carry(lambda: getattr(POSTFIX, name)(instance, operation, context), until_plan=True)

    def queue(self, text: str = "ALL") -> list[dict[str, Any]]:
        return self.do("queue_list", QueueList(match.parse(text))).data["entries"]

    def states(self) -> dict[str, str]:
        return {entry["queue_id"]: entry["state"] for entry in self.queue()}

    def await_states(self, state: str, count: int) -> list[str]:
        """The queue IDs once so many messages are in that state."""
        for _ in tries(20):
            found = [name for name, each in self.states().items() if each == state]
            if len(found) == count:
                return found
        raise AssertionError(f"not {count} messages {state}: {self.states()}")


@pytest.fixture(params=HOSTS)
def remote(request: pytest.FixtureRequest, engine: Engine, lab: Lab) -> Remote:
    host = lab.host(request.param)
    host.reset()
    lab.sink.reset()
    return Remote(engine, host)


FORGED = b"*** ENVELOPE RECORDS deferred/F/F1234 ***\r\n*** MESSAGE CONTENTS deferred/F/F1234 ***\r\n"
HOSTILE = {
    "plain": b"Subject: news\r\n\r\nbody\r\n",
    "noheader": FORGED + b"Subject: news\r\n\r\nbody\r\n",
    "empty": b"\r\n" + FORGED + b"Subject: news\r\n",
    "nothing": b"",
    "cut": b"Subject: other\r\n***: x\r\n***   : y\r\n" + FORGED + b"Subject: news\r\n\r\nbody\r\n",
    "folded": b"Subject: other\r\n " + FORGED.replace(b"\r\n", b"\r\n\t", 1) + b" Subject: folded news\r\n\r\nbody\r\n",
    "records": b"Subject: other\r\nX-Long: " + b"a" * 2040 + FORGED[:41] + b"z" * 9000 + b"\r\nX-After: news\r\n\r\n",
    "bare": b"Subject: other\nX-After: news\n" + FORGED.replace(b"\r", b"") + b"Subject: news\n\r\nbody\r\n",
    "carriage": b"Subject: other\rSubject: news\r\r\nX-After: news\r\n\r\nbody\r\n",
    "nul": b"Subject: ot\0her\r\nX-After: news\r\n\r\nbody\r\n",
    "eight": b"Subject: \xff\xfe n\xc3\xa9ws\r\nX-After: news\r\n\r\nbody\r\n",
    "from": b"From someone@x.test Fri Nov 20\r\nSubject: news\r\n\r\nbody\r\n",
    "mime": b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\nSubject: other\r\n\r\n--x\r\n"
    b"Content-Type: text/plain\r\nSubject: news\r\n\r\n" + FORGED + b"--x--\r\n",
    "large": b"X-Many: news\r\nSubject: early\r\n"
    + (b"X-Fill: " + b"q" * 900 + b"\r\n") * 120
    + b"Subject: news\r\n\r\n",
    "open": b"Subject: news",
}


def by(text: str) -> Selection:
    return Selection(match=match.parse(text))


def outcomes(result: Result) -> dict[str, str]:
    return {each.queue_id: each.outcome.value for each in result.messages}


def test_an_empty_queue_is_listed_as_empty_and_a_stopped_one_is_an_error(remote: Remote) -> None:
    assert remote.queue() == []
    instance = remote.instance
    remote.host.sh(f"postfix -c {instance.config_dir} stop")
    with pytest.raises(MtaNotRunning):
        remote.queue()


def test_odd_senders_are_listed_exactly_and_found_again(remote: Remote) -> None:
    senders = ['"a b"@x.test', "\"'; rm -rf /;'\"@x.test", "a%b!c=d+e@x.test", "CaSe@Bulk.Example", ""]
    for sender in senders:
        assert remote.host.inject(sender=sender, recipients=("r@defer.test",)).accepted == 1
    remote.await_states("deferred", len(senders))
    assert {entry["sender"] for entry in remote.queue()} == {*senders[:-1], "<>"}
    assert [entry["sender"] for entry in remote.queue("from:<>")] == ["<>"]
    [found] = remote.queue(r'from:"\"a b\"@x.test"')
    assert found["sender"] == '"a b"@x.test'


def test_no_message_can_pose_as_another_one_when_headers_are_matched(remote: Remote) -> None:
    for name, data in HOSTILE.items():
        assert remote.host.inject(sender=f"{name}@x.test", recipients=("r@defer.test",), data=data).accepted == 1
    sender, recipient = b'"*** ENVELOPE RECORDS x ***"@x.test', b'"*** MESSAGE CONTENTS x ***"@defer.test'
    assert remote.host.inject(sender=sender, recipients=(recipient,), subject="news").accepted == 1
    remote.await_states("deferred", len(HOSTILE) + 1)

    def senders(text: str) -> set[str]:
        return {entry["sender"].partition("@")[0] for entry in remote.queue(text)}

    quoted = sender.partition(b"@")[0].decode()
    assert senders("subject:news") == {"plain", "from", "open", quoted}
    assert senders("subject~other") == {"cut", "folded", "records", "bare", "carriage", "mime"}
    assert senders('subject~"folded news"') == {"folded"}
    assert senders("header[x-after]:news") == {"records", "bare", "carriage", "nul", "eight"}
    assert senders("header[x-many]:news") == {"large"}
    assert senders("header[received]~ESMTP") == {*HOSTILE, quoted}


def test_purge_of_the_frozen_plan_and_its_undo_bring_back_the_same_bytes(remote: Remote) -> None:
    remote.host.inject(sender="news@bulk.example", recipients=("r{i}@defer.test",), n=3, size=5000)
    remote.host.inject(sender="good@fine.example", recipients=("r@defer.test",))
    remote.await_states("deferred", 4)
    purge = QueuePurge(by("from:news@*"))
    plan = remote.plan("queue_purge", purge)
    spool = remote.instance.queue_dirs[0]
    sums = f"cd {spool} && find deferred -type f -exec sha256sum {{}} + | sed 's|deferred/./||' | sort"
    before = remote.host.sh(sums)
    remote.host.inject(sender="news@bulk.example", recipients=("late@defer.test",))
    remote.await_states("deferred", 5)

    purged = remote.do("queue_purge", purge, frozen=plan.selected)
    assert purged.ended is Ended.SUCCEEDED
    assert set(outcomes(purged).values()) == {"done"}
    assert sorted(entry["sender"] for entry in remote.queue()) == ["good@fine.example", "news@bulk.example"]
    again = remote.do("queue_purge", purge, frozen=plan.selected)
    assert (again.ended, again.data["already_gone"]) == (Ended.UNCHANGED, 3)
    told = remote.do("read_back", purge, frozen=plan.selected)
    assert told.data["places"] == purged.data["places"]

    remote.host.sh(f"postfix -c {remote.instance.config_dir} stop; postfix -c {remote.instance.config_dir} start")
    items = tuple(
        Quarantined(
            "x", each.queue_id, purged.data["places"][each.queue_id], each.arrival_time, each.sender, each.size, "hold"
        )
        for each in plan.selected
    )
    restored = remote.do("quarantine_restore", QuarantineRestore(items))
    assert restored.ended is Ended.SUCCEEDED
    assert remote.host.sh(sums.replace("deferred", "hold").replace("hold/./", "hold/")).split("\n")[:3] == [
        line for line in before.split("\n") if line.split()[-1:] and line.split()[-1] in outcomes(restored)
    ]


def test_an_undo_frees_what_ours_put_on_hold_and_nothing_that_somebody_else_holds(remote: Remote) -> None:
    remote.host.inject(sender="news@bulk.example", recipients=("r{i}@defer.test",), n=2)
    ours, other = remote.await_states("deferred", 2)
    purge = QueuePurge(by("ALL"))
    plan = remote.plan("queue_purge", purge)
    places = remote.do("queue_purge", purge).data["places"]
    items = tuple(
        Quarantined("x", e.queue_id, places[e.queue_id], e.arrival_time, e.sender, e.size, "deferred")
        for e in plan.selected
    )
    restore = QuarantineRestore(items)
    assert outcomes(remote.do("quarantine_restore", restore, undo=True)) == {ours: "done", other: "done"}
    postsuper = f"postsuper -c {remote.instance.config_dir}"
    remote.host.sh(f"{postsuper} -h {other}")
    back = script_text("postfix_quarantine.sh")[0]
    remote.host.exec("cat >/root/back.sh", stdin=back)
    assert outcomes(remote.do("queue_purge", QueuePurge(Selection(queue_ids=(ours,))))) == {ours: "done"}
    remote.host.exec(f"sh /root/back.sh back {remote.instance.queue_dirs[0]}", stdin=f"fence 0\njob-1\n{ours}\n")
    assert remote.states() == {ours: "hold", other: "hold"}, "ours is where a restore that was cut off left it"
    again = remote.do("quarantine_restore", restore, undo=True)
    assert outcomes(again) == {ours: "done", other: "left"}
    assert remote.states() == {ours: "deferred", other: "hold"}


def test_a_message_in_delivery_is_not_claimed_and_is_delivered_once(remote: Remote, lab: Lab) -> None:
    remote.host.inject(sender="news@bulk.example", recipients=("r@slow.test",))
    [name] = remote.await_states("active", 1)
    for mode in ("delete", "quarantine"):
        result = remote.do("queue_purge", QueuePurge(Selection(queue_ids=(name,)), mode=mode))
        assert outcomes(result) == {name: "in_delivery"}
        assert result.ended is Ended.FAILED
    remote.await_states("active", 0)
    assert remote.states() == {}
    assert len(lab.sink.messages()) == 1


def test_hold_and_release_read_the_state_back(remote: Remote) -> None:
    remote.host.inject(sender="news@bulk.example", recipients=("r{i}@defer.test",), n=3)
    names = remote.await_states("deferred", 3)
    plan = remote.plan("queue_hold", QueueHold(Selection(queue_ids=tuple(names[:2]))))
    held = remote.do("queue_hold", QueueHold(Selection(queue_ids=tuple(names[:2]))))
    assert outcomes(held) == dict.fromkeys(names[:2], "done")
    remote.host.sh(f"postsuper -c {remote.instance.config_dir} -h {names[2]}")
    freed = remote.do("queue_release", QueueRelease(by("ALL")), ours=frozenset(plan.selected))
    assert outcomes(freed) == dict.fromkeys(names[:2], "done")
    assert remote.states()[names[2]] == "hold"


def test_exactly_one_message_is_attempted_and_its_log_is_shown(remote: Remote) -> None:
    remote.host.inject(sender="news@bulk.example", recipients=("r{i}@defer.test",), n=3)
    names = remote.await_states("deferred", 3)
    mark = remote.host.sh("wc -c </var/log/mail.log").strip()
    result = remote.do("message_deliver", MessageDeliver(names[0]))
    assert result.data["outcome"] == "deferred"
    assert "451 4.7.1 sink: try later" in result.data["reply"]
    log = remote.host.sh(f"tail -c +{int(mark) + 1} /var/log/mail.log")
    assert "(queue active)" in log
    assert names[1] not in log
    assert names[2] not in log
    remote.do("queue_hold", QueueHold(Selection(queue_ids=(names[1],))))
    with pytest.raises(Conflict):
        remote.do("message_deliver", MessageDeliver(names[1]))
    with pytest.raises(MessageNotFound):
        remote.do("message_deliver", MessageDeliver("0123456789A"))


def test_a_message_is_shown_with_its_delivered_recipients(remote: Remote) -> None:
    remote.host.inject(sender="multi@bulk.example", recipients=("a@ok.test", "b@defer.test"), subject="Grüße")
    [name] = remote.await_states("deferred", 1)
    shown = remote.do("message_show", MessageShow(name, ("envelope", "headers", "body"))).data
    states = {each["address"]: each["state"] for each in shown["envelope"]["recipients"]}
    assert states == {"a@ok.test": "delivered", "b@defer.test": "undelivered"}
    assert "Subject" in {each["name"] for each in shown["headers"]}
    assert shown["body"]["text"].startswith("Lab message")


def test_flush_bounce_and_requeue_are_proven(remote: Remote, lab: Lab) -> None:
    remote.host.inject(sender="boss@ok.test", recipients=("r{i}@defer.test",), n=3)
    names = remote.await_states("deferred", 3)
    assert outcomes(remote.do("queue_flush", QueueFlush(by("ALL")))) == dict.fromkeys(names, "done")
    one = remote.do("queue_flush", QueueFlush(Selection(queue_ids=(names[0],))))
    assert outcomes(one) == {names[0]: "done"}
    requeued = remote.do("queue_requeue", QueueRequeue(Selection(queue_ids=(names[0],))))
    [message] = requeued.messages
    assert message.outcome.value == "done"
    assert message.new_id in remote.states()
    bounced = remote.do("queue_bounce", QueueBounce(Selection(queue_ids=tuple(names[1:]))))
    assert outcomes(bounced) == dict.fromkeys(names[1:], "done")
    assert set(remote.states()) == {message.new_id}


def test_both_instances_of_a_host_are_found_and_kept_apart(engine: Engine, pf1: Host) -> None:
    remote = Remote(engine, pf1)
    facts, instances = remote.carry(lambda: discover_host("pf1", time.time))
    assert [each.id for each in instances] == ["pf1/postfix", "pf1/postfixEXT"]
    assert abs(facts.clock_skew) < 5
    pf1.inject(sender="ext@bulk.example", recipients=("r@defer.test",))
    [name] = remote.await_states("deferred", 1)
    context = Context(now=time.time(), job="job-1")
    inner = instances[0]
    result = remote.carry(
        lambda: POSTFIX.queue_purge(inner, QueuePurge(Selection(queue_ids=(name,)), mode="delete"), context)
    )
    assert outcomes(result) == {name: "already_gone"}
    assert list(remote.states()) == [name]


@pytest.mark.parametrize("user", ["fishuser", "tcshuser"])
def test_a_shell_that_is_not_posix_is_refused(engine: Engine, pf1: Host, user: str) -> None:
    remote = Remote(engine, pf1, user)
    with pytest.raises(LoginShell):
        remote.carry(lambda: discover_host("pf1", time.time))


def test_the_sudoers_lines_are_enough_and_other_commands_are_refused(engine: Engine, pf3: Host) -> None:
    remote = Remote(engine, pf3)
    lines = "\n".join(POSTFIX.sudoers(remote.instance, "fleetops")) + "\n"
    pf3.inject(sender="news@bulk.example", recipients=("r@defer.test",))
    [name] = remote.await_states("deferred", 1)
    pf3.exec("cat > /etc/sudoers.d/fleetops && chmod 440 /etc/sudoers.d/fleetops && visudo -c", stdin=lines)
    assert outcomes(remote.do("queue_hold", QueueHold(Selection(queue_ids=(name,))))) == {name: "done"}
    with pytest.raises(FleetError) as refused:
        remote.do("message_show", MessageShow(name))
    assert isinstance(refused.value, SudoDenied), "its script is not installed"
