"""The product while things break: it loses no mail, claims nothing that is not so, and every job ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import NamedTuple

import pytest

from tests.lab.config import OUTSIDER
from tests.lab.lab import Host, Lab
from tests.lab.service import CUSTOMER, ENDED, Json, People, Service, await_true

pytestmark = pytest.mark.lab
SPAMMER = "spam@sillyplace.test"
INSTANCES = {"pf1": "pf1/postfixEXT", "pf2": "pf2/postfix", "pf3": "pf3/postfix"}
EVERYWHERE = {"customers": [CUSTOMER], "instances": list(INSTANCES.values())}


@pytest.fixture
def hosts(lab: Lab, people: People, service: Service) -> Iterator[dict[str, Host]]:
    """The three hosts as freshly started, and a service whose workers live and that does not avoid any host."""
    lab.sink.reset()
    found = {name: lab.host(name) for name in INSTANCES}
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(Host.reset, found.values()))
    await_true(lambda: len(service.pids("deploy.worker")) == 3, 60, "not all workers live")
    yield found
    for host in found.values():
        host.thaw()


def spool(host: Host) -> str:
    return "/var/spool/" + INSTANCES[host.name].partition("/")[2]


def queued(host: Host) -> dict[str, str]:
    """Queue ID -> queue, of every queue file of the outer instance."""
    return _places(host, "incoming active deferred hold")


def kept(host: Host) -> set[str]:
    """Queue IDs of the messages in quarantine on the host."""
    return set(_places(host, "mxfleet-quarantine"))


def _places(host: Host, directories: str) -> dict[str, str]:
    found = host.sh(f"cd {spool(host)}; find {directories} -type f 2>/dev/null || true").split()
    return {path.rpartition("/")[2]: path.partition("/")[0] for path in found}


def fill(host: Host, count: int, sender: str = "news@bulk.example", to: str = "r{i}@defer.test") -> set[str]:
    """Deferred messages of one sender; their queue IDs."""
    before = set(queued(host))
    assert host.inject(n=count, sender=sender, recipients=(to,)).accepted == count
    await_true(lambda: _deferred(host) >= len(before) + count, 60, "not all are deferred")
    return set(queued(host)) - before


def _deferred(host: Host) -> int:
    return sum(place in ("deferred", "hold") for place in queued(host).values())


def knock(host: Host, sender: str) -> str:
    tried = host.inject(sender=sender, recipients=("r@ok.test",), stop_at="rcpt", source=OUTSIDER)
    return (tried.errors or ["250"])[0]


def states(people: People, job: Json) -> dict[str, str]:
    return {run["host"]: run["state"] for run in people.alice.runs(job)}


def seconds(run: Json) -> float:
    began, ended = (datetime.fromisoformat(run[name]) for name in ("started_at", "finished_at"))
    return (ended - began).total_seconds()


def auth_log(host: Host) -> str:
    return host.sh("cat /var/log/auth.log 2>/dev/null || true")


class Wreck(NamedTuple):
    """A purge that was cut short: the run as it ended, its job, and what was queued before."""

    host: Host
    job: Json
    before: set[str]


@pytest.fixture(scope="module")
def wrecks(lab: Lab, people: People, service: Service) -> list[Wreck]:
    """Three purges at once: pf3 loses its SSH sessions again and again, then the workers of pf1 and pf2 are killed.

    One fixture for all of them, because a purge that was cut short is settled only when the host's own time limit on
    commands has passed, two minutes later.
    """
    sizes = {"pf1": 300, "pf2": 2500, "pf3": 1500}
    hosts = {name: lab.host(name) for name in sizes}
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(Host.reset, hosts.values()))
        before = dict(zip(sizes, pool.map(lambda name: fill(hosts[name], sizes[name]), sizes), strict=True))
    jobs = {name: people.alice.job("queue.purge", INSTANCES[name], match="from:news@bulk.example") for name in sizes}
    people.bob.approve(jobs["pf3"])
    for _ in range(4):
        time.sleep(0.15)
        hosts["pf3"].off()
        hosts["pf3"].on()
    for name in ("pf1", "pf2"):
        people.bob.approve(jobs[name])
    await_true(lambda: people.alice.get(f"jobs/{jobs['pf2']['id']}/")["state"] == "running", 20, pause=0.01)
    time.sleep(0.4)
    assert len(service.kill("deploy.worker", "ssh.0") + service.kill("deploy.worker", "ssh.1")) == 2
    ended = {name: people.alice.wait(job, 240, ENDED, pause=1) for name, job in jobs.items()}
    return [Wreck(hosts[name], ended[name], before[name]) for name in sizes]


@pytest.mark.timeout(400)
def test_a_purge_that_was_cut_short_neither_loses_nor_doubles_a_message(wrecks: list[Wreck]) -> None:
    for wreck in wrecks:
        here, away = set(queued(wreck.host)), kept(wreck.host)
        assert here | away == wreck.before
        assert not here & away


def test_a_purge_that_was_cut_short_says_exactly_what_is_left(people: People, wrecks: list[Wreck]) -> None:
    for wreck in wrecks:
        run = people.alice.only_run(wreck.job)
        here, away = set(queued(wreck.host)), kept(wreck.host)
        assert (run["state"] == "succeeded") == (not here), run["state"]
        if run["state"] != "succeeded":
            assert run["state"] in ("failed", "unreachable")
        if run["result"]:
            assert run["result"]["done"] == len(away)
            assert run["result"]["left"] + run["result"]["in_delivery"] == len(here)
        listed = people.alice.all(f"quarantine/?job={wreck.job['id']}&state=kept")
        assert {row["queue_id"] for row in listed} == away


def test_what_a_cut_short_purge_took_can_be_put_back(people: People, wrecks: list[Wreck]) -> None:
    for wreck in wrecks:
        if kept(wreck.host):
            people.alice.ended(people.alice.undo(wreck.job))
        assert set(queued(wreck.host)) == wreck.before


def test_a_host_that_is_off_is_unreachable_and_the_others_succeed(people: People, hosts: dict[str, Host]) -> None:
    hosts["pf2"].off()
    job = people.alice.job("queue.list", EVERYWHERE)
    assert job["state"] == "partly_failed"
    assert states(people, job) == {"pf1": "succeeded", "pf2": "unreachable", "pf3": "succeeded"}
    [off] = [run for run in people.alice.runs(job) if run["host"] == "pf2"]
    assert off["error"]["code"] == "unreachable"
    hosts["pf2"].on()
    retried = people.alice.wait(people.alice.post(f"jobs/{job['id']}/retry/", {}))
    assert states(people, people.alice.ended(retried)) == {"pf2": "succeeded"}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("is_warm", [True, False])
def test_a_host_whose_cable_was_pulled_ends_within_a_minute_and_is_used_again_soon(
    people: People, hosts: dict[str, Host], is_warm: bool
) -> None:
    if is_warm:
        people.alice.ended(people.alice.job("queue.list", INSTANCES["pf2"]))
    hosts["pf2"].freeze()
    begun = time.monotonic()
    job = people.alice.job("queue.list", EVERYWHERE, seconds=90)
    assert time.monotonic() - begun < 65
    assert job["state"] == "partly_failed"
    [frozen] = [run for run in people.alice.runs(job) if run["host"] == "pf2"]
    assert frozen["state"] in ("unreachable", "failed")
    assert frozen["error"]["code"] in ("unreachable", "connection_lost", "timeout")
    assert seconds(frozen) < 60
    hosts["pf2"].thaw()
    await_true(lambda: people.alice.job("queue.list", INSTANCES["pf2"])["state"] == "succeeded", 30)


def test_a_changed_host_key_stops_everything_before_anything_is_sent(people: People, hosts: dict[str, Host]) -> None:
    host = hosts["pf2"]
    ids = fill(host, 3)
    other = host.change_host_key()
    before = auth_log(host).count("Accepted publickey")
    try:
        for operation, params in (("queue.list", {}), ("queue.purge", {"match": "from:news@bulk.example"})):
            job = people.alice.ended(people.alice.job(operation, INSTANCES["pf2"], **params), "failed")
            run = people.alice.only_run(job)
            assert (run["state"], run["error"]["code"]) == ("unreachable", "host_key_mismatch")
        assert auth_log(host).count("Accepted publickey") == before
        assert set(queued(host)) == ids
        shown = people.admin.get("hosts/pf2/")
        assert shown["status"] == "refused"
        people.admin.patch("hosts/pf2/", {"host_key": other})
        people.alice.ended(people.alice.job("queue.list", INSTANCES["pf2"]))
    finally:
        host.restore_host_key()
        people.admin.patch("hosts/pf2/", {"host_key": host.host_key})
    people.alice.ended(people.alice.job("queue.list", INSTANCES["pf2"]))


@pytest.mark.parametrize(("user", "name"), [("fishuser", "pf1-fish"), ("tcshuser", "pf1-tcsh")])
def test_an_account_with_another_shell_is_refused_and_nothing_runs_there(
    people: People, hosts: dict[str, Host], user: str, name: str
) -> None:
    job = people.register(hosts["pf1"], name, username=user)
    try:
        run = people.admin.only_run(people.admin.ended(job, "failed"))
        assert run["error"]["code"] == "login_shell"
        assert [row for row in people.admin.all("instances/") if row["host"] == name] == []
        assert hosts["pf1"].sh("find / -xdev -name 'PWN*' -not -path '/proc/*'") == ""
    finally:
        people.admin.patch(f"hosts/{name}/", {"enabled": False})


def test_without_sudo_a_change_is_denied_and_nothing_moves(people: People, hosts: dict[str, Host]) -> None:
    ids = fill(hosts["pf3"], 3)
    hosts["pf3"].sh("rm /etc/sudoers.d/fleetops")
    job = people.alice.job("queue.hold", INSTANCES["pf3"], match="from:news@bulk.example")
    run = people.alice.only_run(people.alice.ended(job, "failed"))
    assert (run["state"], run["error"]["code"]) == ("failed", "sudo_denied")
    assert queued(hosts["pf3"]) == dict.fromkeys(ids, "deferred")


def test_a_stopped_mta_is_no_empty_queue(people: People, hosts: dict[str, Host]) -> None:
    fill(hosts["pf2"], 2)
    hosts["pf2"].stop_mta()
    job = people.alice.ended(people.alice.job("queue.list", INSTANCES["pf2"]), "failed")
    assert people.alice.only_run(job)["error"]["code"] == "mta_not_running"


@pytest.mark.parametrize("name", INSTANCES)
def test_a_message_in_delivery_is_told_and_not_claimed_and_arrives(
    people: People, lab: Lab, hosts: dict[str, Host], name: str
) -> None:
    host = hosts[name]
    host.inject(sender="slow@bulk.example", recipients=("r@slow.test",))
    await_true(lambda: "active" in queued(host).values(), 5, pause=0.05)
    job = people.alice.job("queue.purge", INSTANCES[name], match="from:slow@bulk.example")
    run = people.alice.only_run(people.alice.ended(job, "failed"))
    assert run["error"]["code"] == "in_delivery"
    counts = {word: run["result"][word] for word in ("asked", "done", "in_delivery")}
    assert counts == {"asked": 1, "done": 0, "in_delivery": 1}
    [arrived] = lab.sink.wait(1, "r@slow.test", 15)
    assert arrived["sender"] == "slow@bulk.example"
    assert kept(host) == set()


@pytest.mark.timeout(200)
def test_jobs_that_are_asked_for_while_redis_dies_all_end(
    people: People, service: Service, hosts: dict[str, Host]
) -> None:
    jobs = []
    for number in range(20):
        if number in (4, 12):
            await_true(lambda: service.kill("redis-server") or service.kill("valkey-server"), 10, "no Redis to kill")
        operation, params = ("queue.hold", {"match": "from:none@x.example"}) if number % 2 else ("queue.list", {})
        jobs.append(people.alice.submit(operation, EVERYWHERE, **params))
    for job in jobs:
        people.alice.ended(people.alice.wait(job, 90))


@pytest.mark.timeout(200)
def test_fifty_changing_jobs_on_one_host_never_overlap_and_all_end(people: People, hosts: dict[str, Host]) -> None:
    ids = sorted(fill(hosts["pf1"], 10))
    words = [("queue.hold", "queue.release")[number % 2] for number in range(50)]
    with ThreadPoolExecutor(10) as pool:
        jobs = list(
            pool.map(
                lambda pair: people.alice.submit(pair[1], INSTANCES["pf1"], queue_ids=[ids[pair[0] % 10]]),
                enumerate(words),
            )
        )
    ended = [people.alice.wait(job, 150) for job in jobs]
    assert {job["state"] for job in ended} == {"succeeded"}
    held: list[str] = []
    for event in sorted(people.admin.all("audit/?customer=acme"), key=lambda event: event["seq"]):
        if event["job"] not in {job["id"] for job in jobs}:
            continue
        if event["action"] == "run.dispatched":
            held.append(event["job"])
            assert len(held) == 1, "two at a time"
        elif event["action"] == "run.ended" and event["job"] in held:
            held.remove(event["job"])
    assert held == []
    assert set(queued(hosts["pf1"])) == set(ids)


@pytest.mark.timeout(200)
def test_a_block_reaches_a_host_that_was_off_as_soon_as_it_is_back(people: People, hosts: dict[str, Host]) -> None:
    people.alice.ended(people.changed("sender.block", EVERYWHERE, pattern="first@sillyplace.test"))
    hosts["pf2"].off()
    job = people.changed("sender.block", EVERYWHERE, pattern=SPAMMER)
    assert job["state"] == "partly_failed"
    assert states(people, job)["pf2"] == "unreachable"
    assert _block_states(people) == {"pf1/postfixEXT": "applied", "pf2/postfix": "pending", "pf3/postfix": "applied"}
    assert knock(hosts["pf2"], SPAMMER) == "250"
    hosts["pf2"].on()
    await_true(
        lambda: set(_block_states(people).values()) == {"applied"}, 60, lambda: json.dumps(_block_states(people))
    )
    assert knock(hosts["pf2"], SPAMMER).startswith("550 5.7.1")
    assert people.alice.get(f"jobs/{job['id']}/")["state"] == "partly_failed"
    [caught_up] = [row for row in people.alice.all("jobs/?operation=sender.block") if row["channel"] == "schedule"]
    assert caught_up["target"] == {"instances": ["pf2/postfix"]}
    for pattern in (SPAMMER, "first@sillyplace.test"):
        people.alice.ended(people.changed("sender.unblock", EVERYWHERE, pattern=pattern))
        assert knock(hosts["pf2"], pattern) == "250"


def _block_states(people: People) -> dict[str, str]:
    rows = [row for row in people.alice.all(f"blocks/?pattern={SPAMMER}") if row["wanted"]]
    return {row["instance"]: row["state"] for row in rows[0]["instances"]}
