"""The lab for pytest: `from tests.lab.fixtures import *` in a conftest.py, then ask for `lab`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.config import LANE
from tests.lab.lab import Host, Lab
from tests.lab.qmail.control import violations

__all__ = ["ex1", "ex2", "ex3", "lab", "os1", "os2", "pf1", "pf2", "pf3", "qm1", "sm1", "sm2"]


class LabOnDemand(Lab):
    """Starts a host when it is first asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.started: set[str] = set()

    def host(self, name: str) -> Host:
        if name not in self.started:
            self.up(name)
            self.started.add(name)
        return super().host(name)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Each host up when it is asked for. Not root, or no way to build it: an error, never a skip.

    It stays up afterwards, so that the next run starts at once, and `python -m tests.lab.lab down` removes it; only a
    lane takes its own down.
    """
    found = LabOnDemand()
    yield found
    if LANE:
        found.down()


def _fresh(lab: Lab, name: str) -> Iterator[Host]:
    host = lab.host(name)
    host.reset()
    lab.sink.reset()
    yield host
    host.thaw()


@pytest.fixture
def pf1(lab: Lab) -> Iterator[Host]:
    """Postfix 3.7 with two instances, as freshly started; the sink is empty and answers as at the beginning."""
    yield from _fresh(lab, "pf1")


@pytest.fixture
def pf2(lab: Lab) -> Iterator[Host]:
    """Postfix 3.5, likewise."""
    yield from _fresh(lab, "pf2")


@pytest.fixture
def pf3(lab: Lab) -> Iterator[Host]:
    """Postfix 3.10 with long queue IDs, likewise."""
    yield from _fresh(lab, "pf3")


@pytest.fixture
def os1(lab: Lab) -> Iterator[Host]:
    """OpenSMTPD 6.8 whose configuration refuses the senders of a table, likewise."""
    yield from _fresh(lab, "os1")


@pytest.fixture
def os2(lab: Lab) -> Iterator[Host]:
    """OpenSMTPD 7.6 without a rule for senders, likewise."""
    yield from _fresh(lab, "os2")


@pytest.fixture
def sm1(lab: Lab) -> Iterator[Host]:
    """Sendmail 8.17 with a second instance on port 2525, likewise."""
    yield from _fresh(lab, "sm1")


@pytest.fixture
def sm2(lab: Lab) -> Iterator[Host]:
    """Sendmail 8.18, likewise."""
    yield from _fresh(lab, "sm2")


@pytest.fixture
def ex1(lab: Lab) -> Iterator[Host]:
    """Exim 4.96, split spool, likewise."""
    yield from _fresh(lab, "ex1")


@pytest.fixture
def ex2(lab: Lab) -> Iterator[Host]:
    """Exim 4.96, flat spool, likewise."""
    yield from _fresh(lab, "ex2")


@pytest.fixture
def ex3(lab: Lab) -> Iterator[Host]:
    """Exim 4.98 with long message IDs, likewise."""
    yield from _fresh(lab, "ex3")


@pytest.fixture
def qm1(lab: Lab) -> Iterator[Host]:
    """qmail with smtpfront-qmail, likewise. Who changes its queue while qmail-send runs makes the test fail."""
    yield from _fresh(lab, "qm1")
    assert violations(lab.host("qm1")) == []
