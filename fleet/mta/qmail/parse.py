"""What qmail's queue files say, as qmail_list.sh hands them over, and the grammar of queue IDs.

INTERNALS of qmail: info/ has "F" sender, remote/ and local/ have "T" or "D" recipients, todo/ has "u", "p", "F" and "T"
records, each ended by a NUL.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from fleet.mta.address import quote_local
from fleet.mta.bounds import OutOfBounds, moment_of, second_of, size_of
from fleet.mta.errors import UnparsedOutput
from fleet.mta.queue.content import Found, Stored, parse_stored
from fleet.mta.queue.listing import Listing
from fleet.mta.records import QueueEntry, Recipient
from fleet.mta.steps import Completed
from fleet.mta.text import text_of

QUEUE_ID = re.compile(r"[1-9][0-9]{0,19}", re.ASCII)
HIDDEN_BYTE = re.compile(rb"\\x([89A-F][0-9A-F])")
HELD = "mxfleet-hold"
CHANNELS = ("remote", "local")
END_OF_HEADER = re.compile(rb"(?:\A|\n)\r?\n")


def queue_id_error(queue_id: str) -> str | None:
    """qmail names a message by the inode number of its file in mess/."""
    return None if QUEUE_ID.fullmatch(queue_id) else "a queue ID of qmail is a decimal number"


def address_of(raw: bytes) -> str:
    """RFC 5321 form of an address as qmail stores it: without brackets and quoting.

    Bytes that are no UTF-8 as \\xHH. An empty one is the null sender. qmail's own "#@[]" (sender of a double bounce)
    and "-@[]" (a sender per recipient) stay as they are.
    """
    text = text_of(raw)
    if not text:
        return "<>"
    local, at, domain = text.rpartition("@")
    if not at or domain == "[]" or raw_of(raw) is not None:
        return text
    return f"{quote_local(local)}@{domain}"


def bytes_of(sender: str, raw: bytes | None = None) -> bytes:
    """What qmail has stored for a sender that `address_of` shows so; `raw` when it is known."""
    if raw is not None:
        return raw
    if sender == "<>":
        return b""
    local, at, domain = sender.rpartition("@")
    if at and local.startswith('"') and domain != "[]":
        return (re.sub(r"\\(.)", r"\1", local[1:-1]) + at + domain).encode()
    return HIDDEN_BYTE.sub(lambda found: bytes.fromhex(found[1].decode()), sender.encode())


def raw_of(raw: bytes) -> bytes | None:
    """The bytes themselves when the text cannot say them."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw
    return None


@dataclass(slots=True)
class Seen:
    """The files of one message. `records`, `sizes`: by kind (info, remote, local, todo).

    `is_odd`: a file has a size or time that no file of a queue has.
    """

    is_held: bool = False
    is_odd: bool = False
    records: dict[str, list[bytes]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    size: int = 0
    arrived: str = ""


class QueueSink:
    """Decodes qmail_list.sh group by group, hands every message to `take` and keeps none.

    A message in mess/ without info/ or todo/ is not queued yet, or no longer. One whose envelope does not have the size
    of its file arrived while it was read, and is left out; when it is older than the listing, it is refused.
    `cut`: the phase in which a change was cut off that nobody lives to put right: "stopped", "acting" or "".
    """

    def __init__(self, take: Callable[[QueueEntry], None]) -> None:
        self._take = take
        self._pending = b""
        self._blocks: list[bytes] = []
        self._size = 0
        self._messages: dict[str, Seen] = {}
        self._began = 0
        self._total = 0
        self._refused = 0
        self._has_ended = False
        self.cut = ""

    def feed(self, data: bytes) -> None:
        self._blocks.append(data)
        self._size += len(data)
        if self._size >= 1 << 16:
            self._drain()

    def close(self) -> Listing:
        self._drain()
        if not self._has_ended or self._pending:
            raise UnparsedOutput("the listing of the queue was cut off")
        notes = (f"{self._refused} messages have files that cannot be read as qmail's",) if self._refused else ()
        return Listing(self._total, self._refused, notes)

    def _drain(self) -> None:
        words = (self._pending + b"".join(self._blocks)).split(b"\0")
        self._blocks, self._size = [], 0
        even = (len(words) - 1) // 2 * 2
        for word, value in zip(words[0:even:2], words[1:even:2], strict=True):
            self._pair(word, value)
        self._pending = b"\0".join(words[even:])

    def _pair(self, word: bytes, value: bytes) -> None:
        if self._has_ended:
            raise UnparsedOutput("the listing of the queue goes on behind its end")
        if not word.startswith(b":"):
            kind, seen = self._place(word.decode("ascii", "replace"))
            seen.records.setdefault(kind, []).append(value)
        elif word == b":stat":
            self._stat(value)
        elif word == b":again":
            self._messages[value.decode("ascii", "replace")] = Seen()
        elif word == b":group":
            self._began = second_of(value)
        elif word == b":done":
            self._emit()
        elif word == b":cut":
            self.cut = value.decode("ascii", "replace")
        elif word == b":end" and value.isdigit() and not self._messages:
            self._has_ended = True
        else:
            raise UnparsedOutput(f"the listing of the queue has an unknown word {word[:40]!r}")

    def _place(self, path: str) -> tuple[str, Seen]:
        parts = path.split("/")
        if len(parts) < 2:
            raise UnparsedOutput(f"the listing of the queue has an unknown word {path[:40]!r}")
        is_held = parts[0] == HELD
        name = parts[-1]
        seen = self._messages.get(name)
        if seen is None:
            seen = self._messages[name] = Seen(is_held)
        return parts[is_held], seen

    def _stat(self, value: bytes) -> None:
        words = value.decode("ascii", "replace").split()
        if len(words) != 4:
            raise UnparsedOutput("the listing of the queue has a file without size or time")
        kind, seen = self._place(words[0])
        try:
            size = size_of(words[2])
            moment_of(words[3])
        except OutOfBounds:
            seen.is_odd = True
            return
        if kind == "mess":
            seen.size, seen.arrived = size, words[3]
        else:
            seen.sizes[kind] = size

    def _emit(self) -> None:
        for name, seen in self._messages.items():
            if seen.is_odd and QUEUE_ID.fullmatch(name):
                self._refused += 1
                continue
            if not seen.arrived or not QUEUE_ID.fullmatch(name):
                continue
            source = "todo" if "todo" in seen.records else "info"
            if source not in seen.records and source not in seen.sizes:
                continue
            entry = entry_of(name, seen, source)
            if entry is None:
                self._refused += float(seen.arrived) < self._began - 1
                continue
            self._total += 1
            self._take(entry)
        self._messages.clear()


def entry_of(name: str, seen: Seen, source: str) -> QueueEntry | None:
    """The message as its files tell, None when they are not complete."""
    kinds = ("todo",) if source == "todo" else ("info", *(each for each in CHANNELS if each in seen.sizes))
    if any(kind not in seen.records for kind in kinds):
        return None  # qmail-send makes info/, local/ and remote/ empty, and writes and syncs one after the other
    for kind in kinds:
        records = seen.records[kind]
        # While it is preprocessed, todo/ may go between its being read and looked at; it is never changed in place.
        if sum(map(len, records)) + len(records) != seen.sizes.get(kind, -1) and (kind != "todo" or kind in seen.sizes):
            return None
    sender = next((each[1:] for each in seen.records[source] if each[:1] == b"F"), None)
    if sender is None:
        return None
    recipients = [
        Recipient(address_of(each[1:]), state="delivered" if each[:1] == b"D" else "undelivered")
        for kind in kinds
        for each in seen.records[kind]
        if each[:1] in {b"T", b"D"}
    ]
    is_waiting = source == "todo"
    # stat(1) and find(1) cut off, so we do: the same digits name the message when it is looked at again.
    whole, _, fraction = seen.arrived.partition(".")
    return QueueEntry(
        queue_id=name,
        state="hold" if seen.is_held else "incoming" if is_waiting else "deferred",
        native_state="held" if seen.is_held else "not yet preprocessed" if is_waiting else "queued",
        arrival_time=float(f"{whole}.{fraction[:6]}"),
        sender=address_of(sender),
        recipients=recipients,
        size=seen.size,
        sender_raw=raw_of(sender),
    )


def parse_contents(done: Completed, headers: int, body: int) -> Found:
    """The answer of qmail_content.sh. Raises UnparsedOutput."""
    return parse_whole(done, headers, body) if body else parse_stored(done, has_body=False)


def parse_whole(done: Completed, headers: int, body: int) -> Found:
    """The answer of qmail_content.sh with bodies: sizes, an empty line, then the files as head(1) -v prints them.

    Raises UnparsedOutput when it is cut off or a length does not fit. A file that went meanwhile is absent.
    """
    sizes: dict[str, int] = {}
    answered: set[str] = set()
    first, empty, data = done.stdout.partition(b"\n\n")
    if done.stdout.startswith(b"\n"):
        first, empty, data = b"", b"\n", done.stdout[1:]
    for line in first.splitlines():
        path, _, said = line.decode("ascii", "replace").rpartition(" ")
        answered.add(path.rpartition("/")[2])
        if said.isdigit():
            sizes[path] = min(size_of(said), headers + body)
    found: dict[str, Stored] = {}
    at = 0
    while empty and data[at:] != b"end\n":
        head = re.compile(rb"==> ([a-z0-9/-]+) <==\n").match(data, at)
        path = head[1].decode() if head else ""
        if head is None or path not in sizes or len(data) < head.end() + sizes[path]:
            raise UnparsedOutput("the messages that were read do not have the lengths that were announced")
        at = head.end() + sizes[path]
        found[path.rpartition("/")[2]] = split_message(data[head.end() : at], headers, body)
        if data[at : at + 5] == b"\n==> ":
            at += 1
    if not empty:
        raise UnparsedOutput("the messages that were read were cut off")
    return found, frozenset(answered)


def split_message(data: bytes, headers: int, body: int) -> Stored:
    """The header ends at the first empty line (RFC 5322, 2.1)."""
    end = END_OF_HEADER.search(data)
    if end is None:
        return Stored(data[:headers], b"")
    return Stored(data[: end.start() + data.startswith(b"\n", end.start())][:headers], data[end.end() :][:body])
