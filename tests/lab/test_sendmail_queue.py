"""Every queue operation on real Sendmail hosts, over the product's own SSH: 8.17 (two instances) and 8.18.

What the adapter says is compared with mailq, with the queue's own files and with what arrives.
"""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fleet import match
from fleet.mta.errors import Conflict, MessageNotFound
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
from fleet.mta.records import Context, Ended, InstanceFacts, Result
from fleet.mta.sendmail import Sendmail
from fleet.mta.steps import Plan, Steps
from fleet.ssh.endpoint import AddressPolicy, Endpoint
from fleet.ssh.engine import Engine, Request
from fleet.ssh.quoting import script_text
from tests.lab.config import OUTSIDER
from tests.lab.lab import Host, Lab
from tests.lab.waiting import tries

pytestmark = pytest.mark.lab
SENDMAIL = Sendmail()
HOSTS = ("sm1", "sm2")
LISTED = re.compile(r"^([0-9A-Za-x]{14})([* ])", re.M)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    found = Engine(AddressPolicy())
    yield found
    found.close()


class Remote:
    """The default instance of a host, through the product's SSH."""

    def __init__(self, engine: Engine, host: Host) -> None:
        self.engine = engine
        self.host = host
        key = host.private_key.encode()
        self.endpoint = Endpoint(host.name, host.address, 22, host.user, key, host_key=host.host_key, become="sudo")
        self.instances: dict[str, InstanceFacts] = {
            each.name: each
            for each in self.carry(lambda: discover_host(host.name, time.time))[1]
            if each.mta == "sendmail"
        }
        self.instance = self.instances["sendmail"]

    def carry(self, steps: Callable[[], Steps[Any]], *, until_plan: bool = False) -> Any:
        [[found]] = list(self.engine.outcomes([Request("one", self.endpoint, steps, until_plan, 120)]))
        if found.error is not None:
            raise found.error
        return found.value

    def do(self, name: str, operation: Any, **fields: Any) -> Result:
        context = Context(now=time.time(), job="job-1", **fields)
        return self.carry(lambda: getattr(SENDMAIL, name)(self.instance, operation, context))

    def plan(self, name: str, operation: Any) -> Plan:
        context = Context(now=time.time(), job="job-1")
        return self.carry(lambda: getattr(SENDMAIL, name)(self.instance, operation, context), until_plan=True)

    def queue(self, text: str = "ALL") -> list[dict[str, Any]]:
        return self.do("queue_list", QueueList(match.parse(text))).data["entries"]

    def states(self, text: str = "ALL") -> dict[str, str]:
        return {entry["queue_id"]: entry["state"] for entry in self.queue(text)}

    def await_states(self, state: str, count: int) -> list[str]:
        """The queue IDs once so many messages are in that state."""
        for _ in tries(20):
            found = [name for name, each in self.states().items() if each == state]
            if len(found) == count:
                return found
        raise AssertionError(f"not {count} messages {state}: {self.states()}")

    def inject(self, sender: Any, to: Any = "r{i}@defer.test", n: int = 1, **fields: Any) -> None:
        given = self.host.inject(sender=sender, recipients=(to,), n=n, source=OUTSIDER, **fields)
        assert given.accepted == n, given.errors

    def deferred(self, sender: Any, n: int = 1, **fields: Any) -> list[str]:
        """So many messages in an empty queue, attempted once."""
        self.inject(sender, n=n, **fields)
        return self.await_states("deferred", n)

    def files(self) -> dict[str, str]:
        """Path and SHA-256 of every queue and data file of the default instance, wherever it lies."""
        command = "find /var/spool/mqueue /var/spool/mqueue-client -type f -exec sha256sum {} +"
        return {path: digest for digest, path in (line.split() for line in self.host.sh(command).splitlines())}

    def mailq(self, *options: str) -> set[str]:
        return {name for name, _ in LISTED.findall(self.host.sh(" ".join(["mailq", *options])))}


@pytest.fixture(params=HOSTS)
def remote(request: pytest.FixtureRequest, engine: Engine, lab: Lab) -> Remote:
    host = lab.host(request.param)
    host.reset()
    lab.sink.reset()
    return Remote(engine, host)


def arrived(lab: Lab, count: int) -> list[dict[str, Any]]:
    """What the sink accepted, once it is so many messages."""
    return lab.sink.wait(count, seconds=15)


def everything() -> Selection:
    return Selection(match=match.parse("ALL"))


def only(*queue_ids: str) -> Selection:
    return Selection(queue_ids=queue_ids)


def counts(result: Result) -> dict[str, int]:
    return {name: result.data[name] for name in ("done", "already_gone", "in_delivery", "left") if result.data[name]}


def items(remote: Remote, entries: list[dict[str, Any]], purged: Result) -> tuple[Quarantined, ...]:
    return tuple(
        Quarantined(
            f"i{at}",
            each["queue_id"],
            purged.data["places"][each["queue_id"]],
            each["arrival_time"],
            each["sender"],
            each["size"],
            each["state"],
        )
        for at, each in enumerate(entries)
    )


ODD: tuple[tuple[Any, str], ...] = (
    ('"a b"@x.test', '"a b"@x.test'),
    ("\"'; rm -rf /;'\"@x.test", "\"'; rm -rf /;'\"@x.test"),
    ("-bd@x.test", "-bd@x.test"),
    ("$(id)`id`|&*@x.test", "$(id)`id`|&*@x.test"),
    ("a%b!c=d+e@x.test", "a%b!c=d+e@x.test"),
    ("", "<>"),
    ("CaSe@Bulk.Example", "CaSe@Bulk.Example"),
    (b"\xc3\xbcser@x.test", "üser@x.test"),
    (b"lat\xfcn@x.test", "lat\\xFCn@x.test"),
)


def test_instances_are_told_from_their_configuration(remote: Remote) -> None:
    """The default file has the client queue and access map; a second file is an instance of its own."""
    found = remote.instance
    assert found.queue_dirs == tuple(f"/var/spool/mqueue/q{n}" for n in range(1, 5))
    assert found.options["client_queue"] == "/var/spool/mqueue-client"
    assert found.options["access_map"] == "hash:/etc/mail/access"
    assert found.options["mailertable"] == "hash:/etc/mail/mailertable"
    assert found.options["listen"] == [["0.0.0.0", 25]]
    assert remote.host.fqdn in found.options["own_domains"]
    assert found.version.startswith({"sm1": "8.17", "sm2": "8.18"}[remote.host.name])
    assert set(remote.instances) == ({"sendmail", "sendmail-ext"} if remote.host.name == "sm1" else {"sendmail"})


def test_a_second_instance_has_its_own_queue(engine: Engine, lab: Lab) -> None:
    host = lab.host("sm1")
    host.reset()
    remote = Remote(engine, host)
    host.inject(sender="ext@bulk.example", recipients=("r@defer.test",), n=2, port=2525)
    remote.inject("main@bulk.example")
    remote.await_states("deferred", 1)
    remote.instance = remote.instances["sendmail-ext"]
    assert remote.instance.options["listen"] == [[host.address, 2525]]
    extra = remote.await_states("deferred", 2)
    assert counts(remote.do("queue_purge", QueuePurge(everything(), mode="delete"))) == {"done": 2}
    assert not remote.queue()
    remote.instance = remote.instances["sendmail"]
    assert [each["sender"] for each in remote.queue()] == ["main@bulk.example"]
    assert not set(extra) & set(remote.states())


def test_the_listing_has_odd_addresses_as_they_were_sent(remote: Remote) -> None:
    """Quotes, blanks, shell characters, options, bytes that are no UTF-8, and the null sender; then hold finds them."""
    for sender, _ in ODD:
        remote.inject(sender)
    remote.await_states("deferred", len(ODD))
    assert sorted(each["sender"] for each in remote.queue()) == sorted(shown for _, shown in ODD)
    assert remote.mailq() == set(remote.states())
    assert counts(remote.do("queue_hold", QueueHold(everything()))) == {"done": len(ODD)}
    assert remote.mailq("-qQ") == set(remote.states())
    assert counts(remote.do("queue_release", QueueRelease(Selection(match.parse("state:hold"))))) == {"done": len(ODD)}


def test_sizes_headers_and_bodies_are_those_of_the_files(remote: Remote) -> None:
    remote.deferred("s@bulk.example", subject="gr\u00fc\u00dfe {i}", size=3000)
    [entry] = remote.queue()
    body = remote.host.sh("cat /var/spool/mqueue/q*/df*")
    shown = remote.do("message_show", MessageShow(entry["queue_id"], ("envelope", "headers", "body"))).data
    assert shown["body"]["text"] == body
    names = [each["name"] for each in shown["headers"]]
    assert names[0] == "Received"
    assert [each["value"] for each in shown["headers"] if each["name"] == "Subject"] == ["gr\u00fc\u00dfe 1"]
    assert list(remote.states('subject:"gr\u00fc\u00dfe 1"')) == [entry["queue_id"]]
    assert "Return-Path" not in names
    assert len(body) < entry["size"] < len(body) + 1000
    assert entry["attempts"] == 1
    assert entry["recipients"][0]["reason"].startswith("Deferred: 451")
    assert remote.states('body~"' + body[:8] + '"') == {entry["queue_id"]: "deferred"}
    assert not remote.queue("header[From]:nobody@x.test")


def test_hold_is_sendmails_own_and_release_gives_it_back(remote: Remote) -> None:
    """A held message is not attempted by a queue run; Sendmail's own commands and ours undo each other's holds."""
    ours, theirs, free = remote.deferred("h{i}@bulk.example", 3)
    assert counts(remote.do("queue_hold", QueueHold(only(ours)))) == {"done": 1}
    remote.host.sh(f"sendmail -Q'admin' -qI{theirs}")
    assert remote.states() == {ours: "hold", theirs: "hold", free: "deferred"}
    remote.host.sh("sendmail -q -v")
    attempts = {each["queue_id"]: each["attempts"] for each in remote.queue()}
    assert attempts == {ours: 1, theirs: 1, free: 2}
    remote.host.sh(f"sendmail -qQ -Q -qI{ours}")
    assert counts(remote.do("queue_release", QueueRelease(only(theirs)))) == {"done": 1}
    assert set(remote.states().values()) == {"deferred"}
    assert remote.mailq() == {ours, theirs, free}


def test_a_message_in_delivery_is_left_alone(remote: Remote, lab: Lab) -> None:
    """While Sendmail works on it, it is neither held nor removed nor bounced, and it arrives."""
    remote.inject("slow@bulk.example", "r@slow.test")
    [name] = remote.await_states("active", 1)
    before = remote.files()
    for method, operation in (
        ("queue_purge", QueuePurge(only(name))),
        ("queue_purge", QueuePurge(only(name), mode="delete")),
        ("queue_hold", QueueHold(only(name))),
    ):
        result = remote.do(method, operation)
        assert (result.ended, counts(result)) == (Ended.FAILED, {"in_delivery": 1})
        assert remote.files() == before
    arrived(lab, 1)
    assert not remote.queue()


def test_purge_and_restore_keep_every_byte(remote: Remote) -> None:
    """Quarantined files lie on the host; restored, they are the same files in the same directories."""
    remote.deferred("p{i}@bulk.example", 20)
    entries = remote.queue()
    held = entries[0]["queue_id"]
    remote.do("queue_hold", QueueHold(only(held)))
    entries = remote.queue()
    before = remote.files()
    purged = remote.do("queue_purge", QueuePurge(everything()))
    assert counts(purged) == {"done": 20}
    assert not remote.queue()
    assert not remote.mailq()
    assert not remote.mailq("-qQ")
    back = remote.do("quarantine_restore", QuarantineRestore(items(remote, entries, purged)), undo=True)
    assert counts(back) == {"done": 20}
    assert remote.files() == before
    assert remote.states()[held] == "hold"
    assert {each["attempts"] for each in remote.queue()} == {1}


def test_restored_mail_is_attempted_and_erased_mail_is_gone(remote: Remote, lab: Lab) -> None:
    remote.deferred("e{i}@bulk.example", 2)
    entries = remote.queue()
    both = items(remote, entries, remote.do("queue_purge", QueuePurge(everything())))
    lab.sink.set("defer.test", lab.sink.rule("ok.test"))
    assert counts(remote.do("quarantine_restore", QuarantineRestore(both[:1]))) == {"done": 1}
    assert not remote.queue()
    arrived(lab, 1)
    assert counts(remote.do("quarantine_erase", QuarantineErase(both[1:]))) == {"done": 1}
    assert counts(remote.do("quarantine_restore", QuarantineRestore(both[1:]))) == {"already_gone": 1}
    assert not remote.files()


def test_a_killed_purge_loses_nothing(remote: Remote) -> None:
    """kill -9 of the script at several moments: read back and restore find every byte again."""
    remote.deferred("k{i}@bulk.example", 300)
    entries = remote.queue()
    before = remote.files()
    plan = remote.plan("queue_purge", QueuePurge(everything()))
    line = "fence 0\njob-1\n" + "".join(f"{e['queue_id']} {int(e['arrival_time'])} {e['sender']}\n" for e in entries)
    patterns = "/var/spool/mqueue-client '/var/spool/mqueue/q*'"
    remote.host.exec("cat > /root/change.sh", stdin=script_text("sendmail_change.sh")[0])
    for delay in ("0.15", "0.3", "0.5", "0.7"):
        remote.host.exec(f"timeout -s KILL {delay} sh /root/change.sh out {patterns}", stdin=line)
        told = remote.do("read_back", QueuePurge(everything()), frozen=plan.selected)
        away = [each for each in entries if each["queue_id"] in told.data["places"]]
        assert told.data["done"] == len(away)
        assert told.data["left"] == len(entries) - len(away)
        assert not told.data["already_gone"]
        result = remote.do("quarantine_restore", QuarantineRestore(items(remote, away, told)), undo=True)
        assert counts(result) == ({"done": len(away)} if away else {})
        assert remote.files() == before


def test_deliver_moves_one_message_and_shows_the_dialogue(remote: Remote, lab: Lab) -> None:
    one, two, three = remote.deferred("d{i}@bulk.example", 3)
    result = remote.do("message_deliver", MessageDeliver(one, verbose=True))
    assert result.data["outcome"] == "deferred"
    assert "451" in result.data["reply"]
    remote.do("queue_hold", QueueHold(only(two)))
    with pytest.raises(Conflict):
        remote.do("message_deliver", MessageDeliver(two))
    lab.sink.set("defer.test", lab.sink.rule("ok.test"))
    result = remote.do("message_deliver", MessageDeliver(two, release=True))
    assert result.data["outcome"] == "sent"
    assert result.data["remote"] == "mx.defer.test"
    assert any(text.startswith(">>> RCPT To:") for text in result.data["dialogue"])
    assert set(remote.states()) == {one, three}
    lab.sink.set("defer.test", lab.sink.rule("reject.test"))
    assert remote.do("message_deliver", MessageDeliver(one)).data["outcome"] == "bounced"
    assert set(remote.states()) == {three}
    assert not remote.host.sh("ls /var/spool/mqueue/q*/*" + one + " 2>/dev/null || true")
    with pytest.raises(MessageNotFound):
        remote.do("message_deliver", MessageDeliver(one))


def test_flush_and_bounce_take_exactly_what_was_selected(remote: Remote, lab: Lab) -> None:
    """Flushing a recipient attempts no longer one that contains it, as -qR would; a bounce reaches the sender."""
    lab.sink.set("ok2.test", lab.sink.rule("defer.test"))
    remote.inject("f1@bulk.example", "r@ok2.test")
    remote.inject("f2@bulk.example", "rr@ok2.test")
    remote.inject("f3@bulk.example", "r@ok2.test")
    remote.await_states("deferred", 3)
    free, other, held = (remote.queue(f"from:f{n}@bulk.example")[0]["queue_id"] for n in (1, 2, 3))
    remote.do("queue_hold", QueueHold(only(held)))
    assert counts(remote.do("queue_flush", QueueFlush(Selection(match.parse("to:r@ok2.test"))))) == {"done": 1}
    assert {each["queue_id"]: each["attempts"] for each in remote.queue()} == {free: 2, other: 1, held: 1}
    lab.sink.reset()
    result = remote.do("queue_bounce", QueueBounce(only(held, free)))
    assert counts(result) == {"done": 2}
    assert not {held, free} & set(remote.states())
    assert other in remote.states()
    assert len(arrived(lab, 2)) == 2


def test_the_client_queue_is_listed_and_changed(remote: Remote) -> None:
    """Local mail that waits for the daemon is in the queue, too: maildrop; it can be purged and comes back."""
    remote.host.stop_mta()
    remote.host.sh("printf 'Subject: local\\n\\nx\\n' | /usr/sbin/sendmail -f down@bulk.example r@defer.test")
    [name] = remote.await_states("maildrop", 1)
    entries, before = remote.queue(), remote.files()
    assert entries[0]["native_state"] == "client"
    purged = remote.do("queue_purge", QueuePurge(everything()))
    assert counts(purged) == {"done": 1}
    assert not remote.queue()
    assert counts(remote.do("quarantine_restore", QuarantineRestore(items(remote, entries, purged)), undo=True)) == {
        "done": 1
    }
    assert remote.files() == before
    remote.host.sh("/usr/sbin/sendmail-mta -Am -L sm-mta -bd -q1h")
    assert remote.do("message_deliver", MessageDeliver(name)).data["outcome"] == "sent"
    remote.await_states("deferred", 1)
