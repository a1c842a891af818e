"""The leases of what this process has at work, moved on by one thread with one UPDATE for all of them.

The thread has a connection of its own as long as there is anything at work, so it never waits for what it watches.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from django.db import Error, connection

from jobs.lifecycle import claim
from jobs.models import Job, Run

RENEWAL = 10.0
POLL = 1.0
"""Seconds between two polls: whether a job was cancelled, and after a failed renewal the next attempt."""

log = logging.getLogger(__name__)


def clock() -> float:
    """Seconds of a clock that never jumps and also counts while the machine sleeps (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(eq=False)
class Lease:
    """What one claim has at work. `until`: after that time of our `clock` no changing command may begin.

    Reckoned from before the statement that moved `lease_until` on, so it ends here before anybody may take it away
    there; a process that was stopped meanwhile finds it ended.
    """

    job: UUID
    fences: dict[UUID, int]
    until: float
    is_cancelled: bool = False
    lost: set[UUID] = field(default_factory=set)

    def holds(self, run: UUID) -> bool:
        """Whether the run is still ours to change hosts for. Asked right before each changing command."""
        return run not in self.lost and clock() < self.until

    def was_cancelled(self) -> bool:
        return self.is_cancelled


class Keeper:
    """All leases of this process, and the thread that keeps them."""

    def __init__(self) -> None:
        self._leases: set[Lease] = set()
        self._some = threading.Condition()
        self._thread: threading.Thread | None = None
        self._renewed_at = 0.0

    @contextmanager
    def kept(self, job: Job, runs: Sequence[Run], claimed_at: float) -> Iterator[Lease]:
        """Keep the leases of `runs`, claimed when our clock was at `claimed_at`, for the length of the block."""
        until = claimed_at + claim.LEASE.total_seconds()
        lease = Lease(job.pk, {run.pk: run.fence for run in runs}, until, job.cancel_asked_at is not None)
        with self._some:
            self._leases.add(lease)
            self._some.notify()
        self._watch()
        try:
            yield lease
        finally:
            with self._some:
                self._leases.discard(lease)

    def _watch(self) -> None:
        with self._some:
            if self._thread is None or not self._thread.is_alive():  # the first one, or a forked child
                self._thread = threading.Thread(target=self._keep, name="lease-keeper", daemon=True)
                self._thread.start()

    def _keep(self) -> None:
        while True:
            with self._some:
                if not self._leases:
                    connection.close()
                    self._some.wait_for(lambda: bool(self._leases))
                    self._renewed_at = clock()
                self._some.wait(POLL)
            try:
                self.note_cancelled()
                if clock() - self._renewed_at >= RENEWAL:
                    self.renew()
            except Error as error:
                log.warning("cannot move leases on: %s", error)
                connection.close()

    def note_cancelled(self) -> None:
        """Take note of the jobs that somebody has cancelled."""
        leases = self._now()
        cancelled = claim.cancelled({lease.job for lease in leases})
        for lease in leases:
            lease.is_cancelled = lease.is_cancelled or lease.job in cancelled

    def renew(self) -> None:
        """Move the leases on, and take note of those that are no longer ours."""
        leases, begun = self._now(), clock()
        ours = claim.keep({run for lease in leases for run in lease.fences})
        for lease in leases:
            lost = {run for run, fence in lease.fences.items() if ours.get(run) != fence}
            lease.lost |= lost
            lease.until = begun + claim.LEASE.total_seconds()
        self._renewed_at = begun

    def _now(self) -> list[Lease]:
        with self._some:
            return list(self._leases)


KEEPER = Keeper()
