"""Who else touches the queue while qmail-send runs: inotify(7), less what qmail-send and qmail-queue do themselves."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import time
from collections.abc import Iterator

from tests.lab.qmail.layout import ARRIVALS, SPLIT_DIRECTORIES, VIOLATIONS, Queue

KINDS = {
    0x002: "modified",
    0x004: "attributes changed",
    0x040: "moved out",
    0x080: "moved in",
    0x100: "created",
    0x200: "removed",
}
OVERFLOW = 0x4000
IS_DIRECTORY = 0x40000000
QUEUE_PARTS = (*SPLIT_DIRECTORIES, "todo", "intd", "bounce")

# What qmail-queue does with the files of a message until it has linked it into todo/.
ARRIVING = {
    *((part, kind) for part in ("mess", "intd") for kind in ("created", "modified", "removed")),
    ("todo", "created"),
}


class Watch:
    """The events of the queue's directories. The queue directory is the working directory.

    `own` announces what qmail-send is about to do; any other event is judged: part of a message that is arriving, or a
    violation, written to the log at once. An event tells what was done, not by whom: the same change by a stranger at
    the very moment of ours is not seen.
    """

    def __init__(self, queue: Queue) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self.places: dict[int, str] = {}
        for place in (".", "lock", *QUEUE_PARTS):
            self._add(place)
        for part in QUEUE_PARTS:
            for place in queue.directories(part):
                self._add(place)
        self.log = os.open(VIOLATIONS, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.arrivals = os.open(ARRIVALS, os.O_RDONLY | os.O_CLOEXEC)
        self.arriving: set[int] = set()
        self._read_arrivals()
        self.arriving = {number for number in self.arriving if _is_arriving(queue, number)}
        self.expected: set[tuple[str, str]] = set()

    @contextlib.contextmanager
    def own(self, *changes: tuple[str, str]) -> Iterator[None]:
        """(path, kind): what happens within is ours."""
        self.judge()
        self.expected = set(changes)
        try:
            yield
        finally:
            self.judge()
            self.expected = set()

    def settled(self, number: int) -> None:
        """The message has been taken over from todo/: from now on nobody but qmail-send may touch it."""
        self.arriving.discard(number)

    def judge(self) -> None:
        """Look at everything that has happened so far."""
        while data := self._read():
            at = 0
            while at < len(data):
                place, mask, _, length = struct.unpack_from("iIII", data, at)
                name = data[at + 16 : at + 16 + length].rstrip(b"\0").decode("utf-8", "backslashreplace")
                at += 16 + length
                self._judge_one(place, mask, name)

    def _judge_one(self, place: int, mask: int, name: str) -> None:
        if mask & OVERFLOW:
            self._record("overflow", "more events than the kernel keeps")
            return
        kind = next((word for bit, word in KINDS.items() if mask & bit), "")
        directory = self.places.get(place, "?")
        path = f"{directory}/{name}" if name else directory
        if not kind or (path, kind) in self.expected or self._is_harmless(directory, name, kind):
            return
        if not self._is_arrival(directory.split("/")[0], name, kind):
            self._record(kind, path)

    def _is_harmless(self, directory: str, name: str, kind: str) -> bool:
        """New names beside qmail's own, a pulled trigger, a mutex opened to lock it, and notes in tcpto."""
        if directory == ".":
            return name not in (*QUEUE_PARTS, "lock")
        return directory == "lock" and kind == "modified"

    def _is_arrival(self, part: str, name: str, kind: str) -> bool:
        if not name.isdigit() or (part, kind) not in ARRIVING:
            return False
        number = int(name)
        if (part, kind) == ("mess", "created"):
            self._read_arrivals()
        is_known = number in self.arriving
        if (is_known and part == "todo") or (part, kind) == ("mess", "removed"):
            self.arriving.discard(number)
        return is_known

    def _read_arrivals(self) -> None:
        while text := os.read(self.arrivals, 1 << 20):
            self.arriving.update(int(line) for line in text.split())

    def _record(self, kind: str, path: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        os.write(self.log, f"{now} {kind} {path}\n".encode())

    def _add(self, place: str) -> None:
        mask = 0
        for bit in KINDS:
            mask |= bit
        number = self.libc.inotify_add_watch(self.descriptor, place.encode(), mask)
        if number < 0:
            raise OSError(ctypes.get_errno(), f"inotify_add_watch {place}")
        self.places[number] = place

    def _read(self) -> bytes:
        try:
            return os.read(self.descriptor, 1 << 16)
        except BlockingIOError:
            return b""


def _is_arriving(queue: Queue, number: int) -> bool:
    return os.path.exists(queue.path("mess", number)) and not os.path.exists(queue.path("info", number))
