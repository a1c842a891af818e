"""Hosts that hang: known, asked by one login at a time, and never in the way of others."""

import asyncio
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from fleet.mta.errors import Unreachable
from fleet.mta.steps import Command, Completed, Steps, run
from fleet.ssh import breaker as breaker_module
from fleet.ssh import login
from fleet.ssh import pool as pool_module
from fleet.ssh.endpoint import Endpoint
from fleet.ssh.engine import Engine, Outcome, Request
from fleet.ssh.gate import Lane
from fleet.ssh.login import COMMON, options_for
from fleet.ssh.pool import Pool
from tests.ssh.carry import carried
from tests.ssh.sshd import Sshd, free_port

HANGING = 500


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same limits, smaller."""
    monkeypatch.setattr(login, "LOGIN_TIMEOUT", 0.3)
    monkeypatch.setattr(login, "SILENT", 0.2)
    monkeypatch.setattr(pool_module, "PAUSES", (0.02, 0.05))
    monkeypatch.setattr(pool_module, "PROBE_WAIT", 0.1)
    monkeypatch.setattr(breaker_module, "SILENT_PAUSE", 0.5)
    monkeypatch.setitem(COMMON, "login_timeout", 0.3)
    options_for.cache_clear()


class Mute:
    """A server on every loopback address that takes connections and says `greeting`, then nothing more."""

    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting
        self.taken = 0
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        self.open += 1
        writer.write(self._greeting)
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self.serve, "0.0.0.0", 0, backlog=1024)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()


GREETINGS = {"no banner": b"", "banner": b"SSH-2.0-OpenSSH_9.2p1\r\n"}


@pytest.fixture
def many_files() -> Iterator[None]:
    """This process is the server too, so each connection takes two files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def reading(key: str, endpoint: Endpoint, lane: Lane) -> Request[Completed]:
    def steps() -> Steps[Completed]:
        return (yield from run(Command(("true",))))

    return Request(key, endpoint, steps, until_plan=False, deadline=60, lane=lane)


def ended(engine: Engine, requests: list[Request[Completed]]) -> list[Outcome]:
    return [outcome for block in engine.outcomes(requests) for outcome in block]


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("greeting", GREETINGS)
async def test_five_hundred_hanging_readings_keep_no_change_and_no_look_from_its_host(
    engine: Engine, sshd: Sshd, greeting: str
) -> None:
    mute = Mute(GREETINGS[greeting])
    async with mute.listening() as port:
        hanging = [
            reading(
                str(n), sshd.endpoint(name=f"h{n}", address=f"127.1.{n // 250}.{n % 250 + 1}", port=port), Lane.READ
            )
            for n in range(HANGING)
        ]
        crowd = asyncio.create_task(asyncio.to_thread(ended, engine, hanging))
        async with asyncio.timeout(20):
            while mute.open < HANGING:
                await asyncio.sleep(0.02)
        for lane in (Lane.LOOK, Lane.CHANGE):
            good = reading("good", sshd.endpoint(name=f"good-{lane}"), lane)
            begun = time.monotonic()
            [outcome] = await asyncio.to_thread(ended, engine, [good])
            assert outcome.error is None
            assert time.monotonic() - begun < 5
        await asyncio.to_thread(engine.close)
        assert len(await crowd) == HANGING


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("greeting", GREETINGS)
async def test_a_host_that_hung_is_left_alone_and_then_asked_by_one_login(
    pool: Pool, sshd: Sshd, greeting: str
) -> None:
    mute = Mute(GREETINGS[greeting])
    async with mute.listening() as port:
        endpoint = sshd.endpoint(port=port)
        with pytest.raises(Unreachable) as first:
            await carried(pool, endpoint, "true")
        assert first.value.data["silent"]
        taken = mute.taken
        with pytest.raises(Unreachable, match=r"not tried again for \d s"):
            await carried(pool, endpoint, "true")
        assert mute.taken == taken
        await asyncio.sleep(0.5)
        errors = await asyncio.gather(*(carried(pool, endpoint, "true") for _ in range(20)), return_exceptions=True)
        assert all(isinstance(error, Unreachable) for error in errors), errors
        # All but the one that waits for the login's end are told so.
        assert sum("it is being asked once more" in str(error) for error in errors) == 19, errors
        if greeting == "no banner":  # with one, the keys that it has are looked at besides
            assert mute.taken == taken + 1


@pytest.mark.usefixtures("quick")
async def test_a_host_that_is_back_is_used_again_once_its_pause_is_over(
    own_sshd: Sshd, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = own_sshd.start().process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(Unreachable):
        await carried(pool, own_sshd.endpoint(), "true")
    os.kill(process.pid, signal.SIGCONT)
    monkeypatch.setattr(login, "LOGIN_TIMEOUT", 10)
    monkeypatch.setitem(COMMON, "login_timeout", 10)
    options_for.cache_clear()
    errors = []
    async with asyncio.timeout(10):
        while True:
            try:
                await carried(pool, own_sshd.endpoint(), "true")
                break
            except Unreachable as error:
                errors.append(error)
                await asyncio.sleep(0.05)
    assert all("not tried again" in error.detail for error in errors)
    assert errors


@pytest.mark.usefixtures("quick")
async def test_a_host_that_is_reset_is_asked_at_once(pool: Pool, sshd: Sshd) -> None:
    mute = Mute(b"")
    async with mute.listening() as port:
        endpoint = sshd.endpoint(port=port)
        for _ in range(2):
            before = mute.taken
            with pytest.raises(Unreachable, match=r"no answer in time$"):
                await carried(pool, endpoint, "true")
            assert mute.taken == before + 3
            pool.breaker.reset(endpoint.name)


@pytest.mark.usefixtures("quick")
async def test_a_quick_refusal_is_no_hanging(pool: Pool, sshd: Sshd) -> None:
    endpoint = sshd.endpoint(port=free_port())
    for _ in range(2):
        with pytest.raises(Unreachable, match="Connect call failed") as refused:
            await carried(pool, endpoint, "true")
        assert "paused_seconds" not in refused.value.data
        assert "silent" not in refused.value.data
