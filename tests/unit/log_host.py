"""A host's logs for tests: read_log.sh itself reads them, on this machine, and its output is fed in odd cuts."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.mta.operations import Operation
from fleet.mta.records import Context, InstanceFacts, Result
from fleet.mta.steps import Command, Completed, Steps

SCRIPT = Path(__file__).parents[2] / "fleet/mta/scripts/read_log.sh"
TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"
NOW = 1_795_290_000.0  # 2026-11-21T19:40:00Z, some hours after the recorded logs

Method = Callable[[InstanceFacts, Any, Context], Steps[Result]]


@dataclass
class LogHost:
    """`rotations`: so many readings, the first ones, end with the word that the log was rotated meanwhile."""

    mta: str
    directory: Path
    options: dict[str, Any] = field(default_factory=dict)
    rotations: int = 0
    readings: int = 0

    def put(self, name: str, data: bytes, *, age: float = 0) -> Path:
        """A log file that was last written to `age` seconds ago."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (NOW - age, NOW - age))
        return path

    def record(self, name: str, recorded: str) -> None:
        self.put(name, (TRANSCRIPTS / recorded).read_bytes())

    def instance(self, source: str) -> InstanceFacts:
        options = {"log_source": str(self.directory / source), **self.options}
        return InstanceFacts("mx1", self.mta, self.mta, "1", "/etc", ("/var/spool",), options=options)

    def data(self, method: Method, operation: Operation, source: str = "mail.log") -> dict[str, Any]:
        """The result of the operation."""
        steps = method(self.instance(source), operation, Context(now=NOW, job="job-1"))
        answer: Completed | None = None
        while True:
            try:
                command = steps.send(answer)
            except StopIteration as end:
                result: Result = end.value
                return result.data
            assert isinstance(command, Command)
            assert command.become
            assert not command.mutates
            answer = self._run(command)

    def _run(self, command: Command) -> Completed:
        assert command.script == SCRIPT.name
        assert command.sink is not None
        self.readings += 1
        done = subprocess.run(
            ["sh", str(SCRIPT), *command.argv],
            input=command.stdin,
            capture_output=True,
            env={"PATH": "/usr/bin:/bin", "TZ": self.options.get("TZ", "UTC")},
        )
        if done.returncode:
            return Completed(done.returncode, b"", done.stderr)
        said = done.stdout
        if self.readings <= self.rotations:
            said = said.removesuffix(b"=end\n") + b"=moved\n=end\n"
        for at in range(0, len(said), 997):
            command.sink.feed(said[at : at + 997])
        return Completed(0, b"", done.stderr, command.sink.close())
