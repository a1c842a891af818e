"""The command lines we use, in one place: what a plan shows, what runs and what sudo must allow are the same words.

smtpctl takes one ID per process, and every form of it that we need wants root: so each step is a script that runs
smtpctl for a batch of IDs, and the IDs go through stdin.
"""

from collections.abc import Iterable

from fleet.mta.host.commands import (
    CHANGE_SECONDS,
    LISTING_SECONDS,
    READ_SECONDS,
    Allowed,
    changing,
    reading,
    script_argv,
)
from fleet.mta.logs.source import log_source
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Command, Sink

BATCH = 1_000
"""Messages of one changing command: some 10 ms each on an idle machine, so that it ends well within its time."""
BACK_BATCH = 250
"""Messages of one restore: a paused one takes several smtpctl."""
DELIVER_SECONDS = 100
WAIT_SECONDS = 60  # after a 451 a route rests for up to 30 s (trap 43)

ACT = "opensmtpd_act.sh"
CONTENT = "opensmtpd_content.sh"
DELIVER = "opensmtpd_deliver.sh"
LIST = "opensmtpd_list.sh"
LOG = "opensmtpd_log.sh"
QUARANTINE = "opensmtpd_quarantine.sh"
UNTOUCHED = frozenset({1, 64, 66, 69, 73, 75, 76, 126, 127})
"""Exit status of a changing script that has changed nothing yet; 74 and all else: it broke off."""
ACTIONS = ("pause", "resume", "schedule")
MOVES = ("delete", "out", "back", "erase", "look")


def places(instance: InstanceFacts) -> tuple[str, str]:
    """smtpctl's path and the spool: the first arguments of every script."""
    return str(instance.options["program"]), instance.queue_dirs[0]


def smtpctl_argv(instance: InstanceFacts, *words: str) -> tuple[str, ...]:
    """How a plan shows what a script runs for every message."""
    return (str(instance.options["program"]), *words)


def listing(instance: InstanceFacts, sink: Sink) -> Command:
    return reading(LIST, places(instance), seconds=LISTING_SECONDS, sink=sink)


def act(instance: InstanceFacts, action: str, lines: Iterable[str]) -> Command:
    """`action`: one of ACTIONS; `lines`: "ID CREATED"."""
    return changing(ACT, (*places(instance), action), _input(lines), most=8 << 20)


def move(instance: InstanceFacts, action: str, job: str, lines: Iterable[str]) -> Command:
    """`action`: one of MOVES; `lines`: "ID CREATED", for `back` "ID schedule" or "ID wait"."""
    return changing(
        QUARANTINE,
        (*places(instance), action),
        f"{job}\n".encode() + _input(lines),
        most=8 << 20,
        mutates=action != "look",
    )


def deliver_arguments(instance: InstanceFacts) -> tuple[str, ...]:
    """The arguments of opensmtpd_deliver.sh."""
    return (*places(instance), log_source(instance), str(WAIT_SECONDS))


def _input(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def sudo_commands(instance: InstanceFacts) -> list[Allowed]:
    """What sudo must allow of these."""
    words = places(instance)
    forms = [
        (LISTING_SECONDS, LIST, words),
        (READ_SECONDS, CONTENT, words),
        *((CHANGE_SECONDS, ACT, (*words, action)) for action in ACTIONS),
        *((CHANGE_SECONDS, QUARANTINE, (*words, action)) for action in MOVES),
        (DELIVER_SECONDS, DELIVER, deliver_arguments(instance)),
    ]
    if log_source(instance) != "none":
        forms.append((READ_SECONDS, LOG, (log_source(instance),)))
    return [(seconds, script_argv(script, *arguments)) for seconds, script, arguments in forms]
