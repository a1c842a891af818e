"""A worker's tries of credentials that are to take the place of others: a login on each host, which changes nothing."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fleet.models import Host
from fleet.mta.steps import Command, Steps, run
from fleet.ssh.engine import Outcome, Request
from fleet.ssh.gate import Lane
from jobs.clock import db_now
from jobs.lifecycle import replacing
from jobs.worker.endpoints import endpoint_for

DEADLINE = 60.0
"""Seconds for one try."""

Execute = Callable[[Sequence[Request[Any]]], Iterator[list[Outcome]]]

log = logging.getLogger(__name__)
_round = threading.Lock()


def try_next(queue: str, execute: Execute) -> None:
    """Log in to this queue's hosts that are due. One round at a time: it takes one thread, whatever the hosts do."""
    if not _round.acquire(blocking=False):
        return
    try:
        _round_of(replacing.take(db_now(), queue), execute)
    finally:
        _round.release()


def _round_of(hosts: Sequence[Host], execute: Execute) -> None:
    by_key = {f"next {host.pk}": host for host in hosts}
    requests = []
    for key, host in by_key.items():
        try:
            requests.append(_request(key, host))
        except Exception as error:  # a credential that does not open must not keep the others from being tried
            log.exception("the next credential of %s cannot be tried", host)
            replacing.refused(host, f"it cannot be tried: {type(error).__name__}; the worker's log has more")
    for outcomes in execute(requests):
        for outcome in outcomes:
            host = by_key[outcome.key]
            if outcome.error is not None:
                replacing.refused(host, f"{outcome.error.code}: {outcome.error.detail}")
            else:
                replacing.took(host)


def _request(key: str, host: Host) -> Request[Any]:
    endpoint = endpoint_for(host, host.next_credential)
    return Request(key, endpoint, log_in, until_plan=False, deadline=DEADLINE, lane=Lane.LOOK)


def log_in() -> Steps[None]:
    """A login, and a command that does nothing."""
    yield from run(Command(("true",)))
