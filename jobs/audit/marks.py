"""What this machine remembers of the audit trail outside of the database, so that nobody takes that back unseen.

A file in `MXFLEET_DATA` holds, for each chain, the newest entry that was seen committed and the one that was last
signed here. When the database no longer has one of them, it was restored from a backup or forged, and nobody can tell
which.
Each machine has its own file, shared by its processes: written whole, synced, and replaced by a rename.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import IO, Any, NamedTuple

from django.conf import settings
from django.db.models import Q

from jobs.audit.keys import public_keys
from jobs.audit.verify import GAP_ACTION, is_gap_signed
from jobs.models import AuditChain, AuditCheckpoint, AuditEvent

PATIENCE = 2.0
"""Seconds to wait for another process of this machine, which may stand still."""
BATCH = 200


class MarksError(Exception):
    """The file cannot be used. The text names it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A chain had the entry `seq` with this hash, and the one that was last signed on this machine (0: none yet)."""

    seq: int = 0
    hash: str = ""
    signed: int = 0
    signed_hash: str = ""


Marks = dict[str, Mark]


class Lost(NamedTuple):
    """What the database no longer has: of this chain the entry `seq` with this hash was known."""

    chain: str
    seq: int
    hash: str
    reason: str

    def __str__(self) -> str:
        return f"chain {self.chain or '(installation)'}: {self.reason}"


def path() -> Path:
    """Where the marks of this machine lie."""
    return Path(settings.ENV.data) / "audit-marks"


def read() -> Marks | None:
    """None: this machine remembers nothing yet. Raises MarksError."""
    try:
        content = json.loads(path().read_text("ascii"))
        return {chain: _mark(mark) for chain, mark in content.items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise MarksError(f"{path()} cannot be read: {error}") from error


def _mark(content: dict[str, Any]) -> Mark:
    mark = Mark(**content)
    if [type(value) for value in astuple(mark)] != [int, str, int, str]:
        raise TypeError(f"{content} is no mark")
    return mark


def write(marks: Marks) -> None:
    """Replace the file, which is on disk when this returns. With `locked()`. Raises MarksError."""
    with replacing(marks):
        pass


@contextmanager
def replacing(marks: Marks) -> Iterator[None]:
    """Write the marks, do what is inside, and have them count when that succeeded. As `write` else."""
    draft = path().with_name(f".{path().name}.draft")
    with _as_marks_error():
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(json.dumps({chain: asdict(mark) for chain, mark in marks.items()}))
            file.flush()
            os.fsync(file.fileno())
    yield
    with _as_marks_error():
        draft.replace(path())
        folder = os.open(path().parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def _as_marks_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MarksError(f"{path()} cannot be written: {error}") from error


@contextmanager
def locked(patience: float = PATIENCE) -> Iterator[None]:
    """Keep the other processes of this machine from writing. Raises MarksError when one of them does not let go."""
    try:
        file = path().with_name(f".{path().name}.lock").open("a")
    except OSError as error:
        raise MarksError(f"{path()} cannot be locked: {error}") from error
    with file:
        _lock(file, patience)
        yield


def _lock(file: IO[str], patience: float) -> None:
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise MarksError(f"{path()} is kept by another process for {patience} s") from None
        except OSError as error:
            raise MarksError(f"{path()} cannot be locked: {error}") from error
        time.sleep(0.01)


def heads() -> Marks:
    """The chains as the database has them now."""
    return {head.name: Mark(head.seq, head.hash) for head in AuditChain.objects.all()}


def moved_on(marks: Marks, now: Marks) -> Marks:
    """The marks with what the chains have come to by `now`, and what was last signed as before."""
    return marks | {chain: replace(marks.get(chain, Mark()), seq=h.seq, hash=h.hash) for chain, h in now.items()}


def is_acknowledged(lost: Lost) -> bool:
    """Whether an entry of the chain, signed with our key, names exactly this loss."""
    keys = public_keys()
    entries = AuditEvent.objects.filter(chain=lost.chain, action=GAP_ACTION).values_list("data", flat=True)
    named = (data for data in entries if (data.get("to"), data.get("last_known_hash")) == (lost.seq, lost.hash))
    return any(is_gap_signed(lost.chain, data, keys) for data in named)


def losses(marks: Marks, now: Marks) -> list[Lost]:
    """What the database no longer has, at most one for each chain: entries, else the last checkpoint."""
    return list({each.chain: each for each in (*missing_checkpoints(marks), *missing(marks, now))}.values())


def missing(marks: Marks, now: Marks) -> list[Lost]:
    """The marks whose entry the database no longer has. `now`: `heads()` from after the marks were read."""
    moved = {chain: mark.seq for chain, mark in marks.items() if chain in now and now[chain].seq > mark.seq}
    there = _hashes(AuditEvent, moved)
    return [
        Lost(chain, mark.seq, mark.hash, _reason(mark, now.get(chain, Mark())))
        for chain, mark in marks.items()
        if (there.get(chain) if chain in moved else now.get(chain, Mark()).hash) != mark.hash
    ]


def _reason(mark: Mark, head: Mark) -> str:
    if head.seq < mark.seq:
        return f"entry {mark.seq} was there, and the chain ends at {head.seq}"
    return f"entry {mark.seq} is not the one that was there"


def missing_checkpoints(marks: Marks) -> list[Lost]:
    """The marks whose last checkpoint, signed on this machine, the database no longer has."""
    signed = {chain: mark.signed for chain, mark in marks.items() if mark.signed}
    there = _hashes(AuditCheckpoint, signed)
    return [
        Lost(chain, marks[chain].seq, marks[chain].hash, f"the checkpoint of entry {seq}, signed here, is gone")
        for chain, seq in signed.items()
        if there.get(chain) != marks[chain].signed_hash
    ]


def _hashes(model: type[AuditEvent] | type[AuditCheckpoint], places: dict[str, int]) -> dict[str, str]:
    """{chain: hash} of the rows at these numbers."""
    found: dict[str, str] = {}
    pairs = list(places.items())
    for start in range(0, len(pairs), BATCH):
        at = reduce(or_, (Q(chain=chain, seq=seq) for chain, seq in pairs[start : start + BATCH]))
        found |= dict(model._default_manager.filter(at).values_list("chain", "hash"))
    return found
