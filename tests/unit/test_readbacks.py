"""Looks at unknown outcomes: a host that hangs keeps nobody from another's."""

import threading
import time
from collections.abc import Sequence
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

from fleet.ssh.engine import Outcome, Request
from jobs.models import Run
from jobs.worker.readbacks import ReadBacks

ONE, TWO = (cast(Run, SimpleNamespace(pk=pk)) for pk in ("one", "two"))


class Hosts:
    """Answer when the test says so."""

    def __init__(self) -> None:
        self.is_running = True
        self.ready: SimpleQueue[list[Outcome]] = SimpleQueue()

    def begin(self, requests: Sequence[Request[Any]], ready: SimpleQueue[list[Outcome]]) -> None:
        self.ready = ready

    def answer(self, key: str) -> None:
        self.ready.put([Outcome(key)])


def begin(readbacks: ReadBacks, hosts: Hosts, run: Run) -> None:
    readbacks.begin(hosts, [run], [cast(Request[Any], SimpleNamespace(key=str(run.pk)))])


class Taker(threading.Thread):
    """Another thread of the lane, that takes what the looks show."""

    def __init__(self, readbacks: ReadBacks, hosts: Hosts) -> None:
        super().__init__(daemon=True)
        self.readbacks, self.hosts = readbacks, hosts
        self.taken: SimpleQueue[list[Run]] = SimpleQueue()
        self.start()

    def run(self) -> None:
        for runs, _ in self.readbacks.outcomes(self.hosts):
            self.taken.put(runs)

    def ends(self) -> bool:
        self.join(5)
        return not self.is_alive()


def test_while_one_host_hangs_others_are_looked_at_and_settled_and_no_more_than_one_thread_waits() -> None:
    readbacks, hosts = ReadBacks(), Hosts()
    begin(readbacks, hosts, ONE)
    waiting = Taker(readbacks, hosts)
    while readbacks._taking.acquire(blocking=False):
        readbacks._taking.release()
        time.sleep(0.001)
    begin(readbacks, hosts, TWO)
    assert list(readbacks.outcomes(hosts)) == [], "this thread is free again at once"
    hosts.answer("two")
    assert waiting.taken.get(timeout=5) == [TWO]
    hosts.answer("one")
    assert waiting.taken.get(timeout=5) == [ONE]
    assert waiting.ends()


def test_a_run_at_which_a_look_is_under_way_is_not_looked_at_once_more() -> None:
    readbacks, hosts = ReadBacks(), Hosts()
    begin(readbacks, hosts, ONE)
    assert readbacks.new([ONE, TWO]) == [TWO]
    hosts.answer("one")
    assert [runs for runs, _ in readbacks.outcomes(hosts)] == [[ONE]]
    assert readbacks.new([ONE, TWO]) == [ONE, TWO]


def test_what_was_settled_by_nobody_is_taken_by_the_next_thread() -> None:
    readbacks, hosts = ReadBacks(), Hosts()
    begin(readbacks, hosts, ONE)
    begin(readbacks, hosts, TWO)
    hosts.answer("one")
    hosts.answer("two")
    for _ in readbacks.outcomes(hosts):
        break  # it died while it settled the first
    assert [runs for runs, _ in readbacks.outcomes(hosts)] == [[TWO]]


def test_looks_of_an_engine_that_was_closed_are_given_up() -> None:
    readbacks, hosts = ReadBacks(), Hosts()
    begin(readbacks, hosts, ONE)
    hosts.is_running = False
    assert list(readbacks.outcomes(hosts)) == []
    assert readbacks.new([ONE]) == [ONE]
