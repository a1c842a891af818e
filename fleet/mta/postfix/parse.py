"""What Postfix's tools print: postqueue -j, postsuper's verdicts, their errors, the grammar of queue IDs."""

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import msgspec

from fleet.mta.bounds import EPOCH_MOST, ID_MOST, SIZE_MOST, STATE_MOST
from fleet.mta.errors import FleetError, MtaNotFound, MtaNotRunning, UnparsedOutput, Unsupported
from fleet.mta.host import commands
from fleet.mta.queue.listing import Listing, Streamed
from fleet.mta.records import Recipient
from fleet.mta.steps import Completed
from fleet.mta.text import escape_bytes

NULL_SENDER = "<>"
BLOCK = 1 << 16

# mail_queue.h: short IDs are microseconds and inode in upper-case hexadecimal, long IDs six characters
# of seconds and four of microseconds in base 52 (no vowels), "z", and the inode in base 51 (no "z").
SHORT_ID = re.compile(r"[0-9A-F]{6,20}", re.ASCII)
LONG_ID = re.compile(r"[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,}z[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-y]+", re.ASCII)

# A quote inside a JSON string is escaped, so these bytes occur as keys only, once per line.
KEYS = tuple(f'"{key}": '.encode() for key in ("queue_name", "queue_id", "arrival_time", "message_size", "sender"))

VERDICT = re.compile(
    rb"^postsuper: ([0-9A-Za-z]+): (removed|placed on hold|released from hold|requeued|expired)$", re.M
)
COUNT = re.compile(
    rb"^postsuper: (?:Deleted|Placed on hold|Released from hold|Requeued|Force-expired): (\d+) messages?$", re.M
)


class ListedRecipient(msgspec.Struct, gc=False):
    """A recipient as postqueue -j prints it."""

    address: str
    delay_reason: str = ""


RECIPIENTS = msgspec.json.Decoder(list[ListedRecipient])


class StreamedEntry(
    Streamed, msgspec.Struct, gc=False, rename={"state": "queue_name", "size": "message_size", "raw": "recipients"}
):
    """One line of postqueue -j with the names of a QueueEntry, so that it can be judged without being copied."""

    state: Annotated[str, msgspec.Meta(max_length=STATE_MOST)]
    queue_id: Annotated[str, msgspec.Meta(max_length=ID_MOST)]
    arrival_time: Annotated[int, msgspec.Meta(ge=0, le=EPOCH_MOST)]
    size: Annotated[int, msgspec.Meta(ge=0, le=SIZE_MOST)]
    sender: str
    raw: msgspec.Raw
    sender_raw: bytes | None = None

    @property
    def native_state(self) -> str:
        return self.state

    @property
    def recipients(self) -> list[Recipient]:
        """Decoded when somebody looks: most messages are judged without. Raises UnparsedOutput."""
        try:
            return [Recipient(each.address, each.delay_reason) for each in RECIPIENTS.decode(self.raw)]
        except msgspec.MsgspecError as error:
            raise UnparsedOutput(f"the recipients of {self.queue_id} are not what postqueue prints") from error


class QueueSink:
    """Decodes postqueue -j block by block, hands every message to `take` and keeps none."""

    def __init__(self, take: Callable[[StreamedEntry], None]) -> None:
        self._take = take
        self._decoder = msgspec.json.Decoder(StreamedEntry)
        self._pending: list[bytes] = []
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
        if self._pending:
            raise UnparsedOutput("the listing of the queue was cut off in the middle of a line")
        return Listing(self._total, self._refused)

    def _drain(self) -> None:
        data = b"".join(self._pending)
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        self._pending = [rest] if rest else []
        self._size = len(rest)
        if end:
            self._decode(data[:end])

    def _decode(self, block: bytes) -> None:
        try:
            if not block.isascii():
                block.decode()  # recipients are decoded later, when nobody can count them as refused any more
            messages = self._decoder.decode_lines(block)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            messages = None
        if messages is None or any(block.count(key) != len(messages) for key in KEYS):
            messages = self._one_by_one(block)
        self._total += len(messages)
        take = self._take
        for message in messages:
            # showq prints the null sender so; a real sender always has a domain once cleanup(8) has seen it.
            if message.sender == "MAILER-DAEMON":
                message.sender = NULL_SENDER
            take(message)

    def _one_by_one(self, block: bytes) -> list[StreamedEntry]:
        messages = []
        for line in block.split(b"\n")[:-1]:
            try:
                messages.append(decode_line(line))
            except (ValueError, TypeError, KeyError, msgspec.MsgspecError):
                self._refused += 1
        return messages


def decode_line(line: bytes) -> StreamedEntry:
    """One line of postqueue -j, strictly: no duplicate keys; bytes that are no UTF-8 become \\xHH.

    Raises ValueError, TypeError, KeyError or msgspec.MsgspecError for anything else.
    """
    fields = json.loads(line.decode("utf-8", "surrogateescape"), object_pairs_hook=_without_duplicates)
    sender = fields["sender"]
    escaped = {**fields, "recipients": [], "sender": escape_bytes(sender)}
    message = msgspec.json.decode(msgspec.json.encode(escaped), type=StreamedEntry)
    recipients = [{name: escape_bytes(text) for name, text in each.items()} for each in fields["recipients"]]
    message.raw = msgspec.Raw(msgspec.json.encode(recipients))
    RECIPIENTS.decode(message.raw)
    if message.sender != sender:
        message.sender_raw = sender.encode("utf-8", "surrogateescape")
    return message


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key occurs twice")
    return fields


def parse_verdicts(done: Completed) -> frozenset[str]:
    """Queue IDs that postsuper says it changed (on stderr; its exit status is 0 whatever happened).

    Raises the error that stderr tells, and UnparsedOutput when the count at the end is missing: then postsuper did not
    come to its end.
    """
    output = done.stderr + b"\n" + done.stdout
    if done.exit_status or not COUNT.search(output):
        raise error_of(done, "postsuper")
    return frozenset(name.decode() for name, _ in VERDICT.findall(output))


ERRORS: tuple[tuple[bytes, type[FleetError], str], ...] = (
    (b"mail system is down", MtaNotRunning, "the mail system is down"),
    (b"the Postfix mail system is not running", MtaNotRunning, "the mail system is down"),
    (b"unauthorized configuration directory", MtaNotFound, "the default main.cf does not list this instance"),
    (b"invalid option", Unsupported, "this Postfix does not know the option"),
    (b"open /", MtaNotFound, "a configuration file cannot be read"),
)


error_of = partial(commands.error_of, markers=ERRORS)


def queue_id_error(queue_id: str) -> str | None:
    """What is wrong with the grammar of a Postfix queue ID, or None. Case matters and is kept."""
    if LONG_ID.fullmatch(queue_id) or SHORT_ID.fullmatch(queue_id):
        return None
    if queue_id[-1:] in {"*", "!", "#"} and queue_id_error(queue_id[:-1]) is None:
        return f"{queue_id[-1]!r} is mailq's mark for the state; write {queue_id[:-1]!r}"
    if queue_id.upper() == "ALL":
        return "a queue ID names one message; to select all, use match: ALL"
    if SHORT_ID.fullmatch(queue_id.upper()):
        return f"short queue IDs are upper-case hexadecimal: perhaps {queue_id.upper()!r}"
    return "no Postfix queue ID: upper-case hexadecimal such as 3F5DD30C44F, or long such as 4jWC7h4LdTzS4l3"


ids_input = partial(commands.ids_input, queue_id_error)
