"""The product's whole story against real hosts: every claim of the API is checked on the host itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fleet.mta.host.commands import HELPERS
from fleet.ssh.quoting import SCRIPTS
from tests.lab.lab import Host, Lab
from tests.lab.service import HOSTS, Json, People, Queue, Service, await_true, fresh
from tests.lab.sink import Rule

pytestmark = pytest.mark.lab
OUTER = ("pf1/postfixEXT", "pf2/postfix", "pf3/postfix")
"""The instance of each host that listens on its address."""
LATER = Rule("451 4.7.1 sink: later", "rcpt")
SPAMMER = "newsletter@sillyplace.test"


@pytest.fixture(params=OUTER)
def queue(request: pytest.FixtureRequest, lab: Lab, people: People) -> Queue:
    """Each of the three Postfix versions in turn, freshly started."""
    return fresh(lab, request.param)


@pytest.fixture
def outer(lab: Lab, people: People) -> Queue:
    """The second instance of pf1, freshly started, for what does not differ between versions."""
    return fresh(lab, OUTER[0])


def test_discovery_finds_three_hosts_and_four_instances(people: People) -> None:
    found = {row["id"]: row for row in people.alice.all("instances/")}
    rows = {name: row for name, row in found.items() if name.partition("/")[0] in HOSTS}  # others belong to other tests
    assert sorted(rows) == ["pf1/postfix", "pf1/postfixEXT", "pf2/postfix", "pf3/postfix"]
    assert {name: row["version"][:4].rstrip(".") for name, row in rows.items()} == {
        "pf1/postfix": "3.7",
        "pf1/postfixEXT": "3.7",
        "pf2/postfix": "3.5",
        "pf3/postfix": "3.10",
    }
    assert [name for name, row in rows.items() if row["options"]["has_long_ids"]] == ["pf3/postfix"]
    hosts = {row["name"]: row["status"] for row in people.alice.all("hosts/")}
    assert {name: hosts[name] for name in ("pf1", "pf2", "pf3")} == dict.fromkeys(("pf1", "pf2", "pf3"), "ok")
    assert people.charlie.all("instances/") == []


@pytest.fixture(scope="module")
def crowd(lab: Lab, people: People) -> Queue:
    """10,000 deferred messages, half of them of one sender; two of these are held by the administrator."""
    found = fresh(lab, "pf2/postfix")
    letters = {"sender": "u{i}@ok.test", "subject": "letter {i}", "size": 4000}
    found.host.inject(n=5000, sender="news@bulk.example", recipients=("r{i}@defer.test",), subject="news {i}")
    found.host.inject(n=5000, recipients=("r{i}@defer.test",), **letters)
    await_true(lambda: found.deferred() == 10_000, 120, "not 10,000 are deferred", 1)
    held = sorted(row["queue_id"] for row in found.listed() if row["sender"] == "news@bulk.example")[:2]
    for each in held:
        found.hold(each)
    return found


@pytest.mark.timeout(240)
def test_ten_thousand_messages_are_listed_summarised_and_searched(people: People, crowd: Queue) -> None:
    found = people.alice.run("queue.list", crowd.instance, 120, limit=10_000)["result"]
    assert {entry["queue_id"] for entry in found["entries"]} == crowd.ids()
    assert (found["total"], found["matched"], found["truncated"]) == (10_000, 10_000, False)
    arrivals = [entry["arrival_time"] for entry in found["entries"]]
    assert arrivals == sorted(arrivals)

    largest = people.alice.entries(crowd.instance, order="size", limit=3)
    assert all(entry["sender"].endswith("@ok.test") for entry in largest)
    sizes = [entry["size"] for entry in largest]
    assert sizes == sorted(sizes, reverse=True)

    match = 'from:u47* subject:"letter 4711"'
    [letter] = people.alice.entries(crowd.instance, match, fields=["queue_id", "sender", "subject"])
    assert (letter["subject"], letter["sender"]) == ("letter 4711", "u4711@ok.test")

    told = people.alice.run("queue.summary", crowd.instance, 120, group_by=["from-domain", "state"])["result"]
    groups = {word: {row["value"]: row["count"] for row in rows} for word, rows in told["groups"].items()}
    assert groups["from-domain"] == {"bulk.example": 5000, "ok.test": 5000}
    assert groups["state"] == {"deferred": 9998, "hold": 2}
    assert told["total"]["count"] == 10_000


@pytest.mark.timeout(300)
def test_a_purge_of_five_thousand_needs_bob_and_its_undo_brings_back_the_same_bytes(
    people: People, crowd: Queue
) -> None:
    before = crowd.files()
    assert sum(place == "hold" for place, _ in before.values()) == 2
    job = people.alice.job("queue.purge", crowd.instance, 120, match="from:news@bulk.example")
    assert (job["state"], job["plan"]["messages"]) == ("awaiting_approval", 5000)
    assert people.alice.ask("POST", f"jobs/{job['id']}/approve/", {"digest": job["plan"]["digest"]}).status_code == 403
    assert people.dana.ask("POST", f"jobs/{job['id']}/approve/", {"digest": job["plan"]["digest"]}).status_code == 403
    assert people.charlie.ask("GET", f"jobs/{job['id']}/").status_code == 404
    assert crowd.files() == before

    people.alice.ended(people.agreed(job, 120))
    result = people.alice.only_run(job)["result"]
    assert (result["asked"], result["done"], result["left"]) == (5000, 5000, 0)
    left = crowd.files()
    assert len(left) == 5000
    assert left.items() <= before.items()
    kept = people.alice.all(f"quarantine/?job={job['id']}&state=kept")
    assert {item["queue_id"] for item in kept} == before.keys() - left.keys()

    people.alice.ended(people.alice.undo(job, 120))
    assert crowd.files() == before
    assert not people.alice.all(f"quarantine/?job={job['id']}&state=kept")
    again = people.alice.ask("POST", f"jobs/{job['id']}/undo/", {"reason": "twice"})
    assert (again.status_code, again.json()["code"]) == (409, "not_undoable")


def test_release_frees_what_we_held_and_leaves_the_holds_of_others(people: People, queue: Queue) -> None:
    queue.inject(6)
    ids = sorted(queue.ids())
    queue.hold(ids[0])
    held = people.changed("queue.hold", queue.instance, queue_ids=ids[1:4])
    people.alice.ended(held)
    assert queue.ids("hold") == set(ids[:4])

    people.alice.ended(people.changed("queue.release", queue.instance, match="from:a@bulk.example"))
    assert queue.ids("hold") == {ids[0]}
    people.alice.ended(people.changed("queue.release", queue.instance, match="state:hold"))
    assert queue.ids("hold") == set()
    assert queue.ids() == set(ids)


def test_undo_of_a_hold_frees_exactly_what_it_held(people: People, outer: Queue) -> None:
    outer.inject(4)
    ids = sorted(outer.ids())
    outer.hold(ids[0])
    held = people.changed("queue.hold", outer.instance, match="from:a@bulk.example")
    people.alice.ended(held)
    assert outer.ids("hold") == set(ids)
    people.alice.ended(people.alice.undo(held))
    assert outer.ids("hold") == {ids[0]}


@pytest.mark.timeout(180)
def test_exactly_one_of_a_thousand_is_delivered_and_no_other_moves(people: People, lab: Lab, queue: Queue) -> None:
    lab.sink.set("ok.test", LATER)
    queue.inject(1000, to="r{i}@ok.test")
    ids = sorted(queue.ids())
    wanted, foreign = ids[500], ids[501]
    queue.hold(foreign)
    lab.sink.set("ok.test", Rule())
    before = queue.times()
    run = people.alice.run("message.deliver", queue.instance, queue_id=wanted, verbose=True)
    assert run["result"]["outcome"] == "sent"
    assert "sink: accepted" in run["result"]["reply"]
    [arrived] = lab.sink.messages()
    assert arrived["sender"] == "a@bulk.example"
    del before[wanted]
    assert queue.times() == before
    assert queue.ids("hold") == {foreign}
    gone = people.alice.job("message.deliver", queue.instance, queue_id=wanted)
    assert people.alice.only_run(gone)["error"]["code"] == "message_not_found"
    kept = people.alice.job("message.deliver", queue.instance, queue_id=foreign)
    assert people.alice.only_run(kept)["error"]["code"] == "conflict"
    assert queue.ids("hold") == {foreign}


def test_a_delivery_that_the_remote_puts_off_or_refuses_is_told_so(people: People, lab: Lab, outer: Queue) -> None:
    outer.inject(2)
    first, second = sorted(outer.ids())
    put_off = people.alice.run("message.deliver", outer.instance, queue_id=first)["result"]
    assert put_off["outcome"] == "deferred"
    assert "try later" in put_off["reply"]
    lab.sink.set("defer.test", Rule("550 5.1.1 sink: no such user", "rcpt"))
    refused = people.alice.run("message.deliver", outer.instance, queue_id=second)["result"]
    assert refused["outcome"] == "bounced"
    assert "no such user" in refused["reply"]
    assert outer.ids("deferred") == {first}


def test_a_blocked_sender_is_refused_from_outside_until_it_is_unblocked(people: People, queue: Queue) -> None:
    before = queue.config_files()
    assert queue.knock(SPAMMER) == ["250"]
    job = people.alice.job("sender.block", queue.instance, pattern=SPAMMER)
    assert (job["state"], job["approval"]["rule"]) == ("awaiting_approval", "default-wiring")
    [shown] = people.bob.get(f"jobs/{job['id']}/plan/")["instances"]
    assert any(diff["path"].endswith("main.cf") and "+" in diff["unified"] for diff in shown["diffs"])
    assert queue.config_files() == before
    people.alice.ended(people.agreed(job))
    assert queue.knock(SPAMMER)[0].startswith("550 5.7.1")
    assert queue.knock("somebody@else.example") == ["250"]
    assert queue.knock(f"x{SPAMMER}") == ["250"]
    [block] = people.alice.all(f"blocks/?pattern={SPAMMER}&instance={queue.instance}")
    assert [row["state"] for row in block["instances"]] == ["applied"]
    listed = people.alice.run("block.list", queue.instance)["result"]
    assert [row["pattern"] for row in listed["ours"]] == [SPAMMER]

    people.alice.ended(people.changed("sender.unblock", queue.instance, pattern=SPAMMER))
    assert queue.knock(SPAMMER) == ["250"]
    assert people.alice.all(f"blocks/?pattern={SPAMMER}&instance={queue.instance}&state=applied") == []


def test_undo_of_the_wiring_job_leaves_the_configuration_byte_for_byte_as_it_was(people: People, queue: Queue) -> None:
    before = queue.config_files()
    main_cf = queue.host.sh(f"cat {queue.config}/main.cf")
    job = people.changed("sender.block", queue.instance, pattern=SPAMMER)
    people.alice.ended(job)
    assert queue.host.sh(f"cat {queue.config}/main.cf") != main_cf
    people.alice.ended(people.alice.undo(job))
    assert queue.host.sh(f"cat {queue.config}/main.cf") == main_cf
    assert queue.config_files() == before
    assert queue.knock(SPAMMER) == ["250"]


def test_lines_of_the_administrator_stay_byte_for_byte(people: People, queue: Queue) -> None:
    lines = "# ours since 1999\nold@foe.example\tREJECT  go away\n  and stay away\n\nfriend@foe.example OK\n"
    queue.host.exec("cat > /etc/senders", stdin=lines)
    restriction = "check_sender_access hash:/etc/senders, permit_mynetworks"
    queue.host.sh(
        f"postmap hash:/etc/senders; postconf -c {queue.config} -e 'smtpd_sender_restrictions = {restriction}'"
    )
    queue.host.sh(f"postfix -c {queue.config} reload")
    people.admin.ended(people.discover(queue.host.name))
    try:
        job = people.changed("sender.block", queue.instance, pattern=SPAMMER)
        people.alice.ended(job)
        assert queue.knock(SPAMMER)[0].startswith("550 5.7.1")
        assert "go away and stay away" in " ".join(queue.knock("old@foe.example")[0].split())
        assert lines in queue.host.sh("cat /etc/senders")
        people.alice.ended(people.changed("sender.unblock", queue.instance, pattern=SPAMMER))
        assert queue.host.sh("cat /etc/senders") == lines
        assert queue.knock(SPAMMER) == ["250"]
        assert "go away" in queue.knock("old@foe.example")[0]
    finally:
        queue.host.reset()
        people.admin.ended(people.discover(queue.host.name))


ODD_SENDERS = (
    '"a b"@x.example',
    "\"'; touch /tmp/PWN;'\"@x.example",
    "-rf@x.example",
    '"-rf /"@x.example',
    "a%b!c=d+e@x.example",
    "`touch$IFS/tmp/PWN`@x.example",
    "o'brien@x.example",
    "{x}@x.example",
    "*@x.example",
    "",
)
"""Addresses that RFC 5321 allows and a shell would not like; the null sender."""


def test_a_purge_of_odd_senders_takes_exactly_what_was_asked(people: People, queue: Queue) -> None:
    queue.host.sh(
        f"postconf -c {queue.config} -e allow_min_user=yes smtputf8_enable=no; postfix -c {queue.config} reload"
    )
    eight_bit = "r\xe9my@x.example".encode("latin-1")
    for sender in (*ODD_SENDERS, eight_bit):
        assert queue.host.inject(sender=sender, recipients=("r@defer.test",)).accepted == 1, sender
    await_true(lambda: len(queue.listed("deferred")) == len(ODD_SENDERS) + 1, 30)
    named = {entry["sender"]: entry["queue_id"] for entry in people.alice.entries(queue.instance)}
    assert named.keys() == {*ODD_SENDERS[:-1], "<>", "r?my@x.example"}
    for sender, queue_id in named.items():
        before = queue.ids()
        match = {"field": "from", "op": "is", "value": sender}
        people.alice.ended(people.changed("queue.purge", queue.instance, match=match))
        assert before - queue.ids() == {queue_id}, sender
    assert queue.ids() == set()
    assert queue.host.sh("ls /tmp/PWN /root/PWN /home/*/PWN 2>/dev/null || true") == ""


def test_bounced_messages_go_back_to_their_sender(people: People, lab: Lab, queue: Queue) -> None:
    queue.inject(2, sender="back@bulk.example")
    queue.inject(1, sender="stays@bulk.example", to="stays@defer.test")
    job = people.changed("queue.bounce", queue.instance, match="from:back@bulk.example")
    people.alice.ended(job)
    notices = lab.sink.wait(2, "back@bulk.example")
    assert {notice["sender"] for notice in notices} == {""}
    assert [row["sender"] for row in queue.listed()] == ["stays@bulk.example"]


def test_requeued_messages_have_the_new_ids_that_are_told(people: People, outer: Queue) -> None:
    outer.inject(3)
    old = outer.ids()
    job = people.changed("queue.requeue", outer.instance, match="from:a@bulk.example")
    people.alice.ended(job)
    rows = people.alice.only_run(job)["result"]["messages"]["results"]
    assert {row["queue_id"] for row in rows} == old
    assert {row["new_id"] for row in rows} == outer.ids()
    assert not old & outer.ids()


def test_flush_attempts_what_is_deferred_and_never_what_is_held(people: People, lab: Lab, outer: Queue) -> None:
    lab.sink.set("ok.test", LATER)
    outer.inject(3, to="r{i}@ok.test")
    outer.inject(1, to="other@defer.test")
    first = sorted(row["queue_id"] for row in outer.listed() if row["recipients"][0]["address"].endswith("@ok.test"))[0]
    outer.hold(first)
    lab.sink.set("ok.test", Rule())
    people.alice.ended(people.changed("queue.flush", outer.instance, match="to-domain:ok.test"))
    assert len(lab.sink.wait(2)) == 2
    assert outer.ids("hold") == {first}


def test_a_message_is_shown_as_it_lies_in_the_queue(people: People, outer: Queue) -> None:
    outer.inject(sender="show@bulk.example", subject="=?utf-8?q?Gr=C3=BC=C3=9Fe?=")
    [queue_id] = outer.ids()
    params = {"queue_id": queue_id, "parts": ["envelope", "headers", "body"]}
    result = people.alice.run("message.show", outer.instance, **params)["result"]
    assert result["envelope"]["sender"] == "show@bulk.example"
    assert [row["value"] for row in result["headers"] if row["name"] == "Subject"] == ["Grüße"]
    assert "Lab message 1." in result["body"]["text"]
    refused = people.dana.ask(
        "POST", "jobs/", {"operation": "message.show", "target": {"instances": [outer.instance]}, "params": params}
    )
    assert refused.status_code == 403


def test_erased_and_deleted_mail_is_gone_and_is_never_said_to_come_back(people: People, queue: Queue) -> None:
    queue.inject(2, sender="gone@bulk.example")
    queue.inject(1, sender="kill@bulk.example", to="k@defer.test")
    purged = people.changed("queue.purge", queue.instance, match="from:gone@bulk.example")
    people.alice.ended(purged)
    kept = people.alice.all(f"quarantine/?job={purged['id']}&state=kept")
    asked_ids = [kept[0]["id"]]
    people.alice.ended(people.changed("quarantine.erase", queue.instance, ids=asked_ids))
    assert people.alice.get(f"quarantine/{asked_ids[0]}/")["state"] == "erased"
    found = queue.host.sh(f"find / -xdev -type f -name '*{kept[0]['queue_id']}*' -not -path '/proc/*'")
    assert found == ""
    people.alice.ended(people.alice.undo(purged))
    assert kept[1]["queue_id"] in queue.ids()

    job = people.alice.job("queue.purge", queue.instance, match="from:kill@bulk.example", mode="delete")
    assert job["approval"]["rule"] == "default-delete"
    people.alice.ended(people.agreed(job))
    assert queue.ids() == {kept[1]["queue_id"]}
    undone = people.alice.ask("POST", f"jobs/{job['id']}/undo/", {"reason": "lab test"})
    assert (undone.status_code, undone.json()["code"]) == (409, "not_undoable")


REFUSED = (
    "sudo -n id",
    "sudo -n /bin/sh -c id",
    "sudo -n postsuper -d ALL",
    "sudo -n /usr/sbin/postsuper -d ALL",
    "sudo -n postcat /etc/shadow",
    "sudo -n /usr/sbin/postcat /etc/shadow",
    "sudo -n /usr/sbin/postconf -e x=y",
    "sudo -n /usr/sbin/postmap /etc/shadow",
    "sudo -n cat /etc/shadow",
    "sudo -n -u postfix id",
)


def install(people: People, host: Host) -> None:
    """As hosts/NAME/sudoers/ says: the helper scripts root-owned, this file the only rule."""
    for script in SCRIPTS.values():
        host.exec(f"install -D -m 755 /dev/stdin {HELPERS}/{script.name}", stdin=script.read_text())
    people.admin.ended(people.discover(host.name))
    text = people.admin.ask("GET", f"hosts/{host.name}/sudoers/").text
    host.exec("cat > /etc/sudoers.d/mxfleet && chmod 440 /etc/sudoers.d/mxfleet", stdin=text)
    host.sh("visudo -c -f /etc/sudoers.d/mxfleet && rm /etc/sudoers.d/fleetops")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("instance", OUTER)
def test_the_least_privilege_sudoers_file_lets_every_operation_work_and_nothing_else(
    people: People, lab: Lab, instance: str
) -> None:
    queue = fresh(lab, instance)
    queue.inject(8)
    ids = sorted(queue.ids())
    install(people, queue.host)
    try:
        for command in REFUSED:
            tried = subprocess.run(queue.host.ssh_command(command), capture_output=True, text=True, timeout=30)
            assert (tried.returncode, tried.stdout) == (1, ""), command
            assert tried.stderr.startswith("sudo: "), command
        assert queue.ids() >= set(ids), "sudo itself may mail root of what it refused"
        people.admin.ended(people.discover(queue.host.name))
        every_operation(people, lab, queue, ids)
    finally:
        queue.host.reset()
        people.admin.ended(people.discover(queue.host.name))


def every_operation(people: People, lab: Lab, queue: Queue, ids: list[str]) -> None:
    """One of each on the eight queued messages, each of which has to succeed."""

    def do(operation: str, **params: Json) -> Json:
        return people.alice.ended(people.changed(operation, queue.instance, **params))

    do("queue.list", match="subject~lab")
    do("queue.summary")
    do("message.show", queue_id=ids[0], parts=["envelope", "headers", "body"])
    do("block.list")
    do("queue.hold", queue_ids=ids[:2])
    do("queue.release", queue_ids=ids[:2])
    lab.sink.set("defer.test", Rule())
    do("message.deliver", queue_id=ids[0])
    lab.sink.set("defer.test", LATER)
    purged = do("queue.purge", queue_ids=ids[1:3])
    [first, second] = people.alice.all(f"quarantine/?job={purged['id']}")
    do("quarantine.restore", ids=[first["id"]])
    do("quarantine.erase", ids=[second["id"]])
    do("queue.purge", queue_ids=[ids[3]], mode="delete")
    do("queue.requeue", queue_ids=[ids[4]])
    do("queue.bounce", queue_ids=[ids[5]])
    do("queue.flush", match="to-domain:defer.test")
    blocked = do("sender.block", pattern=SPAMMER)
    assert queue.knock(SPAMMER)[0].startswith("550 5.7.1")
    do("sender.unblock", pattern=SPAMMER)
    assert blocked["state"] == "succeeded"


READING = ("queue.list", "queue.summary", "message.show", "block.list", "host.discover")


@pytest.mark.timeout(60)
def test_the_audit_trail_tells_everything_in_order_and_verifies(
    people: People, service: Service, tmp_path: Path
) -> None:
    verdict = people.admin.get("audit/verify/")
    assert verdict["ok"], verdict
    order: dict[str, dict[str, int]] = {"run.dispatched": {}, "run.ended": {}}
    for event in people.admin.all("audit/?customer=acme"):
        if event["action"] in order:
            order[event["action"]].setdefault(event["data"]["run"], event["seq"])
    changing = [job for job in people.admin.all("jobs/") if job["operation"] not in READING]
    checked = 0
    for job in changing[:60]:
        for run in people.admin.runs(job):
            if run["state"] == "succeeded":
                assert order["run.dispatched"][run["id"]] < order["run.ended"][run["id"]], job
                checked += 1
    assert checked

    export, keys = tmp_path / "export.jsonl", tmp_path / "keys"
    export.write_bytes(people.admin.ask("GET", "audit/export/").content)
    keys.write_text(service.manage("audit_verify", "--public-key"))
    verify = [sys.executable, "-m", "jobs.audit.verify", "--pub", str(keys)]
    told = subprocess.run([*verify, str(export)], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    forged = tmp_path / "forged.jsonl"
    forged.write_text(export.read_text().replace("lab test", "lab tesT", 1))
    assert subprocess.run([*verify, str(forged)], capture_output=True).returncode == 1
