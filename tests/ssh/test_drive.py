"""The bridge: which error a caller gets, given what had been sent. A hand-written transport says what happens."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from fleet.mta.errors import (
    Conflict,
    ConnectionLost,
    FleetError,
    MtaNotFound,
    OutcomeUnknown,
    OutputTooLarge,
    Overtaken,
    RemoteError,
    RemoteTimeout,
    SudoDenied,
    UnparsedOutput,
    Unreachable,
)
from fleet.mta.steps import Command, Completed, Dialogue, DnsQuery, DnsReply, Plan, Steps, Transcript, ask, run, talk
from fleet.ssh.drive import Trace, drive

READ = Command(("postqueue", "-j"))
CHANGE = Command(("postsuper", "-d", "-"), become=True, mutates=True)
OK = Completed(0)


class Scripted:
    """Answers with the next of `answers`, or raises it."""

    def __init__(self, *answers: Completed | Transcript | DnsReply | Exception) -> None:
        self._answers: Iterator[Any] = iter(answers)
        self.sent: list[Any] = []

    async def run(self, command: Command) -> Completed:
        return self._next(command)

    async def talk(self, dialogue: Dialogue) -> Transcript:
        return self._next(dialogue)

    async def ask(self, query: DnsQuery) -> DnsReply:
        return self._next(query)

    def _next(self, step: Any) -> Any:
        self.sent.append(step)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def change(*commands: Command) -> Steps[list[Completed]]:
    done = [(yield from run(READ))]
    yield Plan(queue_total=3)
    for command in commands:
        answer = yield from run(command)
        done.append(answer)
    return done


async def failure(trace: Trace, transport: Scripted, *commands: Command) -> FleetError:
    with pytest.raises(FleetError) as caught:
        await drive(change(*commands), transport, trace, until_plan=False)
    return caught.value


async def test_a_dry_run_ends_at_the_plan_and_sends_nothing_that_changes() -> None:
    transport, trace = Scripted(OK), Trace()
    plan = await drive(change(CHANGE), transport, trace, until_plan=True)
    assert plan == Plan(queue_total=3)
    assert transport.sent == [READ]
    assert not trace.mutated


async def test_a_dry_run_refuses_a_change_that_comes_before_the_plan() -> None:
    def steps() -> Steps[Completed]:
        return (yield from run(CHANGE))

    transport = Scripted(OK)
    with pytest.raises(AssertionError, match="before the plan"):
        await drive(steps(), transport, Trace(), until_plan=True)
    assert transport.sent == []


async def test_a_run_goes_on_past_its_plan_and_records_every_command() -> None:
    trace = Trace()
    done = await drive(change(CHANGE, READ), Scripted(OK, OK, Completed(3, b"", b"x\xff")), trace, until_plan=False)
    assert [one.exit_status for one in done] == [0, 0, 3]
    assert [(r.argv[0], r.exit_status, r.stderr_tail) for r in trace.commands] == [
        ("postqueue", 0, ""),
        ("postsuper", 0, ""),
        ("postqueue", 3, "x\\xff"),
    ]
    assert trace.mutated


@pytest.mark.parametrize("error", [ConnectionLost("x"), RemoteTimeout("x"), OutputTooLarge("x"), UnparsedOutput("x")])
async def test_a_reading_command_that_breaks_off_keeps_its_own_error(error: FleetError) -> None:
    trace = Trace()
    assert await failure(trace, Scripted(error), CHANGE) is error
    assert not trace.mutated


@pytest.mark.parametrize(
    "error", [ConnectionLost("x"), RemoteTimeout("x"), OutputTooLarge("x"), UnparsedOutput("x"), RemoteError("signal")]
)
async def test_a_changing_command_that_breaks_off_has_an_unknown_outcome(error: FleetError) -> None:
    trace = Trace()
    unknown = await failure(trace, Scripted(OK, error), CHANGE)
    assert type(unknown) is OutcomeUnknown
    assert unknown.data["cause"] == error.code
    assert trace.mutated
    assert trace.commands[-1].exit_status is None


@pytest.mark.parametrize("status", [124, 137])
async def test_a_change_that_timeout_ended_is_unknown_and_a_reading_is_late(status: int) -> None:
    assert type(await failure(Trace(), Scripted(OK, Completed(status)), CHANGE)) is OutcomeUnknown
    assert type(await failure(Trace(), Scripted(Completed(status)), CHANGE)) is RemoteTimeout


async def test_a_change_that_never_left_changed_nothing() -> None:
    trace = Trace()
    assert type(await failure(trace, Scripted(OK, Unreachable("x")), CHANGE)) is Unreachable
    assert not trace.mutated


@pytest.mark.parametrize("error", [Unreachable("x"), ConnectionLost("x"), RemoteTimeout("x")])
async def test_a_read_back_that_fails_after_a_change_leaves_it_unknown(error: FleetError) -> None:
    trace = Trace()
    assert type(await failure(trace, Scripted(OK, OK, error), CHANGE, READ)) is OutcomeUnknown
    assert trace.mutated


async def test_sudos_refusal_is_told_from_the_programs_own_status_one() -> None:
    refusal = Completed(1, b"", b"sudo: a password is required\n")
    trace = Trace()
    denied = await failure(trace, Scripted(OK, refusal), CHANGE)
    assert type(denied) is SudoDenied
    assert "password" in denied.detail
    assert "discover the host again" in denied.hint
    assert not trace.mutated
    own = Completed(1, b"", b"postsuper: fatal: sudo: what?\n")
    assert (await drive(change(CHANGE), Scripted(OK, own), Trace(), until_plan=False))[1] == own


OVERTAKEN = Completed(75, b"", b"mxfleet: fence: overtaken, a newer worker has this host; nothing was changed\n")


async def test_a_script_that_was_overtaken_changed_nothing_unless_another_command_did_before() -> None:
    script, trace = replace(CHANGE, argv=(), script="postfix_quarantine.sh"), Trace()
    overtaken = await failure(trace, Scripted(OK, OVERTAKEN), script)
    assert (type(overtaken), overtaken.code) == (Overtaken, "overtaken")
    assert not trace.mutated
    assert trace.commands[-1].exit_status == 75
    unknown = await failure(trace, Scripted(OK, OK, OVERTAKEN), CHANGE, script)
    assert type(unknown) is OutcomeUnknown
    assert unknown.data["cause"] == "overtaken"
    assert trace.mutated


async def test_what_reads_or_is_no_script_is_never_taken_for_overtaken() -> None:
    for command in (CHANGE, replace(READ, script="postfix_quarantine.sh")):
        assert (await drive(change(command), Scripted(OK, OVERTAKEN), Trace(), until_plan=False))[1] == OVERTAKEN


async def test_a_script_that_an_older_one_kept_waiting_changed_nothing() -> None:
    busy, trace = Completed(75, b"", b"mxfleet: fence: busy, an older command still runs on this host\n"), Trace()
    script = replace(CHANGE, script="postfix_quarantine.sh")
    assert type(await failure(trace, Scripted(OK, busy), script)) is Conflict
    assert not trace.mutated
    own = Completed(75, b"", b"mxfleet: another change is running\n")
    assert (await drive(change(script), Scripted(OK, own), trace, until_plan=False))[1] == own


WARNING = b"sudo: unable to resolve host mx1: Name or service not known\n"


@pytest.mark.parametrize(
    "own",
    [
        Completed(1, b"removed 11111111\n", WARNING + b"smtpctl: connection lost\n"),
        Completed(1, b"", WARNING),
        Completed(1, b"", b"sudo: setrlimit(RLIMIT_CORE): Operation not permitted\n"),
    ],
)
async def test_a_warning_of_sudos_takes_no_change_back(own: Completed) -> None:
    """A changing command may have run behind it, so its run is read back."""
    trace = Trace()
    done = await drive(change(replace(CHANGE, become=True)), Scripted(OK, own), trace, until_plan=False)
    assert (done[1], trace.mutated) == (own, True)


async def test_a_command_that_may_be_denied_lets_the_steps_go_on() -> None:
    """host.discover comes before any sudoers line, which is made from what it finds."""
    refusal = Completed(1, b"", b"sudo: a password is required\n")
    look = replace(READ, become=True, may_be_denied=True)
    assert (await drive(change(look, READ), Scripted(OK, refusal, OK), Trace(), until_plan=False))[1:] == [refusal, OK]


@pytest.mark.parametrize("done", [Completed(124), Completed(137), Completed(141), Completed(1, b"", b"sudo: no\n")])
async def test_the_steps_go_on_however_a_hint_ends_by_itself(done: Completed) -> None:
    hint = replace(CHANGE, is_hint=True)
    assert (await drive(change(CHANGE, hint, READ), Scripted(OK, OK, done, OK), Trace(), until_plan=False))[2:] == [
        done,
        OK,
    ]


async def test_a_connection_that_ends_with_a_hint_leaves_the_change_before_it_unknown() -> None:
    hint = replace(CHANGE, is_hint=True)
    lost = await failure(Trace(), Scripted(OK, OK, ConnectionLost("x")), CHANGE, hint)
    assert type(lost) is OutcomeUnknown


@pytest.mark.parametrize("status", [126, 127])
async def test_a_missing_program_is_the_adapters_to_name(status: int) -> None:
    done = await drive(change(CHANGE), Scripted(OK, Completed(status)), Trace(), until_plan=False)
    assert done[1].exit_status == status


async def test_what_a_change_finds_of_its_plan_is_kept_and_a_dry_run_has_nothing_to_compare() -> None:
    trace, dry = Trace(), Trace()
    await drive(change(CHANGE), Scripted(OK, OK), trace, until_plan=False)
    await drive(change(CHANGE), Scripted(OK), dry, until_plan=True)
    assert (trace.applied, dry.applied) == (Plan(queue_total=3), None)


async def test_what_the_adapter_raises_passes_unchanged_and_its_steps_are_closed() -> None:
    closed = []

    def steps() -> Steps[None]:
        try:
            yield from run(READ)
            raise MtaNotFound("no postqueue")
        finally:
            closed.append(True)

    with pytest.raises(MtaNotFound):
        await drive(steps(), Scripted(OK), Trace(), until_plan=False)
    assert closed == [True]


async def test_steps_are_closed_when_the_transport_fails() -> None:
    closed = []

    def steps() -> Steps[None]:
        try:
            yield from run(READ)
        finally:
            closed.append(True)

    with pytest.raises(Unreachable):
        await drive(steps(), Scripted(Unreachable("x")), Trace(), until_plan=False)
    assert closed == [True]


async def test_a_dialogue_is_answered_and_recorded() -> None:
    said = Transcript((("", "220 mx1"),), "the server closed the connection")

    def steps() -> Steps[Transcript]:
        return (yield from talk(Dialogue("127.0.0.1", 25, ("QUIT",))))

    trace = Trace()
    assert await drive(steps(), Scripted(said), trace, until_plan=False) == said
    assert trace.commands[0].argv == ("smtp", "127.0.0.1", "25")


async def test_secret_arguments_stay_out_of_the_record() -> None:
    def steps() -> Steps[Completed]:
        return (yield from run(Command(("x", "hunter2"), secret=frozenset({1}))))

    trace = Trace()
    await drive(steps(), Scripted(OK), trace, until_plan=False)
    assert trace.commands[0].argv == ("x", "***")


async def test_a_dns_query_is_answered_and_recorded() -> None:
    trace, query = Trace(), DnsQuery("192.0.2.53", (b"question",))
    reply = await drive(ask(query), Scripted(DnsReply((b"answer",))), trace, until_plan=True)
    assert reply == DnsReply((b"answer",))
    assert [record.argv for record in trace.commands] == [("dns", "192.0.2.53", "53")]
