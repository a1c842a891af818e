"""qmail-queue(8): the message on descriptor 0, the envelope on descriptor 1. Runs as qmailq, whoever calls it."""

from __future__ import annotations

import contextlib
import os
import time

from tests.lab.qmail.layout import ALIAS, ARRIVALS, QMAILD, QMAILS, QUEUE, Queue

ADDRESS_LIMIT = 1003
BUFFER = 1 << 16


class Refused(Exception):
    """The number is the exit status (qmail-queue(8), EXIT CODES)."""

    def __init__(self, status: int) -> None:
        self.status = status


def main() -> int:
    os.umask(0o033)
    try:
        os.chdir(QUEUE)
        submit()
    except Refused as refused:
        return refused.status
    except OSError:
        return 53
    return 0


def submit() -> None:
    """One message into mess/, its envelope into intd/ and, when all of it is there, by a link into todo/."""
    queue = Queue()
    pid_file = f"pid/{os.getpid()}.{int(time.time())}.1"
    mess = os.open(pid_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    number = os.fstat(mess).st_ino
    announce(number)
    made = [queue.path("mess", number)]
    os.link(pid_file, made[0])
    os.unlink(pid_file)
    try:
        _write_all(mess, _received())
        while chunk := _read(0):
            _write_all(mess, chunk)
        envelope = os.open(queue.path("intd", number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        made.insert(0, queue.path("intd", number))
        _write_all(envelope, _envelope())
        os.link(made[0], queue.path("todo", number))
    except BaseException:
        for path in made:
            os.truncate(path, 0)
            os.unlink(path)
        raise
    pull_trigger()


def announce(number: int) -> None:
    """Tell the stand-in for qmail-send that the mess file of this number will not be a stranger's."""
    with open(ARRIVALS, "a") as arrivals:
        arrivals.write(f"{number}\n")


def pull_trigger() -> None:
    with contextlib.suppress(OSError):
        trigger = os.open("lock/trigger", os.O_WRONLY | os.O_NONBLOCK)
        os.write(trigger, b"\0")
        os.close(trigger)


def _received() -> bytes:
    invoked = {ALIAS: "by alias", QMAILD: "from network", QMAILS: "for bounce"}
    how = invoked.get(os.getuid(), f"by uid {os.getuid()}")
    date = time.strftime("%d %b %Y %H:%M:%S", time.gmtime()).lstrip("0")
    return f"Received: (qmail {os.getpid()} invoked {how}); {date} -0000\n".encode()


def _envelope() -> bytes:
    """The records of todo/: uid, pid, sender and recipients, each ended by NUL. Raises Refused."""
    given = b"".join(iter(lambda: _read(1), b""))
    head = b"u%d\0p%d\0" % (os.getuid(), os.getpid())
    records = given.split(b"\0")
    if len(records) < 3 or records[-2:] != [b"", b""]:
        raise Refused(54)
    sender, *recipients = records[:-2]
    if sender[:1] != b"F" or any(one[:1] != b"T" for one in recipients):
        raise Refused(91)
    if any(len(one) > ADDRESS_LIMIT for one in (sender, *recipients)):
        raise Refused(11)
    return head + b"".join(one + b"\0" for one in (sender, *recipients))


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, BUFFER)
    except OSError as error:
        raise Refused(54) from error


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
