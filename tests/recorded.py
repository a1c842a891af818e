"""Recorded sessions (tests/transcripts): what real hosts answered to commands that a person typed, for all MTAs."""

import re
from dataclasses import dataclass
from pathlib import Path

from fleet.mta.steps import Completed

TRANSCRIPTS = Path(__file__).parent / "transcripts"
BLOCK = re.compile(
    rb"^(?P<who>[^\s#]\S*)[$#] (?P<line>.*(?:\n(?!--- ).*)*)\n(?:--- stdin\n(?s:.*?))?"
    rb"--- exit (?P<status>-?\d+|None) +(?P<seconds>[\d.]+) s\n"
    rb"--- stdout\n(?P<stdout>(?s:.*?))--- stderr\n(?P<stderr>(?s:.*?))(?=\n(?:#|\S+[$#] )|\n?\Z)",
    re.M,
)
STATUS_ECHO = re.compile(r"; *echo rc=\$\?$")  # how a status was kept that the shell would have hidden
STATUS = re.compile(rb"^rc=(\d+)\n\Z", re.M)


@dataclass(frozen=True)
class Exchange:
    """One recorded command: `line` as typed, without prompt and `echo rc=$?`."""

    line: str
    completed: Completed


def exchanges(session: str) -> list[Exchange]:
    """What was typed on the host in a session such as "postfix-3.7/05-delete". ValueError when it is no transcript."""
    return parse((TRANSCRIPTS / f"{session}.txt").read_bytes())


def exchange(session: str, *parts: str) -> Completed:
    """What was answered to the first command that has all these parts."""
    return next(each.completed for each in exchanges(session) if all(part in each.line for part in parts))


def parse(text: bytes) -> list[Exchange]:
    """The commands typed on a host (`user@host$`, not `ctl$`). ValueError when a block is broken, or there is none."""
    blocks = list(BLOCK.finditer(text))
    if len(blocks) != len(re.findall(rb"^--- exit ", text, re.M)) or not blocks:
        raise ValueError("a command needs a prompt, '--- exit', '--- stdout' and '--- stderr'")
    return [_exchange(block) for block in blocks if b"@" in block["who"]]


def _exchange(block: re.Match[bytes]) -> Exchange:
    line = block["line"].decode("utf-8", "surrogateescape")
    status, stdout = block["status"], block["stdout"]
    if STATUS_ECHO.search(line) and (said := STATUS.search(stdout)):
        status, stdout = said[1], stdout[: said.start()]
    ended = Completed(-1 if status == b"None" else int(status), stdout, block["stderr"], None, float(block["seconds"]))
    return Exchange(STATUS_ECHO.sub("", line), ended)
