"""What qmail's queue files say, as qmail_list.sh hands them over, and the grammar of queue IDs.

INTERNALS of qmail: info/ has "F" sender, remote/ and local/ have "T" or "D" recipients, todo/ has "u", "p", "F" and "T"
records, each ended by a NUL.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from fleet.mta.bounds import OutOfBounds, second_of, size_of, stat_of
from fleet.mta.errors import UnparsedOutput
from fleet.mta.qmail.address import address_of, raw_of, recipient_of
from fleet.mta.qmail.virtual import NONE, Virtual
from fleet.mta.queue.content import HEADERS, Stored, StoredBatch, parse_stored
from fleet.mta.queue.listing import Listing, Streamed
from fleet.mta.records import Recipient
from fleet.mta.steps import Completed

QUEUE_ID = re.compile(r"[1-9][0-9]{0,19}", re.ASCII)
END_OF_HEADER = re.compile(rb"(?:\A|\n)\r?\n")
MESSAGE = re.compile(rb"(mxfleet-hold/)?mess((?:/[^/]*)?/(?:([1-9][0-9]{0,19})|[^/]*))")
IN_TODO = re.compile(rb"todo/(?:[0-9]+/)?([0-9]+)\Z")
STATES = {"held": "hold", "not yet preprocessed": "incoming", "queued": "deferred"}
BLOCK = 1 << 16
HEADERS_FOLLOW = b":headers\0\0"


def queue_id_error(queue_id: str) -> str | None:
    """qmail names a message by the inode number of its file in mess/."""
    return None if QUEUE_ID.fullmatch(queue_id) else "a queue ID of qmail is a decimal number"


class StreamedEntry(Streamed):
    """One message of qmail_list.sh, with the names of a QueueEntry, so that it can be judged without being copied."""

    __slots__ = (
        "__dict__", "_envelope", "_sender", "_virtual", "arrival_time", "native_state", "queue_id", "size", "state",
    )  # fmt: skip

    def __init__(
        self,
        queue_id: str,
        native_state: str,
        size: int,
        arrived: float,
        sender: bytes,
        envelope: list[bytes],
        virtual: Virtual,
    ) -> None:
        """`envelope`: all records of the message's files. `virtual`: what qmail-send rewrote their recipients by."""
        self.queue_id = queue_id
        self.state = STATES[native_state]
        self.native_state = native_state
        self.size = size
        self.arrival_time = arrived
        self._sender = sender
        self._envelope = envelope
        self._virtual = virtual

    @cached_property
    def sender(self) -> str:
        return address_of(self._sender)

    @property
    def sender_raw(self) -> bytes | None:
        return raw_of(self._sender)

    @cached_property
    def recipients(self) -> list[Recipient]:
        """Decoded when somebody looks: most messages are judged without."""
        return [
            recipient_of(each[1:], "delivered" if each[:1] == b"D" else "undelivered", self._virtual)
            for each in self._envelope
            if each[:1] in {b"T", b"D"}
        ]


@dataclass(slots=True)
class Files:
    """What was listed of files: records and sizes by path, and "SIZE MTIME" of those in mess/."""

    records: dict[bytes, list[bytes]] = field(default_factory=dict)
    sizes: dict[bytes, bytes] = field(default_factory=dict)
    messages: dict[bytes, bytes] = field(default_factory=dict)

    def in_todo(self) -> dict[bytes, bytes]:
        """The files in todo/, which is split only where qmail has the patch for it, by area and name."""
        return {
            path[: -len(match[0])] + match[1]: path
            for path in self.records
            if b"todo/" in path and (match := IN_TODO.search(path))
        }


class QueueSink:
    """Decodes qmail_list.sh group by group, hands every message to `take` and keeps none.

    `take` gets every one, with its headers where the listing has them. A message in mess/ without info/ or todo/ is not
    queued yet, or no longer. One whose envelope does not have the size of its file arrived while it was read, and is
    left out; when it is older than the listing, it is refused.
    `cut`: the phase in which a change was cut off that nobody lives to put right: "stopped", "acting" or "".
    """

    def __init__(self, take: Callable[..., None], virtual: Virtual = NONE) -> None:
        self._take = take
        self._virtual = virtual
        self._pending = b""
        self._blocks: list[bytes] = []
        self._size = 0
        self._files = Files()
        self._before = Files()
        self._again: set[bytes] = set()
        self._whole: dict[str, StreamedEntry] = {}
        self._in_headers = False
        self._began = self._total = self._refused = 0
        self._has_ended = False
        self.cut = ""

    def feed(self, data: bytes) -> None:
        self._blocks.append(data)
        self._size += len(data)
        if self._size >= BLOCK:
            self._drain()

    def close(self) -> Listing:
        self._drain()
        if not self._has_ended or self._pending:
            raise UnparsedOutput("the listing of the queue was cut off")
        notes = (f"{self._refused} messages have files that cannot be read as qmail's",) if self._refused else ()
        return Listing(self._total, self._refused, notes)

    def _drain(self) -> None:
        data = self._pending + b"".join(self._blocks)
        self._blocks, self._size = [], 0
        if self._in_headers:
            data = self._headers(data)
        while not self._in_headers:
            pairs, mark, text = data.partition(HEADERS_FOLLOW)
            data = self._pairs(pairs)
            if not mark:
                break
            if data:
                raise UnparsedOutput("the listing of the queue has headers within a pair")
            self._decide()
            self._in_headers = True
            data = self._headers(text)
        self._pending = data

    def _pairs(self, data: bytes) -> bytes:
        """Returns what is not whole yet."""
        words = data.split(b"\0")
        even = (len(words) - 1) // 2 * 2
        files = self._files
        for word, value in zip(words[0:even:2], words[1:even:2], strict=True):
            kind = word[:1]
            if kind == b"=":
                files.sizes[word[1:]] = value
            elif kind == b"@":
                files.messages[word[1:]] = value
            elif kind == b":":
                self._mark(word, value)
                files = self._files
            elif word in files.records:
                files.records[word].append(value)
            else:
                files.records[word] = [value]
        return b"\0".join(words[even:])

    def _headers(self, data: bytes) -> bytes:
        """Hands on the messages whose headers are here. Returns what is behind them, or not whole yet."""
        at = 0
        while (end := data.find(b"\n", at)) >= 0:
            words = data[at:end].split(b" ")
            if words == [b"end"]:
                self._in_headers = False
                return data[end + 1 :]
            if len(words) == 4:
                behind = end + 1 + size_of(words[2])
                if behind > len(data):
                    break
                if message := self._whole.pop(words[0].decode("ascii", "replace"), None):
                    self._take(message, Stored(data[end + 1 : behind][:HEADERS], None))
                at = behind
            elif words[1:] == [b"absent"]:
                at = end + 1
            else:
                raise UnparsedOutput("the headers in the listing do not have the lengths that were announced")
        return data[at:]

    def _mark(self, word: bytes, value: bytes) -> None:
        if self._has_ended:
            raise UnparsedOutput("the listing of the queue goes on behind its end")
        if word == b":again":
            if not self._again:
                self._before, self._files = self._files, Files()
            self._again.add(value)
        elif word == b":group":
            self._began = second_of(value)
        elif word == b":done":
            self._decide()
            for message in self._whole.values():
                self._take(message)
            self._whole.clear()
        elif word == b":cut":
            self.cut = value.decode("ascii", "replace")
        elif word == b":end" and value.isdigit() and self._files == Files() and not self._whole:
            self._has_ended = True
        else:
            raise UnparsedOutput(f"the listing of the queue has an unknown word {word[:40]!r}")

    def _decide(self) -> None:
        """Which of the listed files make a message."""
        for files, void in ((self._before, self._again), (self._files, frozenset[bytes]())):
            todo = files.in_todo()
            for path, value in files.messages.items():
                match = MESSAGE.fullmatch(path)
                if match is None:
                    raise UnparsedOutput(f"the listing of the queue has a message at {path[:40]!r}")
                area, behind, name = match.groups(b"")
                if name and name not in void:
                    self._message(name.decode("ascii"), area, behind, value, todo.get(area + name), files)
        self._before, self._files, self._again = Files(), Files(), set()

    def _message(self, name: str, area: bytes, behind: bytes, value: bytes, todo: bytes | None, files: Files) -> None:
        try:
            size, arrived = stat_of(value)
        except OutOfBounds:
            self._refused += 1
            return
        envelope = envelope_of(files, area, behind, todo)
        if envelope is None:
            return
        sender = None
        for each in envelope:
            if each.startswith(b"F"):
                sender = each[1:]
                break
        if sender is None:
            self._refused += arrived < self._began - 1
            return
        state = "held" if area else "not yet preprocessed" if todo else "queued"
        self._total += 1
        virtual = NONE if todo else self._virtual
        self._whole[name] = StreamedEntry(name, state, size, arrived, sender, envelope, virtual)


def envelope_of(files: Files, area: bytes, behind: bytes, todo: bytes | None) -> list[bytes] | None:
    """All records of a message's files; none when one is not complete; None when it is not queued.

    `behind`: the path of each, behind its kind.
    """
    records, sizes = files.records, files.sizes
    info = area + b"info" + behind
    paths: Sequence[bytes]
    if todo:
        # While it is preprocessed, todo/ may go between its being read and looked at; it is never changed in place.
        paths = (todo,)
        if todo not in sizes:
            return records[todo]
    elif info in records or info in sizes:
        paths = info, area + b"remote" + behind, area + b"local" + behind
    else:
        return None
    envelope: list[bytes] = []
    for path in paths:
        size = sizes.get(path)
        if size is None and path is not info:
            continue  # there is none, or it went meanwhile
        part = records.get(path)  # None: qmail-send makes them empty, and writes and syncs one after the other
        if part is None or size != b"%d" % (sum(map(len, part)) + len(part)):
            return []
        envelope += part
    return envelope


def parse_contents(done: Completed, headers: int, body: int) -> StoredBatch:
    """The answer of qmail_content.sh. Raises UnparsedOutput."""
    return parse_whole(done, headers, body) if body else parse_stored(done, has_body=False)


def parse_whole(done: Completed, headers: int, body: int) -> StoredBatch:
    """The answer of qmail_content.sh with bodies: sizes, an empty line, then the files as head(1) -v prints them.

    Raises UnparsedOutput when it is cut off or a length does not fit. A file that went meanwhile is absent.
    """
    sizes: dict[str, int] = {}
    answered: set[str] = set()
    first, empty, data = done.stdout.partition(b"\n\n")
    if done.stdout.startswith(b"\n"):
        first, empty, data = b"", b"\n", done.stdout[1:]
    for line in first.splitlines():
        path, _, length = line.decode("ascii", "replace").rpartition(" ")
        answered.add(path.rpartition("/")[2])
        if length.isdigit():
            sizes[path] = min(size_of(length), headers + body)
    messages: dict[str, Stored] = {}
    at = 0
    while empty and data[at:] != b"end\n":
        head = re.compile(rb"==> ([a-z0-9/-]+) <==\n").match(data, at)
        path = head[1].decode() if head else ""
        if head is None or path not in sizes or len(data) < head.end() + sizes[path]:
            raise UnparsedOutput("the messages that were read do not have the lengths that were announced")
        at = head.end() + sizes[path]
        messages[path.rpartition("/")[2]] = split_message(data[head.end() : at], headers, body)
        if data[at : at + 5] == b"\n==> ":
            at += 1
    if not empty:
        raise UnparsedOutput("the messages that were read were cut off")
    return messages, frozenset(answered)


def split_message(data: bytes, headers: int, body: int) -> Stored:
    """The header ends at the first empty line (RFC 5322, 2.1)."""
    end = END_OF_HEADER.search(data)
    if end is None:
        return Stored(data[:headers], b"")
    return Stored(data[: end.start() + data.startswith(b"\n", end.start())][:headers], data[end.end() :][:body])
