"""What the command lines of all adapters share: time limits, batches, sudoers lines, and the error behind a failure."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from fleet.mta.errors import Conflict, FleetError, MtaNotFound, Overtaken, RemoteError, SudoDenied, UnparsedOutput
from fleet.mta.host.sudo import refusal_of
from fleet.mta.steps import Command, Completed, Sink, Steps, run

HELPERS = "/usr/local/libexec/mxfleet"
"""Where an administrator may install our scripts, owned by root."""

LISTING_SECONDS = 240
READ_SECONDS = 120
# No changing command runs longer on a host: what reading back finds after that is final (jobs.lifecycle.reconcile).
CHANGE_SECONDS = 120
BATCH = 10_000
"""Queue IDs of one changing command, so that it ends well within its time."""

FENCE_STATUS = 75
"""How fence.sh ends a script; others have that status for their own reasons, so its words decide."""

SUDO_DEFAULTS = 'env_reset, !env_keep, !setenv, secure_path="/usr/sbin:/usr/bin:/sbin:/bin", !requiretty'

Allowed = tuple[int, tuple[str, ...]]
"""Seconds and command line of what sudo must allow."""
Markers = Sequence[tuple[bytes, type[FleetError], str]]


def batched(queue_ids: Iterable[str], size: int = BATCH) -> Iterator[tuple[str, ...]]:
    """The queue IDs in batches for one command each."""
    waiting = iter(queue_ids)
    while batch := tuple(islice(waiting, size)):
        yield batch


def ids_input(error_in: Callable[[str], str | None], queue_ids: Iterable[str], *first: str) -> bytes:
    """Queue IDs on a script's stdin, one a line, behind the lines `first`. Every one is checked again: nothing else may
    get there, and one malformed ID makes Exim do none of a command. Raises ValueError."""
    checked = list(queue_ids)
    for queue_id in checked:
        if problem := error_in(queue_id):
            raise ValueError(problem)
    return "".join(f"{line}\n" for line in (*first, *checked)).encode()


def reading(
    script: str,
    argv: tuple[str, ...],
    stdin: bytes = b"",
    *,
    seconds: int = READ_SECONDS,
    most: int = 1 << 20,
    sink: Sink | None = None,
) -> Command:
    """One of our scripts, as root, that changes nothing. `most`: bytes of its answer."""
    return Command(argv, script=script, stdin=stdin, become=True, timeout=seconds, max_output=most, sink=sink)


def changing(
    script: str,
    argv: tuple[str, ...],
    stdin: bytes,
    *,
    seconds: int = CHANGE_SECONDS,
    most: int = 1 << 20,
    mutates: bool = True,
) -> Command:
    """One of our scripts, as root, that may change the host; with `mutates` False it only looks this time."""
    return Command(argv, script=script, stdin=stdin, become=True, mutates=mutates, timeout=seconds, max_output=most)


def pause(seconds: int) -> Steps[None]:
    """Time for the MTA, spent on the host: an operation has no clock. Cut short, the next look only comes sooner."""
    yield from run(Command(("sleep", str(seconds)), is_hint=True))


def script_argv(script: str, *arguments: str) -> tuple[str, ...]:
    """A script's command line as a plan shows it, and as sudo sees it where the script is installed."""
    return (f"{HELPERS}/{script}", *arguments)


def sudoers_line(user: str, seconds: int, argv: Sequence[str]) -> str:
    """A line for sudoers(5), literal down to the last word.

    sudo stands before timeout(1), so timeout is the command and the rest its arguments.
    """
    return _rule(user, " ".join(_escaped(word) for word in allowed_words(seconds, argv)))


def allowed_words(seconds: int, argv: Sequence[str]) -> tuple[str, ...]:
    """The command line as sudo sees it."""
    return ("/usr/bin/timeout", "-k", "5", str(seconds), *argv)


def sudoers_section(user: str, number: int, lines: Sequence[str]) -> str:
    """The rules of these lines by way of an alias with this number, with settings that count for their commands only.

    sudoers(5): Defaults! takes no command's arguments but those in an alias.
    """
    alias = f"MXFLEET_{re.sub('[^A-Z0-9]', '_', user.upper())}_{number}"
    commands = ", \\\n    ".join(line.removeprefix(_rule(user, "")) for line in lines)
    return f"Cmnd_Alias {alias} = \\\n    {commands}\nDefaults!{alias} {SUDO_DEFAULTS}\n{_rule(user, alias)}\n"


def _rule(user: str, commands: str) -> str:
    """sudoers(5): ALL is everybody, and any name in capitals an alias that somebody may have defined, unless quoted."""
    named = f'"{user}"' if re.fullmatch("[A-Z][A-Z0-9_]*", user) else user
    return f"{named} ALL=(root) NOPASSWD: {commands}"


def _escaped(word: str) -> str:
    """sudoers(5): `,`, `:`, `=`, `\\` and wildcards in an argument must be escaped."""
    return "".join(f"\\{char}" if char in ",:=\\*?[]! " else char for char in word)


def fence_error(done: Completed) -> FleetError | None:
    """The error behind a script that fence.sh ended before its first change, or None when it did not."""
    _, ours, message = done.stderr.partition(b"mxfleet: fence: ")
    if done.exit_status != FENCE_STATUS or not ours:
        return None
    detail = message.partition(b"\n")[0].decode("utf-8", "backslashreplace")[:300]
    if detail.startswith("overtaken"):
        return Overtaken(
            detail, hint="if the clock of the service's database was set back: rm /run/mxfleet-fence there"
        )
    if detail.startswith("busy"):
        return Conflict(detail, hint="try again when the other change has ended")
    return RemoteError(detail)


def error_of(done: Completed, program: str, markers: Markers = ()) -> FleetError:
    """The error behind a command that failed, or that did not say how it ended.

    `markers`: what an MTA's own words on stderr mean. sudo's refusal has the same exit status as others: its words
    tell (trap 12).
    """
    stderr = done.stderr.decode("utf-8", "backslashreplace").strip()
    if refusal := refusal_of(done):
        return SudoDenied(refusal, hint="see the sudoers lines of this instance")
    for marker, error, detail in markers:
        if marker in done.stderr:
            return error(detail, stderr=stderr[:2000])
    if done.exit_status in (126, 127):
        return MtaNotFound(f"{program} cannot be run", stderr=stderr[:2000])
    if not done.exit_status:
        return UnparsedOutput(f"{program} did not say how it ended", stderr=stderr[:2000])
    return RemoteError(f"{program} ended with {done.exit_status}", stderr=stderr[:2000])


def lines_of(done: Completed, program: str, error_of: Callable[[Completed, str], FleetError] = error_of) -> list[str]:
    """The lines of a script up to its last, "end". Raises the error behind a failure, or behind a missing end."""
    lines = whole_lines(done.stdout.decode("utf-8", "backslashreplace"))
    if done.exit_status or lines is None:
        raise error_of(done, program)
    return lines


def whole_lines(text: str) -> list[str] | None:
    """The lines of a script's answer up to its last, "end"; None without that: it was cut off."""
    lines = text.split("\n")
    return lines[:-2] if lines[-2:] == ["end", ""] else None


def discovered_lines(
    done: Completed, program: str, error_of: Callable[[Completed, str], FleetError] = error_of
) -> list[str] | None:
    """`lines_of` a script that looks for an MTA; None where it says that there is none."""
    if not done.exit_status and done.stdout == b"absent\n":
        return None
    return lines_of(done, program, error_of)
