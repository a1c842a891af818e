"""The command lines we use, in one place: what a plan shows, what runs and what sudo must allow are the same words.

`-c DIR` always stands right after the command name: without it every tool sees the default instance only.
"""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from fleet.mta.postfix.parse import ids_input
from fleet.mta.types import Command, Completed, InstanceFacts, Sink, Steps, run

SCRIPTS = Path(__file__).parent.parent / "scripts"
HELPERS = "/usr/local/libexec/mxfleet"

LISTING_SECONDS = 240
CHANGE_SECONDS = 300
READ_SECONDS = 120
DELIVER_SECONDS = 100

# postsuper(1): a flag and the one queue directory in which it may act. Its rename(2) fails when the queue manager was
# faster, so a message that is being delivered (active) is never touched.
POSTSUPER_FORMS = (("-h", "deferred"), ("-d", "hold"), ("-H", "hold"), ("-r", "hold"), ("-e", "hold"))
STDERR_PER_MESSAGE = 80

ATTEMPT = "postfix_attempt.sh"
ROOT_SCRIPTS = ("postfix_content.sh", "postfix_quarantine.sh", "postfix_deliver.sh", "postfix_log.sh")


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


def attempt(instance: InstanceFacts, queue_ids: Iterable[str]) -> Steps[Completed | None]:
    """`postqueue -i` for each: asks for an attempt now; it says nothing, whatever becomes of it. Held ones never move.

    Without queue IDs nothing is run.
    """
    stdin = ids_input(queue_ids)
    if not stdin:
        return None
    return (
        yield from run(
            Command(
                (program(instance, "postqueue"), instance.config_dir),
                script=ATTEMPT,
                stdin=stdin,
                become=bool(instance.options.get("flush_as_root")),
                mutates=True,
                timeout=CHANGE_SECONDS,
            )
        )
    )


def script_argv(script: str, *arguments: str) -> tuple[str, ...]:
    """A script's command line as a plan shows it."""
    return (f"{HELPERS}/{script}", *arguments)


def sudoers(instance: InstanceFacts, user: str) -> tuple[str, ...]:
    """Command specifications, literal down to the last word. IDs go through stdin, so nothing needs a wildcard."""
    commands = [(CHANGE_SECONDS, postsuper_argv(instance, flag, queue)) for flag, queue in POSTSUPER_FORMS]
    if instance.options.get("list_as_root"):
        commands += [(LISTING_SECONDS, postqueue(instance, flag).argv) for flag in ("-j", "-p")]
    if instance.options.get("flush_as_root"):
        commands.append((READ_SECONDS, flush_all(instance, "-f").argv))
    lines = [f"{user} ALL=(root) NOPASSWD: {_timed(seconds, argv)}" for seconds, argv in commands]
    lines += [f"{user} ALL=(root) NOPASSWD: {_digest(name)} {HELPERS}/{name}" for name in ROOT_SCRIPTS]
    return tuple(lines)


def _timed(seconds: int, argv: tuple[str, ...]) -> str:
    return " ".join(("/usr/bin/timeout", "-k", "5", str(seconds), *(_escaped(word) for word in argv)))


def _escaped(word: str) -> str:
    """sudoers(5): `,`, `:`, `=`, `\\` and wildcards in an argument must be escaped."""
    return "".join(f"\\{char}" if char in ",:=\\*?[]! " else char for char in word)


def _digest(script: str) -> str:
    return f"sha256:{sha256((SCRIPTS / script).read_bytes()).hexdigest()}"
