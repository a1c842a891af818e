"""A pytest plugin (`-p tests.environment`) that prepares the environment before Django reads its settings.

pytest-django does that before any conftest.py is loaded. Each test process has a data directory of its own.
`MXFLEET_TEST_DATABASE=postgres` starts a private PostgreSQL cluster, shared by the processes of one run.
"""

import atexit
import os
import shutil

from tests.services import Postgres, scratch_directory

SCRATCH = scratch_directory()
OWNER = os.getpid()
KEPT = ("MXFLEET_TEST_", "MXFLEET_LAB_", "MXFLEET_FAULT_")


def prepare() -> None:
    """Replace all settings of the service by those of the tests."""
    for name in [name for name in os.environ if name.startswith("MXFLEET_") and not name.startswith(KEPT)]:
        del os.environ[name]
    os.environ |= {
        "MXFLEET_DATA": str(SCRATCH / "data"),
        "MXFLEET_REDIS_URL": f"unix://{SCRATCH}/redis.sock",
        "MXFLEET_SHARDS": "2",
    }
    if os.environ.get("MXFLEET_TEST_DATABASE") == "postgres":
        key_file = SCRATCH / "keys"
        key_file.touch(mode=0o600)
        key_file.write_text(f"test {'A' * 43}=\n")
        os.environ |= {
            "MXFLEET_DATABASE_URL": os.environ.get("MXFLEET_TEST_DATABASE_URL") or _start_postgres(),
            "MXFLEET_SECRET_KEY": "9tUq0nVdWk3RyeZb5HcXgMoA7LpJf2sT8vEiKxQwNzYuBhCj4G6",
            "MXFLEET_KEY_FILE": str(key_file),
        }


def _start_postgres() -> str:
    """Start the cluster; the processes of pytest-xdist find it by the variable and start none."""
    cluster = Postgres()
    atexit.register(lambda: cluster.stop() if os.getpid() == OWNER else None)
    cluster.start()
    os.environ["MXFLEET_TEST_DATABASE_URL"] = cluster.url
    return cluster.url


@atexit.register
def _clean_up() -> None:
    if os.getpid() == OWNER:  # tests fork
        shutil.rmtree(SCRATCH, ignore_errors=True)


prepare()
