"""qmail-start(8): qmail-send with its companions qmail-lspawn, qmail-rspawn and qmail-clean, each under its account."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.lab.qmail import local, remote
from tests.lab.qmail.layout import QMAILQ, QMAILR, QUEUE, Queue, become, call_oneself
from tests.lab.qmail.send import serve

Deliver = Callable[[int, bytes, bytes], bytes]
Program = Callable[[int, int], None]


def main() -> None:
    os.umask(0o077)
    pipes = {
        "local": _companion("qmail-lspawn", 0, Spawner("qmail-local", local.deliver).run),
        "remote": _companion("qmail-rspawn", QMAILR, Spawner("qmail-remote", remote.deliver).run),
    }
    serve(pipes, _companion("qmail-clean", QMAILQ, clean))


def _companion(name: str, user: int, program: Program) -> tuple[int, int]:
    """A child that reads commands and writes reports; the descriptors of our side. It ends when we are gone."""
    commands, reports = os.pipe(), os.pipe()

    def work() -> None:
        os.close(commands[1])
        os.close(reports[0])
        if user:
            become(user)
        program(commands[0], reports[1])

    _fork(name, work)
    os.close(commands[0])
    os.close(reports[1])
    return commands[1], reports[0]


def _fork(name: str, program: Callable[[], None]) -> int:
    """Run it in a child, which ends with it; the child's process number."""
    child = os.fork()
    if child:
        return child
    try:
        call_oneself(name)
        program()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


@dataclass(slots=True)
class _Running:
    slot: int
    child: int
    output: list[bytes] = field(default_factory=list)


class Spawner:
    """Deliveries as asked: slot, path below mess/, NUL, sender, NUL, recipient, NUL; a report is slot, text, NUL."""

    def __init__(self, name: str, deliver: Deliver) -> None:
        self.name = name
        self.deliver = deliver
        self.running: dict[int, _Running] = {}
        self.reports = -1

    def run(self, commands: int, reports: int) -> None:
        os.chdir(f"{QUEUE}/mess")
        self.reports = reports
        received, is_reading = b"", True
        while is_reading or self.running:
            ready = select.select([*self.running, *([commands] if is_reading else [])], [], [])[0]
            for pipe in set(ready) & set(self.running):
                self._collect(pipe)
            if commands in ready:
                data = os.read(commands, 1 << 16)
                is_reading = bool(data)
                received = self._obey(received + data)

    def _obey(self, received: bytes) -> bytes:
        """Start what is complete; what is left."""
        while len(parts := received[1:].split(b"\0", 3)) == 4:
            slot, (path, sender, recipient, rest) = received[0], parts
            self._begin(slot, path, sender, recipient)
            received = rest
        return received

    def _begin(self, slot: int, path: bytes, sender: bytes, recipient: bytes) -> None:
        try:
            message = os.open(path, os.O_RDONLY)
        except OSError:
            self._report(slot, b"Zqmail-spawn unable to open message. (#4.3.0)\n")
            return
        found = os.fstat(message)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != QMAILQ:
            self._report(slot, b"ZSorry, message has wrong owner. (#4.3.5)\n")
            os.close(message)
            return
        readable, writable = os.pipe()
        child = _fork(self.name, lambda: _write_all(writable, self.deliver(message, sender, recipient)))
        os.close(message)
        os.close(writable)
        self.running[readable] = _Running(slot, child)

    def _collect(self, pipe: int) -> None:
        one = self.running[pipe]
        if chunk := os.read(pipe, 1 << 16):
            one.output.append(chunk)
            return
        del self.running[pipe]
        os.close(pipe)
        os.waitpid(one.child, 0)
        self._report(one.slot, b"".join(one.output) or b"Z" + self.name.encode() + b" crashed.\n")

    def _report(self, slot: int, text: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self.reports, bytes([slot]) + text.replace(b"\0", b"?") + b"\0")


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def clean(commands: int, reports: int) -> None:
    """qmail-clean(8): remove intd/ID and todo/ID, or intd/ID and mess/S/ID."""
    os.chdir(QUEUE)
    queue = Queue()
    while request := os.read(commands, 100):
        kind, number = request.rstrip(b"\0").decode().split("/")
        for part in ("intd", {"todo": "todo", "foop": "mess"}[kind]):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(queue.path(part, int(number)))
        os.write(reports, b"+")
