"""The engine against a real sshd: what its callers may rely on."""

from datetime import UTC

from fleet.mta.types import Command, Completed, Steps, run
from fleet.ssh.endpoint import Endpoint
from fleet.ssh.engine import Engine, Outcome, Request
from tests.ssh.sshd import Sshd


def says(*argv: str, mutates: bool = False, timeout: int = 30) -> Steps[Completed]:
    return (yield from run(Command(argv, mutates=mutates, timeout=timeout)))


def request(endpoint: Endpoint, *argv: str, key: str = "a", deadline: float = 30, mutates: bool = False) -> Request:
    return Request(key, endpoint, lambda: says(*argv, mutates=mutates), until_plan=False, deadline=deadline)


def one(engine: Engine, asked: Request) -> Outcome:
    ((outcome,),) = engine.outcomes([asked])
    return outcome


def test_an_outcome_carries_value_times_and_trace(engine: Engine, sshd: Sshd) -> None:
    outcome = one(engine, request(sshd.endpoint(), "echo", "hello"))
    assert outcome.error is None
    assert outcome.value.stdout == b"hello\n"
    assert outcome.started_at.tzinfo is UTC
    assert outcome.started_at <= outcome.finished_at
    assert [(r.argv, r.exit_status) for r in outcome.trace.commands] == [(("echo", "hello"), 0)]
    assert not outcome.trace.mutated
