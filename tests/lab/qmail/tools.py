"""qmail-qread(8), and qmail-inject(8) as far as `sendmail -f SENDER RECIPIENT...` needs it."""

from __future__ import annotations

import getopt
import os
import sys
import time

from tests.lab.qmail.layout import CHANNELS, HOME, QUEUE, Queue, control_line, me


def qread() -> int:
    """List the queue as qmail-qread does: what is still in todo/ does not appear."""
    try:
        os.chdir(QUEUE)
        queue = Queue()
    except PermissionError:
        print("fatal: unable to chdir: access denied")
        return 111
    for number in queue.numbers("info"):
        try:
            size = os.stat(queue.path("mess", number)).st_size
            born = time.gmtime(int(os.stat(queue.path("info", number)).st_mtime))
            sender = _read(queue.path("info", number)).split(b"\0")[0][1:]
        except FileNotFoundError:
            print(f"warning: trouble with #{number}: file does not exist")
            continue
        bouncing = " bouncing" if os.path.exists(queue.path("bounce", number)) else ""
        date = time.strftime("%d %b %Y %H:%M:%S", born).lstrip("0")
        print(f"{date} GMT  #{number}  {size}  <{_shown(sender)}> {bouncing}")
        for channel in CHANNELS:
            if os.path.exists(queue.path(channel, number)):
                for record in _read(queue.path(channel, number)).split(b"\0")[:-1]:
                    print(f"{'  done' if record[:1] == b'D' else ''}\t{channel}\t{_shown(record[1:])}")
    return 0


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _shown(text: bytes) -> str:
    return "".join(chr(char) if 32 <= char <= 126 else "_" for char in text)


def inject() -> int:
    """The message on standard input goes to the recipients named on the command line."""
    options, recipients = getopt.getopt(sys.argv[1:], "f:F:B:b:o:intaA")
    host = control_line("defaulthost", me())
    sender = next((os.fsencode(value) for name, value in options if name == "-f"), os.environb.get(b"USER", b"root"))
    message = sys.stdin.buffer.read()
    date = time.strftime("%d %b %Y %H:%M:%S -0000", time.gmtime()).encode()
    head = b"Date: %s\nMessage-ID: <%d.%d.qmail@%s>\nFrom: %s\n" % (
        date,
        time.time(),
        os.getpid(),
        host,
        _at(sender, host),
    )
    addresses = [_at(os.fsencode(one), host) for one in recipients]
    envelope = b"F" + (_at(sender, host) if sender else b"") + b"\0" + b"".join(b"T" + one + b"\0" for one in addresses)
    content, records = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(content[0], 0)
        os.dup2(records[0], 1)
        os.execv(f"{HOME}/bin/qmail-queue", ["qmail-queue"])
    os.close(content[0])
    os.close(records[0])
    for pipe, data in ((content[1], head + message), (records[1], envelope + b"\0")):
        with os.fdopen(pipe, "wb") as file:
            file.write(data)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        print(f"qmail-inject: fatal: qq trouble: exit {status}", file=sys.stderr)
    return 111 if status else 0


def _at(address: bytes, host: bytes) -> bytes:
    return address if b"@" in address else address + b"@" + host
