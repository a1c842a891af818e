"""A host with a list of blocked senders for tests, played by hand: it answers block_file.sh and SMTP dialogues.

`before` holds callbacks by number of the changing command: what happens on the host right before it. `while_read`:
what happens between the digest and the bytes of each reading.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from fleet.mta.blocks.listfile import fold
from fleet.mta.blocks.proof import ELSEWHERE
from fleet.mta.records import Context
from fleet.mta.steps import Command, Completed, Dialogue, Plan, Steps, T, Transcript

CONTEXT = Context(now=0, job="job-1", wiring_approved=True)


@dataclass
class ListHost:
    """`text`: the file, None without one. `judge`: the reply to a sender, "" for an accepted one. `address`: where the
    dialogue goes that is held now."""

    judge: Callable[["ListHost", str], str]
    text: str | None = None
    has_map: bool = False
    is_stale: bool = False
    map: dict[str, str] = field(default_factory=dict)
    control: str = "250 2.1.5 ok"
    refused_at_mail: bool = False
    before: dict[int, Callable[["ListHost"], None]] = field(default_factory=dict)
    fails: dict[int, Completed] = field(default_factory=dict)
    while_read: list[Callable[["ListHost"], None]] = field(default_factory=list)
    plan: Plan | None = None
    changes: int = 0
    commands: list[Command] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    address: str = ""

    def drive(self, steps: Steps[T]) -> T:
        """What the bridge does; a changing command before the plan is a mistake."""
        return self._drive(steps)

    def plan_of(self, steps: Steps[Any]) -> Plan:
        """What a dry run does."""
        found = self._drive(steps, until_plan=True)
        assert isinstance(found, Plan)
        return found

    def _drive(self, steps: Steps[Any], *, until_plan: bool = False) -> Any:
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
            elif isinstance(step, Dialogue):
                answer = self._talk(step)
            else:
                assert self.plan is not None or not step.mutates, "a changing command before the plan"
                self.commands.append(step)
                answer = self._answer(step)

    def _digest(self) -> str:
        return "-" if self.text is None else sha256(self.text.encode()).hexdigest()

    def _answer(self, command: Command) -> Completed:
        if command.argv[0] in ("sleep", "hostname"):
            return Completed(0, b"192.0.2.9 \n")
        assert command.script == "block_file.sh"
        stdin = command.stdin.decode()
        if command.argv[0] == "read":
            state = "absent" if self.text is None else "stale" if self.is_stale else "fits"
            head = f"{self._digest()} {state}\n192.0.2.9 \n"
            if self.while_read:
                self.while_read.pop()(self)
            return Completed(0, f"{head}{self.text or ''}".encode())
        if command.argv[0] == "query":
            found = [f"{key}\t{self.in_effect()[key]}\n" for key in stdin.splitlines() if key in self.in_effect()]
            return Completed(0, "".join([*found, "end\n"]).encode())
        return self._apply(stdin)

    def append(self, line: str) -> None:
        """The administrator writes a line himself, and builds the map."""
        self.text = f"{self.text or ''}{line}\n"
        key, tab, value = line.partition("\t")
        if tab:
            self.map[fold(key)] = value

    def in_effect(self) -> dict[str, str]:
        if self.has_map:
            return self.map
        return {fold(line.strip()): "" for line in (self.text or "").splitlines() if not line.startswith("#")}

    def _apply(self, stdin: str) -> Completed:
        number, self.changes = self.changes, self.changes + 1
        self.before.get(number, lambda host: None)(self)
        if number in self.fails:
            return self.fails[number]
        digest, verb, count, rest = stdin.split("\n", 3)
        if digest != self._digest():
            return Completed(76, stderr=b"mxfleet: the file was changed meanwhile\n")
        lines = rest.split("\n", int(count))
        self.text = None if verb == "remove" else lines[-1]
        if self.has_map:
            pairs = [line.split("\t", 1) for line in lines[-1].splitlines() if "\t" in line and line[0] != "#"]
            self.map = {key.lower(): value for key, value in reversed(pairs)}
            for check in lines[:-1]:
                key, value = check.split("\t")
                assert self.map.get(key, "") == value, check
        return Completed(0, f"applied {self._digest()}\n".encode())

    def _talk(self, dialogue: Dialogue) -> Transcript:
        self.ports.append(dialogue.port)
        self.address = dialogue.address
        said, sender = [("", "220 ready"), (dialogue.lines[0], "250 hello")], ""
        for line in dialogue.lines[1:]:
            reply = "250 ok"
            if line.startswith("MAIL FROM:"):
                sender = line.removeprefix("MAIL FROM:").removesuffix(" SMTPUTF8").strip("<>") or "<>"
                refusal = self.judge(self, sender)
                reply = refusal if refusal and self.refused_at_mail else "250 ok"
            elif line.startswith("RCPT"):
                is_elsewhere = line == f"RCPT TO:<{ELSEWHERE}>"
                reply = "550 relaying denied" if is_elsewhere else self.judge(self, sender) or self.control
            said.append((line, reply))
        return Transcript(tuple(said))
