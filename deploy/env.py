"""placeholder replaced by the settings work"""
import os
from pathlib import Path
from types import SimpleNamespace


def load():
    data = Path(os.environ.get("MXFLEET_DATA", "var"))
    data.mkdir(exist_ok=True)
    return SimpleNamespace(
        secret_key="x" * 50,
        allowed_hosts=["*"],
        database={"ENGINE": "django.db.backends.sqlite3", "NAME": str(data / "mxfleet.sqlite3"),
                  "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20,
                              "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"}},
        shards=2, allowed_networks=None, reconcile_interval=30, redis_url="")
