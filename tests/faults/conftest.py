"""One running service and its hosts for all fault tests; the seed is told first, the table of results at last."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from tests.faults import table
from tests.faults.host import Host
from tests.faults.plan import IS_LONG, ROUNDS, SEED, WIDTH
from tests.faults.service import FaultService, World
from tests.ssh.sshd import keygen

SILENT = 500 if IS_LONG else 48


def pytest_report_header() -> str:
    return f"fault rounds: MXFLEET_FAULT_SEED={SEED} MXFLEET_FAULT_ROUNDS={ROUNDS}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if text := table.markdown():
        terminalreporter.write_line(f"\nMXFLEET_FAULT_SEED={SEED} MXFLEET_FAULT_ROUNDS={ROUNDS}\n\n{text}")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    assert os.geteuid() == 0, "the hosts are mount namespaces, which only root can make"
    directory = tmp_path_factory.mktemp("faults")
    service = FaultService(directory)
    try:
        service.start()
        yield World(service, keygen(directory / "client"))
    finally:
        service.stop()


@pytest.fixture(scope="session")
def hosts(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """WIDTH hosts of one customer, registered and discovered."""
    directory = tmp_path_factory.mktemp("hosts")
    found = [Host(directory, f"mx{number}", world.key, number) for number in range(WIDTH)]
    try:
        for host in found:
            host.start()
        world.register(found)
        yield found
    finally:
        for host in found:
            host.stop()


@pytest.fixture(scope="session")
def silent(world: World, hosts: list[Host]) -> Iterator[list[str]]:
    """Names of registered hosts whose connections the kernel accepts and nobody ever serves."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))  # each host has an address of its own in 127.0.0.0/8
        listener.listen(4096)
        port = listener.getsockname()[1]
        world.silent = [f"silent{number}" for number in range(SILENT)]
        for number, name in enumerate(world.silent):
            world.enter(name, f"127.1.{number // 200}.{number % 200 + 1}", port, hosts[0].host_key)
        yield world.silent
