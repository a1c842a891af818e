"""Every queue operation on real OpenSMTPD hosts, 6.8 and 7.6, over the product's own SSH."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet import match
from fleet.mta.errors import Conflict, FleetError, InDelivery, MessageNotFound, MtaNotRunning
from fleet.mta.host.discovery import discover_host
from fleet.mta.opensmtpd import OpenSmtpd
from fleet.mta.operations import (
    MessageDeliver,
    MessageShow,
    Quarantined,
    QuarantineErase,
    QuarantineRestore,
    QueueFlush,
    QueueHold,
    QueueList,
    QueuePurge,
    QueueRelease,
    Selection,
)
from fleet.mta.records import Context, Ended, InstanceFacts, Result
from fleet.mta.steps import Plan, Steps
from fleet.ssh.endpoint import AddressPolicy, Endpoint
from fleet.ssh.engine import Engine, Request
from tests.lab.lab import Host, Lab
from tests.lab.waiting import await_true, tries

pytestmark = pytest.mark.lab
OPENSMTPD = OpenSmtpd()
HOSTS = ("os1", "os2")
ROOT = Path(__file__).parents[2]
SPOOL = "/var/spool/smtpd"
AT_WORK = "find /proc/[0-9]*/fd -lname '*/mxfleet-quarantine/lock' 2>/dev/null | cut -d / -f 3 | sort -u"
"""Prints the pids of the script, of what it runs, and of its guard."""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    found = Engine(AddressPolicy())
    yield found
    found.close()


class Remote:
    """OpenSMTPD of a host, through the product's SSH."""

    def __init__(self, engine: Engine, host: Host, lab: Lab) -> None:
        self.engine = engine
        self.host = host
        self.lab = lab
        key = host.private_key.encode()
        self.endpoint = Endpoint(host.name, host.address, 22, host.user, key, host_key=host.host_key, become="sudo")
        self.instance = self._instance()

    def _instance(self) -> InstanceFacts:
        facts, _ = self.carry(lambda: discover_host(self.host.name, time.time))
        [instance] = self.carry(lambda: OPENSMTPD.discover(facts, self.host.name))
        return instance

    def carry(self, steps: Callable[[], Steps[Any]], *, until_plan: bool = False) -> Any:
        [[found]] = list(self.engine.outcomes([Request("one", self.endpoint, steps, until_plan, 120)]))
        if found.error is not None:
            raise found.error
        return found.value

    def do(self, name: str, operation: Any, **fields: Any) -> Result:
        context = Context(**{"now": time.time(), "job": "job-1", **fields})
        return self.carry(lambda: getattr(OPENSMTPD, name)(self.instance, operation, context))

    def plan(self, name: str, operation: Any, **fields: Any) -> Plan:
        context = Context(**{"now": time.time(), "job": "job-1", **fields})
        return self.carry(lambda: getattr(OPENSMTPD, name)(self.instance, operation, context), until_plan=True)

    def queue(self, text: str = "ALL", **fields: Any) -> list[dict[str, Any]]:
        return self.do("queue_list", QueueList(match.parse(text), **fields)).data["entries"]

    def entry(self, queue_id: str) -> dict[str, Any]:
        [found] = self.queue(f"id:{queue_id}")
        return found

    def await_state(self, text: str, state: str, count: int = 1) -> list[str]:
        """The queue IDs once so many of the messages that match are in that state."""
        for _ in tries(20):
            entries = self.queue(text)
            found = [entry["queue_id"] for entry in entries if entry["state"] == state]
            if len(found) == count:
                return found
        raise AssertionError(f"not {count} messages {state}: {entries}")

    def await_gone(self, text: str, seconds: int = 30) -> None:
        await_true(lambda: not self.queue(text), seconds, lambda: self.queue(text))

    def inject(self, n: int = 1, **fields: Any) -> None:
        sent = self.host.inject(n=n, **fields)
        assert sent.accepted == n, sent

    def smtpctl(self, *words: str) -> str:
        return self.host.sh(f"smtpctl {' '.join(words)}")

    def shown(self, queue_id: str) -> list[str]:
        """smtpctl's own lines about a message, without what changes with the clock."""
        lines = self.smtpctl("show queue").splitlines()
        return [re.sub(r"\|(pending|inflight)\|-?\d+\|", r"|\1|", line) for line in lines if line.startswith(queue_id)]

    def files(self, queue_id: str) -> str:
        """Names, owners, modes and contents of a message's files in the queue."""
        home = f"{SPOOL}/queue/{queue_id[:2]}/{queue_id}"
        return self.host.sh(f"cd {home} && stat -c '%n %U %G %a' . * && sha256sum *")


@pytest.fixture(params=HOSTS)
def remote(request: pytest.FixtureRequest, engine: Engine, lab: Lab) -> Remote:
    host = lab.host(request.param)
    host.reset()
    lab.sink.reset()
    return Remote(engine, host, lab)


def by_match(text: str) -> Selection:
    return Selection(match=match.parse(text))


def items(result: Result, entries: dict[str, dict[str, Any]]) -> tuple[Quarantined, ...]:
    """What a purge has put away, as the service hands it to a restore."""
    return tuple(
        Quarantined(f"q-{name}", name, place, entry["arrival_time"], entry["sender"], entry["size"], entry["state"])
        for name, place in result.data["places"].items()
        for entry in [entries[name]]
    )


def test_listing_says_what_smtpctl_and_the_files_say(remote: Remote) -> None:
    remote.inject(
        sender="a%b!c=d+e@x.test", recipients=["r1@defer.test", "r2@defer.test"], subject="Zwei Empfänger", size=3000
    )
    remote.inject(sender="", recipients=["null@defer.test"], subject="null sender")
    remote.inject(sender="-bd@x.test", recipients=["-odq@defer.test"], subject="dashes")
    remote.inject(sender="p|i|1|2@x.test", recipients=["q@defer.test"], subject="bars")
    remote.await_state("ALL", "deferred", 4)
    said = remote.smtpctl("show queue").splitlines()
    entries = {entry["sender"]: entry for entry in remote.queue()}
    assert set(entries) == {"a%b!c=d+e@x.test", "<>", "-bd@x.test", "p|i|1|2@x.test"}
    for entry in remote.queue():
        lines = [line for line in said if line.startswith(entry["queue_id"])]
        assert len(entry["recipients"]) == len(lines) == (2 if entry["sender"].startswith("a%b") else 1)
        assert {each["reason"] for each in entry["recipients"]} == {"451 4.7.1 sink: try later, defer.test"}
        home = f"{SPOOL}/queue/{entry['queue_id'][:2]}/{entry['queue_id']}"
        assert entry["size"] == int(remote.host.sh(f"stat -c %s {home}/message"))
        assert entry["arrival_time"] == int(
            remote.host.sh(f"sed -n 's/^ctime: //p' {home}/{entry['queue_id']}* | head -n 1")
        )
        assert entry["attempts"] == 1
        assert entry["native_state"] == "pending"
        assert 300 < entry["next_attempt"] - time.time() < 410


def test_an_empty_queue_is_empty_and_a_stopped_smtpd_is_told(remote: Remote) -> None:
    assert remote.queue() == []
    remote.inject(recipients=["r@defer.test"])
    [name] = remote.await_state("ALL", "deferred")
    remote.host.stop_mta()
    assert remote.entry(name)["native_state"] == "offline"
    for operation in ("queue_hold", "queue_purge", "queue_flush"):
        kinds = {"queue_hold": QueueHold, "queue_purge": QueuePurge, "queue_flush": QueueFlush}
        with pytest.raises(MtaNotRunning):
            remote.do(operation, kinds[operation](by_match("ALL")))
    with pytest.raises(MtaNotRunning):
        remote.do("message_deliver", MessageDeliver(name))
    remote.host.start_mta()
    assert remote.entry(name)["native_state"] == "pending"


def test_messages_are_matched_by_header_and_body_and_shown(remote: Remote) -> None:
    raw = b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nX-Spam-Flag: YES\r\n\r\nfirst line\r\n\r\nsecond needle\r\n"
    remote.inject(recipients=["r@defer.test"], data=raw)
    remote.inject(2, recipients=["r{i}@defer.test"], subject="other")
    remote.await_state("ALL", "deferred", 3)
    [found] = remote.queue("header[X-Spam-Flag]:YES")
    assert [each["queue_id"] for each in remote.queue("subject:Grüße")] == [found["queue_id"]]
    assert [each["queue_id"] for each in remote.queue("body~needle")] == [found["queue_id"]]
    assert remote.queue("body~X-Spam") == []
    shown = remote.do("message_show", MessageShow(found["queue_id"], ("envelope", "headers", "body"))).data
    stored = remote.smtpctl("show message", found["queue_id"])
    assert shown["body"]["text"] == stored.partition("\n\n")[2] == "first line\n\nsecond needle\n"
    assert shown["headers"][-2:][0]["value"] == "Grüße"
    with pytest.raises(MessageNotFound):
        remote.do("message_show", MessageShow("00000000"))


def test_a_compressed_queue_is_matched_and_comes_back_byte_for_byte(remote: Remote) -> None:
    remote.host.sh("sed -i '1i queue compression' /etc/smtpd.conf")
    remote.host.stop_mta()
    remote.host.start_mta()
    remote.inject(recipients=["r@defer.test"], subject="packed", size=9000)
    [name] = remote.await_state("ALL", "deferred")
    assert [each["queue_id"] for each in remote.queue("subject:packed")] == [name]
    before, entries = remote.files(name), {name: remote.entry(name)}
    purged = remote.do("queue_purge", QueuePurge(by_match("subject:packed")))
    remote.do("quarantine_restore", QuarantineRestore(items(purged, entries)), undo=True)
    assert remote.files(name) == before


def test_hold_pauses_and_release_resumes_only_what_it_may(remote: Remote) -> None:
    remote.inject(2, sender="news{i}@bulk.example", recipients=["a{i}@defer.test", "b{i}@defer.test"])
    remote.inject(sender="other@x.test", recipients=["r@defer.test"])
    remote.await_state("ALL", "deferred", 3)
    held = remote.do("queue_hold", QueueHold(by_match("from-domain:bulk.example")))
    assert (held.ended, held.data["done"]) == (Ended.SUCCEEDED, 2)
    flags = [line.split("|")[3] for line in remote.smtpctl("show queue").splitlines() if "bulk.example" in line]
    assert flags == ["suspend"] * 4
    again = remote.do("queue_hold", QueueHold(by_match("ALL")))
    assert (again.data["done"], again.data["already"]) == (1, 2)
    none = remote.do("queue_release", QueueRelease(by_match("ALL")))
    assert none.ended is Ended.UNCHANGED, "nobody's hold is released without being named"
    freed = remote.do("queue_release", QueueRelease(by_match("state:hold")))
    assert (freed.ended, freed.data["done"]) == (Ended.SUCCEEDED, 3)
    assert "suspend" not in remote.smtpctl("show queue")


def test_a_message_is_held_when_all_its_envelopes_are(remote: Remote) -> None:
    remote.inject(recipients=["a@defer.test", "b@defer.test"])
    [name] = remote.await_state("ALL", "deferred")
    one = remote.smtpctl("show queue").split("|")[0]
    remote.smtpctl("pause envelope", one)
    assert remote.entry(name)["state"] == "deferred"
    assert remote.do("queue_hold", QueueHold(Selection(queue_ids=(name,)))).data["done"] == 1
    assert remote.entry(name)["state"] == "hold"


@pytest.mark.parametrize("mode", ["quarantine", "delete"])
def test_purge_takes_exactly_what_it_was_asked_for(remote: Remote, mode: str) -> None:
    remote.inject(3, sender="news{i}@bulk.example", recipients=["a{i}@defer.test", "b{i}@defer.test"], subject="buy")
    remote.inject(sender="other@x.test", recipients=["r@defer.test"])
    remote.await_state("ALL", "deferred", 4)
    entries = {entry["queue_id"]: entry for entry in remote.queue()}
    plan = remote.plan("queue_purge", QueuePurge(by_match("subject:buy"), mode=mode))
    assert len(plan.selected) == 3
    purged = remote.do("queue_purge", QueuePurge(by_match("subject:buy"), mode=mode), frozen=plan.selected)
    assert (purged.ended, purged.data["done"]) == (Ended.SUCCEEDED, 3)
    [left] = remote.smtpctl("show queue").splitlines()
    assert "other@x.test" in left
    assert remote.host.sh(f"find {SPOOL}/queue -name message | wc -l") == "1\n"
    away = remote.host.sh(f"find {SPOOL}/mxfleet-quarantine -name message | wc -l")
    assert away == ("3\n" if mode == "quarantine" else "0\n")
    assert sorted(purged.data["places"]) == (
        sorted(name for name, entry in entries.items() if entry["sender"] != "other@x.test") if away == "3\n" else []
    )
    seen = remote.carry(
        lambda: OPENSMTPD.read_back(
            remote.instance,
            QueuePurge(by_match("subject:buy"), mode=mode),
            Context(now=time.time(), job="job-1", frozen=plan.selected),
        )
    )
    assert seen.ended is Ended.SUCCEEDED
    assert seen.data["places"] == purged.data["places"]


def test_restore_gives_back_the_same_files_under_the_same_id(remote: Remote) -> None:
    remote.inject(sender="news@bulk.example", recipients=["a@defer.test", "b@defer.test"], size=5000)
    [name] = remote.await_state("ALL", "deferred")
    entries = {name: remote.entry(name)}
    before, listed = remote.files(name), remote.shown(name)
    purged = remote.do("queue_purge", QueuePurge(by_match("ALL")))
    assert remote.queue() == []
    back = remote.do("quarantine_restore", QuarantineRestore(items(purged, entries)), undo=True)
    assert (back.ended, back.data["done"]) == (Ended.SUCCEEDED, 1)
    assert remote.files(name) == before
    assert remote.shown(name) == listed
    assert remote.host.sh(f"find {SPOOL}/mxfleet-quarantine -type f ! -name lock") == ""
    remote.lab.sink.reset()
    remote.lab.sink.set("defer.test", remote.lab.sink.rule("ok.test"))
    remote.smtpctl("schedule", name)
    remote.await_gone("ALL", seconds=60)
    assert remote.host.sh(f"find {SPOOL}/queue -type f") == "", "smtpd counts the envelopes right and removes the files"


def test_restore_of_a_held_message_attempts_nothing(remote: Remote) -> None:
    remote.inject(sender="news@bulk.example", recipients=["a@defer.test", "b@defer.test"])
    [name] = remote.await_state("ALL", "deferred")
    remote.do("queue_hold", QueueHold(by_match("ALL")))
    home = f"{SPOOL}/queue/{name[:2]}/{name}"
    remote.host.sh(f"cd {home} && sed -i 's/^ctime: .*/ctime: '$(($(date +%s) - 3600))'/' {name}*")
    remote.host.stop_mta()
    remote.host.sh("smtpctl show queue >/dev/null; true")
    remote.lab.sink.set("defer.test", remote.lab.sink.rule("ok.test"))
    remote.host.sh(f"mkdir /root/aside && mv {home} /root/aside/")
    remote.host.start_mta()
    # An overdue message that came back would be sent at once.
    there = f"{SPOOL}/mxfleet-quarantine/job-9"
    remote.host.sh(
        f"mkdir -p {there} && mv /root/aside/{name} {there}/ && "
        f"cd {there} && ls {name} | grep -v message > {name}.ready"
    )
    size = int(remote.host.sh(f"stat -c %s {there}/{name}/message"))
    created = float(remote.host.sh(f"sed -n 's/^ctime: //p' {there}/{name}/{name}* | head -n 1"))
    item = Quarantined("q", name, f"{there}/{name}", created, "news@bulk.example", size, "hold")
    back = remote.do("quarantine_restore", QuarantineRestore((item,)))
    assert (back.ended, back.data["done"]) == (Ended.SUCCEEDED, 1)
    time.sleep(3)
    assert remote.entry(name)["state"] == "hold"
    assert remote.lab.sink.messages() == []
    assert remote.files(name)
    assert remote.do("queue_release", QueueRelease(Selection(queue_ids=(name,)))).data["done"] == 1


def test_erase_removes_the_copies_for_good(remote: Remote) -> None:
    remote.inject(2, recipients=["r{i}@defer.test"])
    names = remote.await_state("ALL", "deferred", 2)
    entries = {entry["queue_id"]: entry for entry in remote.queue()}
    purged = remote.do("queue_purge", QueuePurge(by_match("ALL")))
    one, two = items(purged, entries)
    erased = remote.do("quarantine_erase", QuarantineErase((one,)))
    assert (erased.ended, erased.data["done"]) == (Ended.SUCCEEDED, 1)
    assert remote.do("quarantine_erase", QuarantineErase((one,))).ended is Ended.UNCHANGED
    gone = remote.do("quarantine_restore", QuarantineRestore((one,)))
    assert gone.ended is Ended.UNCHANGED
    assert gone.data["already_gone"] == 1
    assert remote.do("quarantine_restore", QuarantineRestore((two,))).data["done"] == 1
    assert {entry["queue_id"] for entry in remote.queue()} == {two.queue_id} < set(names)


def test_what_is_in_delivery_is_never_claimed(remote: Remote) -> None:
    remote.inject(sender="slow@bulk.example", recipients=["r@slow.test"], subject="slow")
    remote.inject(sender="still@bulk.example", recipients=["r@defer.test"], subject="still")
    remote.await_state("to:r@slow.test", "active")
    remote.await_state("to:r@defer.test", "deferred")
    held = remote.do("queue_hold", QueueHold(by_match("from:slow@bulk.example")))
    assert (held.ended, held.data["in_delivery"]) == (Ended.FAILED, 1)
    assert "suspend" not in remote.smtpctl("show queue")
    purged = remote.do("queue_purge", QueuePurge(by_match("ALL")))
    assert purged.data == {**purged.data, "done": 1, "in_delivery": 1}
    assert isinstance(purged.error, InDelivery)
    remote.await_gone("ALL")
    assert [each["sender"] for each in remote.lab.sink.messages()] == ["slow@bulk.example"]


def test_purges_while_messages_are_being_attempted_lose_and_double_nothing(remote: Remote) -> None:
    """Whatever is claimed as purged was not delivered, and all else was: while smtpd begins to deliver."""
    remote.smtpctl("pause mta")
    remote.inject(60, sender="n{i}@bulk.example", recipients=["r{i}@ok.test"])
    names = {entry["queue_id"]: entry["recipients"][0]["address"] for entry in remote.queue()}
    assert len(names) == 60
    pusher = threading.Thread(target=lambda: remote.host.sh("sleep 0.4; smtpctl resume mta"))
    pusher.start()
    purged = remote.do("queue_purge", QueuePurge(by_match("ALL"), mode="delete"))
    pusher.join()
    remote.await_state("ALL", "active", 0)
    # An attempt that found no message file has failed for now; the file is back, and the next attempt sends it.
    waiting = {entry["queue_id"] for entry in remote.queue()}
    for name in waiting:
        remote.smtpctl("schedule", name)
    remote.await_gone("ALL", seconds=90)
    delivered = [each["recipients"][0] for each in remote.lab.sink.messages()]
    done = {names[each.queue_id] for each in purged.messages if each.outcome == "done"}
    assert done
    assert sorted([*delivered, *done]) == sorted(names.values())


@pytest.mark.parametrize(("sign", "is_away"), [("*/message", False), ("*.ready", True)])
def test_a_purge_that_is_killed_leaves_every_message_whole(remote: Remote, sign: str, is_away: bool) -> None:
    """Before the marks the guard gives the files back, after them it goes on."""
    remote.smtpctl("pause mta")
    remote.inject(200, sender="n{i}@bulk.example", recipients=["r{i}@defer.test"], connections=5)
    entries = {entry["queue_id"]: entry for entry in remote.queue(limit=1000)}
    killer = threading.Thread(target=lambda: _kill_when_busy(remote, sign))
    killer.start()
    with pytest.raises(FleetError):
        remote.do("queue_purge", QueuePurge(by_match("ALL")))
    killer.join()
    await_true(lambda: not remote.host.sh(AT_WORK), 30, "the guard has not ended")
    frozen = remote.plan("queue_hold", QueueHold(by_match("ALL"))).selected
    left = {each.queue_id for each in frozen}
    away = set(remote.host.sh(f"cd {SPOOL}/mxfleet-quarantine/job-1 && {{ ls -d ???????? || :; }}").split())
    assert left | away == set(entries)
    assert not left & away
    assert bool(away) is is_away, "it was killed in the middle"
    whole = remote.host.sh(f"find {SPOOL}/queue -name message | wc -l").strip()
    assert int(whole) == len(left)
    again = remote.do("queue_purge", QueuePurge(by_match("ALL")))
    assert again.ended is (Ended.SUCCEEDED if left else Ended.UNCHANGED)
    assert remote.queue() == []
    quarantined = {name: f"{SPOOL}/mxfleet-quarantine/job-1/{name}" for name in entries}
    back = QuarantineRestore(
        tuple(
            Quarantined(name, name, place, each["arrival_time"], each["sender"], each["size"], each["state"])
            for name, place in quarantined.items()
            for each in [entries[name]]
        )
    )
    restored = remote.do("quarantine_restore", back, undo=True)
    assert restored.data["done"] == 200
    assert {entry["queue_id"] for entry in remote.queue(limit=1000)} == set(entries)


def test_the_recipe_by_hand_brings_quarantined_mail_back(remote: Remote) -> None:
    remote.inject(2, sender="n{i}@bulk.example", recipients=["r{i}@defer.test"], connections=1)
    names = set(remote.await_state("ALL", "deferred", 2))
    assert remote.do("queue_purge", QueuePurge(by_match("ALL"))).data["done"] == 2
    section = (ROOT / "docs/by-hand.md").read_text().partition("**OpenSMTPD**")[2]
    recipe = section.partition("```sh\n")[2].partition("```")[0]
    remote.host.sh(recipe.replace("JOB", "job-1"))
    assert {entry["queue_id"] for entry in remote.queue()} == names
    remote.lab.sink.set("defer.test", remote.lab.sink.rule("ok.test"))
    remote.smtpctl("schedule all")
    remote.await_gone("ALL")
    assert len(remote.lab.sink.messages()) == 2


def _kill_when_busy(remote: Remote, sign: str) -> None:
    """Ends the script and what it runs, the guard apart, once twenty messages have that sign (within a minute)."""
    remote.host.sh(
        f"cd {SPOOL}; for i in $(seq 3000); do "
        f"[ $(ls mxfleet-quarantine/job-1/{sign} 2>/dev/null | wc -l) -lt 20 ] || break; sleep 0.02; done; "
        f"{AT_WORK} | while read -r pid; do grep -qsx flock /proc/$pid/comm || kill -KILL $pid 2>/dev/null || :; done"
    )


def test_deliver_one_moves_that_one_and_tells_its_answer(remote: Remote) -> None:
    remote.inject(2, sender="n{i}@bulk.example", recipients=["r{i}@defer.test"], connections=1)
    remote.await_state("ALL", "deferred", 2)
    [one, two] = [entry["queue_id"] for entry in remote.queue()]
    tried = remote.do("message_deliver", MessageDeliver(one))
    assert tried.data["outcome"] == "deferred"
    assert tried.data["reply"].startswith("451 4.7.1")
    assert (remote.entry(one)["attempts"], remote.entry(two)["attempts"]) == (2, 1)
    remote.smtpctl("pause envelope", two)
    with pytest.raises(Conflict):
        remote.do("message_deliver", MessageDeliver(two))
    remote.lab.sink.set("defer.test", remote.lab.sink.rule("ok.test"))
    sent = remote.do("message_deliver", MessageDeliver(two, release=True)).data
    assert (sent["outcome"], sent["reply"][:3]) == ("sent", "250")
    assert [entry["queue_id"] for entry in remote.queue()] == [one]
    assert len(remote.lab.sink.messages()) == 1


def test_flush_tries_all_but_what_is_paused(remote: Remote) -> None:
    remote.inject(3, sender="n{i}@bulk.example", recipients=["r{i}@defer.test"], connections=1)
    names = remote.await_state("ALL", "deferred", 3)
    remote.smtpctl("pause envelope", names[0])
    remote.lab.sink.reset()
    remote.lab.sink.set("defer.test", remote.lab.sink.rule("ok.test"))
    flushed = remote.do("queue_flush", QueueFlush(by_match("ALL")))
    assert (flushed.ended, flushed.data["done"], flushed.data["already"]) == (Ended.SUCCEEDED, 2, 1)
    remote.await_gone("-state:hold", seconds=60)
    assert [entry["queue_id"] for entry in remote.queue("state:hold")] == [names[0]]
    assert len(remote.lab.sink.messages()) == 2
