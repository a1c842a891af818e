"""The command lines we use, in one place: what a plan shows, what runs and what sudo must allow are the same words.

`-c DIR` always stands right after the command name: without it every tool sees the default instance only.
"""

from collections.abc import Iterable

from fleet.mta.host.commands import CHANGE_SECONDS, LISTING_SECONDS, READ_SECONDS, Allowed, batched, script_argv
from fleet.mta.logs.source import log_source
from fleet.mta.postfix.parse import ids_input
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Command, Completed, Sink, Steps, run

ATTEMPTS = 5_000  # postqueue -i takes one at a time
DELIVER_SECONDS = 100
WAIT_SECONDS = 60

# postsuper(1): a flag and the one queue directory in which it may act. Its rename(2) fails when the queue manager was
# faster, so a message that is being delivered (active) is never touched.
POSTSUPER_FORMS = (("-h", "deferred"), ("-d", "hold"), ("-H", "hold"), ("-r", "hold"), ("-e", "hold"))
STDERR_PER_MESSAGE = 80

ATTEMPT = "postfix_attempt.sh"
CONTENT = "postfix_content.sh"
DELIVER = "postfix_deliver.sh"
LOG = "postfix_log.sh"
QUARANTINE = "postfix_quarantine.sh"
ROUTE = "postfix_route.sh"
TIMES = "postfix_times.sh"


def program(instance: InstanceFacts, name: str) -> str:
    """Absolute path of one of Postfix's commands on that host."""
    return f"{instance.options['command_directory']}/{name}"


def postqueue(instance: InstanceFacts, *arguments: str, sink: Sink | None = None) -> Command:
    """A reading postqueue. As root only where authorized_mailq_users does not let everybody look."""
    return Command(
        (program(instance, "postqueue"), "-c", instance.config_dir, *arguments),
        become=bool(instance.options.get("list_as_root")),
        timeout=LISTING_SECONDS,
        sink=sink,
    )


def flush_all(instance: InstanceFacts, *arguments: str) -> Command:
    """`postqueue -f` or `postqueue -s DOMAIN`: attempts, now."""
    return Command(
        (program(instance, "postqueue"), "-c", instance.config_dir, *arguments),
        become=bool(instance.options.get("flush_as_root")),
        mutates=True,
        timeout=READ_SECONDS,
    )


def wake_pickup(instance: InstanceFacts) -> Command:
    """Has pickup(8) look into maildrop now; by itself it does so once a minute (postkick(1), master.cf)."""
    argv = (program(instance, "postkick"), "-c", instance.config_dir, "public", "pickup", "W")
    return Command(argv, become=True, mutates=True, is_hint=True)


def postsuper_argv(instance: InstanceFacts, flag: str, queue: str) -> tuple[str, ...]:
    return (program(instance, "postsuper"), "-c", instance.config_dir, flag, "-", queue)


def postsuper(instance: InstanceFacts, flag: str, queue: str, queue_ids: Iterable[str]) -> Command:
    """One postsuper for all the queue IDs, acting in the one queue directory only."""
    stdin = ids_input(queue_ids)
    return Command(
        postsuper_argv(instance, flag, queue),
        stdin=stdin,
        become=True,
        mutates=True,
        timeout=CHANGE_SECONDS,
        max_output=(1 << 20) + STDERR_PER_MESSAGE * stdin.count(b"\n"),
    )


def attempt_argv(instance: InstanceFacts) -> tuple[str, ...]:
    """How a plan shows `attempt`."""
    return (program(instance, "postqueue"), "-c", instance.config_dir, "-i", "QUEUE_ID...")


def attempt(instance: InstanceFacts, queue_ids: Iterable[str]) -> Steps[Completed | None]:
    """`postqueue -i` for each: asks for an attempt now; it says nothing, whatever becomes of it. Held ones never move.

    Returns the last command, which is the first that failed; without queue IDs nothing is run.
    """
    done = None
    for batch in batched(queue_ids, ATTEMPTS):
        done = yield from run(
            Command(
                (program(instance, "postqueue"), instance.config_dir),
                script=ATTEMPT,
                stdin=ids_input(batch),
                become=bool(instance.options.get("flush_as_root")),
                mutates=True,
                timeout=CHANGE_SECONDS,
            )
        )
        if done.exit_status:
            break
    return done


def sudo_commands(instance: InstanceFacts) -> list[Allowed]:
    """What sudo must allow of these."""
    commands = [(CHANGE_SECONDS, postsuper_argv(instance, flag, queue)) for flag, queue in POSTSUPER_FORMS]
    commands.append((wake_pickup(instance).timeout, wake_pickup(instance).argv))
    if instance.options.get("list_as_root"):
        commands += [(LISTING_SECONDS, postqueue(instance, flag).argv) for flag in ("-j", "-p")]
    if instance.options.get("flush_as_root"):
        commands.append((READ_SECONDS, flush_all(instance, "-f").argv))
        attempt_words = (program(instance, "postqueue"), instance.config_dir)
        commands.append((CHANGE_SECONDS, script_argv(ATTEMPT, *attempt_words)))
    return [*commands, *_script_commands(instance)]


def _script_commands(instance: InstanceFacts) -> list[Allowed]:
    queue = instance.queue_dirs[0]
    log = log_source(instance)
    postconf = (instance.options["command_directory"], instance.config_dir)
    forms: list[tuple[int, str, tuple[str, ...]]] = [
        (CHANGE_SECONDS, QUARANTINE, (action, queue)) for action in ("out", "back", "erase", "look")
    ]
    forms += [(READ_SECONDS, CONTENT, postconf), (READ_SECONDS, ROUTE, postconf), (READ_SECONDS, TIMES, (queue,))]
    forms.append((DELIVER_SECONDS, DELIVER, deliver_arguments(instance)))
    if log != "none":
        forms.append((READ_SECONDS, LOG, (log,)))
    return [(seconds, script_argv(script, *words)) for seconds, script, words in forms]


def deliver_arguments(instance: InstanceFacts) -> tuple[str, ...]:
    """The arguments of postfix_deliver.sh."""
    queue = instance.queue_dirs[0]
    return (program(instance, "postqueue"), instance.config_dir, queue, log_source(instance), str(WAIT_SECONDS))
