"""Put messages straight into the queue while qmail-send is down: `python3 -m tests.lab.qmail.fill N` in the host."""

from __future__ import annotations

import argparse
import fcntl
import os
import time

from tests.lab.qmail.layout import GROUP_QMAIL, QMAILQ, QMAILS, QUEUE, Queue


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--from", dest="sender", default="sender{i}@bulk.example", help="{i} is the message's number")
    parser.add_argument("--to", dest="recipients", action="append", help="may be given more than once")
    parser.add_argument("--subject", default="lab message {i}")
    parser.add_argument("--size", type=int, default=0, help="bytes of the body, at least")
    parser.add_argument("--age", type=int, default=60, help="seconds since it was queued")
    parser.add_argument("--next", type=int, default=3600, help="seconds until it is tried")
    parser.add_argument("--todo", action="store_true", help="as it just came in, not yet taken over by qmail-send")
    given = parser.parse_args()
    os.umask(0o077)
    os.chdir(QUEUE)
    with open("lock/sendmutex", "w") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX | fcntl.LOCK_NB)
        queue = Queue()
        for index in range(1, given.count + 1):
            put(queue, given, index)
    return 0


def put(queue: Queue, given: argparse.Namespace, index: int) -> None:
    def numbered(text: str) -> bytes:
        return os.fsencode(text).replace(b"{i}", b"%d" % index)

    sender = numbered(given.sender)
    recipients = [numbered(recipient) for recipient in given.recipients or ["r{i}@defer.test"]]
    born = int(time.time()) - given.age
    date = time.strftime("%d %b %Y %H:%M:%S -0000", time.gmtime(born)).encode()
    head = b"Received: (qmail %d invoked from network); %s\n" % (os.getpid(), date)
    head += b"From: <%s>\nTo: <%s>\nSubject: %s\n" % (sender, recipients[0], numbered(given.subject))
    head += b"Date: %s\nMessage-ID: <%d.%d@fill.lab.test>\n\nLab message %d.\n" % (date, time.time_ns(), index, index)
    message = head + (b"x" * 70 + b"\n") * (-(-given.size // 71))
    new = f"pid/{os.getpid()}.{born}.{index}"
    number = _write(new, message, QMAILQ, 0o644, born)
    os.rename(new, queue.path("mess", number))
    if given.todo:
        envelope = b"u7791\0p%d\0F" % os.getpid() + sender + b"\0" + b"".join(b"T" + one + b"\0" for one in recipients)
        _write(queue.path("intd", number), envelope, QMAILQ, 0o644, born)
        os.link(queue.path("intd", number), queue.path("todo", number))
        return
    due = int(time.time()) + given.next
    _write(queue.path("info", number), b"F" + sender + b"\0", QMAILS, 0o600, born)
    to_do = b"".join(b"T" + one + b"\0" for one in recipients)
    _write(queue.path("remote", number), to_do, QMAILS, 0o600, due)


def _write(path: str, content: bytes, owner: int, mode: int, when: int) -> int:
    """The inode of the new file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    os.write(file, content)
    os.fchown(file, owner, GROUP_QMAIL)
    os.fchmod(file, mode)
    os.utime(file, (when, when))
    number = os.fstat(file).st_ino
    os.close(file)
    return number


if __name__ == "__main__":
    raise SystemExit(main())
