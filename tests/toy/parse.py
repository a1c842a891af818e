"""What our scripts say of the queue directory."""

import re
from collections.abc import Callable, Iterable

from fleet.mta.bounds import count_of, second_of, size_of
from fleet.mta.errors import UnparsedOutput
from fleet.mta.host.commands import error_of
from fleet.mta.queue.listing import Listing
from fleet.mta.queue.outcome import Word
from fleet.mta.records import QueueEntry, Recipient
from fleet.mta.steps import Completed
from fleet.mta.text import text_of

QUEUE_ID = re.compile(r"[0-9A-F]{8}")
STATES = {b"free": "deferred", b"held": "hold", b"busy": "active"}
MESSAGE = re.compile(rb"M (?P<id>[0-9A-F]{8}) (?P<state>free|held|busy) (?P<second>\d+) (?P<size>\d+) (?P<length>\d+) ")
WORD = re.compile(r"(done|busy) ([0-9A-F]{8})")


def queue_id_error(queue_id: str) -> str | None:
    """What is wrong with the grammar of a queue ID, or None."""
    return None if QUEUE_ID.fullmatch(queue_id) else "no queue ID of the toy: eight digits 0-9 and A-F"


def ids_input(queue_ids: Iterable[str]) -> bytes:
    """Queue IDs, one a line, each checked again."""
    checked = list(queue_ids)
    if any(map(queue_id_error, checked)):
        raise ValueError(f"not all of them are queue IDs: {checked}")
    return "".join(f"{queue_id}\n" for queue_id in checked).encode()


class QueueSink:
    """Takes the answer of toy_list.sh apart while it streams in. Raises UnparsedOutput for anything else or less."""

    def __init__(self, take: Callable[[QueueEntry], None]) -> None:
        self._take = take
        self._rest = b""
        self._total = 0
        self._announced: int | None = None

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            match = MESSAGE.match(line)
            if self._announced is not None or not (match or line.startswith(b"end ")):
                raise UnparsedOutput("this is no listing of the queue")
            if not match:
                self._announced = count_of(line[4:])
                continue
            self._take(entry_of(match, line[match.end() :]))
            self._total += 1

    def close(self) -> Listing:
        if self._rest or self._announced != self._total:
            raise UnparsedOutput("the listing of the queue was cut off")
        return Listing(self._total)


def entry_of(match: re.Match[bytes], rest: bytes) -> QueueEntry:
    """`rest`: the sender, of the length that was announced, and the recipients."""
    length = size_of(match["length"])
    raw, recipients = rest[:length] or b"<>", rest[length:].split()
    sender = text_of(raw)
    return QueueEntry(
        match["id"].decode(),
        STATES[match["state"]],
        match["state"].decode(),
        second_of(match["second"]),
        sender,
        [Recipient(text_of(each)) for each in recipients],
        size_of(match["size"]),
        sender_raw=None if sender.encode() == raw else raw,
    )


def words_of(done: Completed, program: str) -> dict[str, Word]:
    """ "done ID" or "busy ID" of each message that toy_change.sh has something to say of; last "end"."""
    lines = done.stdout.decode("ascii", "replace").split("\n")
    matches = [WORD.fullmatch(line) for line in lines[:-2]]
    if done.exit_status or lines[-2:] != ["end", ""] or None in matches:
        raise error_of(done, program)
    return {each[2]: Word(each[1]) for each in matches if each}
