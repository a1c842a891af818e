"""Recorded sessions instead of SSH. Shipped: demonstrations and adapter tests run on what real hosts said."""

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.mta.steps import Command, Completed, Dialogue, DnsQuery, DnsReply, Transcript

Matcher = tuple[str, ...] | Callable[[Command], bool]

PROMPT = re.compile(r"^(?P<user>[a-z_][\w-]*)(?:\(\w+\))?@(?P<host>[\w.-]+)[$#] (?P<line>.*)$")
EXIT = re.compile(r"^--- exit (?P<status>-?\d+|None) +(?P<seconds>[\d.]+) s$")
STATUS_ECHO = re.compile(r"; *echo rc=\$\?$")  # how the recordings kept a status that the shell would have hidden
STATUS = re.compile(r"(?:\A|(?<=\n))rc=(\d+)\n?\Z")


class ReplayMismatch(AssertionError):
    """The adapter sent what was not recorded (or not at this place)."""


@dataclass(frozen=True)
class Exchange:
    """One recorded command. `line` as typed, without prompt and `echo rc=$?`; `comment` stands above it."""

    user: str
    host: str
    line: str
    stdin: bytes | None
    completed: Completed
    comment: str = ""


@dataclass(frozen=True)
class Recording:
    """The commands of one or more transcripts, in their order."""

    exchanges: tuple[Exchange, ...]

    @classmethod
    def load(cls, *paths: str | Path) -> "Recording":
        """Read transcript files. Raises OSError, and ValueError naming the place of what is no transcript."""
        found: list[Exchange] = []
        for path in map(Path, paths):
            try:
                found += parse(path.read_bytes().decode("utf-8", "surrogateescape"))
            except ValueError as error:
                raise ValueError(f"{path.name}: {error}") from None
        return cls(tuple(found))

    def all(self, line: str) -> tuple[Completed, ...]:
        """What was said each time `line` was typed. Raises ReplayMismatch when it never was."""
        wanted = STATUS_ECHO.sub("", line)
        found = tuple(exchange.completed for exchange in self.exchanges if exchange.line == wanted)
        if not found:
            raise ReplayMismatch(f"not recorded: {wanted}")
        return found

    def one(self, line: str, turn: int = 0) -> Completed:
        """What was said the first time (or the `turn`th, from 0) that `line` was typed."""
        return self.all(line)[turn]


def parse(text: str) -> list[Exchange]:
    """The exchanges of a transcript: prompt and command, then `--- stdin`, `--- exit`, `--- stdout`, `--- stderr`."""
    lines = text.split("\n")
    found: list[Exchange] = []
    comment, at = "", 0
    while at < len(lines):
        prompt = PROMPT.match(lines[at])
        if prompt is None:
            comment = lines[at].lstrip("# ") if lines[at].startswith("#") else comment
            at += 1
            continue
        exchange, at = _exchange(lines, at, prompt, comment)
        found.append(exchange)
        comment = ""
    return found


def _exchange(lines: list[str], at: int, prompt: re.Match[str], comment: str) -> tuple[Exchange, int]:
    typed = [prompt["line"]]
    at += 1
    while at < len(lines) and lines[at] != "--- stdin" and not EXIT.match(lines[at]):
        typed.append(lines[at])
        at += 1
    stdin: bytes | None = None
    if at < len(lines) and lines[at] == "--- stdin":
        begin = at + 1
        while at < len(lines) and not EXIT.match(lines[at]):
            at += 1
        stdin = _bytes(lines[begin:at]).removesuffix(b"\n")
    ended = EXIT.match(lines[at]) if at < len(lines) else None
    if ended is None:
        raise ValueError(f"no '--- exit' after the command {typed[0][:60]!r}")
    out_at = at + 1
    if lines[out_at] != "--- stdout":
        raise ValueError(f"line {out_at + 1}: expected '--- stdout'")
    err_at = lines.index("--- stderr", out_at)
    end = _end_of_stderr(lines, err_at + 1)
    line = "\n".join(typed)
    completed = _completed(line, ended, _bytes(lines[out_at + 1 : err_at]), _bytes(lines[err_at + 1 : end]))
    return Exchange(prompt["user"], prompt["host"], STATUS_ECHO.sub("", line), stdin, completed, comment), end


def _end_of_stderr(lines: list[str], at: int) -> int:
    """A block ends with an empty line before a prompt, a comment or the end of the file."""
    while at < len(lines):
        following = lines[at + 1] if at + 1 < len(lines) else ""
        is_next = following.startswith("#") or re.match(r"^\S+[$#] ", following) or at + 1 >= len(lines)
        if lines[at] == "" and is_next:
            return at
        at += 1
    return at


def _completed(line: str, ended: re.Match[str], stdout: bytes, stderr: bytes) -> Completed:
    status = -1 if ended["status"] == "None" else int(ended["status"])
    if STATUS_ECHO.search(line):
        text = stdout.decode("latin-1")
        said = STATUS.search(text)
        if said:
            status, stdout = int(said[1]), text[: said.start()].encode("latin-1")
    return Completed(status, stdout, stderr, None, float(ended["seconds"]))


def _bytes(lines: list[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape")


def typed(command: Command) -> str:
    """The command as a person would type it: `sudo -n postsuper -c /etc/postfix -d -`; a script by its name."""
    argv = command.argv if command.script is None else (command.script, *command.argv)
    return ("sudo -n " if command.become else "") + shlex.join(argv)


def _key(line: str) -> tuple[str, ...]:
    """The words of a recorded line, the program without its directory. A line the shell must parse stays one word."""
    try:
        words = shlex.split(line)
    except ValueError:
        return (line,)
    sudo = words[:2] == ["sudo", "-n"]
    rest = words[2:] if sudo else words
    return (
        *(("sudo",) if sudo else ()),
        *(word.rpartition("/")[2] if at == 0 else word for at, word in enumerate(rest)),
    )


class ReplayTransport:
    """Answers from a script: (argv or predicate, Completed) pairs, each used once, in any order but the first match.

    From a Recording: every command answers what was recorded for its line (sudo or root's prompt stand for `become`),
    the same line several times in their order. `sent` keeps what came. Dialogues answer from `transcripts` in order,
    DNS queries from `replies`.
    """

    def __init__(
        self,
        script: Recording | Iterable[tuple[Matcher, Completed]],
        transcripts: Sequence[Transcript] = (),
        replies: Sequence[DnsReply] = (),
    ) -> None:
        pairs = map(_recorded, script.exchanges) if isinstance(script, Recording) else script
        self._left: list[tuple[Matcher, Completed]] = list(pairs)
        self._transcripts = list(transcripts)
        self._replies = list(replies)
        self.sent: list[Command | Dialogue | DnsQuery] = []

    async def run(self, command: Command) -> Completed:
        """The recorded answer, fed through the command's sink. Raises ReplayMismatch naming an unknown command."""
        self.sent.append(command)
        for at, (matcher, completed) in enumerate(self._left):
            if matcher(command) if callable(matcher) else matcher == command.argv:
                del self._left[at]
                return _through_sink(command, completed)
        raise ReplayMismatch(f"not recorded, or used up: {typed(command)}")

    async def talk(self, dialogue: Dialogue) -> Transcript:
        """The next transcript. Raises ReplayMismatch when there is none left."""
        self.sent.append(dialogue)
        if not self._transcripts:
            raise ReplayMismatch(f"no dialogue recorded with {dialogue.address} port {dialogue.port}")
        return self._transcripts.pop(0)

    async def ask(self, query: DnsQuery) -> DnsReply:
        """The next reply. Raises ReplayMismatch when there is none left."""
        self.sent.append(query)
        if not self._replies:
            raise ReplayMismatch(f"no DNS reply recorded of {query.address}")
        return self._replies.pop(0)

    @property
    def unused(self) -> int:
        """How many answers nobody asked for."""
        return len(self._left)


def _recorded(exchange: Exchange) -> tuple[Matcher, Completed]:
    key = _key(exchange.line)
    if exchange.user == "root" and key[:1] != ("sudo",):
        key = ("sudo", *key)

    def matches(command: Command) -> bool:
        return _key(typed(command)) == key and exchange.stdin in (None, command.stdin, command.stdin.rstrip(b"\n"))

    return matches, exchange.completed


def _through_sink(command: Command, completed: Completed) -> Completed:
    if command.sink is None:
        return completed
    command.sink.feed(completed.stdout)
    return Completed(completed.exit_status, b"", completed.stderr, command.sink.close(), completed.duration)
