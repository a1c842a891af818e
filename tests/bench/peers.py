"""What others do with the same hosts and the same command."""

import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import IO

from tests.bench.farm import Farm
from tests.bench.measure import Timed, of_children

HERE = Path(__file__).resolve().parent
PACKAGES = ("ClusterShell", "parallel-ssh", "ansible-core")


def environment() -> Path:
    """The bin directory of a virtual environment with the peers, made once outside of the checkout."""
    directory = Path(os.environ.get("MXFLEET_BENCH_PEERS") or Path(tempfile.gettempdir()) / "mxfleet-bench-peers")
    if not (directory / "bin" / "clush").exists():
        venv.create(directory, with_pip=True)
        subprocess.run([str(directory / "bin" / "pip"), "install", "-q", *PACKAGES], check=True)
    return directory / "bin"


class Resident:
    """A Python program that keeps its connections and does one round for each line that it is sent."""

    def __init__(self, farm: Farm, python: str, script: str, line: str) -> None:
        argv = [python, str(HERE / script), str(farm.directory), str(farm.port), line]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def round(self, count: int) -> Timed:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        wall, cpu = self._process.stdout.readline().split()
        return float(wall), float(cpu)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def asyncssh(farm: Farm, line: str) -> Resident:
    return Resident(farm, sys.executable, "peer_asyncssh.py", line)


def parallel_ssh(farm: Farm, line: str) -> Resident:
    return Resident(farm, str(environment() / "python"), "peer_pssh.py", line)


def clush(farm: Farm, config: str, count: int, line: str) -> Callable[[], Timed]:
    """`clush -f64`, its output read to the end."""
    argv = [str(environment() / "clush"), "-q", "-N", "-S", "-f64", "-o", f"-F {farm.config(config)}"]
    argv += ["-w", ",".join(farm.addresses(count)), line]
    return lambda: of_children(lambda: _lines(argv, count))


def xargs(farm: Farm, count: int, line: str) -> Callable[[], Timed]:
    """ssh through the ControlMasters, 50 at once."""
    argv = ["xargs", "-P50", "-I{}", "ssh", "-F", str(farm.config("master")), "{}", line]
    hosts = "\n".join(farm.addresses(count))
    return lambda: of_children(lambda: _lines(argv, count, hosts))


def ansible(farm: Farm, count: int, line: str) -> Callable[[], Timed]:
    """`ansible -m raw` through the ControlMasters."""
    hosts = ",".join(farm.addresses(count))
    argv = [str(environment() / "ansible"), "all", "-i", f"{hosts},", "-f", "50", "-m", "raw", "-o", "-a", line]
    argv += ["--ssh-extra-args", f"-F {farm.config('master')}"]
    return lambda: of_children(lambda: _lines(argv, count))


def _lines(argv: list[str], count: int, stdin: str = "") -> None:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    answered = sum(1 for line in done.stdout.splitlines() if line)
    if done.returncode or answered < count:
        raise SystemExit(f"{argv[0]}: exit {done.returncode}, {answered} of {count} answered: {done.stderr[-500:]}")


def judged_xargs(farm: Farm, count: int) -> Callable[[], Timed]:
    """Each listing into a file through the ControlMasters, then one Python over all of them."""
    out = farm.directory / "out"
    out.mkdir(exist_ok=True)
    ssh = f"ssh -F {farm.config('master')} $1 '{farm.postqueue('large')}' > {out}/$1"
    fetch = ["xargs", "-P16", "-n1", "sh", "-c", ssh, "sh"]
    hosts = "\n".join(farm.addresses(count))

    def work() -> None:
        subprocess.run(fetch, input=hosts, text=True, check=True)
        _judged([str(out / address) for address in farm.addresses(count)], None, count)

    return lambda: of_children(work)


def judged_clush(farm: Farm, count: int) -> Callable[[], Timed]:
    """`clush -N` with its standard output as the input of the same Python."""
    argv = [str(environment() / "clush"), "-q", "-N", "-S", "-f64", "-o", f"-F {farm.config('curve')}"]
    argv += ["-w", ",".join(farm.addresses(count)), farm.postqueue("large")]

    def work() -> None:
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as fetching:
            _judged([], fetching.stdout, count)

    return lambda: of_children(work)


def _judged(files: list[str], stdin: IO[bytes] | None, count: int) -> None:
    argv = [sys.executable, str(HERE / "judge.py"), *files]
    done = subprocess.run(argv, stdin=stdin or subprocess.DEVNULL, capture_output=True, text=True, check=True)
    total, matched = map(int, done.stdout.split())
    if total % count or not matched:
        raise SystemExit(f"not all of the listings came: {total} lines, {matched} matches")
