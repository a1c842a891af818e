"""A qmail queue on disk for tests, with stand-ins for svc and svstat; the adapter's scripts run on it for real.

The service is up while its file `up` exists, and does not go down while `busy` exists: a delivery that goes on.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleet.mta.qmail.queue import QUEUE
from fleet.mta.records import Context, InstanceFacts, QueueEntry
from fleet.mta.steps import Command, Completed, Plan, Steps
from tests.unit.real_scripts import run_script

SVC = """#!/bin/sh
case $1 in
-d) if [ -e "$2/busy" ]; then touch "$2/want-down"; else rm -f "$2/up"; fi; echo down >>"$2/calls" ;;
-u) rm -f "$2/want-down"; touch "$2/up"; echo up >>"$2/calls" ;;
esac
"""
SVSTAT = """#!/bin/sh
if [ ! -e "$1/up" ]; then
    echo "$1: down 3 seconds, normally up"
elif [ -e "$1/want-down" ]; then
    echo "$1: up (pid 77) 5 seconds, want down"
else
    echo "$1: up (pid 77) 5 seconds"
fi
"""
LONG_AGO = 1_700_000_000


@dataclass
class QmailHost:
    """One queue. `split`: conf-split; `is_big`: todo/ and intd/ are split too. `tools`: as in `run_script`."""

    root: Path
    split: int = 3
    is_big: bool = False
    tools: Path | None = None

    def __post_init__(self) -> None:
        self.queue = self.root / "queue"
        for kind in ("mess", "info", "remote", "local", *(("todo", "intd") if self.is_big else ())):
            for at in range(self.split):
                (self.queue / kind / str(at)).mkdir(parents=True)
        for kind in ("todo", "intd", "bounce", "pid", "lock"):
            (self.queue / kind).mkdir(parents=True, exist_ok=True)
        (self.queue / "lock/sendmutex").touch()
        self.service = self.root / "service"
        self.service.mkdir()
        (self.service / "up").touch()
        for name, text in (("svc", SVC), ("svstat", SVSTAT)):
            (self.root / name).write_text(text)
            (self.root / name).chmod(0o755)
        options = {
            "service": str(self.service),
            "svc": str(self.root / "svc"),
            "svstat": str(self.root / "svstat"),
            "log_source": "none",
        }
        self.instance = InstanceFacts("qm1", "qmail", "qmail", "", "", (str(self.queue),), options=options)
        self.plans: list[Plan] = []

    def path(self, kind: str, name: str) -> Path:
        is_split = kind in {"mess", "info", "remote", "local"} or (self.is_big and kind in {"todo", "intd"})
        return self.queue / kind / (str(int(name) % self.split) if is_split else "") / name

    def put(
        self,
        sender: bytes = b"news@bulk.example",
        remote: Iterable[bytes] = (b"Tr@defer.test",),
        local: Iterable[bytes] = (),
        text: bytes = b"Subject: hi\n\nbody\n",
        *,
        is_new: bool = False,
    ) -> str:
        """A message as qmail-queue(8) leaves it in todo/, or as qmail-send(8) has taken it in. Returns its queue ID."""
        made = self.queue / "pid" / "new"
        made.write_bytes(text)
        name = str(made.stat().st_ino)
        made.rename(self.path("mess", name))
        os.utime(self.path("mess", name), ns=(LONG_AGO * 10**9, LONG_AGO * 10**9 + int(name) % 1000 * 10**6 + 123_456))
        if is_new:
            records = [b"u0", b"p1", b"F" + sender, *remote, *local]
            self.path("intd", name).write_bytes(b"".join(each + b"\0" for each in records))
            os.link(self.path("intd", name), self.path("todo", name))
            return name
        self.path("info", name).write_bytes(b"F" + sender + b"\0")
        for kind, records in (("remote", list(remote)), ("local", list(local))):
            if records:
                self.path(kind, name).write_bytes(b"".join(each + b"\0" for each in records))
        return name

    def files(self) -> dict[str, int]:
        """Every file of a message by its path in the queue directory, with its inode."""
        found = (each for each in self.queue.rglob("[1-9]*") if each.is_file())
        return {str(each.relative_to(self.queue)): each.stat().st_ino for each in found}

    def run(self, command: Command) -> Completed:
        done = run_script(command, self.tools)
        if command.sink is None or done.exit_status:
            return done
        command.sink.feed(done.stdout)
        return replace(done, result=command.sink.close())

    def carry(self, steps: Steps[Any]) -> Any:
        answer: Completed | None = None
        try:
            while True:
                asked = steps.send(answer)
                if isinstance(asked, Plan):
                    self.plans.append(asked)
                    answer = None
                else:
                    answer = self.run(asked)
        except StopIteration as ended:
            return ended.value

    def entries(self) -> dict[str, QueueEntry]:
        found: list[QueueEntry] = []
        self.carry(QUEUE.read(self.instance, lambda message: found.append(message.entry())))
        return {each.queue_id: each for each in found}

    @property
    def is_up(self) -> bool:
        return (self.service / "up").exists() and not (self.service / "want-down").exists()

    @property
    def state(self) -> Path:
        """Where a change writes how far it is."""
        found = self.queue.stat()
        return Path(f"/run/mxfleet-qmail-{found.st_dev}-{found.st_ino}.state")

    def wait_up(self) -> None:
        wait(lambda: self.is_up and not self.state.read_text(), "qmail-send was not started again")

    def guardians(self) -> list[int]:
        """The processes that wait for the end of a change of this queue."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended
            if b"qmail-guardian" in words and str(self.queue).encode() in words and words[0] == b"/bin/sh":
                found.append(int(path.parent.name))
        return found

    @contextmanager
    def job_lock(self) -> Iterator[None]:
        """While a change is going on, or its guardian is at work."""
        with self.state.with_suffix(".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def remove_state(self) -> None:
        for end in ("state", "lock", "acting"):
            self.state.with_suffix(f".{end}").unlink(missing_ok=True)


def wait(condition: Callable[[], object], what: str) -> None:
    until = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def context(**fields: Any) -> Context:
    return Context(**{"now": time.time(), "job": "job-1", **fields})
