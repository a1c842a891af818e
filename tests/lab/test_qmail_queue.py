"""Every queue operation on a real daemontools host, over the product's own SSH.

The fixture `qm1` fails a test in which anything but qmail touched the queue while qmail-send ran.
"""

import random
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fleet import match
from fleet.mta.host.discovery import discover_host
from fleet.mta.operations import (
    MessageDeliver,
    MessageShow,
    Quarantined,
    QuarantineErase,
    QuarantineRestore,
    QueueBounce,
    QueueHold,
    QueueList,
    QueuePurge,
    QueueRelease,
    Selection,
)
from fleet.mta.qmail import Qmail
from fleet.mta.qmail.commands import change
from fleet.mta.qmail.queue import QUEUE
from fleet.mta.records import Context, Ended, InstanceFacts, QueueEntry, Result
from fleet.mta.steps import Plan, Steps
from fleet.ssh.endpoint import AddressPolicy, Endpoint
from fleet.ssh.engine import Engine, Request
from fleet.ssh.quoting import script_text, stdin_of
from tests.lab.config import OUTSIDER
from tests.lab.lab import Host, Lab
from tests.lab.qmail.control import SERVICE, start_send, stop_send
from tests.lab.sink import Rule
from tests.lab.waiting import await_true, tries

pytestmark = pytest.mark.lab
QMAIL = Qmail()
DIRECTORY = "/var/qmail/queue"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    found = Engine(AddressPolicy())
    yield found
    found.close()


class Remote:
    """qmail of the host, through the product's SSH."""

    def __init__(self, engine: Engine, host: Host) -> None:
        self.engine = engine
        self.host = host
        key = host.private_key.encode()
        self.endpoint = Endpoint(host.name, host.address, 22, host.user, key, host_key=host.host_key, become="sudo")
        facts, _ = self.carry(lambda: discover_host(host.name, time.time))
        [self.instance] = self.carry(lambda: QMAIL.discover(facts, host.name))

    def carry(self, steps: Callable[[], Steps[Any]], *, until_plan: bool = False) -> Any:
        [[found]] = list(self.engine.outcomes([Request("one", self.endpoint, steps, until_plan, 150)]))
        if found.error is not None:
            raise found.error
        return found.value

    def do(self, name: str, operation: Any, **fields: Any) -> Result:
        context = Context(**{"now": time.time(), "job": "job-1", **fields})
        return self.carry(lambda: getattr(QMAIL, name)(self.instance, operation, context))

    def plan(self, name: str, operation: Any) -> Plan:
        context = Context(now=time.time(), job="job-1")
        return self.carry(lambda: getattr(QMAIL, name)(self.instance, operation, context), until_plan=True)

    def entries(self) -> dict[str, QueueEntry]:
        found: list[QueueEntry] = []
        self.carry(lambda: QUEUE.read(self.instance, lambda message: found.append(message.entry())))
        return {each.queue_id: each for each in found}

    def files(self) -> set[str]:
        """Every file of a message in the queue directory, with its inode."""
        return set(self.host.sh(f"cd {DIRECTORY} && find . -type f -name '[1-9]*' -printf '%P %i\\n'").splitlines())

    def inject(self, count: int = 1, *, to: str = "r@defer.test", sender: str = "news{i}@bulk.example") -> list[str]:
        """New messages, tried once and deferred. Returns their queue IDs."""
        before = self.entries()
        for at in range(count):
            assert self.host.inject(sender=sender.format(i=at), recipients=(to,)).accepted == 1
        for _ in tries(20, 0.1):
            new = [name for name, entry in self.entries().items() if name not in before and entry.state == "deferred"]
            if len(new) == count and not self.host.sh(RUNNING).strip():
                return new
        raise AssertionError(f"{len(new)} of {count} messages are deferred")

    def status(self) -> str:
        return self.host.sh(f"svstat {SERVICE}")


AWAIT_UP = f"""
for try in $(seq 200); do
  if [ ! -s /run/mxfleet-qmail-*.state ] && svstat {SERVICE} | grep -q ': up '; then exit 0; fi
  sleep 0.1
done
exit 1
"""
RUNNING = "pgrep -x qmail-remote || true"


@pytest.fixture
def qmail(engine: Engine, qm1: Host) -> Remote:
    return Remote(engine, qm1)


def ids(*names: str) -> Selection:
    return Selection(queue_ids=names)


def items_of(plan: Plan, result: Result) -> tuple[Quarantined, ...]:
    places = result.data["places"]
    return tuple(
        Quarantined(f"q{f.queue_id}", f.queue_id, places[f.queue_id], f.arrival_time, f.sender, f.size, f.state)
        for f in plan.selected
    )


def test_discovery_finds_queue_service_and_log(qmail: Remote) -> None:
    found: InstanceFacts = qmail.instance
    options = found.options
    assert (found.name, found.queue_dirs, found.front_ends) == ("qmail", (DIRECTORY,), ("smtpfront-qmail",))
    assert (options["split"], options["big_todo"], options["service"]) == (23, False, SERVICE)
    assert (options["log_source"], options["listen"]) == ("/var/log/qmail/qmail-send", [["0.0.0.0", 25]])
    assert "qm1.lab.test" in options["own_domains"]


def test_the_listing_is_qmail_qreads(qmail: Remote) -> None:
    names = [*qmail.inject(sender="q b@x.test"), *qmail.inject(sender=""), *qmail.inject(2)]
    shown = qmail.host.sh("/var/qmail/bin/qmail-qread")
    listed = qmail.do("queue_list", QueueList(match.parse("ALL"))).data["entries"]
    assert sorted(re.findall(r"#(\d+) ", shown)) == sorted(names) == sorted(each["queue_id"] for each in listed)
    for each in listed:
        assert f"#{each['queue_id']}  {each['size']}  <{each['sender'].strip('<>').replace(chr(34), '')}>" in shown
    stop_send(qmail.host)
    qmail.host.inject(sender="late@bulk.example", recipients=("r@defer.test",))
    late = qmail.do("queue_list", QueueList(match.parse("from:late@bulk.example"))).data["entries"]
    assert [each["state"] for each in late] == ["incoming"]
    text = qmail.do("message_show", MessageShow(late[0]["queue_id"], parts=("body",))).data["body"]["text"]
    number = int(late[0]["queue_id"])
    assert qmail.host.sh(f"cat {DIRECTORY}/mess/{number % 23}/{number}").endswith(text)
    start_send(qmail.host)


def test_hold_and_release_change_nothing_of_a_message(qmail: Remote) -> None:
    held, other = qmail.inject(2)
    before = qmail.files()
    assert qmail.do("queue_hold", QueueHold(ids(held))).ended is Ended.SUCCEEDED
    assert {name: each.state for name, each in qmail.entries().items()} == {held: "hold", other: "deferred"}
    assert f"#{held}" not in qmail.host.sh("/var/qmail/bin/qmail-qread")
    qmail.host.sh(f"svc -a {SERVICE}")  # what tries every message does not try a held one
    assert qmail.do("queue_release", QueueRelease(ids(held))).ended is Ended.SUCCEEDED
    assert qmail.files() == before
    assert ": up " in qmail.status()


def test_a_purge_is_undone_byte_for_byte(qmail: Remote) -> None:
    names = qmail.inject(3)
    before = qmail.files()
    operation = QueuePurge(Selection(match=match.parse("from-domain:bulk.example")))
    plan = qmail.plan("queue_purge", operation)
    result = qmail.do("queue_purge", operation, frozen=plan.selected)
    assert (result.ended, result.data["done"], qmail.entries()) == (Ended.SUCCEEDED, 3, {})
    found = qmail.do("read_back", operation, frozen=plan.selected)
    assert (found.data["done"], ": up " in found.data["service"]) == (3, True)
    restored = qmail.do("quarantine_restore", QuarantineRestore(items_of(plan, result)), undo=True)
    assert (restored.data["done"], sorted(qmail.entries())) == (3, sorted(names))
    assert qmail.files() == before
    result = qmail.do("queue_purge", operation, frozen=plan.selected)
    erased = qmail.do("quarantine_erase", QuarantineErase(items_of(plan, result)))
    assert (erased.data["done"], qmail.files()) == (3, set())


def test_one_message_is_delivered_and_no_other_moves(qmail: Remote, lab: Lab) -> None:
    wanted, other = qmail.inject(2)
    lab.sink.set("defer.test", Rule())
    result = qmail.do("message_deliver", MessageDeliver(wanted))
    assert (result.data["outcome"], list(qmail.entries())) == ("sent", [other])
    assert any(": success: " in line for line in result.data["log"])
    assert len(lab.sink.messages()) == 1


def test_a_bounce_reaches_the_sender(qmail: Remote, lab: Lab) -> None:
    [name] = qmail.inject(sender="who@other.test")
    result = qmail.do("queue_bounce", QueueBounce(ids(name)))
    assert (result.ended, result.data["done"]) == (Ended.SUCCEEDED, 1)
    await_true(lambda: any("who@other.test" in str(each) for each in lab.sink.messages()), 10, "no bounce arrived")


def test_a_delivery_keeps_a_purge_from_changing_anything(
    qmail: Remote, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.mta.qmail.commands.STOP_SECONDS", 2)
    [waiting] = qmail.inject()
    qmail.host.inject(sender="slow@bulk.example", recipients=("r@slow.test",))
    await_true(lambda: qmail.host.sh(RUNNING).strip(), 5, "no delivery began", 0.1)
    result = qmail.do("queue_purge", QueuePurge(ids(waiting)))
    assert (result.data["left"], waiting in qmail.entries()) == (1, True)
    assert result.error is not None
    assert result.error.code == "in_delivery"
    is_up = re.compile(r": up \(pid \d+\) \d+ seconds$")
    await_true(lambda: is_up.search(qmail.status().strip()) and not qmail.host.sh(RUNNING).strip(), 30, qmail.status)


@pytest.mark.parametrize("seed", range(2))
def test_a_connection_cut_at_any_moment_leaves_qmail_running_and_every_message_whole(qmail: Remote, seed: int) -> None:
    chance = random.Random(seed)
    names = set(qmail.inject(8))
    moved = 0
    for action in ("quarantine", "hold", "release", "quarantine"):
        entries = list(qmail.entries().values())
        command = next(change(qmail.instance, action, "job-1", entries), None)
        if command is None:
            break
        script = script_text(command.script)[0]
        argv = ("sudo", "-n", "timeout", "-k", "5", "120", "/bin/sh", "-c", script, command.script, *command.argv)
        process = subprocess.Popen(
            qmail.host.ssh_command(shlex.join(argv)),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None
        process.stdin.write(stdin_of(command))
        process.stdin.close()
        time.sleep(chance.uniform(0.3, 2.5))
        if chance.random() < 0.5:
            process.kill()
        else:
            qmail.host.exec("pkill -9 -f '^/bin/sh -c #!/bin/sh'")
        process.wait()
        qmail.host.sh(AWAIT_UP)
        files = [line.split()[0] for line in qmail.files()]
        listed = qmail.entries()
        for name in names:
            mine = [path for path in files if path.rpartition("/")[2] == name]
            away = [path for path in mine if path.startswith("mxfleet-quarantine/")]
            assert len(mine) == 3, (action, name, mine)
            assert len(away) in (0, 3), (action, name, mine)
            assert (name in listed) == (not away), (action, name, mine)
            moved += any(path.startswith("mxfleet-") for path in mine)
    assert moved, "no change came so far as to move anything"


def test_mail_is_taken_in_while_qmail_is_stopped(qmail: Remote) -> None:
    [name] = qmail.inject()
    stop_send(qmail.host)
    result = qmail.do("queue_purge", QueuePurge(ids(name), mode="delete"))
    assert result.data["done"] == 1
    assert ": down " in qmail.status()
    assert qmail.host.inject(sender="a@bulk.example", recipients=("r@defer.test",), source=OUTSIDER).accepted == 1
    [new] = qmail.entries().values()
    assert qmail.do("queue_purge", QueuePurge(ids(new.queue_id), mode="delete")).data["done"] == 1
    assert qmail.files() == set()
    start_send(qmail.host)
