"""Connections to PostgreSQL outlive requests and tasks: making one costs more than most of what is done with it."""

from typing import Any

from django.db import connections

OF_OUR_OWN = 4
"""Threads of a worker besides its tasks' that use the database: liveness, look, lease keeper, and one of Celery's."""


def keep_connections(threads: int) -> None:
    """Use a pool in this process, from now on. `threads`: those that carry out tasks.

    SQLite opens in no time and needs no pool.
    """
    default = connections.settings["default"]
    if default["ENGINE"].endswith("postgresql"):
        default["OPTIONS"]["pool"] = pool_for(threads)


def pool_for(threads: int) -> dict[str, Any]:
    """A connection for each thread of such a worker, so that none waits for what another one has."""
    return {"min_size": 1, "max_size": threads + OF_OUR_OWN, "timeout": 10}
