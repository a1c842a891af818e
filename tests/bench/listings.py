"""50 listings of 5 MB each, fetched, parsed and matched."""

from tests.bench import peers
from tests.bench.farm import LARGE, Farm
from tests.bench.measure import Contender, side_by_side, table, verdict
from tests.bench.service import LARGE_HOSTS, service
from tests.bench.settings import ROUNDS, alone

MATCH = "from:news-1@bulk8.example"
"""About 15 messages of each listing."""
WIDE = "from:news-1@*"
"""Every tenth: 1,000 of them are kept for each instance, written to the database with the run."""
GOALS = {"xargs, ControlMaster, Python": 3, "clush, Python": 20}


def run(farm: Farm) -> str:
    """Measure, and tell in Markdown. Ansible is left out: it takes minutes."""
    farm.open_masters(LARGE_HOSTS)
    try:
        with service(farm, "postgresql") as postgresql:
            before = postgresql.memory()
            found = side_by_side(
                [
                    Contender("mxfleet, PostgreSQL", lambda: postgresql.large_listing(MATCH)),
                    Contender("mxfleet, 1,000 matches kept each", lambda: postgresql.large_listing(WIDE), 3),
                    Contender("xargs, ControlMaster, Python", peers.judged_xargs(farm, LARGE_HOSTS), 3),
                    Contender("clush, Python", peers.judged_clush(farm, LARGE_HOSTS), 1),
                ],
                ROUNDS,
            )
            grown = postgresql.memory() - before
    finally:
        farm.close_masters(LARGE_HOSTS)
    ours = found["mxfleet, PostgreSQL"]
    rows = [
        [one.name, f"{one.wall:.2f}", f"{one.wall / ours.wall:.1f}", f"{one.cpu / LARGE_HOSTS * 1000:.0f}"]
        for one in found.values()
    ]
    goals = []
    for name, goal in GOALS.items():
        ratio = found[name].wall / ours.wall
        goals.append([f"{name}, against ours", f"{ratio:.1f}x", verdict(ratio, goal, at_least=True)])
    speed = LARGE * LARGE_HOSTS / 1e6 / ours.cpu
    goals.append(["listing per CPU second of the whole service", f"{speed:.0f} MB", "SSH, records and all"])
    goals.append(["growth of the workers' memory", f"{grown:.0f} MB", verdict(grown, 30, at_least=False)])
    headings = (f"{LARGE_HOSTS} listings of 5 MB", "wall s", "x ours", "client CPU ms per host")
    return table(headings, rows) + "\n\n" + table(("goal", "found", ""), goals)


if __name__ == "__main__":
    alone(run)
