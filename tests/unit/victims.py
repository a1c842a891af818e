"""Programs that our scripts run, one of which is ended by a signal at one of its calls, as by a kernel out of room."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

COUNTED = """#!/bin/sh
program=${{0##*/}}
count=0
[ ! -e {tools}/calls/$program ] || read -r count <{tools}/calls/$program
count=$((count + 1))
echo "$count" >{tools}/calls/$program
real={tools}/real/$program
[ -e "$real" ] || real=/usr/bin/$program
read -r victim when how <{tools}/victim
if [ "$program $count" = "$victim $when" ]; then
    case $how in
    after) "$real" "$@" ;;
    half) "$real" "$1" "$2" "$3" "$4" "$5" ;; # of the words that a lot of files stands behind
    esac
    kill -KILL $$
fi
exec "$real" "$@"
"""
PROGRAMS = """awk cat date find flock grep head mkdir mv readlink rm rmdir sed setsid sleep sort stat sync tail timeout
    touch tr xargs"""


@dataclass(frozen=True)
class Victim:
    """`when`: its calls are counted from 1. `how`: before it does anything, half done, or after it."""

    program: str
    when: int
    how: str = "before"


class Tools:
    """A directory of such programs. `others`: stand-ins of the test, which are wrapped in place."""

    def __init__(self, directory: Path, others: Iterable[Path] = ()) -> None:
        self.path = directory
        for name in ("calls", "real"):
            (directory / name).mkdir(parents=True)
        text = COUNTED.format(tools=directory)
        for other in others:
            other.rename(directory / "real" / other.name)
            other.write_text(text)
            other.chmod(0o755)
        for name in PROGRAMS.split():
            (directory / name).write_text(text)
            (directory / name).chmod(0o755)
        self.choose(None)

    def choose(self, victim: Victim | None) -> None:
        """Whom to end from now on; the calls are counted anew."""
        for path in (self.path / "calls").iterdir():
            path.unlink()
        text = f"{victim.program} {victim.when} {victim.how}\n" if victim else "nobody 0 before\n"
        (self.path / "victim").write_text(text)

    def victims(self) -> list[Victim]:
        """Every call since `choose`, as one that can be ended."""
        called = {path.name: int(path.read_text()) for path in sorted((self.path / "calls").iterdir())}
        return [
            Victim(name, when, how)
            for name, count in called.items()
            for when in range(1, count + 1)
            for how in (("before", "half", "after") if name in ("mv", "rm") else ("before", "after"))
        ]
