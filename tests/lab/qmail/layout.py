"""Where qmail keeps what (qmail-queue(8), INTERNALS.md), its accounts, and its control files (qmail-control(5))."""

from __future__ import annotations

import os

HOME = "/var/qmail"
QUEUE = f"{HOME}/queue"
VIOLATIONS = f"{HOME}/violations.log"
# The lab's own: numbers of the mess files that qmail-queue is about to make, to tell them from a stranger's.
ARRIVALS = "/var/lib/qmail-lab/arrivals"

ALIAS, QMAILD, QMAILL, QMAILP, QMAILQ, QMAILR, QMAILS = range(7790, 7797)
GROUP_QMAIL, GROUP_NOFILES = 2107, 2108

SPLIT_DIRECTORIES = {
    "mess": (QMAILQ, 0o750),
    "info": (QMAILS, 0o700),
    "local": (QMAILS, 0o700),
    "remote": (QMAILS, 0o700),
}
CHANNELS = ("local", "remote")


class Queue:
    """Paths below the queue directory, which has to be the working directory. `split` is conf-split."""

    def __init__(self) -> None:
        self.split = len(os.listdir("mess"))
        self.big_todo = os.path.isdir("todo/0")

    def path(self, part: str, number: int) -> str:
        is_split = part in SPLIT_DIRECTORIES or (self.big_todo and part in ("todo", "intd"))
        return f"{part}/{number % self.split}/{number}" if is_split else f"{part}/{number}"

    def directories(self, part: str) -> list[str]:
        is_split = part in SPLIT_DIRECTORIES or (self.big_todo and part in ("todo", "intd"))
        return [f"{part}/{number}" for number in range(self.split)] if is_split else [part]

    def numbers(self, part: str) -> list[int]:
        """The messages that have a file there."""
        return [int(name) for place in self.directories(part) for name in os.listdir(place) if name.isdigit()]


def make_queue(split: int = 23, big_todo: bool = False) -> None:
    """An empty queue with the owners and modes of the real one. The directory must not be there yet."""
    _directory(QUEUE, QMAILQ, 0o750)
    flat = {"pid": (QMAILQ, 0o700), "bounce": (QMAILS, 0o700), "lock": (QMAILQ, 0o750)}
    todo = {"intd": (QMAILQ, 0o700), "todo": (QMAILQ, 0o750)}
    for part, (owner, mode) in (flat | todo | SPLIT_DIRECTORIES).items():
        _directory(f"{QUEUE}/{part}", owner, mode)
        if part in SPLIT_DIRECTORIES or (big_todo and part in todo):
            for number in range(split):
                _directory(f"{QUEUE}/{part}/{number}", owner, mode)
    _file(f"{QUEUE}/lock/tcpto", bytes(1024), QMAILR, 0o644)
    _file(f"{QUEUE}/lock/sendmutex", b"", QMAILS, 0o600)
    os.mkfifo(f"{QUEUE}/lock/trigger")
    _own(f"{QUEUE}/lock/trigger", QMAILS, 0o622)


def _directory(path: str, owner: int, mode: int) -> None:
    os.mkdir(path)
    _own(path, owner, mode)


def _file(path: str, content: bytes, owner: int, mode: int) -> None:
    with open(path, "wb") as file:
        file.write(content)
    _own(path, owner, mode)


def _own(path: str, owner: int, mode: int) -> None:
    os.chown(path, owner, GROUP_QMAIL)
    os.chmod(path, mode)


def control_lines(name: str) -> list[bytes]:
    """The lines of a control file, without comments; none when it is absent."""
    try:
        with open(f"{HOME}/control/{name}", "rb") as file:
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    return [line.rstrip() for line in lines if line.rstrip() and not line.startswith(b"#")]


def control_line(name: str, default: bytes) -> bytes:
    return (control_lines(name) or [default])[0]


def control_number(name: str, default: int) -> int:
    return int(control_line(name, b"%d" % default))


def me() -> bytes:
    return control_line("me", b"qmail-without-a-name")


def become(user: int) -> None:
    """Give up root for good; group qmail, as qmail-start does it."""
    os.setgroups([])
    os.setgid(GROUP_QMAIL)
    os.setuid(user)


def call_oneself(name: str) -> None:
    """The name that ps(1) shows: prctl(2), PR_SET_NAME."""
    import ctypes  # here, because qmail-queue has to start quickly

    ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)


def is_plain(local_part: bytes) -> bool:
    """Whether a local part is a Dot-string (RFC 5321, 4.1.2) and so needs no quotes."""
    atoms = local_part.split(b".")
    extra = b"!#$%&'*+-/=?^_`{|}~"
    return all(atom and all(bytes([char]).isalnum() or char in extra for char in atom) for atom in atoms)


def quoted(address: bytes) -> bytes:
    """An address of the queue, which has no quotes, as it is written in SMTP and in a header."""
    local_part, at, domain = address.rpartition(b"@")
    if not at or is_plain(local_part):
        return address
    for special in (b"\\", b'"', b"\r", b"\n"):
        local_part = local_part.replace(special, b"\\" + special)
    return b'"' + local_part + b'"@' + domain
