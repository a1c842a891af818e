"""An OpenSMTPD host played by hand: queue, quarantine, blocked senders, and what the scripts would answer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, TypeVar

from fleet.mta.opensmtpd.blocks import our_lines
from fleet.mta.records import Context, InstanceFacts
from fleet.mta.steps import Command, Completed, Plan, Steps
from tests.unit.list_host import ListHost

T = TypeVar("T")
NOW = 1_795_180_000.0
CREATED = 1_795_172_609
RULE = 'match from any for domain "mx1.test" action "local"\n'
WIRED = f"table blocked file:/etc/smtpd/blocked\nmatch from any mail-from <blocked> for any reject\n{RULE}"


def instance(**options: Any) -> InstanceFacts:
    given = {
        "program": "/usr/sbin/smtpctl",
        "smtpd": "/usr/sbin/smtpd",
        "config_file": "/etc/smtpd.conf",
        "log_source": "/var/log/mail.log",
        **options,
    }
    return InstanceFacts("mx1", "opensmtpd", "opensmtpd", "7.6.0", "/etc", ("/var/spool/smtpd",), ("smtpd",), given)


def context(**fields: Any) -> Context:
    return Context(**{"now": NOW, "job": "job-1", **fields})


@dataclass
class Mail:
    queue_id: str
    sender: str = "news@bulk.example"
    recipients: tuple[str, ...] = ("r@defer.test",)
    state: str = "deferred"  # as mxfleet calls it
    created: int = CREATED
    size: int = 340
    headers: bytes = b"Subject: Newsletter\n"
    body: bytes = b"\nbody\n"

    def lines(self) -> list[str]:
        sender = "@" if self.sender == "<>" else self.sender
        flags = "suspend" if self.state == "hold" else ""
        run = "inflight|3" if self.state == "active" else "pending|390"
        return [
            f"{self.queue_id}{at:08x}|inet4|mta|{flags}|{sender}|{to}|{to}|{self.created}|{self.created}|0|1|{run}|no"
            for at, to in enumerate(self.recipients)
        ]


@dataclass
class FakeHost:
    """`before`: what happens right before the command of that number. `broken`: the answer of a script instead."""

    mail: dict[str, Mail] = field(default_factory=dict)
    quarantine: dict[str, Mail] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    before: dict[int, Callable[["FakeHost"], None]] = field(default_factory=dict)
    broken: dict[str, Completed] = field(default_factory=dict)
    plan: Plan | None = None
    commands: list[Command] = field(default_factory=list)
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
                    return step  # type: ignore[return-value]
                continue
            assert isinstance(step, Command)
            assert self.plan is not None or not step.mutates, "a changing command before the plan"
            assert step.become, "smtpctl wants root"
            answer = self.answer(step)

    def answer(self, command: Command) -> Completed:
        self.before.pop(len(self.commands), lambda host: None)(self)
        self.commands.append(command)
        name = command.script or ""
        if name in self.broken:
            return self.broken[name]
        words = command.stdin.decode().splitlines()
        answers = {
            "opensmtpd_list.sh": self._list,
            "opensmtpd_act.sh": self._act,
            "opensmtpd_quarantine.sh": self._quarantine,
            "opensmtpd_content.sh": self._content,
            "opensmtpd_deliver.sh": self._deliver,
            "opensmtpd_log.sh": self._log,
        }
        return answers[name](command, words)

    def _list(self, command: Command, words: list[str]) -> Completed:
        lines = [f"!{int(NOW)}"]
        for mail in sorted(self.mail.values(), key=lambda mail: mail.queue_id):
            lines += [f"{mail.queue_id} {mail.size}", *mail.lines()]
        assert command.sink is not None
        command.sink.feed("".join(f"{line}\n" for line in [*lines, "~listed", "end"]).encode())
        return Completed(0, result=command.sink.close())

    def _wanted(self, words: list[str]) -> list[Mail]:
        pairs = [word.split() for word in words]
        found = [(self.mail[name], int(created)) for name, created in pairs if name in self.mail]
        return [mail for mail, created in found if mail.created == created]

    def _act(self, command: Command, words: list[str]) -> Completed:
        action = command.argv[2]
        done = []
        for mail in self._wanted(words):
            if action == "pause" and mail.state == "deferred":
                mail.state = "hold"
            elif action == "resume" and mail.state == "hold":
                mail.state = "deferred"
            elif action == "schedule" and mail.state == "deferred":
                self.on_attempt(self, mail.queue_id)
            else:
                continue
            done.append(mail.queue_id)
        return _told(done)

    def _quarantine(self, command: Command, words: list[str]) -> Completed:
        action, lines = command.argv[2], words[1:]
        told = []
        if action in ("out", "delete"):
            for mail in self._wanted(lines):
                if mail.state == "active":
                    told.append(f"busy {mail.queue_id}")
                    continue
                del self.mail[mail.queue_id]
                if action == "delete":
                    told.append(f"gone {mail.queue_id}")
                else:
                    self.quarantine[mail.queue_id] = mail
        for name in (line.split()[0] for line in lines):
            if action == "back" and name in self.quarantine:
                if name in self.mail:
                    told.append(f"taken {name}")
                else:
                    self.mail[name] = self.quarantine.pop(name)
            elif action == "erase":
                self.quarantine.pop(name, None)
        return _told([*told, *([] if action == "delete" else self.quarantine)])

    def _content(self, command: Command, words: list[str]) -> Completed:
        out = b""
        _, headers, body = (int(word) for word in words[0].split())
        for name in words[1:]:
            mail = self.mail.get(name)
            if mail is None:
                out += f"{name} absent\n".encode()
                continue
            parts = mail.headers[:headers], mail.body[:body]
            out += f"{name} 0 {len(parts[0])} {len(parts[1])}\n".encode() + b"".join(parts)
        return Completed(0, out + b"end\n")

    def _deliver(self, command: Command, words: list[str]) -> Completed:
        known = len(self.log)
        self.on_attempt(self, words[0].split()[0])
        return _told(self.log[known:])

    def _log(self, command: Command, words: list[str]) -> Completed:
        return _told([line for line in self.log if f" evpid={words[0]}" in line])


def _told(lines: list[str]) -> Completed:
    return Completed(0, "".join(f"{line}\n" for line in [*lines, "end"]).encode())


def looked_up(host: "Smtpd", sender: str) -> str:
    """What smtpd says: the first rule's table, an address also without its extension."""
    local, _, domain = sender.lower().rpartition("@")
    keys = {sender.lower(), f"{local.partition('+')[0]}@{domain}", f"@{domain}"}
    is_listed = bool(keys & host.in_effect().keys())
    return "550 Invalid recipient: <r@ok.test>" if is_listed and "reject" in host.loaded else ""


@dataclass
class Smtpd(ListHost):
    """`config`: smtpd.conf; `loaded`: as the running smtpd has read it. `refusal`: of the next wiring.

    `cut`: how many bytes of the configuration get lost on the way each time.
    """

    config: str = WIRED
    loaded: str = WIRED
    cut: int = 0
    refusal: Completed | None = None

    def _answer(self, command: Command) -> Completed:
        if command.script != "opensmtpd_wire.sh":
            return super()._answer(command)
        digest = sha256(self.config.encode()).hexdigest()
        if command.argv[0] == "read":
            return Completed(0, f"{digest}\n{self.config[: len(self.config) - self.cut]}".encode())
        if self.refusal:
            return self.refusal
        planned, line = command.stdin.decode().split()
        assert planned == digest
        ours = "".join(our_lines(instance()))
        if command.argv[0] == "wire":
            lines = self.config.splitlines(keepends=True)
            assert lines[int(line) - 1].startswith("match ")
            assert self.text, "smtpd does not start without the table"
            self.config = "".join([*lines[: int(line) - 1], ours, *lines[int(line) - 1 :]])
        else:
            self.config = self.config.replace(ours, "")
        self.loaded = self.config
        return Completed(0, b"applied x\n")
