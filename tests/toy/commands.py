"""The command lines, and what sudo must allow for exactly these."""

from collections.abc import Iterable

from fleet.mta.host.commands import CHANGE_SECONDS, LISTING_SECONDS, Allowed, batched, script_argv
from fleet.mta.queue.driver import Reported
from fleet.mta.queue.outcome import Word
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Command, Sink, Steps, run
from tests.toy.parse import ids_input, words_of

LIST = "toy_list.sh"
CHANGE = "toy_change.sh"
ACTIONS = ("hold", "release", "delete", "out", "back", "erase")


def listing(instance: InstanceFacts, job: str, sink: Sink) -> Command:
    """The queue, or what lies in the quarantine of that job."""
    stdin = f"{job}\n".encode()
    return Command(instance.queue_dirs, script=LIST, stdin=stdin, become=True, timeout=LISTING_SECONDS, sink=sink)


def change_argv(instance: InstanceFacts, action: str) -> tuple[str, ...]:
    """How a plan shows `change`."""
    return script_argv(CHANGE, action, *instance.queue_dirs)


def change(instance: InstanceFacts, action: str, queue_ids: Iterable[str], job: str = "") -> Steps[Reported]:
    """Each by one rename or removal. `job`: whose quarantine it is about."""
    words: dict[str, Word] = {}
    for batch in batched(queue_ids):
        stdin = f"{job}\n".encode() + ids_input(batch)
        argv = (action, *instance.queue_dirs)
        command = Command(argv, script=CHANGE, stdin=stdin, become=True, mutates=True, timeout=CHANGE_SECONDS)
        words |= words_of((yield from run(command)), CHANGE)
    return Reported(words)


def sudo_commands(instance: InstanceFacts) -> list[Allowed]:
    """What sudo must allow."""
    changes = ((CHANGE_SECONDS, change_argv(instance, action)) for action in ACTIONS)
    return [(LISTING_SECONDS, script_argv(LIST, *instance.queue_dirs)), *changes]
