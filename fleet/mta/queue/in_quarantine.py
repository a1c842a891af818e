"""What lies in the host's quarantine, whether a record tells of it or not. Reads only, and trusts nothing of it."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fleet.mta.errors import UnparsedOutput
from fleet.mta.host.commands import READ_SECONDS, error_of, script_argv
from fleet.mta.records import Found, InQuarantine, InstanceFacts
from fleet.mta.steps import Command, Steps, run

SCRIPT = "quarantine_find.sh"
MOST = 20_000
"""Messages that one look tells of."""
JOB = r"(?P<job>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
"""In a `Shape`: the id of a job."""
END = re.compile(r"end [0-9]{1,9} ([0-9]{1,9}) ([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Shape:
    """How an MTA's quarantine lies in its queue directories.

    `path`: of a message's file below the queue directory, with the groups `job` and `id`. `place`: from directory, job
    and queue ID. `is_queue`: whether a directory is one of the instance's.
    """

    path: re.Pattern[str]
    place: Callable[[str, str, str], str]
    queue_id_error: Callable[[str], str | None]
    is_queue: Callable[[str], bool]


def find_argv(instance: InstanceFacts, directories: tuple[str, ...]) -> tuple[str, ...]:
    """The command line as sudo sees it; its time limit is READ_SECONDS."""
    return script_argv(SCRIPT, instance.mta, *directories)


def find(instance: InstanceFacts, directories: tuple[str, ...], shape: Shape) -> Steps[InQuarantine]:
    """Runs quarantine_find.sh. Raises UnparsedOutput, SudoDenied and others."""
    command = Command(
        (instance.mta, *directories), script=SCRIPT, become=True, timeout=READ_SECONDS, max_output=4 << 20
    )
    done = yield from run(command)
    lines = done.stdout.decode("ascii", "replace").split("\n")
    end = END.fullmatch(lines[-2]) if len(lines) > 1 and lines[-1] == "" else None
    if done.exit_status:
        raise error_of(done, SCRIPT)
    if end is None:
        raise UnparsedOutput(f"{SCRIPT} did not come to its end")
    told = list(_told(lines[:-2], shape))
    found = sorted({each for each in told if each is not None})
    return InQuarantine(
        tuple(found[:MOST]), more=int(end[1]) + len(found[MOST:]), odd=int(end[2]) + sum(each is None for each in told)
    )


def _told(lines: list[str], shape: Shape) -> Iterator[Found | None]:
    """Each line that names a file; None for what is no message of ours."""
    directory = ""
    for line in lines:
        if line.startswith("in "):
            directory = line.removeprefix("in ")
            continue
        path = shape.path.fullmatch(line.removeprefix("./"))
        if path is None or not shape.is_queue(directory) or shape.queue_id_error(path["id"]):
            yield None
        else:
            yield Found(path["job"], path["id"], shape.place(directory, path["job"], path["id"]))
