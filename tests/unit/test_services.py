"""What the tests start for themselves is gone when they are, however they end."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.services import scratch_directory, start_tied

STARTING = """
import sys
from pathlib import Path
from tests.services import Postgres, Redis, scratch_directory
scratch = scratch_directory()
redis, postgres = Redis(scratch / "redis.sock", scratch), Postgres()
redis.start()
postgres.start()
print(redis.process.pid, postgres.process.pid, scratch, postgres.directory, flush=True)
sys.stdin.read()
"""


def is_running(pid: str) -> bool:
    try:
        return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_servers_end_with_a_run_that_was_killed_and_the_next_run_removes_their_files() -> None:
    run = subprocess.Popen([sys.executable, "-c", STARTING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    *servers, scratch, cluster = run.stdout.readline().split()
    assert all(is_running(pid) for pid in servers)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    until = time.monotonic() + 30
    while any(is_running(pid) for pid in servers):
        assert time.monotonic() < until, "a server outlives the tests that started it"
        time.sleep(0.02)
    assert Path(scratch).exists()
    os.rmdir(scratch_directory())
    assert not Path(scratch).exists()
    assert not Path(cluster).exists()


def test_the_files_of_a_run_that_goes_on_stay(tmp_path: Path) -> None:
    ours = scratch_directory(tmp_path)
    other = scratch_directory(tmp_path)
    assert ours != other
    assert ours.is_dir()


def test_a_server_outlives_the_thread_that_starts_it() -> None:
    with ThreadPoolExecutor(1) as pool:
        server = pool.submit(start_tied, ["sleep", "60"]).result()
    with pytest.raises(subprocess.TimeoutExpired):
        server.wait(0.5)
    server.kill()
    server.wait()
