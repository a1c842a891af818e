"""The command lines we use, in one place: what a plan shows, what runs and what sudo must allow are the same words.

A message ID is never an argument of sudo: IDs go through stdin to scripts with literal arguments. A rule with a wildcard
for exim would be a root shell (`-be '${run{...}}'`).
"""

from collections.abc import Iterable

from fleet.mta.commands import CHANGE_SECONDS, LISTING_SECONDS, READ_SECONDS, chunks, script_argv, sudoers_line
from fleet.mta.exim.parse import ids_input, parse_verdicts
from fleet.mta.types import Command, InstanceFacts, Sink, Steps, run

LOT = 4_000  # freezing rewrites and syncs a file per message
DELIVER_SECONDS = 100
WAIT_SECONDS = 60

FLAGS = ("-Mf", "-Mt", "-Mrm")

LIST = "exim_list.sh"
CONTENT = "exim_content.sh"
CHANGE = "exim_change.sh"
QUARANTINE = "exim_quarantine.sh"
DELIVER = "exim_deliver.sh"
ATTEMPT = "exim_attempt.sh"
TIMES = "exim_times.sh"
BOUNCE = "exim_bounce.sh"


def program(instance: InstanceFacts) -> str:
    return str(instance.options["program"])


def spool(instance: InstanceFacts) -> str:
    return instance.queue_dirs[0]


def listing(instance: InstanceFacts, queue: str, sink: Sink) -> Command:
    """The main queue for an empty name, or one of our named queues."""
    return Command(
        (spool(instance),),
        script=LIST,
        stdin=f"{queue}\n".encode(),
        become=True,
        timeout=LISTING_SECONDS,
        sink=sink,
    )


def change_argv(instance: InstanceFacts, flag: str) -> tuple[str, ...]:
    """How a plan shows `change`."""
    return (program(instance), flag, "ID...")


def change(instance: InstanceFacts, flag: str, queue_ids: Iterable[str]) -> Steps[frozenset[str]]:
    """`exim -Mf`, `-Mt` or `-Mrm` for each lot. Returns the IDs that Exim says it changed; without IDs nothing is run.

    Exim locks each message first, so what is being delivered is refused ("is locked") and left alone.
    """
    said: set[str] = set()
    for lot in chunks(queue_ids, LOT):
        stdin = ids_input(lot)
        command = Command(
            (program(instance), flag),
            script=CHANGE,
            stdin=stdin,
            become=True,
            mutates=True,
            timeout=CHANGE_SECONDS,
            max_output=(1 << 20) + 200 * len(lot),
        )
        said |= parse_verdicts((yield from run(command)))
    return frozenset(said)
