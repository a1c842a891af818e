"""A page's commands, run in their order as a reader types them, and what the page shows of their answers.

Of fenced blocks, `sh` is typed as it stands and prints nothing; one without a language has `$ COMMAND` and, up to the
next, what it prints, where `...` stands for any lines; `python` is saved as the file that its first line names
(`# FILE`).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^```(?P<language>.*)\n(?P<text>(?:.*\n)*?)^```$", re.M)
END = "\x1e"
ANY_LINES = "..."
VARIES = (
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "(id)"),
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z", "(time)"),
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "(time)"),
    (r"\bsha256:[0-9a-f]{12,64}", "(digest)"),
    (r"\bSHA256:[\w+/]{43}", "(fingerprint)"),
    (r"\bAAAA[\w+/=]+", "(key)"),
    (r"\b(?:10|127)(?:\.\d+){3}(?::\d+)?", "(address)"),
    (r"\b\d+(?:\.\d+)? (?:s|min|[KM]iB)\b", "(amount)"),
)
"""What is another one each time: an answer has one of that kind at the same place."""


@dataclass(frozen=True)
class Step:
    """A command, the line of the page where it begins, and the lines that are shown of its answer."""

    line: int
    command: str
    shown: list[str] = field(default_factory=list)


def steps(page: str) -> Iterator[Step]:
    """All that a reader of the page types. Raises ValueError for a block that would not be run."""
    for block in FENCE.finditer(page):
        line = page.count("\n", 0, block.start()) + 2
        language, text = block["language"], block["text"]
        if language == "sh":
            yield Step(line, text)
        elif language == "python" and (named := re.match(r"# (\S+)\n", text)):
            yield Step(line, f"cat > {named[1]} <<'END OF FILE'\n{text}END OF FILE\n")
        elif language == "" and text.startswith("$ "):
            yield from _typed(text.splitlines(), line)
        else:
            raise ValueError(f"line {line}: a block that no test runs")


def _typed(lines: list[str], first: int) -> Iterator[Step]:
    at = 0
    while at < len(lines):
        begin, command = at, lines[at].removeprefix("$ ")
        while not _is_whole(command):
            at += 1
            command += "\n" + lines[at]
        at += 1
        shown = at
        while at < len(lines) and not lines[at].startswith("$ "):
            at += 1
        yield Step(first + begin, command, lines[shown:at])


def _is_whole(command: str) -> bool:
    """The shell wants no further line."""
    if command.endswith("\\"):
        return False
    said = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
    return said.returncode == 0 and not said.stderr


def follow(page: Path, directory: Path, environment: Mapping[str, str], address: str) -> None:
    """Type the page in that directory, against the service at `address` (HOST:PORT). Fails at the first step which the
    shell ends with another status than 0, or which does not answer as the page shows."""
    typed = [*steps(page.read_text())]
    script = "set -o pipefail\n" + "".join(_guarded(step.command) for step in typed)
    file = directory / f"{page.stem}.bash"
    file.write_text(script.replace("127.0.0.1:8000", address))
    done = subprocess.run(
        ["bash", file], cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    answers = done.stdout.split(END)
    for step, answer in zip(typed, answers, strict=False):
        where = f"{page.name}, line {step.line}: {step.command}"
        told = answer.splitlines()
        assert fits(told, step.shown), "\n".join([where, "--- shown", *step.shown, "--- told", *told])
    if len(answers) <= len(typed):
        last = typed[len(answers) - 1]
        told = f"ended with {done.returncode}: {last.command}\n{answers[-1]}"
        raise AssertionError(f"{page.name}, line {last.line}: {told}")


def _guarded(command: str) -> str:
    """In braces, where what it sets stays set; without the script as its input."""
    return f"{{ {command.rstrip()}\n}} </dev/null || exit\nprintf '\\036'\n"


def fits(told: list[str], shown: list[str]) -> bool:
    """What was told is what is shown, but for what varies."""
    parts = [re.escape(_steady(line)) if line != ANY_LINES else None for line in shown]
    pattern = "".join("(?:.*\n)*" if part is None else part + "\n" for part in parts)
    return re.fullmatch(pattern, "".join(_steady(line) + "\n" for line in told)) is not None


def _steady(line: str) -> str:
    for pattern, name in VARIES:
        line = re.sub(pattern, name, line)
    return line.rstrip()
