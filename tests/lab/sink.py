"""Where the lab's mail ends: an SMTP server that answers as the domain's rule says, and notes what it took."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.lab.config import run_dir
from tests.lab.waiting import PATIENCE, tries


@dataclass(frozen=True, slots=True)
class Rule:
    """What a domain answers: `reply` at `stage` ("connect", "rcpt" or "data"), after `delay` seconds there."""

    reply: str = "250 2.0.0 sink: accepted"
    stage: str = "data"
    delay: float = 0.0


DEFAULTS = {
    "defer.test": Rule("451 4.7.1 sink: try later, defer.test", "rcpt"),
    "reject.test": Rule("550 5.1.1 sink: no such user, reject.test", "rcpt"),
    "slow.test": Rule(delay=6.0),
}


class Sink:
    """The sink as tests see it. Files are the interface: the sink runs in another process and namespace."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or run_dir()

    @property
    def _log(self) -> Path:
        return self.directory / "sink.jsonl"

    @property
    def _rules(self) -> Path:
        return self.directory / "sink-rules.json"

    def messages(self, recipient: str | None = None) -> list[dict[str, Any]]:
        """What was accepted since the last reset, oldest first: sender, recipients, data, domain, client, at."""
        try:
            whole = self._log.read_text().rpartition("\n")[0]  # the last line may be on its way
        except FileNotFoundError:
            return []
        found = [json.loads(line) for line in whole.splitlines()]
        return [one for one in found if recipient is None or recipient in one["recipients"]]

    def wait(self, count: int, recipient: str | None = None, seconds: float = 10) -> list[dict[str, Any]]:
        """As `messages`, once there are that many. Raises TimeoutError."""
        for _ in tries(seconds, 0.05):
            if len(found := self.messages(recipient)) >= count:
                return found
        raise TimeoutError(f"{len(found)} of {count} messages at the sink after {seconds * PATIENCE:g} s")

    def reset(self) -> None:
        """Forget the messages, and answer as at the beginning."""
        self._rules.unlink(missing_ok=True)
        if self._log.exists():
            with self._log.open("r+") as log:  # not removed: the sink keeps it open for appending
                log.truncate(0)

    def set(self, domain: str, rule: Rule) -> None:
        """Let a domain answer otherwise from its next command on, also in connections that are open."""
        rules = self._overrides() | {domain: asdict(rule)}
        new = self._rules.with_suffix(".new")
        new.write_text(json.dumps(rules))
        new.replace(self._rules)

    @contextlib.contextmanager
    def answering(self, domain: str, rule: Rule) -> Iterator[None]:
        before = self.rule(domain)
        self.set(domain, rule)
        try:
            yield
        finally:
            self.set(domain, before)

    def rule(self, domain: str) -> Rule:
        given = self._overrides().get(domain)
        return Rule(**given) if given else DEFAULTS.get(domain, Rule())

    def record(self, message: dict[str, Any]) -> None:
        with self._log.open("a") as log:
            log.write(json.dumps(message) + "\n")

    def _overrides(self) -> dict[str, Any]:
        try:
            return json.loads(self._rules.read_text())
        except FileNotFoundError:
            return {}


class Session:
    """One SMTP connection to one domain of the sink."""

    def __init__(self, sink: Sink, domain: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sink, self.domain, self.reader, self.writer = sink, domain, reader, writer
        self.sender: str | None = None
        self.recipients: list[str] = []

    async def run(self) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._converse()
        self.writer.close()

    async def _converse(self) -> None:
        self._say(await self._verdict("connect", f"220 mx.{self.domain} ESMTP sink"))
        while line := await self.reader.readline():
            verb, _, rest = line.decode("utf-8", "surrogateescape").strip().partition(" ")
            handler = getattr(self, f"_on_{verb.lower()}", None)
            self._say(await handler(rest) if handler else "502 5.5.2 sink: unknown command")
            await self.writer.drain()
            if verb.upper() == "QUIT":
                return

    async def _verdict(self, stage: str, good: str) -> str:
        rule = self.sink.rule(self.domain)
        if rule.stage != stage:
            return good
        await asyncio.sleep(rule.delay)
        return good if rule.reply.startswith("2") and stage != "data" else rule.reply

    async def _on_ehlo(self, _: str) -> str:
        self._forget()
        return f"250-mx.{self.domain}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES"

    async def _on_helo(self, _: str) -> str:
        self._forget()
        return f"250 mx.{self.domain}"

    async def _on_mail(self, rest: str) -> str:
        self._forget()
        self.sender = _path(rest)
        return "250 2.1.0 Ok"

    async def _on_rcpt(self, rest: str) -> str:
        reply = await self._verdict("rcpt", "250 2.1.5 Ok")
        if reply.startswith("2"):
            self.recipients.append(_path(rest))
        return reply

    async def _on_data(self, _: str) -> str:
        if not self.recipients:
            return "554 5.5.1 Error: no valid recipients"
        self._say("354 End data with <CR><LF>.<CR><LF>")
        lines = []
        while (line := await self.reader.readline()) not in (b".\r\n", b".\n", b""):
            lines.append(line[1:] if line.startswith(b".") else line)
        if not line:
            raise ConnectionError("gone in the middle of a message")
        reply = await self._verdict("data", "250 2.0.0 sink: accepted")
        if reply.startswith("2"):
            self._record(b"".join(lines))
        self._forget()
        return reply

    async def _on_rset(self, _: str) -> str:
        self._forget()
        return "250 2.0.0 Ok"

    async def _on_noop(self, _: str) -> str:
        return "250 2.0.0 Ok"

    async def _on_quit(self, _: str) -> str:
        return "221 2.0.0 Bye"

    def _record(self, data: bytes) -> None:
        client = self.writer.get_extra_info("peername")[0]
        message = {"at": time.time(), "domain": self.domain, "client": client, "sender": self.sender}
        self.sink.record(message | {"recipients": self.recipients, "data": data.decode("utf-8", "surrogateescape")})

    def _forget(self) -> None:
        self.sender, self.recipients = None, []

    def _say(self, text: str) -> None:
        self.writer.write(text.encode() + b"\r\n")


def _path(rest: str) -> str:
    """The address of MAIL FROM:<...> or RCPT TO:<...>; a quoted local part may hold a `>` of its own."""
    start = rest.find("<")
    inside, quoted, escaped = "", False, False
    for char in rest[start + 1 :]:
        if char == ">" and not quoted:
            break
        quoted ^= char == '"' and not escaped
        escaped = char == "\\" and not escaped
        inside += char
    return inside
