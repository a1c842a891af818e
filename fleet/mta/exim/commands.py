"""The command lines we use, in one place: what a plan shows, what runs and what sudo must allow are the same words.

A message ID is never an argument of sudo: IDs go through stdin to scripts with literal arguments. A rule with a
wildcard for exim would be a root shell (`-be '${run{...}}'`).
"""

from collections.abc import Iterable

from fleet.mta.exim.parse import Verdicts, error_of, ids_input, parse_verdicts
from fleet.mta.host.commands import (
    CHANGE_SECONDS,
    LISTING_SECONDS,
    READ_SECONDS,
    Allowed,
    batched,
    changing,
    lines_of,
    reading,
    script_argv,
)
from fleet.mta.queue.content import HEADERS
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Command, Sink, Steps, run

BATCH = 4_000  # freezing rewrites and syncs a file per message
ATTEMPTS = 1_000  # a process and a dialogue for each
ATTEMPT_SECONDS = 90
DELIVER_SECONDS = 100
WAIT_SECONDS = 60
LISTED_HEADERS = 128 << 20
"""Bytes of headers of one listing; those of further messages are read by themselves."""

FLAGS = ("-Mf", "-Mt", "-Mrm")

LIST = "exim_list.sh"
CONTENT = "exim_content.sh"
CHANGE = "exim_change.sh"
QUARANTINE = "exim_quarantine.sh"
DELIVER = "exim_deliver.sh"
ATTEMPT = "exim_attempt.sh"
BOUNCE = "exim_bounce.sh"


def program(instance: InstanceFacts) -> str:
    return str(instance.options["program"])


def spool(instance: InstanceFacts) -> str:
    return instance.queue_dirs[0]


def listing(instance: InstanceFacts, queue: str, sink: Sink, *, headers: bool = False) -> Command:
    """The main queue for an empty name, or one of our named queues. `headers`: the messages' headers with them."""
    limits = f"{HEADERS} {LISTED_HEADERS}\n" if headers else ""
    return reading(LIST, (spool(instance),), f"{queue}\n{limits}".encode(), seconds=LISTING_SECONDS, sink=sink)


def change_argv(instance: InstanceFacts, flag: str) -> tuple[str, ...]:
    """How a plan shows `change`."""
    return (program(instance), flag, "ID...")


def change(instance: InstanceFacts, flag: str, queue_ids: Iterable[str]) -> Steps[Verdicts]:
    """`exim -Mf`, `-Mt` or `-Mrm` for each batch; without IDs nothing is run.

    Exim locks each message first, so what is being delivered is refused ("is locked") and left alone.
    """
    return (yield from _in_batches(CHANGE, (program(instance), flag), b"", batched(queue_ids, BATCH)))


def quarantine(instance: InstanceFacts, action: str, job: str, queue_ids: Iterable[str]) -> Steps[Verdicts]:
    """Moves messages to the job's named queue (`out`), back, or removes them from it (`erase`).

    Runs once without IDs too: what an earlier move left that was cut off is tidied up first.
    """
    argv = (action, program(instance), spool(instance))
    return (yield from _in_batches(QUARANTINE, argv, f"{job}\n".encode(), list(batched(queue_ids, BATCH)) or [()]))


def _in_batches(script: str, argv: tuple[str, ...], head: bytes, batches: Iterable[tuple[str, ...]]) -> Steps[Verdicts]:
    verdicts = Verdicts()
    for batch in batches:
        command = changing(script, argv, head + ids_input(batch), most=(1 << 20) + 300 * len(batch))
        verdicts |= parse_verdicts((yield from run(command)))
    return verdicts


def attempt(instance: InstanceFacts, queue_ids: Iterable[str]) -> Steps[Verdicts]:
    """`exim -qf ID ID` for each: an attempt now, never of a frozen one. Changed are those that Exim says it began."""
    return (yield from _confirmed(ATTEMPT, "begun", instance, queue_ids))


def bounce(instance: InstanceFacts, queue_ids: Iterable[str]) -> Steps[Verdicts]:
    """`exim -Mg` for each. Changed are those that Exim says it cancelled."""
    return (yield from _confirmed(BOUNCE, "cancelled", instance, queue_ids))


def _confirmed(script: str, word: str, instance: InstanceFacts, queue_ids: Iterable[str]) -> Steps[Verdicts]:
    confirmed: set[str] = set()
    for batch in batched(queue_ids, ATTEMPTS):
        command = changing(
            script, (program(instance), str(ATTEMPT_SECONDS)), ids_input(batch), most=(1 << 20) + 60 * len(batch)
        )
        lines = lines_of((yield from run(command)), script, error_of)
        confirmed.update(line.removeprefix(f"{word} ") for line in lines if line.startswith(f"{word} "))
    return Verdicts(frozenset(confirmed))


def deliver(instance: InstanceFacts, queue_id: str) -> Command:
    """One attempt with its dialogue."""
    return changing(
        DELIVER, (program(instance), str(WAIT_SECONDS)), ids_input([queue_id]), seconds=DELIVER_SECONDS, most=4 << 20
    )


def sudo_commands(instance: InstanceFacts) -> list[Allowed]:
    """What sudo must allow of these."""
    exim, queue = program(instance), spool(instance)
    return [
        (LISTING_SECONDS, script_argv(LIST, queue)),
        (READ_SECONDS, script_argv(CONTENT, queue)),
        *((CHANGE_SECONDS, script_argv(CHANGE, exim, flag)) for flag in FLAGS),
        *((CHANGE_SECONDS, script_argv(QUARANTINE, each, exim, queue)) for each in ("out", "back", "erase")),
        *((CHANGE_SECONDS, script_argv(each, exim, str(ATTEMPT_SECONDS))) for each in (ATTEMPT, BOUNCE)),
        (DELIVER_SECONDS, script_argv(DELIVER, exim, str(WAIT_SECONDS))),
    ]
