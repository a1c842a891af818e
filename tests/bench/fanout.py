"""A listing of one message from 200 and 500 warm hosts: the service from POST to done, beside what others need."""

from collections.abc import Callable, Sequence

from tests.bench import peers
from tests.bench.farm import Farm
from tests.bench.measure import Contender, Timed, side_by_side, table, verdict
from tests.bench.service import service
from tests.bench.settings import ROUNDS, alone

HOSTS = 200
ALL = 500
GOALS = {"clush -f64": 20, "clush, curve25519": 6, "clush, ControlMaster": 3, "ansible raw, ControlMaster": 12}
SENT = "exec env LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin timeout -k 5 240 "
"""What the service puts before each command, for a raw asyncssh that asks the hosts for the same."""


def run(farm: Farm) -> str:
    """Measure, and tell in Markdown."""
    line = farm.postqueue("small")
    residents = [
        peers.asyncssh(farm, line),
        peers.asyncssh(farm, SENT + line),
        peers.asyncssh(farm, "true"),
        peers.parallel_ssh(farm, line),
    ]
    bare, same, true, parallel = (resident.round for resident in residents)
    try:
        farm.open_masters(HOSTS)
        with service(farm, "postgresql") as postgresql, service(farm, "sqlite") as sqlite:
            ours = [
                Contender("mxfleet, PostgreSQL", lambda: postgresql.listing(HOSTS)),
                Contender("mxfleet, SQLite", lambda: sqlite.listing(HOSTS)),
            ]
            others = [*_residents(HOSTS, bare, same, true, parallel), *_programs(farm, line)]
            few = side_by_side(_warmed([*ours, *others]), ROUNDS)
            many = side_by_side(
                _warmed(
                    [
                        Contender("mxfleet, PostgreSQL", lambda: postgresql.listing(ALL)),
                        Contender("mxfleet, SQLite", lambda: sqlite.listing(ALL)),
                        *_residents(ALL, bare, same, true),
                    ]
                ),
                ROUNDS,
            )
            memory = postgresql.memory()
        return _report(few, many, memory)
    finally:
        farm.close_masters(HOSTS)
        for resident in residents:
            resident.close()


def _residents(count: int, *rounds: Callable[[int], Timed]) -> list[Contender]:
    names = ("raw asyncssh", "raw asyncssh, our command line", "raw asyncssh, `true`", "parallel-ssh warm")
    return [
        Contender(name, lambda once=once: once(count))  # type: ignore[misc]
        for name, once in zip(names, rounds, strict=False)
    ]


def _programs(farm: Farm, line: str) -> list[Contender]:
    return [
        Contender("xargs -P50, ControlMaster", peers.xargs(farm, HOSTS, line)),
        Contender("clush, ControlMaster", peers.clush(farm, "master", HOSTS, line), 3),
        Contender("clush, curve25519", peers.clush(farm, "curve", HOSTS, line), 2),
        Contender("clush -f64", peers.clush(farm, "plain", HOSTS, line), 1),
        Contender("ansible raw, ControlMaster", peers.ansible(farm, HOSTS, line), 1),
    ]


def _warmed(contenders: Sequence[Contender]) -> Sequence[Contender]:
    """All that keeps connections has them now."""
    for contender in contenders:
        if contender.rounds > ROUNDS:
            contender.run()
    return contenders


def _report(few: dict[str, Contender], many: dict[str, Contender], memory: float) -> str:
    parts = []
    for count, found in ((HOSTS, few), (ALL, many)):
        ours = found["mxfleet, PostgreSQL"].wall
        rows = [
            [
                one.name,
                f"{one.wall:.2f}",
                f"{one.wall / ours:.2f}",
                f"{one.cpu / count * 1000:.2f}",
                str(len(one.taken)),
            ]
            for one in sorted(found.values(), key=lambda each: each.wall)
        ]
        headings = (f"one message listed on {count} warm hosts", "wall s", "x ours", "client CPU ms per host", "rounds")
        parts.append(table(headings, rows))
    parts.append(table(("goal", "found", ""), _goals(few, many, memory)))
    return "\n\n".join(parts)


def _goals(few: dict[str, Contender], many: dict[str, Contender], memory: float) -> list[list[str]]:
    ours = few["mxfleet, PostgreSQL"].wall
    rows = []
    for name, goal in GOALS.items():
        ratio = few[name].wall / ours
        rows.append([f"{name}, against ours", f"{ratio:.1f}x", verdict(ratio, goal, at_least=True)])
    ratio = ours / few["parallel-ssh warm"].wall
    rows.append(["ours against parallel-ssh warm", f"{ratio:.2f}x", verdict(ratio, 1.5, at_least=False)])
    for count, found in ((HOSTS, few), (ALL, many)):
        for raw in ("raw asyncssh, our command line", "raw asyncssh, `true`"):
            share = found[raw].wall / found["mxfleet, PostgreSQL"].wall * 100
            rows.append([f"share of {raw}, {count} hosts", f"{share:.0f} %", verdict(share, 75, at_least=True)])
    cpu = many["mxfleet, PostgreSQL"].cpu / ALL * 1000
    rows.append([f"service's CPU per host-command, {ALL} hosts", f"{cpu:.2f} ms", verdict(cpu, 0.8, at_least=False)])
    rows.append([f"largest worker's memory, {ALL} hosts", f"{memory:.0f} MB", verdict(memory, 130, at_least=False)])
    return rows


if __name__ == "__main__":
    alone(run)
