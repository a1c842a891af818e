"""The command lines we use, in one place: what a plan shows, what runs and what sudo must allow are the same words."""

from collections.abc import Iterable

from fleet.mta.errors import Unsupported
from fleet.mta.host.commands import CHANGE_SECONDS, LISTING_SECONDS, READ_SECONDS, script_argv, sudoers_line
from fleet.mta.qmail import blocks, logs, routes
from fleet.mta.queue.in_quarantine import find_argv
from fleet.mta.records import InstanceFacts

LIST = "qmail_list.sh"
CONTENT = "qmail_content.sh"
CHANGE = "qmail_change.sh"
WATCH = "qmail_watch.sh"
STOP_SECONDS = 60
"""How long a running delivery may keep qmail-send from stopping before a change gives up."""
ACTIONS = ("delete", "hold", "quarantine", "release", "restore", "restore-try", "restore-held", "try", "bounce")
WITHOUT_STOP = ("erase", "look")


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


def sudoers(instance: InstanceFacts, user: str) -> tuple[str, ...]:
    """Lines for sudoers(5), literal down to the last word: IDs and limits go through stdin, so nothing is a wildcard.

    The helper scripts must be installed, owned by root, in HELPERS.
    """
    queue = instance.queue_dirs[0]
    forms: list[tuple[int, tuple[str, ...]]] = [
        (LISTING_SECONDS, script_argv(LIST, queue)),
        (LISTING_SECONDS, script_argv(LIST, queue, "anyway")),
        (READ_SECONDS, script_argv(CONTENT, queue)),
        (READ_SECONDS, find_argv(instance, (queue,))),
    ]
    if instance.options.get("service"):
        forms += [(CHANGE_SECONDS, change_argv(instance, action)) for action in (*ACTIONS, *WITHOUT_STOP)]
    if log_source(instance) != "none":
        forms.append((READ_SECONDS, script_argv(WATCH, log_source(instance))))
    forms += [*blocks.sudo_commands(instance), *logs.sudo_commands(instance), *routes.sudo_commands(instance)]
    return tuple(sudoers_line(user, seconds, argv) for seconds, argv in forms)


def ids_input(queue_ids: Iterable[str]) -> bytes:
    """Queue IDs for a script's stdin, one per line."""
    return "".join(f"{name}\n" for name in queue_ids).encode("ascii")
