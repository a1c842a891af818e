"""What lies in the host's quarantine, whether a record tells of it or not. Reads only, and trusts nothing of it."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fleet.mta.errors import Conflict, UnparsedOutput
from fleet.mta.host.commands import error_of, reading, script_argv
from fleet.mta.records import Found, InQuarantine, InstanceFacts
from fleet.mta.steps import Steps, run

SCRIPT = "quarantine_find.sh"
MOST = 20_000
"""Messages that one look tells of."""
JOB = r"(?P<job>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
"""What matches the id of a job."""
END = re.compile(r"end [0-9]{1,9} ([0-9]{1,9}) ([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Layout:
    """How an MTA's quarantine lies in its queue directories: DIRECTORY/`top`JOB/`inner`QUEUE_ID is a message's place.

    `file`: of the file that makes a message, below its job's directory, with the group `id`. `job`: what may be a job's
    name there, with the group `job`; `name_of`: that name of a job. `directories`: as quarantine_find.sh takes them.
    `is_queue`: whether a directory is one of the instance's. `held`: the place of what is kept on hold in the queue.
    """

    file: str
    queue_id_error: Callable[[str], str | None]
    top: str = "mxfleet-quarantine/"
    inner: str = ""
    job: str = JOB
    name_of: Callable[[str], str] = str
    directories: Callable[[InstanceFacts], tuple[str, ...]] = lambda instance: instance.queue_dirs[:1]
    is_queue: Callable[[InstanceFacts, str], bool] = lambda instance, directory: directory == instance.queue_dirs[0]
    held: str | None = None

    def place(self, directory: str, job: str, queue_id: str) -> str:
        """Where a message of that queue directory lies."""
        return f"{directory}/{self.top}{self.name_of(job)}/{self.inner}{queue_id}"

    def places(self, instance: InstanceFacts, job: str, queue_ids: Iterable[str]) -> dict[str, str]:
        """The same for messages of the instance's first queue directory."""
        return {name: self.place(instance.queue_dirs[0], job, name) for name in queue_ids}

    def job_of(self, instance: InstanceFacts, place: str, queue_id: str) -> str:
        """The job's name in a place, "" for what is kept on hold. Raises Conflict for a place that is not here."""
        if place == self.held:
            return ""
        directory, _, rest = place.rpartition(f"/{self.top}")
        job = rest.partition("/")[0]
        if not self.is_queue(instance, directory) or place != self.place(directory, job, queue_id):
            raise Conflict(f"{place} is no quarantine of {instance.id}")
        return job


def find_argv(layout: Layout, instance: InstanceFacts) -> tuple[str, ...]:
    """The command line as sudo sees it; its time limit is READ_SECONDS."""
    return script_argv(SCRIPT, instance.mta, *layout.directories(instance))


def find(layout: Layout, instance: InstanceFacts) -> Steps[InQuarantine]:
    """Adapter.in_quarantine: runs quarantine_find.sh. Raises UnparsedOutput, SudoDenied and others."""
    command = reading(SCRIPT, (instance.mta, *layout.directories(instance)), most=4 << 20)
    done = yield from run(command)
    lines = done.stdout.decode("ascii", "replace").split("\n")
    end = END.fullmatch(lines[-2]) if len(lines) > 1 and lines[-1] == "" else None
    if done.exit_status:
        raise error_of(done, SCRIPT)
    if end is None:
        raise UnparsedOutput(f"{SCRIPT} did not come to its end")
    parsed = list(_parsed(lines[:-2], layout, instance))
    messages = sorted({each for each in parsed if each is not None})
    return InQuarantine(
        tuple(messages[:MOST]),
        more=int(end[1]) + len(messages[MOST:]),
        odd=int(end[2]) + sum(each is None for each in parsed),
    )


def _parsed(lines: list[str], layout: Layout, instance: InstanceFacts) -> Iterator[Found | None]:
    """Each line that names a file; None for what is no message of ours."""
    directory = ""
    shape = re.compile(f"{layout.top}{layout.job}/{layout.file}")
    for line in lines:
        if line.startswith("in "):
            directory = line.removeprefix("in ")
            continue
        path = shape.fullmatch(line.removeprefix("./"))
        if path is None or not layout.is_queue(instance, directory) or layout.queue_id_error(path["id"]):
            yield None
        else:
            yield Found(path["job"], path["id"], layout.place(directory, path["job"], path["id"]))
