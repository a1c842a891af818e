"""qmail-local(8), as much of it as the lab needs: an account's Maildir, and qmail's verdicts."""

from __future__ import annotations

import os
import pwd
import stat
import time
from pathlib import Path

from tests.lab.qmail.layout import HOME, quoted

OWN = ("postmaster", "mailer-daemon", "root")  # what LWQ-style installations have in alias/


def deliver(message: int, sender: bytes, recipient: bytes) -> bytes:
    """The report on a delivery, as root; `message` is an open descriptor."""
    name = recipient.rpartition(b"@")[0].decode("ascii", "replace").lower()
    home = _home(name)
    if home is None:
        return b"DSorry, no mailbox here by that name. (#5.1.1)\n"
    if home.stat().st_mode & stat.S_ISVTX:
        return b"ZHome directory is sticky: user is editing his .qmail file. (#4.2.1)\n"
    account = home.stat()
    os.setgroups([])
    os.setgid(account.st_gid)
    os.setuid(account.st_uid)
    for part in ("tmp", "new", "cur"):
        (home / "Maildir" / part).mkdir(parents=True, exist_ok=True)
    unique = f"{time.time_ns()}.{os.getpid()}"
    head = b"Return-Path: <" + quoted(sender) + b">\nDelivered-To: " + recipient + b"\n"
    with os.fdopen(message, "rb") as file:
        (home / "Maildir/tmp" / unique).write_bytes(head + file.read())
    (home / "Maildir/tmp" / unique).rename(home / "Maildir/new" / unique)
    return b"Kdid 1+0+0\n"


def _home(name: str) -> Path | None:
    if name in OWN:
        return Path(HOME) / "alias"
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        return None
    return Path(account.pw_dir) if account.pw_uid >= 1000 and account.pw_dir.startswith("/home/") else None
