"""Lanes never wait for each other, and a wakeup that finds its lane full is not lost."""

import threading
from collections import Counter

import pytest

from fleet.ssh.gate import Lane
from jobs.lanes import THREADS, WIDTHS, LaneThreads


def entered(lane: LaneThreads, go: threading.Event, inside: threading.Semaphore) -> threading.Thread:
    """A thread that is at work in the lane until `go`."""

    def turn() -> bool:
        inside.release()
        assert go.wait(10)
        return False

    thread = threading.Thread(target=lane.run, args=(turn,))
    thread.start()
    assert inside.acquire(timeout=10)
    return thread


def test_a_full_lane_turns_a_ring_away_at_once_and_its_threads_look_once_more() -> None:
    lane, go, inside, turns = LaneThreads(Lane.READ, 2), threading.Event(), threading.Semaphore(0), Counter[str]()
    threads = [entered(lane, go, inside) for _ in range(2)]

    def turned_away() -> bool:
        turns["third"] += 1
        return False

    lane.run(turned_away)
    assert turns["third"] == 0
    go.set()
    for thread in threads:
        thread.join(10)
    assert inside.acquire(blocking=False), "one of them looked again for the wakeup that found the lane full"
    lane.run(turned_away)
    assert turns["third"] == 1, "the lane is free again"


def test_a_turn_that_found_something_is_followed_by_another() -> None:
    found = [True, True, False]
    LaneThreads(Lane.CHANGE, 1).run(lambda: found.pop(0))
    assert found == []


def test_what_a_turn_raises_frees_its_place() -> None:
    lane = LaneThreads(Lane.CHANGE, 1)

    def fail() -> bool:
        raise ConnectionResetError

    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            lane.run(fail)


def test_a_worker_has_threads_for_all_lanes_and_some_to_spare() -> None:
    assert sum(WIDTHS.values()) < THREADS
    assert set(WIDTHS) == set(Lane)
