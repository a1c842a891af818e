"""A Postfix host for tests, played by hand: a queue in memory that answers commands as the recorded ones do.

`before` holds callbacks by command number: what happens on the host right before that command, such as a race.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.mta.records import Context, InstanceFacts
from fleet.mta.steps import Command, Completed, Plan, Steps, T

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"
VERSIONS = ("3.5", "3.7", "3.10")
NOW = 1_795_180_000.0
QUEUE = "/var/spool/postfix"
VERBS = {
    "-d": ("removed", "Deleted", ""),
    "-h": ("placed on hold", "Placed on hold", "hold"),
    "-H": ("released from hold", "Released from hold", "deferred"),
    "-r": ("requeued", "Requeued", "maildrop"),
    "-e": ("expired", "Force-expired", "hold"),
}


def instance(**options: Any) -> InstanceFacts:
    defaults = {"command_directory": "/usr/sbin", "can_quarantine": True, "log_source": "/var/log/mail.log"}
    return InstanceFacts("mx1", "postfix", "postfix", "3.7.11", "/etc/postfix", (QUEUE,), options=defaults | options)


def context(**fields: Any) -> Context:
    return Context(now=NOW, job="job-1", **fields)


@dataclass
class Mail:
    queue_id: str
    state: str = "deferred"
    sender: str = "news@bulk.example"
    arrival_time: int = 1_795_172_380
    size: int = 722
    recipients: tuple[str, ...] = ("r@defer.test",)
    headers: bytes = b"Subject: Newsletter\n"
    body: bytes = b"\nhello\n"
    ctime: int = 1

    def line(self) -> bytes:
        fields = {
            "queue_name": self.state,
            "queue_id": self.queue_id,
            "arrival_time": self.arrival_time,
            "message_size": self.size,
            "forced_expire": False,
            "sender": self.sender,
            "recipients": [{"address": each, "delay_reason": "later"} for each in self.recipients],
        }
        return json.dumps(fields).encode() + b"\n"


@dataclass
class FakeHost:
    mail: dict[str, Mail] = field(default_factory=dict)
    quarantine: dict[str, Mail] = field(default_factory=dict)
    restored: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    before: dict[int, Callable[["FakeHost"], None]] = field(default_factory=dict)
    plan: Plan | None = None
    commands: list[Command] = field(default_factory=list)
    attempted: list[str] = field(default_factory=list)
    garbage: bytes = b""
    on_attempt: Callable[["FakeHost", str], None] = lambda host, name: None

    def add(self, *mails: Mail) -> None:
        for mail in mails:
            self.mail[mail.queue_id] = mail

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
        self.before.pop(len(self.commands), lambda host: None)(self)
        self.commands.append(command)
        words = command.stdin.decode().split("\n")[:-1]
        name = command.script or command.argv[0].rpartition("/")[2]
        answers = {
            "postqueue": self._postqueue,
            "postsuper": self._postsuper,
            "postfix_quarantine.sh": self._quarantine,
            "postfix_content.sh": self._content,
            "postfix_attempt.sh": self._attempt,
            "postfix_times.sh": self._times,
            "postfix_log.sh": self._log,
            "postfix_deliver.sh": self._deliver,
        }
        if name in {"sleep", "postkick"}:
            return Completed(0)
        return answers[name](command, words)

    def _postqueue(self, command: Command, words: list[str]) -> Completed:
        if command.argv[3] == "-p":
            return Completed(0, b"Mail queue is empty\n" if not self.mail else b"-- 1 Kbytes in 1 Request.\n")
        if command.argv[3] == "-f":
            return self._attempt(command, [name for name, mail in self.mail.items() if mail.state == "deferred"])
        assert command.sink is not None
        command.sink.feed(b"".join(mail.line() for mail in self.mail.values()) + self.garbage)
        return Completed(0, result=command.sink.close())

    def _postsuper(self, command: Command, words: list[str]) -> Completed:
        _, _, _, flag, dash, queue = command.argv
        assert dash == "-"
        verb, counted, target = VERBS[flag]
        done = [name for name in words if name in self.mail and self.mail[name].state == queue]
        for name in done:
            if target:
                self.mail[name].state = target
                self.mail[name].ctime += 1
            else:
                del self.mail[name]
        said = [f"postsuper: {name}: {verb}\n" for name in done] + [f"postsuper: {counted}: {len(done)} messages\n"]
        return Completed(0, stderr="".join(said).encode())

    def _quarantine(self, command: Command, words: list[str]) -> Completed:
        action, ids = command.argv[0], words[1:]
        for name in ids:
            if action == "out" and name in self.mail and self.mail[name].state == "hold":
                self.quarantine[name] = self.mail.pop(name)
            elif action == "back" and name in self.quarantine and name not in self.mail:
                self.mail[name] = self.quarantine.pop(name)
                self.mail[name].ctime += 1
                self.restored[name] = self.mail[name].ctime
            elif action == "erase":
                self.quarantine.pop(name, None)
        moved = [n for n in ids if n in self.mail and self.restored.get(n) == self.mail[n].ctime]
        ours = [f"ours {name}" for name in moved if action == "back" and self.mail[name].state == "hold"]
        return Completed(0, "".join(f"{line}\n" for line in (*self.quarantine, *ours, "end")).encode())

    def _content(self, command: Command, words: list[str]) -> Completed:
        out = b""
        _, envelope, headers, body = (int(word) for word in words[0].split())
        for name in words[1:]:
            mail = self.mail.get(name)
            if mail is None:
                out += f"{name} absent\n".encode()
                continue
            parts = b"sender: x\n"[:envelope], mail.headers[:headers], mail.body[:body]
            out += " ".join([name, *(str(len(part)) for part in parts)]).encode() + b"\n" + b"".join(parts)
        return Completed(0, out + b"end\n")

    def _attempt(self, command: Command, words: list[str]) -> Completed:
        for name in words:
            self.attempted.append(name)
            if name in self.mail and self.mail[name].state == "deferred":
                self.mail[name].ctime += 1
            self.on_attempt(self, name)
        return Completed(0)

    def _times(self, command: Command, words: list[str]) -> Completed:
        found = [f"{n} {self.mail[n].ctime}\n" for n in words if n in self.mail and self.mail[n].state == "deferred"]
        return Completed(0, "".join([*found, "end\n"]).encode())

    def _log(self, command: Command, words: list[str]) -> Completed:
        found = [f"{line}\n" for line in self.log if any(word in line for word in words)]
        return Completed(0, "".join([*found, "end\n"]).encode())

    def _deliver(self, command: Command, words: list[str]) -> Completed:
        known = len(self.log)
        self._attempt(command, words)
        return Completed(0, "".join(f"{line}\n" for line in [*self.log[known:], "end"]).encode())
