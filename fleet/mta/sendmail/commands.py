"""The command lines we use, in one place: what a plan shows, what runs and what sudo must allow are the same words."""

from fleet.mta.host.commands import (
    CHANGE_SECONDS,
    LISTING_SECONDS,
    READ_SECONDS,
    Allowed,
    changing,
    reading,
    script_argv,
)
from fleet.mta.records import InstanceFacts
from fleet.mta.sendmail.discovery import NO_CLIENT
from fleet.mta.steps import Command, Sink

READ = "sendmail_read.sh"
CHANGE = "sendmail_change.sh"
RUN = "sendmail_run.sh"

BATCH = 2_500
"""Messages of one changing command: each costs a flock(1), a hold a rename besides."""
RUN_LOT = 500
"""Messages of one queue run: they are attempted one after the other."""
RUN_SECONDS = 90
DELIVER_SECONDS = 100
ANSWER_PER_MESSAGE = 4 * 64


def queues(instance: InstanceFacts) -> tuple[str, ...]:
    """The scripts' last arguments: client queue and queue directories as the configuration has them."""
    return (instance.options["client_queue"] or NO_CLIENT, *instance.options["queue_patterns"])


def read(
    instance: InstanceFacts, action: str, *, stdin: bytes = b"", sink: Sink | None = None, room: int = 0
) -> Command:
    """sendmail_read.sh: reads, as root, because nobody else may."""
    return reading(
        READ,
        (action, *queues(instance)),
        stdin,
        seconds=READ_SECONDS if stdin else LISTING_SECONDS,
        most=(1 << 20) + room,
        sink=sink,
    )


def change(instance: InstanceFacts, action: str, stdin: bytes) -> Command:
    """sendmail_change.sh for one batch of messages."""
    return changing(
        CHANGE,
        (action, *queues(instance)),
        stdin,
        most=(32 << 20) + ANSWER_PER_MESSAGE * stdin.count(b"\n"),
        mutates=action != "look",
    )


def change_argv(instance: InstanceFacts, action: str) -> tuple[str, ...]:
    """How a plan shows `change`."""
    return script_argv(CHANGE, action, *queues(instance))


def _run_arguments(instance: InstanceFacts, action: str) -> tuple[str, ...]:
    return (action, instance.options["program"], instance.options["config_file"], *queues(instance))


def run_queue(instance: InstanceFacts, action: str, stdin: bytes) -> Command:
    """sendmail_run.sh: Sendmail works on these messages now."""
    return changing(RUN, _run_arguments(instance, action), stdin, most=8 << 20)


def run_argv(instance: InstanceFacts, action: str) -> tuple[str, ...]:
    """How a plan shows `run_queue`."""
    return script_argv(RUN, *_run_arguments(instance, action))


def sudo_commands(instance: InstanceFacts) -> list[Allowed]:
    """What sudo must allow of these."""
    forms = [(30, script_argv(READ, "dirs", NO_CLIENT, *instance.options["queue_patterns"]))]
    readings = (("list", LISTING_SECONDS), ("headers", LISTING_SECONDS), ("contents", READ_SECONDS))
    forms += [(seconds, script_argv(READ, action, *queues(instance))) for action, seconds in readings]
    actions = ("hold", "release", "delete", "out", "back", "erase", "look")
    forms += [(CHANGE_SECONDS, change_argv(instance, action)) for action in actions]
    return [*forms, *((CHANGE_SECONDS, run_argv(instance, action)) for action in ("deliver", "attempt", "bounce"))]
