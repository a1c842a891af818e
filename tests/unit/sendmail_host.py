"""A Sendmail host for tests: real queue files in a directory, our own scripts on them, and a stand-in for sendmail.

The stand-in takes the queue IDs of -qI, tells of each as `sendmail -v` does, and does with it what `answers` says.
"""

import fcntl
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.mta.records import Context, InstanceFacts
from fleet.mta.steps import Command, Completed, Plan, Steps, T
from tests.recorded import exchanges
from tests.unit.real_scripts import run_script

ROOT = Path(__file__).parents[2]
SESSIONS = "sendmail-8.17"
NOW = 1_795_180_000.0
ARRIVAL = 1_795_172_378
SENDMAIL = """#!/bin/sh
# logs its arguments; tells of each message as the file "answers" says, and removes those that leave
echo "$*" >>"$(dirname "$0")/calls"
at=0
for word in "$@"; do
    case $word in -qI?*) ;; *) continue ;; esac
    id=${word#-qI}
    at=$((at + 1))
    file=$(ls "$(dirname "$0")"/mqueue/q*/qf"$id" "$(dirname "$0")"/client/qf"$id" 2>/dev/null)
    echo
    echo "Running ${file%/*}/$id (sequence $at of $#)"
    case $* in
    *queuereturn=now*) echo "<r1@defer.test>... Cannot send message for too long"; rm "$file" ;;
    *) cat "$(dirname "$0")/answers"; grep -q Sent "$(dirname "$0")/answers" && rm "$file" ;;
    esac
done
exit 0
"""


def recorded_files() -> list[bytes]:
    """The whole queue files of the recorded sessions."""
    printed = (each.completed.stdout for each in exchanges(f"{SESSIONS}/04-show"))
    return [found[1] for text in printed if (found := re.match(rb"(V8\n.*?\n\.\n)", text, re.S))]


def queue_file(sender: bytes = b"news@bulk.example", subject: str = "Newsletter", arrival: int = ARRIVAL) -> bytes:
    """A recorded queue file with another sender, subject and arrival."""
    text = recorded_files()[0].replace(b"T1795172378", b"T%d" % arrival)
    shown = b"<>" if not sender else b"<" + sender + b">"
    return text.replace(b"S<news1@bulk.example>", b"S" + shown).replace(b"Newsletter 1", subject.encode())


@dataclass
class SendmailHost:
    root: Path
    plan: Plan | None = None
    commands: list[Command] = field(default_factory=list)
    before: dict[int, Callable[[], None]] = field(default_factory=dict)
    cut: int | None = None
    tools: Path | None = None

    def __post_init__(self) -> None:
        for directory in ("mqueue/q1", "mqueue/q2", "client"):
            (self.root / directory).mkdir(parents=True)
        (self.root / "sendmail").write_text(SENDMAIL)
        (self.root / "sendmail").chmod(0o755)
        (self.root / "answers").write_text("<r1@defer.test>... Deferred: 451 later\n")

    def instance(self, **options: Any) -> InstanceFacts:
        defaults = {
            "program": f"{self.root}/sendmail",
            "config_file": "/etc/mail/sendmail.cf",
            "client_queue": f"{self.root}/client",
            "queue_patterns": [f"{self.root}/mqueue/q*"],
            "has_flock": True,
            "access_map": "",
            "log_source": "none",
        }
        dirs = (f"{self.root}/mqueue/q1", f"{self.root}/mqueue/q2")
        return InstanceFacts("mx1", "sendmail", "sendmail", "8.17.1.9", "/etc/mail", dirs, options=defaults | options)

    def add(
        self, queue_id: str, text: bytes | None = None, *, queue: str = "mqueue/q1", body: bytes = b"body\n"
    ) -> str:
        """A message; returns its queue ID."""
        at = self.root / queue
        ((at / "qf" if (at / "qf").is_dir() else at) / f"qf{queue_id}").write_bytes(text or queue_file())
        ((at / "df" if (at / "df").is_dir() else at) / f"df{queue_id}").write_bytes(body)
        return queue_id

    def files(self) -> dict[str, bytes]:
        """Every queue and data file by its path below the root."""
        found = [*self.root.glob("mqueue/**/?f*"), *self.root.glob("client/**/?f*")]
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found if path.is_file()}

    def calls(self) -> list[str]:
        """The arguments of every sendmail that was run."""
        log = self.root / "calls"
        return log.read_text().splitlines() if log.exists() else []

    @contextmanager
    def working(self, queue_id: str) -> Iterator[None]:
        """While Sendmail works on the message."""
        [path] = self.root.glob(f"*/**/qf{queue_id}")
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def drive(self, steps: Steps[T], *, until_plan: bool = False) -> T:
        """What the bridge does; a changing command before the plan is a mistake."""
        answer: Any = None
        self.plan = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                return end.value
            if isinstance(step, Plan):
                assert self.plan is None, "a plan is yielded once"
                self.plan, answer = step, None
                if until_plan:
                    return step
                continue
            assert self.plan is not None or not step.mutates, "a changing command before the plan"
            answer = self.answer(step)

    def answer(self, command: Command) -> Completed:
        self.before.pop(len(self.commands), lambda: None)()
        self.commands.append(command)
        done = run_script(command, self.tools)
        stdout = done.stdout[: self.cut]
        result = None
        if command.sink is not None and not done.exit_status:
            for at in range(0, len(stdout), 7):
                command.sink.feed(stdout[at : at + 7])
            result = command.sink.close()
        return Completed(done.exit_status, stdout, done.stderr, result)


def context(**fields: Any) -> Context:
    return Context(now=NOW, job="job-1", **fields)
