"""qmail-remote(8): one message to one recipient over SMTP. The verdicts and their wording are qmail's."""

from __future__ import annotations

import os
import random
import socket
import struct

from tests.lab.qmail.layout import control_line, control_lines, control_number, me, quoted

NXDOMAIN = 3
NO_CONNECTION = b"ZSorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n"


class Verdict(Exception):
    """What to report: the letter K, Z or D and the text."""

    def __init__(self, report: bytes) -> None:
        self.report = report


def deliver(message: int, sender: bytes, recipient: bytes) -> bytes:
    """The report on a delivery; `message` is an open descriptor."""
    try:
        host, port, addresses = _destination(recipient.rpartition(b"@")[2])
        if not addresses:
            return b"DSorry, I couldn't find any host named " + host + b". (#5.1.2)\n"
        for address in addresses:
            try:
                connection = socket.create_connection((address, port), control_number("timeoutconnect", 60))
            except OSError:
                continue
            connection.settimeout(control_number("timeoutremote", 1200))
            with os.fdopen(message, "rb") as file:
                Dialogue(connection, address.encode()).run(file.read(), quoted(sender), quoted(recipient))
        return NO_CONNECTION
    except Verdict as verdict:
        return verdict.report


class Dialogue:
    def __init__(self, connection: socket.socket, partner: bytes) -> None:
        self.connection = connection
        self.lines = connection.makefile("rb")
        self.partner = partner
        self.said = b""
        self.may_be_taken = False

    def run(self, message: bytes, sender: bytes, recipient: bytes) -> None:
        """Raises Verdict, always."""
        try:
            self._converse(message, sender, recipient)
        except OSError as error:
            twice = b"Possible duplicate! " if self.may_be_taken else b""
            died = b"ZConnected to " + self.partner + b" but connection died. " + twice + b"(#4.4.2)\n"
            raise Verdict(died) from error

    def _converse(self, message: bytes, sender: bytes, recipient: bytes) -> None:
        if self._reply() != 220:
            self._quit(b"ZConnected to ", b" but greeting failed")
        if self._command(b"HELO " + control_line("helohost", me())) != 250:
            self._quit(b"ZConnected to ", b" but my name was rejected")
        self._check(self._command(b"MAIL FROM:<" + sender + b">"), b"Connected to ", b" but sender was rejected")
        code = self._command(b"RCPT TO:<" + recipient + b">")
        if code >= 400:
            first = self.partner + b" does not like recipient.\n" + self._quotation()
            self._send(b"QUIT")
            raise Verdict((b"D" if code >= 500 else b"Z") + first + b"Giving up on " + self.partner + b".\n")
        self._check(self._command(b"DATA"), b"", b" failed on DATA command")
        self._send_message(message)
        self.may_be_taken = True
        code = self._reply()
        self.may_be_taken = False
        self._check(code, b"", b" failed after I sent the message")
        self._quit(b"K", b" accepted message")

    def _send_message(self, message: bytes) -> None:
        lines = message.replace(b"\r\n", b"\n").split(b"\n")
        if lines.pop():
            raise Verdict(b"DSMTP cannot transfer messages with partial final lines. (#5.6.2)\n")
        stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
        self.connection.sendall(stuffed + b".\r\n")

    def _check(self, code: int, before: bytes, after: bytes) -> None:
        if code >= 400:
            self._quit((b"D" if code >= 500 else b"Z") + before, after)

    def _quit(self, before: bytes, after: bytes) -> None:
        self._send(b"QUIT")
        raise Verdict(before + self.partner + after + b".\n" + self._quotation())

    def _quotation(self) -> bytes:
        return b"Remote host said: " + self.said.replace(b"\0", b"?")

    def _command(self, line: bytes) -> int:
        self._send(line)
        return self._reply()

    def _send(self, line: bytes) -> None:
        self.connection.sendall(line + b"\r\n")

    def _reply(self) -> int:
        self.said = b""
        while True:
            line = self.lines.readline()
            if not line.endswith(b"\n"):
                raise ConnectionResetError
            self.said += line.replace(b"\r", b"")
            if line[3:4] != b"-":
                return int(line[:3]) if line[:3].isdigit() else 599


def _destination(domain: bytes) -> tuple[bytes, int, list[str]]:
    """(host, port, addresses in the order to try) as smtproutes or the DNS say it. Raises Verdict."""
    labels = domain.lower().split(b".")
    keys = [domain.lower(), *(b"." + b".".join(labels[at:]) for at in range(1, len(labels))), b""]
    routes = {key.lower(): value for key, _, value in (line.partition(b":") for line in control_lines("smtproutes"))}
    route = next((routes[key] for key in keys if key in routes), b"")
    if not route:
        return domain, 25, _exchangers(domain)
    host, _, port = route.partition(b":")
    return host, int(port or 25), _addresses(host.strip(b"[]"))


def _exchangers(domain: bytes) -> list[str]:
    if domain.startswith(b"["):
        return [domain.strip(b"[]").decode()]
    answers = sorted(_ask(domain, 15))
    names = [_name(packet, at + 2)[0] for _, packet, at in answers]
    return [address for name in names or [domain] for address in _addresses(name)]


def _addresses(host: bytes) -> list[str]:
    try:
        return [socket.inet_ntoa(socket.inet_aton(host.decode()))]
    except (OSError, UnicodeDecodeError):
        return [socket.inet_ntoa(packet[at : at + 4]) for _, packet, at in _ask(host, 1)]


def _ask(name: bytes, kind: int) -> list[tuple[bytes, bytes, int]]:
    """The records of that type: (data, packet, where the data starts). Raises Verdict when there is no answer."""
    number = random.randrange(65536)
    labels = b"".join(bytes([len(label)]) + label for label in name.rstrip(b".").split(b".") if len(label) < 64)
    query = struct.pack("!6H", number, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(5)
        try:
            asker.connect((_name_server(), 53))
            asker.send(query)
            packet = asker.recv(4096)
        except OSError as error:
            raise Verdict(b"ZSorry, I couldn't find any host by that name. (#4.1.2)\n") from error
    found, at = [], _name(packet, 12)[1] + 4
    for _ in range(struct.unpack_from("!H", packet, 6)[0]):
        at = _name(packet, at)[1]
        given, _, _, length = struct.unpack_from("!HHIH", packet, at)
        at += 10
        if given == kind:
            found.append((packet[at : at + length], packet, at))
        at += length
    return found


def _name(packet: bytes, at: int) -> tuple[bytes, int]:
    """(name, where it ends) of a name that may be compressed (RFC 1035, 4.1.4)."""
    labels = []
    while packet[at]:
        if packet[at] >= 0xC0:
            pointer = struct.unpack_from("!H", packet, at)[0] & 0x3FFF
            return b".".join([*labels, _name(packet, pointer)[0]]), at + 2
        labels.append(packet[at + 1 : at + 1 + packet[at]])
        at += 1 + packet[at]
    return b".".join(labels), at + 1


def _name_server() -> str:
    with open("/etc/resolv.conf") as file:
        return next((line.split()[1] for line in file if line.startswith("nameserver")), "127.0.0.1")
