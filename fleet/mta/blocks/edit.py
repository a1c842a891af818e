"""Reading and replacing lists of senders on the host, by block_file.sh."""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from difflib import unified_diff

from fleet.mta.blocks.listfile import fold
from fleet.mta.errors import Conflict, DiskFull, FleetError, RemoteError, UnparsedOutput, Unsupported
from fleet.mta.host.commands import Allowed, changing, error_of, reading, script_argv, whole_lines
from fleet.mta.steps import Command, Completed, Diff, Steps, run
from fleet.mta.text import digest_of, escape_bytes, split_lines

SCRIPT = "block_file.sh"
EDIT_SECONDS = 60
READ_SECONDS = 30
READS = 3
LARGEST_SOURCE = 32 << 20
ABSENT = "-"
UNSETTLED = 74
"""Exit status of an editing script that could not put right what a change left which was cut off."""

Checks = tuple[tuple[str, str], ...]


class Torn(UnparsedOutput):
    """The bytes that came are not those whose digest was printed: cut off, or changed while they were read."""


class ChangedMeanwhile(Conflict):
    """Somebody else changed the file between our reading and our writing; nothing of ours was written."""


class StillNamed(Conflict):
    """A file of ours that was to go is named by the MTA's configuration; it was left as it was."""


@dataclass(frozen=True, slots=True)
class ListFile:
    """A list of senders of an instance, in the words of block_file.sh, which edits no other file.

    `config`: the configuration that names the file (of qmail its home, of Postfix its directory). `name`: the type of
    a map, opensmtpd's name of the table; "-" elsewhere.
    """

    mta: str
    config: str
    path: str
    name: str = "-"

    def argv(self, action: str) -> tuple[str, ...]:
        return (action, self.mta, self.config, self.path, self.name)

    def command_line(self, action: str = "apply") -> tuple[str, ...]:
        return script_argv(SCRIPT, *self.argv(action))


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was read. `digest`: sha256 in hex, "-" when absent. `is_stale`: the map built from it is older.

    `addresses`: of the host, without loopback.
    """

    path: str
    text: str
    digest: str
    is_stale: bool = False
    addresses: tuple[str, ...] = ()

    @property
    def exists(self) -> bool:
        return self.digest != ABSENT


Change = Callable[[Source], tuple[str | None, Checks]]
"""From the file as it stands to its new text (None: no file) and what a map built of it must give."""


def sudo_commands(files: Iterable[ListFile]) -> list[Allowed]:
    """Seconds and command line of all that needs root for these files."""
    forms = (("read", READ_SECONDS), ("query", READ_SECONDS), ("apply", EDIT_SECONDS))
    return [(seconds, file.command_line(action)) for file in files for action, seconds in forms]


def read_list(file: ListFile) -> Steps[Source]:
    """The file as it is; once more when somebody changed it while it was read.

    Raises Unsupported, UnparsedOutput, SudoDenied.
    """
    return (yield from until_whole(lambda: _read_once(file)))


def until_whole(read: Callable[[], Steps[Source]]) -> Steps[Source]:
    """What `read` gives once the file came as a whole; it is read READS times at most. Raises Torn."""
    for _ in range(READS - 1):
        with suppress(Torn):
            return (yield from read())
    return (yield from read())


def read_configuration(command: Command, script: str, path: str) -> Steps[Source]:
    """The file as an editing script reads it: its digest, and "fits" behind it where the script says so, then the text.

    Raises Unsupported, UnparsedOutput, SudoDenied.
    """

    def read() -> Steps[Source]:
        head, newline, text = (yield from answer_to(command, script)).partition("\n")
        match = re.fullmatch(r"([0-9a-f]{64})(?: fits)?", head)
        if match is None or not newline:
            raise UnparsedOutput(f"{script} did not begin with a digest")
        check_digest(match[1], text)
        return Source(path, text, match[1])

    return (yield from until_whole(read))


def _read_once(file: ListFile) -> Steps[Source]:
    command = reading(SCRIPT, file.argv("read"), seconds=READ_SECONDS, most=LARGEST_SOURCE)
    head, _, rest = (yield from answer_to(command, SCRIPT)).partition("\n")
    addresses, newline, text = rest.partition("\n")
    digest, _, state = head.partition(" ")
    if not newline or state not in ("fits", "stale", "absent"):
        raise UnparsedOutput(f"{SCRIPT} did not begin with a digest")
    check_digest(digest, text)
    return Source(file.path, text, digest, state == "stale", tuple(addresses.split()))


def check_digest(digest: str, text: str) -> None:
    """Raises Torn for a file that came without its end, or was changed while it was read."""
    if digest not in (ABSENT, digest_of(text)):
        raise Torn("the file was cut off, or changed while it was read")


def look_up(file: ListFile, keys: Iterable[str]) -> Steps[dict[str, str]]:
    """What the live map, or the live file, gives for these keys (folded); absent ones are left out."""
    stdin = "".join(f"{fold(key)}\n" for key in keys).encode("utf-8", "surrogateescape")
    answer = yield from answer_to(reading(SCRIPT, file.argv("query"), stdin, seconds=READ_SECONDS), SCRIPT)
    lines = whole_lines(answer)
    if lines is None:
        raise UnparsedOutput("the answer of the look-up was cut off")
    return {key: value for key, _, value in (line.partition("\t") for line in lines)}


def change_list(file: ListFile, source: Source, change: Change) -> Steps[None]:
    """Replace the file and what is built from it, or remove it, as `edited` does."""
    yield from edited(source, lambda: read_list(file), lambda current: _write(file, current, change))


def edited(source: Source, read: Callable[[], Steps[Source]], write: Callable[[Source], Steps[None]]) -> Steps[None]:
    """Write what follows from the source; when somebody else changed it meanwhile, once more from what he left.

    Raises Conflict (changed twice, or the new reading stands in the way), DiskFull, RemoteError; the old file stays.
    """
    try:
        yield from write(source)
    except ChangedMeanwhile:
        yield from write((yield from read()))


def remove_or_empty(write: Callable[[Change], Steps[None]], removing: Change, emptying: Change) -> Steps[None]:
    """Our own file goes, or stays with nothing of ours where the configuration still names it: an MTA that cannot open
    what it is told to ask takes no mail."""
    try:
        yield from write(removing)
    except StillNamed:
        yield from write(emptying)


def _write(file: ListFile, source: Source, change: Change) -> Steps[None]:
    text, checks = change(source)
    if text is None and not source.exists:
        return
    verb = "remove" if text is None else f"write {digest_of(text)}"
    head = [source.digest, verb, str(len(checks)), *(f"{key}\t{value}" for key, value in checks)]
    stdin = "".join(f"{line}\n" for line in head) + (text or "")
    encoded = stdin.encode("utf-8", "surrogateescape")
    yield from apply(changing(SCRIPT, file.argv("apply"), encoded, seconds=EDIT_SECONDS), SCRIPT)


def answer_to(command: Command, script: str) -> Steps[str]:
    """What an editing script says. Raises what `edit_error` makes of a failure."""
    done = yield from run(command)
    if done.exit_status:
        raise edit_error(done, script)
    return done.stdout.decode("utf-8", "surrogateescape")


def apply(command: Command, script: str) -> Steps[None]:
    """Runs an edit, and raises UnparsedOutput where its script does not say that it was made."""
    if not (yield from answer_to(command, script)).startswith("applied "):
        raise UnparsedOutput(f"{script} did not say how it ended")


def difference(source: Source, text: str | None) -> Diff:
    """The change as people read it; bytes that are no UTF-8 as \\xHH."""
    old = source.path if source.exists else "/dev/null"
    new = "/dev/null" if text is None else source.path
    lines = unified_diff(split_lines(source.text), split_lines(text or ""), old, new, n=2)
    unified = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    return Diff(source.path, escape_bytes(unified))


def edit_error(done: Completed, script: str) -> FleetError:
    """The error behind an editing script that failed; its exit statuses stand at its head."""
    stderr = done.stderr.decode("utf-8", "backslashreplace").strip()
    ours = [line.removeprefix("mxfleet: ") for line in stderr.splitlines() if line.startswith("mxfleet: ")]
    detail = ours[-1] if ours else stderr[:300]
    is_full = b"No space left on device" in done.stderr or b"Disk quota exceeded" in done.stderr
    if is_full and done.exit_status != UNSETTLED:
        return DiskFull(f"no space left: {detail}; the old file and map are as they were", stderr=stderr[:2000])
    if not ours:
        return error_of(done, script)
    match done.exit_status:
        case 66:
            return Unsupported(detail)
        case 69:
            return StillNamed(detail, hint="take it out of the configuration")
        case 75:
            return Conflict(detail, hint="try again when the other change has ended")
        case 76:
            return ChangedMeanwhile(detail, hint="somebody edits this file; look at it, then try again")
        case _:
            return RemoteError(detail, stderr=stderr[:2000])
