"""What Exim's spool files and commands say: the listing of exim_list.sh, verdicts, the grammar of message IDs."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial

from fleet.mta.bounds import OutOfBounds, count_of, second_of, size_of
from fleet.mta.errors import FleetError, MtaNotFound, UnparsedOutput, Unsupported
from fleet.mta.host import commands
from fleet.mta.queue.content import HEADERS, Stored
from fleet.mta.queue.listing import Listing, Streamed
from fleet.mta.records import Recipient
from fleet.mta.steps import Completed
from fleet.mta.text import text_of

# Base 62: seconds, pid, fraction; longer since 4.97 (spec, "Message identification").
MESSAGE_ID = re.compile(r"[0-9A-Za-z]{6}-[0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{6}-[0-9A-Za-z]{11}-[0-9A-Za-z]{4}")

STATES = {"queued": "deferred", "frozen": "hold", "delivering": "active"}
BLOCK = 1 << 16
DEFERRED = re.compile(r"(?P<who>.*?) defer \((?P<errno>-?\d+)\)(?: DT=\S+)?:? ?(?P<text>.*)")

VERDICT = re.compile(r"^Message (\S+) (is now frozen|is no longer frozen|has been removed|is locked)$", re.MULTILINE)
LOCKED = "is locked"
# Exim opens and locks the -D file, then reads -H: without -H the message had just left, whoever "removed" the rest.
HEADER_GONE = re.compile(r"^Spool read error for (\S+)-H: ", re.MULTILINE)

ERRORS: tuple[tuple[bytes, type[FleetError], str], ...] = (
    (b"exim: permission denied", Unsupported, "Exim refuses that to this account"),
    (b"Exim configuration error", MtaNotFound, "Exim cannot read its configuration"),
)
error_of = partial(commands.error_of, markers=ERRORS)


class StreamedEntry(Streamed):
    """One message of exim_list.sh, with the names of a QueueEntry, so that it can be judged without being copied."""

    __slots__ = (
        "__dict__",
        "_rest",
        "arrival_time",
        "native_state",
        "queue_id",
        "sender",
        "sender_raw",
        "size",
        "state",
    )

    def __init__(self, record: bytes) -> None:
        """`record`: the lines of one message without the leading "M ". Raises ValueError and OutOfBounds."""
        head, sender, *self._rest = record.split(b"\n")
        name, seconds, usec, frozen, size, word = head.split(b" ")
        self.queue_id = name.decode("ascii")
        self.native_state = word.decode("ascii")
        if not MESSAGE_ID.fullmatch(self.queue_id) or self.native_state not in STATES:
            raise ValueError(f"no message: {head!r}")
        self.state = STATES[self.native_state]
        self.arrival_time = second_of(seconds) + count_of(usec) / 1e6
        self.size = size_of(size)
        second_of(frozen)
        if not (sender.startswith(b"F <") and sender.endswith(b">")):
            raise ValueError(f"no sender: {sender!r}")
        raw = sender[3:-1] or b"<>"
        self.sender = text_of(raw)
        self.sender_raw = None if self.sender.encode() == raw else raw

    @cached_property
    def recipients(self) -> list[Recipient]:
        """Decoded when somebody looks: most messages are judged without."""
        done = {line[2:] for line in self._rest if line.startswith(b"N ")}
        reasons = [DEFERRED.fullmatch(text_of(line[2:])) for line in self._rest if line.startswith(b"L ")]
        recipients = []
        for address in (recipient_of(line[2:]) for line in self._rest if line.startswith(b"R ")):
            text = text_of(address)
            state = "delivered" if address in done else "undelivered"
            recipients.append(Recipient(text, "" if address in done else reason_of(text, reasons), state))
        return recipients


def recipient_of(line: bytes) -> bytes:
    """The address of a recipient line: data may follow, and are read from the end (spec, "Format of spool files").

    `ADDRESS ORCPT LENGTH,FLAGS ERRORS_TO LENGTH,PARENT#BITS`, the parts as BITS tell; early Exim 4: `ADDRESS PARENT`.
    A domain has neither blank, comma nor `#`, so an address alone is never taken for one with data.
    """
    rest, mark, bits = line.rpartition(b"#")
    if mark and bits.isdigit():
        for bit in (1, 2):
            if count_of(bits) & bit:
                rest = _without_field(rest)
        return rest
    older = re.fullmatch(rb"(.*) (?:\d+|\d+,\d+,\d+)", line, re.DOTALL)
    return older[1] if older else line


def _without_field(rest: bytes) -> bytes:
    """Without ` TEXT LENGTH,NUMBER` at the end, where TEXT has LENGTH bytes and may be empty."""
    match = re.fullmatch(rb"(.*) (\d+),-?\d+", rest, re.DOTALL)
    if match is None:
        raise UnparsedOutput(f"a recipient's data are not what Exim writes: {rest!r}")
    return match[1][: len(match[1]) - size_of(match[2])].removesuffix(b" ")


def reason_of(address: str, deferrals: Iterable[re.Match[str] | None]) -> str:
    """Why an address is still here, by the message log; `child <parent> R=...` tells of the parent.

    The log has domains in small letters; the address, and that of a parent, as the client wrote it.
    """
    local, at, domain = address.rpartition("@")
    forms = {address, f"{local}{at}{domain.lower()}"}
    for deferral in deferrals:
        who = deferral["who"] if deferral else ""
        if deferral and any(who.startswith(f"{form} ") or f" <{form}> " in who for form in forms):
            return deferral["text"]
    return ""


class QueueSink:
    """Takes the listing of exim_list.sh apart while it streams in, and keeps no message.

    `take` gets every one, with its headers where the listing has them.

    Ends with a Listing. Raises UnparsedOutput when the last line, which counts the messages, is not there or not right.
    """

    def __init__(self, take: Callable[..., None]) -> None:
        self._take = take
        self._pending = [b"\n"]
        self._size = 0
        self._total = 0
        self._refused = 0

    def feed(self, data: bytes) -> None:
        self._pending.append(data)
        self._size += len(data)
        if self._size >= BLOCK:
            self._drain()

    def close(self) -> Listing:
        self._drain()
        last = re.fullmatch(rb"(.*)\nend (\d+)\n", b"".join(self._pending), re.DOTALL)
        if last is None:
            raise UnparsedOutput("the listing of the queue was cut off")
        self._records(last[1])
        if self._total + self._refused != count_of(last[2]):
            raise UnparsedOutput("the listing of the queue has not as many messages as it says")
        notes = (f"{self._refused} messages have no spool file in Exim's format; they were left out",)
        return Listing(self._total, self._refused, notes if self._refused else ())

    def _drain(self) -> None:
        """All but the last record, which may go on."""
        data = b"".join(self._pending)
        end = data.rfind(b"\nM ")
        if end > 0:
            self._records(data[:end])
            data = data[end:]
        self._pending = [data]
        self._size = len(data)

    def _records(self, data: bytes) -> None:
        """`data` begins with a newline and ends without one."""
        before, *records = data.split(b"\nM ")
        self._refused += _count_refused(before)
        for record in records:
            whole, *refused = record.split(b"\nX ")
            lines, has_headers, headers = whole.partition(b"\nH")
            self._refused += len(refused)
            try:
                message = StreamedEntry(lines)
            except (ValueError, OutOfBounds):
                self._refused += 1
                continue
            self._total += 1
            if has_headers:
                self._take(message, Stored((headers.replace(b"\nH", b"\n") + b"\n")[:HEADERS], None))
            else:
                self._take(message)


def _count_refused(text: bytes) -> int:
    """How many "X ID" lines; what else stands before the first message is no listing."""
    lines = [line for line in text.split(b"\n") if line]
    if not all(line.startswith(b"X ") for line in lines):
        raise UnparsedOutput("the listing of the queue does not begin with a message")
    return len(lines)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The messages that Exim says it changed, and those that it left alone because they are being delivered."""

    changed: frozenset[str] = frozenset()
    locked: frozenset[str] = frozenset()

    def __or__(self, other: "Verdicts") -> "Verdicts":
        return Verdicts(self.changed | other.changed, self.locked | other.locked)


def parse_verdicts(done: Completed) -> Verdicts:
    """What exim_change.sh or exim_quarantine.sh says of each message.

    Raises what stderr tells, and UnparsedOutput when the script did not come to its end.
    """
    text = "\n".join(commands.lines_of(done, "exim", error_of))
    verdicts = VERDICT.findall(text)
    left = frozenset(HEADER_GONE.findall(text))
    return Verdicts(
        frozenset(name for name, words in verdicts if words != LOCKED) - left,
        frozenset(name for name, words in verdicts if words == LOCKED),
    )


def queue_id_error(queue_id: str) -> str | None:
    """What is wrong with the grammar of an Exim message ID, or None. Case matters and is kept."""
    if MESSAGE_ID.fullmatch(queue_id):
        return None
    if queue_id[-2:] in {"-H", "-D", "-J"} and MESSAGE_ID.fullmatch(queue_id[:-2]):
        return f"{queue_id!r} is a spool file; the message is {queue_id[:-2]!r}"
    if queue_id.upper() == "ALL":
        return "a queue ID names one message; to select all, use match: ALL"
    return "no Exim message ID: 6-6-2 letters and digits such as 1xUMSQ-00005F-0r, or 6-11-4 since Exim 4.97"


ids_input = partial(commands.ids_input, queue_id_error)
