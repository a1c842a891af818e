"""What the mail log says about a message. Never by syslog tag: master.cf may rename it per service (trap 16)."""

import re
from collections.abc import Iterable, Sequence

from fleet.mta.bounds import ID_MOST
from fleet.mta.errors import UnparsedOutput
from fleet.mta.host.commands import READ_SECONDS
from fleet.mta.postfix.commands import LOG, log_source
from fleet.mta.postfix.parse import error_of
from fleet.mta.queue.delivery import Attempt
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Command, Completed, Steps, run

# The first "TAG[PID]: ID: " of a line. Address and reply are others' texts: a line in which the middle part occurs
# twice could be read in two ways and is not read at all.
MIDDLE = (
    r">, (?:orig_to=<.*?>, )?relay=(?P<relay>[^ ]*), (?:conn_use=\d+, )?"
    r"delay=[\d.]+, delays=[\d./]+, dsn=[\d.]+, status=(?P<status>[a-z]+) \("
)
STATUS = re.compile(r"[^\]]*\[\d+\]: (?P<id>[0-9A-Za-z]+): to=<(?P<to>.*?)" + MIDDLE + r"(?P<reply>.*)\)$")
ONCE = re.compile(MIDDLE)
RETURNED = re.compile(r"[^\]]*\[\d+\]: ([0-9A-Za-z]+): from=<.*?>, status=(?:force-)?expired, returned to sender$")
REQUEUED = re.compile(rf"[^\]]*\[\d+\]: ([0-9A-Za-z]{{6,{ID_MOST}}}): uid=\d+ from=<.*> orig_id=([0-9A-Za-z]+)$")


def log_lines(instance: InstanceFacts, texts: Iterable[str]) -> Steps[list[str]]:
    """The log's lines that contain any of the texts; none where no log is known. Raises UnparsedOutput, SudoDenied."""
    stdin = "".join(f"{text}\n" for text in texts).encode()
    if not stdin or log_source(instance) == "none":
        return []
    command = Command(
        (log_source(instance),),
        script=LOG,
        stdin=stdin,
        become=True,
        timeout=READ_SECONDS,
        max_output=64 << 20,
    )
    return parse_lines((yield from run(command)), LOG)


def parse_lines(done: Completed, program: str) -> list[str]:
    """Lines up to "end". Raises UnparsedOutput without it."""
    if done.exit_status:
        raise error_of(done, program)
    lines = done.stdout.decode("utf-8", "backslashreplace").split("\n")
    if lines[-2:] != ["end", ""]:
        raise UnparsedOutput(f"{program} did not come to its end")
    return lines[:-2]


def attempts_of(lines: Sequence[str], queue_id: str) -> dict[str, Attempt]:
    """The last attempt for each recipient of the message."""
    found: dict[str, Attempt] = {}
    for line in lines:
        told = STATUS.match(line)
        if told and told["id"] == queue_id and len(ONCE.findall(line)) == 1:
            found[told["to"]] = Attempt(told["to"], told["status"], told["relay"], told["reply"])
    return found


def returned(lines: Sequence[str]) -> frozenset[str]:
    """The queue IDs that the queue manager says it returned to their senders."""
    return frozenset(told[1] for line in lines if (told := RETURNED.match(line)))


def requeued(lines: Sequence[str]) -> dict[str, str]:
    """Old queue ID to the new one, as pickup(8) logs it."""
    return {told[2]: told[1] for line in lines if (told := REQUEUED.match(line))}
