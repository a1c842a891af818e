"""What all tests share. The environment is prepared by tests/environment.py, before Django's settings are read."""

import gc
import os
from collections.abc import Generator, Iterator

import pytest

from tests.environment import SCRATCH
from tests.services import Redis


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A real Redis of this test process, at the URL that the settings name."""
    server = Redis(SCRATCH / "redis.sock", SCRATCH)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """The URL of an emptied real Redis, in redis-py's form."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture(scope="session", autouse=True)
def _flush_passes_triggers() -> Iterator[None]:
    """Transactional tests end with emptying all tables, which the append-only ones refuse."""
    from tests.db.triggers import let_flush_pass

    with pytest.MonkeyPatch.context() as patch:
        let_flush_pass(patch)
        yield


@pytest.fixture(autouse=True)
def _marks() -> None:
    """Each test begins with a machine that trusts the database as it is then, and has seen nothing of it yet."""
    (SCRATCH / "data").mkdir(mode=0o700, exist_ok=True)
    (SCRATCH / "data" / "audit-marks").write_text("{}")


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None) -> None:
    """SQLite in a file, as in production: threads in memory share one table lock and do not wait for it."""
    from django.db import connection

    if connection.vendor == "sqlite":
        connection.settings_dict["TEST"]["NAME"] = str(SCRATCH / f"test-{os.getpid()}.sqlite3")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and tests stay until the end, so the garbage collector need not look through them again and again.

    It sees them later on, as gc.freeze() would not let it: tests count what there is of a kind.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Short names for long values: they may be random, and pytest-xdist wants the same names in every process."""
    return argname if isinstance(val, str | bytes) and len(val) > 50 else None
