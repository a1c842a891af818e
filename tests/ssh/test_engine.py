"""The engine against a real sshd: what its callers may rely on."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest

from fleet.mta.errors import AuthFailed, ConnectionLost, OutcomeUnknown, RemoteError, RemoteTimeout, Unreachable
from fleet.mta.steps import Command, Completed, Plan, Steps, run
from fleet.ssh import engine as engine_module
from fleet.ssh.endpoint import AddressPolicy, Endpoint
from fleet.ssh.engine import Engine, Outcome, Request
from fleet.ssh.gate import Lane
from fleet.ssh.login import COMMON, options_for
from fleet.ssh.pool import SESSIONS
from tests.ssh.carry import shell
from tests.ssh.sshd import Sshd, free_port, keygen


def request(endpoint: Endpoint, *argv: str, key: str = "a", deadline: float = 30, **options: Any) -> Request[Completed]:
    def steps() -> Steps[Completed]:
        return (yield from run(Command(argv, **options)))

    return Request(key, endpoint, steps, until_plan=False, deadline=deadline)


def stepping(endpoint: Endpoint, steps: Callable[[], Steps[Any]], until_plan: bool = False) -> Request[Any]:
    return Request("a", endpoint, steps, until_plan=until_plan, deadline=30)


def one(engine: Engine, asked: Request[Any]) -> Outcome:
    ((outcome,),) = engine.outcomes([asked])
    return outcome


def test_an_outcome_carries_value_times_and_trace(engine: Engine, sshd: Sshd) -> None:
    outcome = one(engine, request(sshd.endpoint(), "echo", "hello"))
    assert outcome.error is None
    assert outcome.value.stdout == b"hello\n"
    assert outcome.started_at is not None
    assert outcome.finished_at is not None
    assert outcome.started_at.tzinfo is UTC
    assert outcome.started_at <= outcome.finished_at
    assert [(r.argv, r.exit_status) for r in outcome.trace.commands] == [(("echo", "hello"), 0)]
    assert not outcome.trace.mutated


def test_no_requests_are_no_outcomes(engine: Engine) -> None:
    assert list(engine.outcomes([])) == []


def test_a_dry_run_returns_the_plan_and_changes_nothing(engine: Engine, sshd: Sshd) -> None:
    def steps() -> Steps[Completed]:
        listed = yield from run(Command(("echo", "3")))
        yield Plan(queue_total=int(listed.stdout))
        return (yield from run(Command(("touch", "/nonexistent/x"), mutates=True)))

    dry = one(engine, stepping(sshd.endpoint(), steps, until_plan=True))
    assert dry.value == Plan(queue_total=3)
    assert not dry.trace.mutated
    real = one(engine, stepping(sshd.endpoint(), steps))
    assert real.value.exit_status == 1
    assert real.trace.mutated


def test_an_engine_answers_while_its_loop_turns(engine: Engine, sshd: Sshd) -> None:
    assert engine.answers(0)
    one(engine, request(sshd.endpoint(), "true"))
    assert engine.answers(5)
    running, held = engine._now, threading.Event()
    assert running is not None
    running.loop.call_soon_threadsafe(held.wait)
    assert not engine.answers(0.1)
    held.set()
    assert engine.answers(5)


def test_each_failure_is_an_outcome_of_its_own(engine: Engine, sshd: Sshd) -> None:
    wrong = keygen(sshd.directory / "stranger").read_bytes()
    asked = [
        request(sshd.endpoint(), "true", key="good"),
        request(sshd.endpoint(port=free_port()), "true", key="closed", deadline=1),
        request(sshd.endpoint(private_key=wrong), "true", key="stranger"),
        request(sshd.endpoint(address="192.0.2.1"), "true", key="forbidden"),
        request(sshd.endpoint(), "sleep", "20", key="slow", timeout=1),
    ]
    outcomes = {outcome.key: outcome for block in engine.outcomes(asked) for outcome in block}
    assert outcomes["good"].value.exit_status == 0
    assert {key: type(outcome.error) for key, outcome in outcomes.items() if key != "good"} == {
        "closed": Unreachable,
        "stranger": AuthFailed,
        "forbidden": Unreachable,
        "slow": RemoteTimeout,
    }


def test_a_change_cut_by_the_deadline_is_unknown(engine: Engine, sshd: Sshd) -> None:
    outcome = one(engine, request(sshd.endpoint(), "sleep", "3", deadline=1, timeout=3, mutates=True))
    assert type(outcome.error) is OutcomeUnknown
    assert outcome.trace.mutated


def test_a_change_for_a_host_that_cannot_be_reached_is_not_unknown(engine: Engine, sshd: Sshd) -> None:
    outcome = one(engine, request(sshd.endpoint(port=free_port()), "true", deadline=1, mutates=True))
    assert type(outcome.error) is Unreachable
    assert not outcome.trace.mutated


def test_a_change_whose_connection_dies_is_unknown(engine: Engine, own_sshd: Sshd) -> None:
    own_sshd.start()
    timer = threading.Timer(0.8, own_sshd.stop)
    timer.start()
    outcome = one(engine, request(own_sshd.endpoint(), *shell("sleep 20"), mutates=True))
    timer.join()
    assert type(outcome.error) is OutcomeUnknown


@pytest.fixture
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keepalive as ever, only faster."""
    monkeypatch.setitem(COMMON, "keepalive_interval", 0.3)
    options_for.cache_clear()


@pytest.mark.usefixtures("attentive")
def test_a_host_that_freezes_in_mid_change_is_found_out_and_the_outcome_is_unknown(
    engine: Engine, own_sshd: Sshd
) -> None:
    own_sshd.start()
    timer = threading.Timer(1, lambda: [os.kill(child, signal.SIGSTOP) for child in own_sshd.children()])
    timer.start()
    begun = time.monotonic()
    outcome = one(engine, request(own_sshd.endpoint(), "sleep", "20", mutates=True))
    assert type(outcome.error) is OutcomeUnknown
    assert outcome.error.data["cause"] == ConnectionLost.code
    assert time.monotonic() - begun < 6


@pytest.mark.usefixtures("attentive")
def test_a_command_whose_channel_never_opened_goes_over_a_new_connection(engine: Engine, own_sshd: Sshd) -> None:
    own_sshd.start()
    assert one(engine, request(own_sshd.endpoint(), "true")).error is None
    for child in own_sshd.children():
        os.kill(child, signal.SIGSTOP)
    outcome = one(engine, request(own_sshd.endpoint(), "true", mutates=True))
    assert outcome.error is None
    assert own_sshd.log().count("Accepted publickey") == 2


@pytest.mark.parametrize(("mutates", "kind"), [(False, RemoteError), (True, OutcomeUnknown)])
def test_a_bug_in_the_steps_costs_its_own_instance_only(
    engine: Engine, sshd: Sshd, caplog: pytest.LogCaptureFixture, mutates: bool, kind: type[Exception]
) -> None:
    def buggy() -> Steps[None]:
        yield from run(Command(("true",), mutates=mutates))
        raise KeyError("oops")

    asked = [Request("bug", sshd.endpoint(), buggy, False, 30), request(sshd.endpoint(), "true", key="good")]
    with caplog.at_level(logging.ERROR, logger="fleet.ssh.engine"):
        outcomes = {outcome.key: outcome for block in engine.outcomes(asked) for outcome in block}
    assert type(outcomes["bug"].error) is kind
    assert outcomes["bug"].error.data["internal"] is True
    assert "oops" in caplog.text
    assert outcomes["good"].error is None


def test_a_cancelled_job_lets_begun_requests_end_and_sends_nothing_for_the_others(
    engine: Engine, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "IN_FLIGHT", 2)
    begun = time.monotonic()
    asked = [request(sshd.endpoint(), "sleep", "1", key=str(number)) for number in range(10)]
    blocks = engine.outcomes(asked, cancelled=lambda: time.monotonic() - begun > 0.5)
    outcomes = [outcome for block in blocks for outcome in block]
    ended = [outcome for outcome in outcomes if not outcome.cancelled]
    assert len(outcomes) == 10
    assert [outcome.value.exit_status for outcome in ended] == [0, 0]
    for outcome in outcomes:
        if outcome.cancelled:
            assert (outcome.value, outcome.error, outcome.trace.commands) == (None, None, [])


def test_a_job_cancelled_while_it_waits_for_its_login_sends_nothing(engine: Engine, sshd: Sshd) -> None:
    outcome = next(iter(engine.outcomes([request(sshd.endpoint(), "true", mutates=True)], cancelled=lambda: True)))[0]
    assert outcome.cancelled
    assert not outcome.trace.mutated


def test_many_threads_share_one_engine_and_one_connection(engine: Engine, own_sshd: Sshd) -> None:
    own_sshd.start()
    results: dict[int, list[bytes]] = {}

    def work(number: int) -> None:
        asked = [request(own_sshd.endpoint(), "echo", f"{number}.{turn}", key=str(turn)) for turn in range(5)]
        outcomes = [outcome for block in engine.outcomes(asked) for outcome in block]
        results[number] = sorted(outcome.value.stdout.strip() for outcome in outcomes)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [f"{number}.{turn}".encode() for turn in range(5)] for number in range(6)}
    assert own_sshd.log().count("Accepted publickey") == 1


def test_outcomes_come_while_others_still_run(engine: Engine, sshd: Sshd) -> None:
    asked = [request(sshd.endpoint(), "sleep", "3", key="slow"), request(sshd.endpoint(), "true", key="fast")]
    begun = time.monotonic()
    blocks = engine.outcomes(asked)
    assert [outcome.key for outcome in next(blocks)] == ["fast"]
    assert time.monotonic() - begun < 2
    assert [outcome.key for outcome in next(blocks)] == ["slow"]


def test_hundreds_of_outcomes_come_in_blocks(engine: Engine) -> None:
    def nothing() -> Steps[int]:
        yield Plan()
        return 1

    nowhere = Endpoint("mx1", "192.0.2.1", 22, "ops", b"")
    asked = [Request(str(number), nowhere, nothing, False, 30) for number in range(2000)]
    blocks = list(engine.outcomes(asked))
    assert sum(map(len, blocks)) == 2000
    assert len(blocks) <= 16


def test_closing_ends_what_runs_and_the_engine_may_be_used_again(sshd: Sshd) -> None:
    engine = Engine(AddressPolicy())
    asked = [
        request(sshd.endpoint(), "sleep", "5", key="read"),
        request(sshd.endpoint(), "sleep", "5", key="change", mutates=True),
    ]
    timer = threading.Timer(1, engine.close)
    timer.start()
    outcomes = {outcome.key: outcome for block in engine.outcomes(asked) for outcome in block}
    timer.join()
    assert type(outcomes["read"].error) is ConnectionLost
    assert type(outcomes["change"].error) is OutcomeUnknown
    assert one(engine, request(sshd.endpoint(), "true")).error is None
    engine.close()
    engine.close()


@pytest.mark.parametrize("lane", [Lane.CHANGE, Lane.LOOK])
def test_on_a_host_full_of_long_readings_a_change_and_a_look_do_not_wait(
    engine: Engine, sshd: Sshd, lane: Lane
) -> None:
    readings = [request(sshd.endpoint(), "sleep", "3", key=str(number)) for number in range(2 * SESSIONS)]
    asked = [*readings, replace(request(sshd.endpoint(), "true", key="first"), lane=lane)]
    begun = time.monotonic()
    assert [outcome.key for outcome in next(engine.outcomes(asked))] == ["first"]
    assert time.monotonic() - begun < 3


def test_a_refused_host_is_tried_again_once_it_is_reset(engine: Engine, own_sshd: Sshd) -> None:
    own_sshd.start()
    keys = own_sshd.directory / "authorized_keys"
    good = keys.read_text()
    keys.write_text("")
    engine.reset("mx1.example.com")
    assert type(one(engine, request(own_sshd.endpoint(), "true")).error) is AuthFailed
    keys.write_text(good)
    assert type(one(engine, request(own_sshd.endpoint(), "true")).error) is AuthFailed
    engine.reset("mx1.example.com")
    assert one(engine, request(own_sshd.endpoint(), "true")).error is None


def test_a_job_cancelled_while_its_host_does_not_answer_ends_at_once(engine: Engine, sshd: Sshd) -> None:
    begun = time.monotonic()
    silent = [
        request(sshd.endpoint(port=free_port()), "true", key="closed"),
        request(sshd.endpoint(), "true", key="up"),
    ]
    blocks = engine.outcomes(silent, cancelled=lambda: time.monotonic() - begun > 1)
    outcomes = {outcome.key: outcome for block in blocks for outcome in block}
    assert time.monotonic() - begun < 2
    assert outcomes["closed"].cancelled
    assert outcomes["up"].value.exit_status == 0
