"""What smtpctl(8) prints. Its lines are split by bars, and a sender may contain bars (trap 39)."""

import re
from collections.abc import Callable
from functools import partial

from fleet.mta.bounds import OutOfBounds, count_of, second_of, size_of
from fleet.mta.errors import MtaNotRunning, SudoDenied, UnparsedOutput
from fleet.mta.host import commands
from fleet.mta.queue.listing import Listing, StreamedEntry
from fleet.mta.records import QueueEntry, Recipient
from fleet.mta.text import text_of

# smtpctl.c, show_queue_envelope(): neither a local part nor a domain contains an @, and no domain a bar.
ENVELOPE = re.compile(
    r"(?P<message>[0-9a-f]{8})[0-9a-f]{8}\|(?:local|inet4|inet6|\?)\|(?P<type>mta|mda|bounce|\?)\|(?P<flags>[a-z,]*)"
    r"\|(?P<sender>[^@]*@[^@|]*)\|[^@]*@[^@|]*\|(?P<recipient>[^@]*@[^@|]*)"
    r"\|(?P<created>\d+)\|\d+\|\d+\|(?P<tries>\d+)\|(?P<state>pending|inflight|offline|invalid)\|(?P<seconds>-?\d*)"
    r"\|(?P<reason>.*)",
    re.DOTALL,
)
TIME = re.compile(r"!(\d+)")
SIZE = re.compile(r"([0-9a-f]{8}) (\d+)")
QUEUE_ID = re.compile(r"[0-9a-f]{8}")
LISTED = b"~listed"
LINE = 1 << 16
MARKERS: commands.Markers = (
    (b"smtpd doesn't seem to be running", MtaNotRunning, "smtpd is not running"),
    (b"need root privileges", SudoDenied, "smtpctl needs root"),
)
error_of = partial(commands.error_of, markers=MARKERS)


def queue_id_error(queue_id: str) -> str | None:
    """What is wrong with the grammar of a queue ID: it is the message's, without that of the envelope."""
    return None if QUEUE_ID.fullmatch(queue_id) else "an OpenSMTPD message ID is 8 lower-case hexadecimal digits"


class QueueSink:
    """Puts the envelopes of opensmtpd_list.sh together to messages while they stream in."""

    def __init__(self, take: Callable[[StreamedEntry], None]) -> None:
        self._take = take
        self._now: int | None = None
        self._rest = b""
        self._name = ""
        self._size: str | None = None
        self._envelopes: list[re.Match[str]] = []
        self._total = 0
        self._refused = 0
        self._ended: list[bytes] = []

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE:
            raise UnparsedOutput("smtpctl printed a line that is too long")
        for line in lines:
            self._line(line)

    def close(self) -> Listing:
        """How the listing ended. Raises UnparsedOutput when it was cut off."""
        if self._rest or self._ended != [LISTED, b"end"] or self._now is None:
            raise UnparsedOutput("the listing of the queue was cut off")
        return Listing(self._total, self._refused)

    def _line(self, line: bytes) -> None:
        if self._ended or line in (LISTED, b"end"):
            self._finish()
            self._ended.append(line)
            return
        text = text_of(line)
        if sized := SIZE.fullmatch(text):
            self._open(sized[1])
            self._size = sized[2] if self._size is None else self._size
        elif moment := TIME.fullmatch(text):
            self._now = second_of(moment[1])
        elif envelope := ENVELOPE.fullmatch(text):
            self._open(envelope["message"])
            self._envelopes.append(envelope)
        else:
            self._refused += 1

    def _open(self, name: str) -> None:
        if name != self._name:
            self._finish()
            self._name = name

    def _finish(self) -> None:
        """A message without a file has just been delivered: it arrived after one look for files, before the other."""
        if self._envelopes and self._size is not None:
            try:
                entry = message(self._name, self._size, self._envelopes, self._now)
            except OutOfBounds:
                self._refused += 1
            else:
                self._total += 1
                self._take(entry)
        self._envelopes = []
        self._size = None


def message(name: str, size: str, envelopes: list[re.Match[str]], now: int | None) -> QueueEntry:
    """The message of these envelopes: on hold when all are paused, active when any is in flight.

    Raises OutOfBounds.
    """
    states = {each["state"] for each in envelopes}
    paused = [each for each in envelopes if "suspend" in each["flags"].split(",")]
    if "inflight" in states:
        state, native = "active", "inflight"
    elif len(paused) == len(envelopes):
        state, native = "hold", "paused"
    else:
        state, native = "deferred", min(states)
    waits = [_wait(each["seconds"]) for each in envelopes if each["state"] == "pending" and each not in paused]
    sender = envelopes[0]["sender"]
    return QueueEntry(
        queue_id=name,
        state=state,
        native_state=native,
        # A bounce that smtpd makes is one more envelope of the message, and later.
        arrival_time=float(min(second_of(each["created"]) for each in envelopes)),
        sender="<>" if sender == "@" else sender,
        recipients=[Recipient(each["recipient"], each["reason"]) for each in envelopes],
        size=size_of(size),
        attempts=max(count_of(each["tries"]) for each in envelopes),
        next_attempt=now + min(waits) if now is not None and waits else None,
    )


def _wait(seconds: str) -> int:
    """Until the next attempt; negative when it is late."""
    return -count_of(seconds[1:]) if seconds.startswith("-") else count_of(seconds)
