"""One sshd for the tests that do not hurt it, and a pool or an engine that ends with its test."""

import getpass
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fleet.ssh.engine import Engine
from fleet.ssh.pool import Pool
from tests.ssh.sshd import LOOPBACK, Sshd


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd.prepared(tmp_path_factory.mktemp("sshd"), getpass.getuser()).start()
    yield server
    server.stop()


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A prepared server of the test's own, not started yet."""
    server = Sshd.prepared(tmp_path / "own", getpass.getuser())
    yield server
    server.stop()


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    made = Pool(LOOPBACK)
    yield made
    await made.close()


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(LOOPBACK)
    yield made
    made.close()
