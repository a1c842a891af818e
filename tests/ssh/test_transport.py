"""Commands over a real sshd: exact bytes, limits, time, and losses that are never taken for an answer."""

import asyncio
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fleet.mta.errors import ConnectionLost, OutputTooLarge, RemoteError, RemoteTimeout, UnparsedOutput, Unreachable
from fleet.mta.steps import Command
from fleet.ssh import session
from fleet.ssh.pool import SESSIONS, Pool
from fleet.ssh.transport import always
from tests.ssh.carry import carried, shell, transport
from tests.ssh.sshd import Sshd

LONG = f"79.{os.getpid()}"
"""Seconds, as nobody else asks for on this machine: the processes of all its namespaces are seen."""


class Counter:
    """A sink that keeps nothing but the number of bytes."""

    def __init__(self, breaks_at: int = 1 << 62) -> None:
        self.seen = 0
        self.breaks_at = breaks_at

    def feed(self, data: bytes) -> None:
        self.seen += len(data)
        if self.seen > self.breaks_at:
            raise UnparsedOutput("no such line")

    def close(self) -> int:
        return self.seen


async def test_both_streams_and_the_status_come_back_exactly(sshd: Sshd, pool: Pool) -> None:
    done = await carried(pool, sshd.endpoint(), *shell("printf out; printf err >&2; exit 7"))
    assert (done.exit_status, done.stdout, done.stderr) == (7, b"out", b"err")
    assert done.duration > 0


async def test_output_that_is_no_utf8_is_exact_and_the_connection_lives_on(sshd: Sshd, pool: Pool) -> None:
    text = "printf '\\377\\376\\200\\0\\r\\n'; printf '\\351' >&2; exit 3"
    for _ in range(2):
        done = await carried(pool, sshd.endpoint(), *shell(text))
        assert (done.exit_status, done.stdout, done.stderr) == (3, b"\xff\xfe\x80\x00\r\n", b"\xe9")


@pytest.mark.parametrize("stdin", [b"", b"a", b"\x00\xff\n" * 1_000_000])
async def test_stdin_arrives_exactly_and_always_ends(sshd: Sshd, pool: Pool, stdin: bytes) -> None:
    done = await carried(pool, sshd.endpoint(), "cat", stdin=stdin, max_output=1 << 23, timeout=20)
    assert done.stdout == stdin


async def test_a_command_that_ignores_its_stdin_still_answers(sshd: Sshd, pool: Pool) -> None:
    done = await carried(pool, sshd.endpoint(), "true", stdin=b"x" * 8_000_000)
    assert done.exit_status == 0


async def test_two_full_streams_at_once_do_not_block_each_other(sshd: Sshd, pool: Pool) -> None:
    text = "head -c 3000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait"
    done = await carried(pool, sshd.endpoint(), *shell(text), max_output=1 << 22)
    assert (len(done.stdout), len(done.stderr)) == (3_000_000, 3_000_000)


@pytest.mark.parametrize("stream", ["", ">&2"])
async def test_output_beyond_its_limit_ends_the_command(sshd: Sshd, pool: Pool, stream: str) -> None:
    endpoint = sshd.endpoint()
    with pytest.raises(OutputTooLarge):
        await carried(pool, endpoint, *shell(f"cat /dev/zero {stream}"), max_output=100_000)
    assert (await carried(pool, endpoint, "true")).exit_status == 0


async def test_output_of_exactly_the_limit_is_accepted(sshd: Sshd, pool: Pool) -> None:
    done = await carried(pool, sshd.endpoint(), "head", "-c", "100000", "/dev/zero", max_output=100_000)
    assert len(done.stdout) == 100_000


async def test_huge_output_streams_through_a_sink_with_little_memory(sshd: Sshd, pool: Pool) -> None:
    await carried(pool, sshd.endpoint(), "true")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = await carried(pool, sshd.endpoint(), "head", "-c", "128M", "/dev/zero", sink=Counter(), timeout=60)
    assert done.result == 128 << 20
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 64 * 1024


async def test_a_stream_without_end_stops_at_its_limit(sshd: Sshd, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "STREAMED_MOST", 20 << 20)
    sink = Counter()
    with pytest.raises(OutputTooLarge):
        await carried(pool, sshd.endpoint(), "cat", "/dev/zero", sink=sink)
    assert sink.seen <= 20 << 20


async def test_what_a_sink_raises_ends_the_command_and_reaches_the_caller(sshd: Sshd, pool: Pool) -> None:
    with pytest.raises(UnparsedOutput, match="no such line"):
        await carried(pool, sshd.endpoint(), "cat", "/dev/zero", sink=Counter(breaks_at=10))


async def test_a_connection_that_ends_in_mid_command_is_lost_and_the_next_command_gets_a_new_one(
    own_sshd: Sshd, pool: Pool, tmp_path: Path
) -> None:
    own_sshd.start()
    text = f"printf part; touch {tmp_path}/begun; sleep 20"
    running = asyncio.create_task(carried(pool, own_sshd.endpoint(), *shell(text)))
    while not (tmp_path / "begun").exists():
        await asyncio.sleep(0.02)
    own_sshd.cut()
    with pytest.raises(ConnectionLost):
        await running
    assert (await carried(pool, own_sshd.endpoint(), "true")).exit_status == 0


async def test_an_end_that_comes_byte_by_byte_is_the_end() -> None:
    ours = session.CommandSession(Command(("x",)), asyncio.get_running_loop(), always, b"mxfleet::end-1 ")
    for byte in b"noise\nmxfleet::begin\na mxfleet::end-0 0\nmxfleet::end-mxfleet::end-1 3\nbye\n":
        ours.data_received(bytes([byte]), None)
    ours.exit_status_received(0)
    done = ours.completed(0.0)
    assert (done.exit_status, done.noise) == (3, b"noise\nbye\n")
    assert done.stdout == b"a mxfleet::end-0 0\nmxfleet::end-"


async def test_output_that_stops_in_its_end_is_all_there_and_has_the_status_that_sshd_tells() -> None:
    ours = session.CommandSession(Command(("x",)), asyncio.get_running_loop(), always, b"mxfleet::end-1 ")
    ours.data_received(b"mxfleet::begin\na\nmxfleet::en", None)
    ours.exit_status_received(137)
    done = ours.completed(0.0)
    assert (done.exit_status, done.stdout) == (137, b"a\nmxfleet::en")


async def test_a_signal_is_no_exit_status(sshd: Sshd, pool: Pool) -> None:
    with pytest.raises(RemoteError, match="signal KILL"):
        await carried(pool, sshd.endpoint(), *shell("kill -9 $PPID; sleep 1"))


async def test_a_signal_ends_a_hint_as_a_shell_tells_it(sshd: Sshd, pool: Pool) -> None:
    done = await carried(pool, sshd.endpoint(), *shell("echo part; kill -PIPE $PPID; sleep 1"), is_hint=True)
    assert (done.exit_status, done.stdout) == (128 + signal.SIGPIPE, b"part\n")


async def test_a_command_is_ended_on_the_host_when_its_time_is_over(sshd: Sshd, pool: Pool) -> None:
    done = await carried(pool, sshd.endpoint(), "sleep", LONG, timeout=1)
    assert done.exit_status == 124
    assert not is_running(f"sleep {LONG}")


async def test_the_deadline_ends_the_wait_and_the_host_ends_the_command(sshd: Sshd, pool: Pool) -> None:
    endpoint = sshd.endpoint()
    await carried(pool, endpoint, "true")
    begun = time.monotonic()
    with pytest.raises(RemoteTimeout):
        await transport(pool, endpoint, 0.7).run(Command(("sleep", LONG), timeout=2))
    assert time.monotonic() - begun < 1.5
    assert (await carried(pool, endpoint, "true")).exit_status == 0
    await asyncio.sleep(2)
    assert not is_running(f"sleep {LONG}")


async def test_cancelling_closes_the_channel_and_leaves_the_connection_usable(sshd: Sshd, pool: Pool) -> None:
    endpoint = sshd.endpoint()
    running = asyncio.create_task(carried(pool, endpoint, "sleep", "2", timeout=2))
    await asyncio.sleep(0.5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await carried(pool, endpoint, "true")).exit_status == 0


async def test_a_daemon_that_keeps_the_output_open_does_not_hold_up_a_change(
    sshd: Sshd, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LINGER", 0.3)
    begun = time.monotonic()
    done = await carried(pool, sshd.endpoint(), *shell("printf started; sleep 6 & exit 0"), mutates=True)
    assert (done.exit_status, done.stdout) == (0, b"started")
    assert time.monotonic() - begun < 4


async def test_forty_commands_share_one_connection_and_never_more_than_eight_sessions(
    own_sshd: Sshd, pool: Pool, tmp_path: Path
) -> None:
    own_sshd.start()
    text = f"touch {tmp_path}/run.$$; ls {tmp_path} | grep -c run; sleep 0.3; rm {tmp_path}/run.$$"
    done = await asyncio.gather(*(carried(pool, own_sshd.endpoint(), *shell(text)) for _ in range(40)))
    assert all(one.exit_status == 0 for one in done)
    assert 2 <= max(int(one.stdout) for one in done) <= SESSIONS
    assert own_sshd.log().count("Accepted publickey") == 1


@pytest.mark.parametrize("most", [1, 2])
async def test_a_host_that_allows_fewer_sessions_gets_fewer_over_the_same_connection(
    own_sshd: Sshd, pool: Pool, most: int
) -> None:
    own_sshd.start(f"MaxSessions {most}\n")
    done = await asyncio.gather(*(carried(pool, own_sshd.endpoint(), "sleep", "0.05") for _ in range(12)))
    assert all(one.exit_status == 0 for one in done)
    assert own_sshd.log().count("Accepted publickey") == 1


async def test_a_host_that_allows_no_session_is_unreachable(own_sshd: Sshd, pool: Pool) -> None:
    own_sshd.start("MaxSessions 0\n")
    with pytest.raises(Unreachable, match="no session"):
        await carried(pool, own_sshd.endpoint(), "true")


async def test_sudo_runs_the_command_as_root_and_its_refusal_is_visible(own_sshd: Sshd, pool: Pool) -> None:
    """The login shell runs as nobody, for whom sudo has no rule."""
    drop = "exec setpriv --reuid=65534 --regid=65534 --clear-groups /bin/sh -c"
    own_sshd.start(f'ForceCommand {drop} "$SSH_ORIGINAL_COMMAND"\n')
    assert (await carried(pool, own_sshd.endpoint(become="sudo"), "id", "-u")).stdout == b"65534\n"
    done = await carried(pool, own_sshd.endpoint(become="sudo"), "id", "-u", become=True)
    assert done.exit_status == 1
    assert done.stderr.startswith(b"sudo:")


async def test_sudo_lets_root_end_what_root_runs(sshd: Sshd, pool: Pool) -> None:
    done = await carried(pool, sshd.endpoint(become="sudo"), "sleep", LONG, become=True, timeout=1)
    assert done.exit_status == 124
    assert not is_running(f"sleep {LONG}")


def is_running(command: str) -> bool:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return any(line.strip() == command for line in listed.splitlines())
