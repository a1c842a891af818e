"""Connections to PostgreSQL outlive requests and tasks: making one costs more than most of what is done with it."""

from django.db import connections

POOL = {"min_size": 1, "max_size": 20, "timeout": 10}


def keep_connections() -> None:
    """Use a pool in this process, from now on. SQLite opens in no time and needs none."""
    default = connections.settings["default"]
    if default["ENGINE"].endswith("postgresql"):
        default["OPTIONS"]["pool"] = POOL
