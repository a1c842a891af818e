"""Lanes of a worker: changing, reading and looking have threads of their own, so that none waits for another.

A task of Celery only says "there may be something to do in this lane". It is carried out while the lane has a thread to
spare; otherwise it is dropped at once, and the threads that are at work look once more before they leave.
"""

import threading
from collections.abc import Callable

from fleet.ssh.gate import Lane

WIDTHS = {Lane.CHANGE: 12, Lane.READ: 12, Lane.LOOK: 4}
SPARE = 2
"""Threads that are in no lane: they take the messages that find their lane full."""
THREADS = sum(WIDTHS.values()) + SPARE


class LaneThreads:
    """At most `width` threads are in a lane.

    `claiming`: held while one of them claims. `served`: customer -> the number of its last turn.
    """

    def __init__(self, lane: Lane, width: int) -> None:
        self.lane = lane
        self.width = width
        self.claiming = threading.Lock()
        self.served: dict[int, int] = {}
        self._lock = threading.Lock()
        self._busy = 0
        self._is_rung = False

    def run(self, turn: Callable[[], bool]) -> None:
        """Call `turn` until it finds nothing to do and no wakeup came meanwhile; at once nothing, if the lane is full.

        What `turn` raises ends this thread's stay.
        """
        if not self._enter():
            return
        has_left = False
        try:
            while not has_left:
                if not turn():
                    has_left = self._leave()
        finally:
            if not has_left:
                self._quit()

    def _enter(self) -> bool:
        with self._lock:
            if self._busy >= self.width:
                self._is_rung = True
                return False
            self._busy += 1
            return True

    def _leave(self) -> bool:
        with self._lock:
            if self._is_rung:
                self._is_rung = False
                return False
            self._busy -= 1
            return True

    def _quit(self) -> None:
        with self._lock:
            self._busy -= 1


def lanes() -> dict[str, LaneThreads]:
    """The lanes of one worker process, by name."""
    return {lane.value: LaneThreads(lane, width) for lane, width in WIDTHS.items()}
