"""The command lines we use, in one place: what a plan shows, what runs and what sudo must allow are the same words.

The one script that changes the queue is qmail_change.sh; `change` runs it and reads what it says.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fleet.mta.errors import Conflict, DiskFull, MtaNotRunning, OutcomeUnknown, Unsupported
from fleet.mta.host.commands import (
    CHANGE_SECONDS,
    LISTING_SECONDS,
    READ_SECONDS,
    Allowed,
    changing,
    error_of,
    script_argv,
    whole_lines,
)
from fleet.mta.operations import Quarantined
from fleet.mta.qmail.address import bytes_of
from fleet.mta.records import InstanceFacts, QueueEntry
from fleet.mta.steps import Completed, Steps, run

LIST = "qmail_list.sh"
CONTENT = "qmail_content.sh"
CHANGE = "qmail_change.sh"
WATCH = "qmail_watch.sh"
STOP_SECONDS = 60
"""How long a running delivery may keep qmail-send from stopping before a change gives up."""
ACTIONS = ("delete", "hold", "quarantine", "release", "restore", "restore-try", "restore-held", "try", "bounce")
WITHOUT_STOP = ("erase", "look")
Wanted = QueueEntry | Quarantined

STOPS = (
    "qmail-send is stopped for this, usually for a few seconds, and started again: mail is accepted meanwhile and waits"
    f" in todo/; a delivery that takes longer than {STOP_SECONDS} s makes the operation give up, with nothing changed"
)
NOT_STOPPED = f"a delivery kept qmail-send from stopping for {STOP_SECONDS} seconds; nothing was changed"
VERDICT = re.compile(r"([1-9][0-9]*) (done|gone|left(?: .*)?|there)")
MARK = re.compile(r"log ([0-9]+) ([0-9]+)")
UP = re.compile(r": up \(pid \d+\)(?!.*want down)")
NOTES = {
    "settled": "a change that was cut off before has been put right, and qmail-send runs again if it had been running",
    "guardian session": (
        "systemd-run did not start the guardian in a scope of its own in time, so it stayed in the session: one that is"
        " ended with all its processes may leave qmail-send down until this queue is looked at again"
    ),
}
"""What the script says by a line of its own, for people."""
# Exit statuses of the script that say that nothing was changed.
REFUSALS: dict[int, Callable[[str], Exception]] = {
    69: lambda message: MtaNotRunning(f"qmail-send is not supervised: {message}"),
    73: lambda message: DiskFull(f"nothing was changed: {message}"),
    75: lambda message: Conflict(f"nothing was changed: {message}", hint="try again"),
}


def log_source(instance: InstanceFacts) -> str:
    """A multilog directory, a file or "none"; qmail has nothing to do with journald by itself."""
    source = str(instance.options.get("log_source") or "none")
    return source if source.startswith("/") else "none"


def change_words(instance: InstanceFacts, action: str) -> tuple[str, ...]:
    """The arguments of qmail_change.sh. Raises Unsupported when nothing supervises qmail-send here."""
    options = instance.options
    if not (options.get("service") and options.get("svc") and options.get("svstat")):
        raise Unsupported(
            "qmail-send is not run by daemontools here, so it cannot be stopped and started safely",
            hint="run qmail-send under supervise(8), then discover the host again",
        )
    programs = (options["service"], options["svc"], options["svstat"])
    return (action, instance.queue_dirs[0], *programs, log_source(instance), str(STOP_SECONDS))


def change_argv(instance: InstanceFacts, action: str) -> tuple[str, ...]:
    """How a plan shows a change."""
    return script_argv(CHANGE, *change_words(instance, action))


def sudo_commands(instance: InstanceFacts) -> list[Allowed]:
    """What sudo must allow of these."""
    queue = instance.queue_dirs[0]
    forms = [
        (LISTING_SECONDS, script_argv(LIST, queue)),
        (LISTING_SECONDS, script_argv(LIST, queue, "anyway")),
        (READ_SECONDS, script_argv(CONTENT, queue)),
    ]
    if instance.options.get("service"):
        forms += [(CHANGE_SECONDS, change_argv(instance, action)) for action in (*ACTIONS, *WITHOUT_STOP)]
    if log_source(instance) != "none":
        forms.append((READ_SECONDS, script_argv(WATCH, log_source(instance))))
    return forms


def ids_input(queue_ids: Iterable[str]) -> bytes:
    """Queue IDs for a script's stdin, one per line."""
    return "".join(f"{name}\n" for name in queue_ids).encode("ascii")


@dataclass(frozen=True, slots=True)
class Answer:
    """`verdicts`: by queue ID, with the reason of what was left. `is_stopping`: a delivery kept qmail-send from
    stopping. `status`: svstat's line afterwards. `mark`: inode and size of the log while qmail-send was down.
    `notes`: sentences for people."""

    verdicts: dict[str, str]
    is_stopping: bool = False
    was_up: bool = True
    status: str = ""
    mark: tuple[str, str] | None = None
    notes: tuple[str, ...] = ()

    def are(self, verdict: str) -> list[str]:
        """The queue IDs with this verdict."""
        return [name for name, words in self.verdicts.items() if words.partition(" ")[0] == verdict]

    @property
    def is_up(self) -> bool:
        """Whether qmail-send runs again; one that was down before is left down."""
        return not self.was_up or UP.search(self.status) is not None

    def check_running(self) -> None:
        """Raises OutcomeUnknown when qmail-send was not seen running again."""
        if not self.is_up:
            raise OutcomeUnknown(f"qmail-send was not seen running again: {self.status}")


def line_of(message: Wanted) -> bytes:
    """What names a message for the script: ID, size, time to the microsecond, sender as stored."""
    raw = message.sender_raw if isinstance(message, QueueEntry) else None
    sender = bytes_of(message.sender, raw).replace(b"\n", b"\x01")
    return f"{message.queue_id} {message.size} {message.arrival_time:.6f} ".encode() + sender + b"\n"


def change(instance: InstanceFacts, action: str, job: str, messages: Iterable[Wanted]) -> Steps[Answer]:
    """One run of the script. Without messages nothing is run, unless it only looks.

    Raises Conflict, DiskFull, MtaNotRunning (nothing was changed), OutcomeUnknown, Unsupported and others.
    """
    stdin = b"".join(line_of(each) for each in messages)
    if not stdin and action != "look":
        return Answer({}, was_up=False)  # nothing was stopped, so nothing has to run again
    command = changing(
        CHANGE,
        change_words(instance, action),
        f"{job or 'none'}\n".encode() + stdin + b"end\n",
        most=(1 << 20) + 128 * stdin.count(b"\n"),
        mutates=action != "look",
    )
    return parse_answer((yield from run(command)), stops=action not in WITHOUT_STOP)


def parse_answer(done: Completed, *, stops: bool) -> Answer:
    """The answer of qmail_change.sh. Raises OutcomeUnknown when it did not come to its end, and refusals."""
    message = done.stderr.decode("utf-8", "backslashreplace").strip().removeprefix("qmail_change: ")
    if done.exit_status in REFUSALS:
        raise REFUSALS[done.exit_status](message[:500])
    if done.exit_status:
        raise error_of(done, CHANGE)
    lines = whole_lines(done.stdout.decode("utf-8", "backslashreplace"))
    if lines is None or (stops and not "".join(lines[:1]).startswith("was ")):
        raise OutcomeUnknown(f"{CHANGE} did not come to its end")
    marks = [match for line in lines if (match := MARK.fullmatch(line))]
    return Answer(
        verdicts={match[1]: match[2] for line in lines if (match := VERDICT.fullmatch(line))},
        is_stopping="stopping" in lines,
        was_up="was up" in lines,
        status=next((line.removeprefix("now ") for line in lines if line.startswith("now ")), ""),
        mark=(marks[0][1], marks[0][2]) if marks else None,
        notes=tuple(note for line, note in NOTES.items() if line in lines),
    )


def reasons(answer: Answer) -> dict[str, str]:
    """Why messages were left, at most twenty of them."""
    return {name: answer.verdicts[name].removeprefix("left ") for name in answer.are("left")[:20]}
