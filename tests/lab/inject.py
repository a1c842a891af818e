"""Put mail into a host over SMTP: `python -m tests.lab.inject ADDRESS --from a@x.test --to b@defer.test --n 100`."""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

Text = str | bytes
STAGES = ("mail", "rcpt", "data")


class Refused(Exception):
    """The server said no to this message; the text is its reply."""


@dataclass(slots=True)
class Order:
    """What to send. `{i}` in addresses, subject and body becomes 1, 2, ... Bytes, and str that holds bytes the way
    os.fsdecode does, go out as they are, so that any address can be tried, legal or not."""

    sender: Text = "sender@bulk.example"
    recipients: tuple[Text, ...] = ("r@defer.test",)
    n: int = 1
    subject: Text = "lab message {i}"
    size: int = 0  # bytes of the body, at least
    data: bytes | None = None  # the whole message, headers included, instead of subject and size
    headers: tuple[str, ...] = ()
    stop_at: str = ""  # "mail", "rcpt" or "data": end there, as a probe does
    smtputf8: bool = True  # ask for it where an address needs it and the server offers it
    helo: str = "ctl.lab.test"


@dataclass(slots=True)
class Result:
    accepted: int = 0
    refused: int = 0
    errors: list[str] = field(default_factory=list)  # each different reply once, 20 at most
    ids: list[str] = field(default_factory=list)  # queue IDs, where the server tells them
    dialogue: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def summary(self) -> dict[str, object]:
        counts = {name: getattr(self, name) for name in ("accepted", "refused") if getattr(self, name)}
        return (counts or {"accepted": 0}) | {"errors": self.errors, "seconds": round(self.seconds, 2)}

    def note(self, error: str) -> None:
        self.refused += 1
        if error not in self.errors and len(self.errors) < 20:
            self.errors.append(error)


def inject(
    address: str,
    order: Order,
    *,
    port: int = 25,
    source: str = "",
    connections: int = 20,
    dialogue: bool = False,
    namespace: str = "",
    timeout: float = 60,
) -> Result:
    """Send the order. `namespace` is a /proc/PID/ns/net to connect from: its 127.0.0.1 is that host's own."""
    result, lock, numbers = Result(), threading.Lock(), iter(range(1, order.n + 1))
    began = time.monotonic()

    def work() -> None:
        try:
            if namespace:
                enter(namespace)
            with Client(address, port, source, timeout) as client:
                _send_all(client, order, numbers, result, lock)
                if dialogue:
                    result.dialogue.extend(client.dialogue)
        except (OSError, Refused) as error:
            with lock:
                result.note(str(error))

    # Threads of their own also for one connection: setns(2) changes the calling thread alone.
    workers = [threading.Thread(target=work) for _ in range(1 if dialogue else min(connections, order.n))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    result.seconds = time.monotonic() - began
    return result


def _send_all(client: Client, order: Order, numbers: Iterator[int], result: Result, lock: threading.Lock) -> None:
    client.greet(order.helo)
    while True:
        with lock:
            number = next(numbers, None)
        if number is None:
            break
        try:
            queue_id = client.send(order, number)
        except Refused as error:
            with lock:
                result.note(str(error))
            client.command(b"RSET")
            continue
        with lock:
            result.accepted += 1
            result.ids += [queue_id] if queue_id else []
    client.command(b"QUIT")


class Client:
    """A blunt SMTP client: it never corrects what it is told to send."""

    def __init__(self, address: str, port: int, source: str, timeout: float) -> None:
        self.socket = socket.create_connection((address, port), timeout, (source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lines = self.socket.makefile("rb")
        self.extensions: set[str] = set()
        self.dialogue: list[str] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.lines.close()
        self.socket.close()

    def greet(self, helo: str) -> None:
        self._expect(self._reply(), "2")
        answer = self._expect(self.command(b"EHLO " + helo.encode()), "2")
        self.extensions = {line[4:].split(" ")[0].upper() for line in answer.splitlines()}

    def send(self, order: Order, number: int) -> str:
        """One message; the queue ID in the server's reply, or nothing. Raises Refused."""
        sender = as_bytes(order.sender, number)
        recipients = [as_bytes(recipient, number) for recipient in order.recipients]
        utf8 = order.smtputf8 and "SMTPUTF8" in self.extensions and not b"".join([sender, *recipients]).isascii()
        self._expect(self.command(b"MAIL FROM:<" + sender + b">" + (b" SMTPUTF8" if utf8 else b"")), "2")
        if order.stop_at == "mail":
            return ""
        for recipient in recipients:
            self._expect(self.command(b"RCPT TO:<" + recipient + b">"), "2")
        if order.stop_at == "rcpt":
            return ""
        self._expect(self.command(b"DATA"), "3")
        if order.stop_at == "data":
            raise ConnectionAbortedError("left in DATA, as asked")
        self.socket.sendall(_stuffed(_message(order, number)) + b".\r\n")
        found = re.search(r"queued as (\S+)|\bid=(\S+)|(\S+) Message accepted", self._expect(self._reply(), "2"))
        return next((group for group in found.groups() if group), "") if found else ""

    def command(self, line: bytes) -> str:
        self.dialogue.append("C: " + line.decode("utf-8", "backslashreplace"))
        self.socket.sendall(line + b"\r\n")
        return self._reply()

    def _reply(self) -> str:
        answer = []
        while line := self.lines.readline():
            answer.append(line.decode("utf-8", "backslashreplace").rstrip("\r\n"))
            if line[3:4] != b"-":
                break
        if not answer:
            raise ConnectionResetError("the server closed the connection")
        self.dialogue.append("S: " + answer[-1])
        return "\n".join(answer)

    @staticmethod
    def _expect(reply: str, first: str) -> str:
        if not reply.startswith(first):
            raise Refused(reply)
        return reply


def as_bytes(text: Text, number: int) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return raw.replace(b"{i}", str(number).encode())


def _message(order: Order, number: int) -> bytes:
    if order.data is not None:
        return order.data.replace(b"{i}", str(number).encode())
    named = [(b"From", as_bytes(order.sender, number)), (b"To", as_bytes(order.recipients[0], number))]
    head = [name + b": <" + value + b">" for name, value in named]
    head += [b"Subject: " + as_bytes(order.subject, number)]
    head += [b"Date: " + time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime()).encode()]
    head += [b"Message-ID: <%d.%d.%d@ctl.lab.test>" % (time.time_ns(), os.getpid(), number)]
    head += [as_bytes(header, number) for header in order.headers]
    body = b"Lab message %d.\r\n" % number
    body += b"".join(itertools.repeat(b"x" * 70 + b"\r\n", max(0, order.size - len(body) + 71) // 72))
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def _stuffed(message: bytes) -> bytes:
    """Dots doubled at the start of lines, and CRLF at the end (RFC 5321, 4.5.2)."""
    text = re.sub(rb"(?m)^\.", b"..", message)
    return text if text.endswith(b"\r\n") else text + b"\r\n"


def enter(namespace: str) -> None:
    """Moves the calling thread alone into the network namespace with that path."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(namespace, "rb") as file:
        if libc.setns(file.fileno(), 0x40000000):  # CLONE_NEWNET; os.setns is there from Python 3.12 on
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n", type=int, default=1, help="number of messages")
    parser.add_argument("--from", dest="sender", default=Order().sender, help="empty for the null sender")
    parser.add_argument("--to", dest="recipients", action="append", help="may be given more than once")
    parser.add_argument("--subject", default=Order().subject)
    parser.add_argument("--header", dest="headers", action="append", default=[], metavar="'Name: value'")
    parser.add_argument("--size", type=int, default=0, help="bytes of the body, at least")
    parser.add_argument("--data-file", type=Path, help="the whole message as it is")
    parser.add_argument("--stop-at", choices=STAGES, default="", help="end after this command")
    parser.add_argument("--dialogue", action="store_true", help="print what client and server said")
    parser.add_argument("--source", default="", help="local address to connect from")
    parser.add_argument("--port", type=int, default=25)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--helo", default=Order().helo)
    parser.add_argument("--no-smtputf8", dest="smtputf8", action="store_false", help="8-bit addresses go out raw")


def run_arguments(address: str, given: argparse.Namespace, namespace: str = "") -> int:
    """Send, print dialogue and a JSON summary; 0 when everything was accepted."""
    order = Order(
        **{name: getattr(given, name) for name in ("sender", "n", "subject", "size", "stop_at", "smtputf8", "helo")},
        recipients=tuple(given.recipients or Order().recipients),
        data=given.data_file.read_bytes() if given.data_file else None,
        headers=tuple(given.headers),
    )
    options = {name: getattr(given, name) for name in ("port", "source", "connections", "dialogue")}
    result = inject(address, order, namespace=namespace, **options)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for line in result.dialogue:
        print(line)
    print(json.dumps(result.summary()))
    return 0 if result.accepted == order.n else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    add_arguments(parser)
    given = parser.parse_args()
    return run_arguments(given.address, given)


if __name__ == "__main__":
    raise SystemExit(main())
