"""What our scripts tell of Sendmail's queue, and the grammar of queue IDs."""

import re
from collections.abc import Callable, Iterable
from functools import cached_property, partial

from fleet.mta.bounds import OutOfBounds, count_of, id_of, second_of, size_of
from fleet.mta.errors import DiskFull, FleetError, MtaNotFound, OutcomeUnknown, UnparsedOutput
from fleet.mta.host import commands
from fleet.mta.queue.content import HEADERS, Stored
from fleet.mta.queue.listing import Listing, Streamed
from fleet.mta.records import QueueEntry, Recipient
from fleet.mta.steps import Completed
from fleet.mta.text import text_of

NULL_SENDER = "<>"

# queue.c, assign_queueid: year to second and a sequence number in base 60 (8 characters), then the process ID with at
# least five, later six digits. Older ones have a shorter time.
QUEUE_ID = re.compile(r"[0-9A-Za-x]{6,8}[0-9]{5,10}", re.ASCII)

CLIENT = ("maildrop", "client")
QUARANTINED = ("hold", "quarantined")
STATES = {
    (b"q", b"0"): ("deferred", "queued"),
    (b"q", b"1"): ("active", "locked"),
    (b"h", b"0"): QUARANTINED,
    (b"h", b"1"): QUARANTINED,
}
"""By the kind of queue file, and whether Sendmail works on it."""
OUR_HOLD = b"mxfleet "
"""How the reason of a hold of ours begins; the job's id comes behind it (sendmail_hold.sh)."""

ERRORS: tuple[tuple[bytes, type[FleetError], str], ...] = (
    (b"No space left on device", DiskFull, "the file system of the queue is full"),
    (b"no queue directory", MtaNotFound, "the queue directory is not there"),
)
error_of = partial(commands.error_of, markers=ERRORS)

ODD_LINE = re.compile(rb"\n(?![SqRM])")
MARKED = re.compile(rb"\xff([\x80-\x9f\xff])")
"""A byte that Sendmail uses itself, as it writes it in a queue file."""


class ListSink:
    """Takes the listing of sendmail_read.sh apart. `take` gets every message, and its headers where they follow."""

    def __init__(self, take: Callable[..., None]) -> None:
        self._take = take
        self._rest = b""
        self._total = 0
        self._refused = 0
        self._odd = 0  # of the refused, those that the listing counts among its messages

    def feed(self, data: bytes) -> None:
        whole = self._rest + data
        # A record ends where the next begins; its own lines never begin with > or ?.
        end = max(whole.rfind(b"\n>"), whole.rfind(b"\n?")) + 1
        self._rest = whole[end:]
        if end:
            self._records(whole[:end])

    def close(self) -> Listing:
        """Raises UnparsedOutput when the listing was cut off, or says another number of messages than it has."""
        body, _, last = self._rest.removesuffix(b"\n").rpartition(b"\n")
        words = last.split()
        is_whole = self._rest.endswith(b"\n") and len(words) == 3 and words[0] == b"end"
        if not is_whole or not all(word.isdigit() for word in words[1:]):
            raise UnparsedOutput("the listing of the queue was cut off")
        if body:
            self._records(body + b"\n")
        if count_of(words[1]) != self._total + self._odd:
            raise UnparsedOutput("the listing does not have as many messages as it says")
        lost = count_of(words[2])
        notes = [f"{lost} messages that Sendmail set aside as broken (Qf files) are not listed"] if lost else []
        if self._refused:
            notes.append(f"{self._refused} queue files are not what Sendmail writes; they were left out")
        return Listing(self._total, self._refused, tuple(notes))

    def _records(self, block: bytes) -> None:
        for record in re.split(rb"\n(?=[>?])", block.removesuffix(b"\n")):
            if record.startswith(b"?"):
                self._refused += 1
                continue
            envelope, has_headers, headers = record.partition(b"\nH")
            try:
                message = StreamedEntry(envelope)
            except OutOfBounds:
                self._refused += 1
                self._odd += 1
                continue
            self._total += 1
            if has_headers:
                self._take(message, stored_of(headers))
            else:
                self._take(message)


def stored_of(lines: bytes) -> Stored:
    """The headers of a listing: every field but the first has an H before it."""
    headers = lines.replace(b"\nH", b"\n") + b"\n"
    if b"\xff" in headers:
        headers = MARKED.sub(rb"\1", headers)
    return Stored(headers[:HEADERS], None)


class StreamedEntry(Streamed):
    """One message of sendmail_read.sh, with the names of a QueueEntry: it can be judged without being copied."""

    _lines: bytes
    __slots__ = (
        "__dict__",
        "_lines",
        "arrival_time",
        "attempts",
        "held_by",
        "native_state",
        "queue_id",
        "sender",
        "sender_raw",
        "size",
        "state",
    )

    def __init__(self, record: bytes) -> None:
        """Raises UnparsedOutput, OutOfBounds when only a number or the name is odd."""
        head, newline, lines = record.partition(b"\n")
        words = head.split(b" ")
        _, has_sender, rest = (newline + lines).rpartition(b"\nS")
        if len(words) != 9 or not head.startswith(b">") or not all(map(bytes.isdigit, words[2:])):
            raise UnparsedOutput("a message of the listing has no whole first line")
        name, file, client, locked, arrival, attempts, _last, header, body = words
        if not has_sender or (file, locked) not in STATES or ODD_LINE.search(record):
            raise UnparsedOutput(f"{name[1:]!r} has no sender or no state, or a line that is not asked for")
        self.state, self.native_state = STATES[file, locked]
        if client == b"1" and self.state == "deferred":
            self.state, self.native_state = CLIENT
        _, is_held, hold = record.rpartition(b"\nq")
        if is_held:
            self.state, self.native_state = QUARANTINED
        self.held_by = holder_of(hold.partition(b"\n")[0]) if is_held else ""
        self.queue_id = id_of(name[1:].decode("ascii", "replace"))
        self.arrival_time = second_of(arrival)
        self.attempts = count_of(attempts)
        self.size = size_of(header) + size_of(body)
        sender, _, self._lines = rest.partition(b"\n")
        raw = address(sender)
        self.sender = text_of(raw)
        self.sender_raw = None if self.sender.encode() == raw else raw

    @cached_property
    def recipients(self) -> list[Recipient]:
        """Decoded when somebody looks: most messages are judged without."""
        reason, recipients = "", []
        for line in self._lines.split(b"\n"):
            code, value = line[:1], line[1:]
            if code == b"M":
                reason = text_of(value)
            elif code == b"R":
                recipients.append(Recipient(text_of(address(value.partition(b":")[2])), reason))
                reason = ""
        return recipients


def holder_of(reason: bytes) -> str:
    """The job that the reason of a hold names, or an empty text."""
    return text_of(reason.removeprefix(OUR_HOLD)) if reason.startswith(OUR_HOLD) else ""


def address(value: bytes) -> bytes:
    """An address of a queue file without its brackets; the null sender is <>."""
    if value.startswith(b"<") and value.endswith(b">") and len(value) > 2:
        return value[1:-1]
    return value or b"<>"


def script_lines(done: Completed, script: str) -> list[str]:
    """Lines up to "end". Raises UnparsedOutput without it, and the error behind a failure."""
    return commands.lines_of(done, script, error_of)


def changed_lines(done: Completed, script: str) -> list[str]:
    """`script_lines` of a changing script: what broke off may have changed some messages. Raises OutcomeUnknown."""
    try:
        return script_lines(done, script)
    except (DiskFull, MtaNotFound) as error:
        raise OutcomeUnknown(f"it broke off: {error.detail}", cause=error.code, **error.data) from error


def verdicts(lines: Iterable[str]) -> dict[str, str]:
    """Queue ID to the script's word for it."""
    pairs = (line.split(" ") for line in lines)
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def queue_id_error(queue_id: str) -> str | None:
    """What is wrong with the grammar of a Sendmail queue ID, or None. Case matters and is kept."""
    if QUEUE_ID.fullmatch(queue_id):
        return None
    if queue_id[-1:] in {"*", "-", "X", "!", "?"} and QUEUE_ID.fullmatch(queue_id[:-1]):
        return f"{queue_id[-1]!r} is mailq's mark for the state; write {queue_id[:-1]!r}"
    if QUEUE_ID.fullmatch(queue_id[2:]) and queue_id[:2] in {"qf", "df", "hf"}:
        return f"{queue_id[:2]!r} is the kind of file; write {queue_id[2:]!r}"
    if queue_id.upper() == "ALL":
        return "a queue ID names one message; to select all, use match: ALL"
    return "no Sendmail queue ID: eight letters and digits, then the process ID, such as 6AKAxeKw000322"


def messages_input(first: str, entries: Iterable[QueueEntry]) -> bytes:
    """The scripts' input: `first`, then "ID ARRIVAL SENDER" of each. Every ID is checked again."""
    lines = [first.encode()]
    for entry in entries:
        if problem := queue_id_error(entry.queue_id):
            raise ValueError(problem)
        sender = entry.sender_raw if entry.sender_raw is not None else entry.sender.encode()
        lines.append(f"{entry.queue_id} {int(entry.arrival_time)} ".encode() + sender)
    return b"\n".join(lines) + b"\n"


ids_input = partial(commands.ids_input, queue_id_error)
