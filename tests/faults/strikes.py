"""The faults, one function each: it strikes, lasts, and is over when it returns."""

import random
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.faults.host import Host
from tests.faults.plan import AWAY_SECONDS, STOPPED_SECONDS
from tests.faults.service import SHARDS, World, signal_all
from tests.lab.service import await_true

TAKE_LEASES = (
    "UPDATE jobs_run SET lease_until = now() - interval '1 second' FROM fleet_host"
    " WHERE jobs_run.host_id = fleet_host.id AND jobs_run.state = 'running' AND fleet_host.name = ANY(%s)"
)
AT_WORK = "SELECT id FROM jobs_run WHERE state = 'running' AND dispatched_at IS NOT NULL AND slot %% %s = %s"
READINGS = 40
Strike = Callable[[World, random.Random, Sequence[Host]], None]
StrikeHost = Callable[[World, Host], None]


def kill_worker(world: World, rng: random.Random, hosts: Sequence[Host]) -> None:
    world.service.kill("deploy.worker", f"ssh.{rng.randrange(SHARDS)}")


def stop_worker(world: World, rng: random.Random, hosts: Sequence[Host]) -> None:
    """Stopped for longer than a lease, then woken: it must notice that its work is not its own any more."""
    pids = world.service.pids("deploy.worker", f"ssh.{rng.randrange(SHARDS)}")
    signal_all(pids, signal.SIGSTOP)
    try:
        time.sleep(STOPPED_SECONDS)
    finally:
        signal_all(pids, signal.SIGCONT)


def stop_worker_for_an_hour(world: World, rng: random.Random, hosts: Sequence[Host]) -> None:
    """The same, but the verdict on its runs is due when it wakes; the clock is put forward by SQL."""
    shard = rng.randrange(SHARDS)
    pids = world.service.pids("deploy.worker", f"ssh.{shard}")
    signal_all(pids, signal.SIGSTOP)
    try:
        until = time.monotonic() + 50
        while world.service.sql(AT_WORK, SHARDS, shard) and time.monotonic() < until:
            time.sleep(0.5)  # a lease ends by the worker's own clock too, so it is not ended by SQL here
        while any(host.is_busy for host in hosts) and time.monotonic() < until:
            time.sleep(0.2)
        world.service.put_forward(host.name for host in hosts if not host.is_busy)
    finally:
        signal_all(pids, signal.SIGCONT)


def ask_silent_hosts(world: World, rng: random.Random, hosts: Sequence[Host]) -> None:
    """Three times as many readings that hang as both workers have threads, one lot after the other."""
    for _ in range(3):
        world.ended(world.read_silent(READINGS), 75)


def crash_database(world: World, rng: random.Random, hosts: Sequence[Host]) -> None:
    world.service.database.halt()
    try:
        time.sleep(rng.uniform(*AWAY_SECONDS))
    finally:
        world.service.database.resume()


def kill_redis(world: World, rng: random.Random, hosts: Sequence[Host]) -> None:
    kill = world.service.kill
    await_true(lambda: kill("redis-server") or kill("valkey-server"), 15, "no Redis to kill")


def stop_redis(world: World, rng: random.Random, hosts: Sequence[Host]) -> None:
    find = world.service.pids
    pids = await_true(lambda: find("redis-server") or find("valkey-server"), 15, "no Redis to stop")
    signal_all(pids, signal.SIGSTOP)
    try:
        time.sleep(rng.uniform(*AWAY_SECONDS))
    finally:
        signal_all(pids, signal.SIGCONT)


def take_lease(world: World, host: Host) -> None:
    world.service.sql(TAKE_LEASES, [host.name])


def cut(world: World, host: Host) -> None:
    host.cut()


ON_SERVICE: dict[str, Strike] = {
    "SSH worker killed": kill_worker,
    "SSH worker stopped for 40 s": stop_worker,
    "SSH worker stopped for an hour": stop_worker_for_an_hour,
    "PostgreSQL crashed and started": crash_database,
    "Redis killed": kill_redis,
    "Redis stopped and woken": stop_redis,
    "workers busy with silent hosts": ask_silent_hosts,
}
ON_HOST: dict[str, StrikeHost] = {"lease taken away": take_lease, "connection cut": cut}
STORM = "many of these at once"
KINDS = (*ON_SERVICE, *ON_HOST, STORM)
LONG = ("workers busy with silent hosts", "lease taken away")
"""Kinds whose purges take minutes: longer than a lease and the time after which a verdict is final."""
IN_STORM = (kill_worker, crash_database, kill_redis, stop_redis)


def strike(world: World, kind: str, hosts: Sequence[Host], marks: Sequence[int], rng: random.Random) -> None:
    """Strike each host once its effects are as many as its mark, and the service when a random host is that far."""
    tasks: list[Callable[[], None]] = []
    if kind in ON_HOST:
        tasks = [_on_host(world, ON_HOST[kind], *pair) for pair in zip(hosts, marks, strict=True)]
    elif kind in ON_SERVICE:
        tasks = [_on_service(world, ON_SERVICE[kind], hosts, marks, rng.random())]
    else:
        order = rng.sample(IN_STORM, len(IN_STORM))
        tasks = [_in_turn([_on_service(world, act, hosts, marks, rng.random()) for act in order])]
        tasks.append(_on_service(world, stop_worker_for_an_hour, hosts, marks, rng.random()))
        hit = rng.sample(list(zip(hosts, marks, strict=True)), len(hosts) // 2)
        tasks += [_on_host(world, rng.choice(list(ON_HOST.values())), *pair) for pair in hit]
    with ThreadPoolExecutor(len(tasks)) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()


def _in_turn(tasks: Sequence[Callable[[], None]]) -> Callable[[], None]:
    def all_of_them() -> None:
        for task in tasks:
            task()

    return all_of_them


def _on_host(world: World, act: StrikeHost, host: Host, mark: int) -> Callable[[], None]:
    def when_due() -> None:
        _await_effects(host, mark)
        act(world, host)

    return when_due


def _on_service(
    world: World, act: Strike, hosts: Sequence[Host], marks: Sequence[int], seed: float
) -> Callable[[], None]:
    rng = random.Random(seed)
    at = rng.randrange(len(hosts))

    def when_due() -> None:
        _await_effects(hosts[at], marks[at])
        time.sleep(rng.uniform(0, 0.3))
        act(world, rng, hosts)

    return when_due


def _await_effects(host: Host, count: int) -> None:
    """Until the host is that far, or for 20 s: an earlier fault may keep it from ever getting there."""
    until = time.monotonic() + 20
    while len(host.effects()) < count and time.monotonic() < until:
        time.sleep(0.02)
