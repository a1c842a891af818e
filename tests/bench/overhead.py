"""What a job costs beyond its one command: one warm host, from POST to done."""

from tests.bench import peers
from tests.bench.fanout import SENT
from tests.bench.farm import Farm
from tests.bench.measure import Contender, side_by_side, table, verdict
from tests.bench.service import service
from tests.bench.settings import ROUNDS, alone

TIMES = 8
"""As many rounds as elsewhere, times this: one round takes milliseconds."""


def run(farm: Farm) -> str:
    """Measure, and tell in Markdown."""
    raw = peers.asyncssh(farm, SENT + farm.postqueue("small"))
    try:
        with service(farm, "postgresql") as postgresql, service(farm, "sqlite") as sqlite:
            found = side_by_side(
                [
                    Contender("mxfleet, PostgreSQL", lambda: postgresql.listing(1), 1000),
                    Contender("mxfleet, SQLite", lambda: sqlite.listing(1), 1000),
                    Contender("raw asyncssh", lambda: raw.round(1), 1000),
                ],
                ROUNDS * TIMES,
            )
    finally:
        raw.close()
    rows = []
    for name in ("mxfleet, PostgreSQL", "mxfleet, SQLite"):
        over = (found[name].wall - found["raw asyncssh"].wall) * 1000
        walls = sorted(wall * 1000 for wall, _ in found[name].taken)
        spread = f"{walls[0]:.0f} to {walls[len(walls) * 9 // 10]:.0f}"
        cpu = f"{found[name].cpu * 1000:.0f}"
        rows.append([name, f"{over:.1f}", verdict(over, 15, at_least=False), spread, cpu])
    headings = ("one warm host, POST to done", "ms above raw asyncssh", "goal", "least to 90th percentile", "CPU ms")
    return table(headings, rows)


if __name__ == "__main__":
    alone(run)
