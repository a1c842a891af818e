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
Strike = Callable[[World, random.Random], None]
StrikeHost = Callable[[World, Host], None]


def kill_worker(world: World, rng: random.Random) -> None:
    world.service.kill("deploy.worker", f"ssh.{rng.randrange(SHARDS)}")


def stop_worker(world: World, rng: random.Random) -> None:
    """Stopped for longer than a lease, then woken: it must notice that its work is not its own any more."""
    pids = world.service.pids("deploy.worker", f"ssh.{rng.randrange(SHARDS)}")
    signal_all(pids, signal.SIGSTOP)
    try:
        if STOPPED_SECONDS < 30:  # the everyday rounds have no time for the lease's end: it is brought forward
            time.sleep(STOPPED_SECONDS / 2)
            world.service.sql("UPDATE jobs_run SET lease_until = now() WHERE state = 'running'")
            time.sleep(STOPPED_SECONDS / 2)
        else:
            time.sleep(STOPPED_SECONDS)
    finally:
        signal_all(pids, signal.SIGCONT)


def crash_database(world: World, rng: random.Random) -> None:
    world.service.database.halt()
    try:
        time.sleep(rng.uniform(*AWAY_SECONDS))
    finally:
        world.service.database.resume()


def kill_redis(world: World, rng: random.Random) -> None:
    kill = world.service.kill
    await_true(lambda: kill("redis-server") or kill("valkey-server"), 15, "no Redis to kill")


def stop_redis(world: World, rng: random.Random) -> None:
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
    "SSH worker stopped and woken": stop_worker,
    "PostgreSQL crashed and started": crash_database,
    "Redis killed": kill_redis,
    "Redis stopped and woken": stop_redis,
}
ON_HOST: dict[str, StrikeHost] = {"lease taken away": take_lease, "connection cut": cut}
STORM = "all of these at once"
KINDS = (*ON_SERVICE, *ON_HOST, STORM)


def strike(world: World, kind: str, hosts: Sequence[Host], marks: Sequence[int], rng: random.Random) -> None:
    """Strike each host once its effects are as many as its mark, and the service when a random host is that far."""
    tasks: list[Callable[[], None]] = []
    if kind in ON_HOST:
        tasks = [_on_host(world, ON_HOST[kind], *pair) for pair in zip(hosts, marks, strict=True)]
    elif kind in ON_SERVICE:
        tasks = [_on_service(world, ON_SERVICE[kind], hosts, marks, rng.random())]
    else:
        order = rng.sample(list(ON_SERVICE), len(ON_SERVICE))
        tasks = [_in_turn([_on_service(world, ON_SERVICE[name], hosts, marks, rng.random()) for name in order])]
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
        act(world, rng)

    return when_due


def _await_effects(host: Host, count: int) -> None:
    """Until the host is that far, or for 20 s: an earlier fault may keep it from ever getting there."""
    until = time.monotonic() + 20
    while len(host.effects()) < count and time.monotonic() < until:
        time.sleep(0.02)
