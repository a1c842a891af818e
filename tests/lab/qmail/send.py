"""The stand-in for qmail-send(8): the queue's only owner while it runs.

As the real one: todo/ is taken over into info/, local/ and remote/; the next attempts are kept in memory and written
as times of local/S/ID and remote/S/ID only at the end; TERM lets the running deliveries end; ALRM tries everything now;
HUP reads locals and virtualdomains again; the log has the lines of qmail-log(5).
Not as the real one: no VERP, no percent hack, no clean-up of what crashed programs left, no fsync, and retries are put
off by an hour and more, so that a deferred message moves during a test only when somebody moves it.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import math
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import NoReturn

from tests.lab.qmail.layout import (
    CHANNELS,
    HOME,
    QMAILS,
    QUEUE,
    Queue,
    become,
    call_oneself,
    control_line,
    control_lines,
    control_number,
    me,
    quoted,
)
from tests.lab.qmail.watch import Watch

RETRY_SKIP = 60  # the real one: 10 for local, 20 for remote; the first retry is the square of it in seconds later
FAILURE_PAUSE = 123
TODO_PAUSE = 1500
DOUBLE_BOUNCE = b"#@[]"
TOO_LONG = b"I'm not going to try again; this message has been in the queue too long.\n"


def log(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def safe(text: bytes) -> str:
    """As qmail-send logs what strangers wrote: one word."""
    shown = (47 if char == 10 else char if 33 <= char <= 126 and char != 37 else 95 for char in text)
    return bytes(shown).decode("ascii")


def die(why: str) -> NoReturn:
    log(f"alert: cannot start: {why}")
    raise SystemExit(111)


@dataclass(slots=True)
class Job:
    """A message that is being tried on one channel; open as long as its file is read or a delivery runs."""

    number: int
    channel: str
    sender: bytes
    retry: int
    is_dying: bool
    references: int = 1
    to_do: int = 0
    is_read: bool = False


@dataclass(slots=True)
class Delivery:
    label: int
    job: Job
    position: int
    recipient: bytes


@dataclass(slots=True)
class Channel:
    """local or remote: its deliveries, its spawning process, and when to try which message."""

    name: str
    concurrency: int
    commands: int
    reports: int
    schedule: list[tuple[int, int]] = field(default_factory=list)
    deliveries: dict[int, Delivery] = field(default_factory=dict)
    received: bytes = b""
    job: Job | None = None
    records: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def is_free(self) -> bool:
        return len(self.deliveries) < self.concurrency


class Sender:
    """qmail-send. `pipes`: (commands, reports) of each channel's spawning process, then of qmail-clean."""

    def __init__(self, pipes: dict[str, tuple[int, int]], cleaner: tuple[int, int]) -> None:
        self.mutex = os.open("lock/sendmutex", os.O_WRONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(self.mutex, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            die("qmail-send is already running")
        self.queue = Queue()
        self.watch = Watch(self.queue)
        self.cleaner = cleaner
        limits = {"local": 10, "remote": 20}
        self.channels = {
            name: Channel(name, control_number(f"concurrency{name}", limits[name]), *pipes[name]) for name in CHANNELS
        }
        self.lifetime = control_number("queuelifetime", 604800)
        self.done: list[tuple[int, int]] = []
        self.todo: list[int] = []
        self.next_todo = 0
        self.last_label = 0
        self.now = 0
        self.asked: set[signal.Signals] = set()
        self.trigger = -1
        self.read_domains()
        self.set_trigger()

    def read_domains(self) -> None:
        self.locals = {line.lower() for line in control_lines("locals")} or {me().lower()}
        pairs = (line.partition(b":") for line in control_lines("virtualdomains"))
        self.virtual = {key.lower(): value for key, _, value in pairs}

    def set_trigger(self) -> None:
        if self.trigger >= 0:
            os.close(self.trigger)
        self.trigger = os.open("lock/trigger", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    # Running

    def run(self) -> None:
        for number in self.queue.numbers("info"):
            self.schedule(number)
        self.log_status()
        woken = self._catch_signals()
        while not self.is_stopping or any(channel.deliveries for channel in self.channels.values()):
            self.now = int(time.time())
            self._obey_signals()
            ready = self._wait(woken)
            self.now = int(time.time())
            self.watch.judge()
            for channel in self.channels.values():
                if channel.reports in ready:
                    self.read_reports(channel)
            self.do_todo(self.trigger in ready)
            for channel in self.channels.values():
                self.do_channel(channel)
            if self.done and self.done[0][0] <= self.now:
                self.finish_message(heapq.heappop(self.done)[1])
        self.write_schedule()
        log("status: exiting")

    @property
    def is_stopping(self) -> bool:
        return signal.SIGTERM in self.asked

    def _catch_signals(self) -> int:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGHUP):
            signal.signal(number, lambda given, _: self.asked.add(signal.Signals(given)))
        return reader

    def _obey_signals(self) -> None:
        if signal.SIGALRM in self.asked:
            self.asked.remove(signal.SIGALRM)
            for channel in self.channels.values():
                channel.schedule = [(self.now, number) for _, number in channel.schedule]
        if signal.SIGHUP in self.asked:
            self.asked.remove(signal.SIGHUP)
            self.read_domains()

    def _wait(self, woken: int) -> set[int]:
        sources = [woken, self.watch.descriptor, *(channel.reports for channel in self.channels.values())]
        if not self.is_stopping:
            sources.append(self.trigger)
        ready = select.select(sources, [], [], self._idle_seconds())[0]
        if woken in ready:
            os.read(woken, 4096)
        return set(ready)

    def _idle_seconds(self) -> float:
        """How long nothing is due, unless something happens."""
        due = [entry[0][0] for entry in (self.done,) if entry]
        if not self.is_stopping:
            due.append(0 if self.todo else self.next_todo)
            for channel in self.channels.values():
                if channel.job and channel.is_free:
                    due.append(0)
                elif not channel.job and channel.schedule:
                    due.append(channel.schedule[0][0])
        return max(0, min([*due, self.now + 86400]) - self.now)

    # The schedule

    def schedule(self, number: int) -> None:
        """Take a message up as its files say (at the start)."""
        if os.path.exists(self.queue.path("todo", number)):
            return
        found = False
        for channel in self.channels.values():
            with contextlib.suppress(FileNotFoundError):
                when = int(os.stat(self.queue.path(channel.name, number)).st_mtime)
                heapq.heappush(channel.schedule, (when, number))
                found = True
        if not found:
            heapq.heappush(self.done, (int(time.time()), number))

    def write_schedule(self) -> None:
        for channel in self.channels.values():
            for when, number in channel.schedule:
                path = self.queue.path(channel.name, number)
                with self.watch.own((path, "attributes changed")):
                    try:
                        os.utime(path, (when, when))
                    except OSError:
                        log(f"warning: unable to utime {path}; message will be retried too soon")

    # New messages

    def do_todo(self, is_pulled: bool) -> None:
        if self.is_stopping:
            return
        if not self.todo:
            if not is_pulled and self.now < self.next_todo:
                return
            self.set_trigger()
            self.todo = self.queue.numbers("todo")
            self.next_todo = self.now + TODO_PAUSE
        if self.todo:
            self.take_over(self.todo.pop())

    def take_over(self, number: int) -> None:
        """todo/ID becomes info/S/ID, local/S/ID and remote/S/ID (INTERNALS.md, 6)."""
        todo, mess = self.queue.path("todo", number), self.queue.path("mess", number)
        try:
            envelope = self._read(todo)
        except OSError:
            log(f"warning: unable to open {todo}")
            return
        try:
            size = os.stat(mess).st_size
        except OSError:
            log(f"warning: unable to stat {mess}")
            return
        self.watch.judge()
        self.watch.settled(number)
        paths = {part: self.queue.path(part, number) for part in ("info", *CHANNELS)}
        for path in paths.values():
            self._remove_if_there(path)
        log(f"new msg {number}")
        records = self._sort_records(number, size, envelope)
        for part, content in records.items():
            self._write_new(paths[part], content)
        with self.watch.own((todo, "removed"), (self.queue.path("intd", number), "removed")):
            self._clean(f"todo/{number}")
        given = [self.channels[name] for name in CHANNELS if name in records]
        for channel in given:
            heapq.heappush(channel.schedule, (self.now, number))
        if not given:
            heapq.heappush(self.done, (self.now, number))

    def _sort_records(self, number: int, size: int, envelope: bytes) -> dict[str, bytes]:
        """What goes into info, local and remote."""
        records: dict[str, bytes] = {}
        user = process = b"0"
        for record in envelope.split(b"\0")[:-1]:
            letter, value = record[:1], record[1:]
            if letter == b"u":
                user = value
            elif letter == b"p":
                process = value
            elif letter == b"F":
                records["info"] = record + b"\0"
                origin = f"qp {process.decode()} uid {user.decode()}"
                log(f"info msg {number}: bytes {size} from <{safe(value)}> {origin}")
            elif letter == b"T":
                name, address = self.route(value)
                records[name] = records.get(name, b"") + b"T" + address + b"\0"
            else:
                log(f"warning: unknown record type in {self.queue.path('todo', number)}")
        return records

    def route(self, address: bytes) -> tuple[str, bytes]:
        """The channel of a recipient, and how it is written there."""
        if b"@" not in address:
            address += b"@" + control_line("envnoathost", me())
        domain = address.rpartition(b"@")[2].lower()
        if domain in self.locals:
            return "local", address
        labels = domain.split(b".")
        parents = [b"." + b".".join(labels[at:]) for at in range(1, len(labels))]
        for key in (address.lower(), domain, *parents, b""):
            if key in self.virtual:
                prefix = self.virtual[key]
                return ("local", prefix + b"-" + address) if prefix else ("remote", address)
        return "remote", address

    # Deliveries

    def do_channel(self, channel: Channel) -> None:
        """Open the next message that is due, or take the next recipient of the open one."""
        if self.is_stopping:
            return
        if channel.job is None:
            if not channel.schedule or channel.schedule[0][0] > self.now:
                return
            self._open(channel, heapq.heappop(channel.schedule)[1])
        while channel.job is not None and channel.is_free:
            if not channel.records:
                channel.job.is_read = True
                self.close_job(channel.job)
                channel.job = None
                return
            position, record = channel.records.pop(0)
            if record[:1] == b"T":
                self.start(channel, channel.job, position, record[1:])
                return

    def _open(self, channel: Channel, number: int) -> None:
        path = self.queue.path(channel.name, number)
        try:
            content = self._read(path)
            sender, birth = self._info(number)
        except OSError:
            log(f"warning: trouble opening {path}; will try again later")
            heapq.heappush(channel.schedule, (self.now + FAILURE_PAUSE, number))
            return
        retry = birth + (math.isqrt(max(0, self.now - birth)) + RETRY_SKIP) ** 2
        channel.job = Job(number, channel.name, sender, retry, self.now > birth + self.lifetime)
        at = 0
        for record in content.split(b"\0")[:-1]:
            channel.records.append((at, record))
            at += len(record) + 1

    def start(self, channel: Channel, job: Job, position: int, recipient: bytes) -> None:
        slot = next(slot for slot in range(channel.concurrency) if slot not in channel.deliveries)
        self.last_label += 1
        channel.deliveries[slot] = Delivery(self.last_label, job, position, recipient)
        job.references += 1
        job.to_do += 1
        mess = self.queue.path("mess", job.number).removeprefix("mess/")
        command = b"\0".join([bytes([slot]) + mess.encode(), job.sender, recipient, b""])
        os.write(channel.commands, command)
        log(f"starting delivery {self.last_label}: msg {job.number} to {channel.name} {safe(recipient)}")
        self.log_status()

    def read_reports(self, channel: Channel) -> None:
        data = os.read(channel.reports, 1 << 16)
        if not data:
            log("alert: oh no! lost spawn connection! dying...")
            raise SystemExit(111)
        channel.received += data
        while (end := channel.received.find(b"\0", 1)) > 0:
            report, channel.received = channel.received[:end], channel.received[end + 1 :]
            self.end_delivery(channel, channel.deliveries.pop(report[0]), report[1:2], report[2:])

    def end_delivery(self, channel: Channel, delivery: Delivery, verdict: bytes, text: bytes) -> None:
        job = delivery.job
        if verdict == b"Z" and job.is_dying:
            verdict, text = b"D", text + TOO_LONG
        word = {b"K": "success", b"Z": "deferral", b"D": "failure"}.get(verdict)
        said = f"{word}: {safe(text)}" if word else "report mangled, will defer"
        log(f"delivery {delivery.label}: {said}")
        if verdict == b"D":
            self._add_bounce(job.number, delivery.recipient, text)
        if verdict in (b"K", b"D"):
            self._mark_done(self.queue.path(channel.name, job.number), delivery.position)
            job.to_do -= 1
        self.close_job(job)
        self.log_status()

    def _mark_done(self, path: str, position: int) -> None:
        with self.watch.own((path, "modified")):
            try:
                file = os.open(path, os.O_WRONLY)
            except OSError:
                log(f"warning: trouble marking {path}; message will be delivered twice!")
                return
            os.pwrite(file, b"D", position)
            os.close(file)

    def close_job(self, job: Job) -> None:
        """One less that needs it; after the last, the next attempt is put down, or the channel's file goes."""
        job.references -= 1
        if job.references:
            return
        again = job.retry
        if job.is_read and not job.to_do:
            path = self.queue.path(job.channel, job.number)
            if self._remove(path):
                others = [name for name in CHANNELS if name != job.channel]
                if not any(os.path.exists(self.queue.path(name, job.number)) for name in others):
                    heapq.heappush(self.done, (int(time.time()), job.number))
                return
            log(f"warning: unable to unlink {path}; will try again later")
            again = int(time.time()) + FAILURE_PAUSE
        heapq.heappush(self.channels[job.channel].schedule, (again, job.number))

    # The end of a message

    def finish_message(self, number: int) -> None:
        for part in (*CHANNELS, "todo"):
            if os.path.exists(self.queue.path(part, number)):
                return
        info = self.queue.path("info", number)
        if not os.path.exists(info):
            return
        if not self._send_bounce(number):
            heapq.heappush(self.done, (self.now + FAILURE_PAUSE, number))
            return
        log(f"end msg {number}")
        if not self._remove(info):
            log(f"warning: unable to unlink {info}; will try again later")
            heapq.heappush(self.done, (self.now + FAILURE_PAUSE, number))
            return
        with self.watch.own((self.queue.path("mess", number), "removed"), (self.queue.path("intd", number), "removed")):
            self._clean(f"foop/{number}")

    def _add_bounce(self, number: int, recipient: bytes, report: bytes) -> None:
        text = b"<" + recipient.replace(b"\n", b"_") + b">:\n" + report.rstrip(b"\n") + b"\n"
        path = self.queue.path("bounce", number)
        with self.watch.own((path, "created"), (path, "modified")):
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(file, text.replace(b"\n\n", b"/\n") + b"\n")
            os.close(file)

    def _send_bounce(self, number: int) -> bool:
        """Return what bounce/ID says to the sender; whether that is settled (also when there is no such file)."""
        path = self.queue.path("bounce", number)
        try:
            sender = self._info(number)[0]
            report = self._read(path)
        except FileNotFoundError:
            return not os.path.exists(path)
        if sender == DOUBLE_BOUNCE:
            log(f"triple bounce: discarding {path}")
        else:
            process = self._submit(*self._bounce(sender, report, self._read(self.queue.path("mess", number))))
            if not process:
                log("warning: trouble injecting bounce message, will try later")
                return False
            log(f"bounce msg {number} qp {process}")
        if not self._remove(path):
            log(f"warning: unable to unlink {path}")
            return False
        return True

    def _bounce(self, sender: bytes, report: bytes, message: bytes) -> tuple[bytes, bytes]:
        """(message, envelope) of a QSBMF bounce, or of a double one to the postmaster."""
        host = control_line("bouncehost", me())
        author = quoted(control_line("bouncefrom", b"MAILER-DAEMON") + b"@" + host)
        manager = control_line("doublebounceto", b"postmaster") + b"@" + control_line("doublebouncehost", me())
        to, origin = (sender, b"") if sender else (manager, DOUBLE_BOUNCE)
        if sender:
            greeting = (
                b".\nI'm afraid I wasn't able to deliver your message to the following addresses.\n"
                b"This is a permanent error; I've given up. Sorry it didn't work out.\n\n"
            )
            copy = b"--- Below this line is a copy of the message.\n\n"
        else:
            greeting = b".\nI tried to deliver a bounce message to this address, but the bounce bounced!\n\n"
            copy = b"--- Below this line is the original bounce.\n\n"
        date = time.strftime("%d %b %Y %H:%M:%S -0000", time.gmtime()).encode()
        head = b"Date: " + date + b"\nFrom: " + author + b"\nTo: " + quoted(to) + b"\nSubject: failure notice\n\n"
        body = b"Hi. This is the qmail-send program at " + host + greeting + report + copy
        envelope = b"F" + origin + b"\0T" + to + b"\0\0"
        return head + body + b"Return-Path: <" + quoted(sender) + b">\n" + message, envelope

    def _submit(self, message: bytes, envelope: bytes) -> int:
        """Hand a message to qmail-queue; its process number, or 0 when it did not take it."""
        readable, writable = os.pipe()
        command = [f"{HOME}/bin/qmail-queue"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=readable) as process:
            os.close(readable)
            assert process.stdin
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(message)
                process.stdin.close()
                os.write(writable, envelope)
            os.close(writable)
        return 0 if process.returncode else process.pid

    # Files

    def _info(self, number: int) -> tuple[bytes, int]:
        """(sender, when it was queued). Raises OSError."""
        path = self.queue.path("info", number)
        record = self._read(path).split(b"\0")[0]
        if record[:1] != b"F":
            raise OSError(f"no sender in {path}")
        return record[1:], int(os.stat(path).st_mtime)

    def _read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def _write_new(self, path: str, content: bytes) -> None:
        with self.watch.own((path, "created"), (path, "modified")):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(file, content)
            os.close(file)

    def _remove(self, path: str) -> bool:
        with self.watch.own((path, "removed")):
            try:
                os.unlink(path)
            except OSError:
                return False
        return True

    def _remove_if_there(self, path: str) -> None:
        if os.path.exists(path):
            self._remove(path)

    def _clean(self, request: str) -> None:
        os.write(self.cleaner[0], request.encode() + b"\0")
        if os.read(self.cleaner[1], 1) != b"+":
            log(f"warning: qmail-clean unable to clean up {request}")

    def log_status(self) -> None:
        used = " ".join(f"{one.name} {len(one.deliveries)}/{one.concurrency}" for one in self.channels.values())
        log(f"status: {used}{' exitasap' if self.is_stopping else ''}")


def serve(pipes: dict[str, tuple[int, int]], cleaner: tuple[int, int]) -> None:
    """Run as qmails. Called as root, because the watch has to see directories that are qmailq's alone."""
    os.umask(0o077)
    os.chdir(QUEUE)
    sender = Sender(pipes, cleaner)
    become(QMAILS)
    call_oneself("qmail-send")
    sender.run()
