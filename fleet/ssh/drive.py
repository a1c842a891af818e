"""One Steps generator on one instance: the only bridge between the pure adapters and I/O."""

from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from fleet.mta.errors import FleetError, NothingSent, OutcomeUnknown, RemoteTimeout, SudoDenied
from fleet.mta.host.commands import CHANGE_SECONDS, fence_error
from fleet.mta.host.sudo import refusal_of
from fleet.mta.steps import Command, Completed, Dialogue, DnsQuery, Plan, Steps, T
from fleet.ssh.quoting import masked
from fleet.ssh.transport import Transport

TIMED_OUT = 124  # timeout(1): the command was ended by it
KILLED = 137  # timeout(1): it had to send KILL
TAIL = 500  # bytes of stderr that are kept for the record


@dataclass(slots=True)
class CommandRecord:
    """What was sent and what came back, for the record. `argv` with secrets masked; `exit_status` None: unknown."""

    argv: tuple[str, ...]
    exit_status: int | None = None
    duration_ms: int = 0
    stderr_tail: str = ""


@dataclass(slots=True)
class Trace:
    """What happened so far, over all tries.

    `sent`: something reached the host. `mutated`: a changing command began to be sent, the host may have been changed.
    `applied`: what was found of the plan right before it was carried out.
    """

    commands: list[CommandRecord] = field(default_factory=list)
    sent: bool = False
    mutated: bool = False
    applied: Plan | None = None


async def drive(steps: Steps[T], transport: Transport, trace: Trace, *, until_plan: bool) -> Plan | T:
    """Run the steps to their end, or, for a dry run, to their plan. Returns the plan or what the steps return.

    Raises what the adapter raises, and of the transport's errors: OutcomeUnknown for everything that ended the reading
    once a changing command had begun; else NothingSent, ConnectionLost, RemoteTimeout, OutputTooLarge, and of one that
    was refused before it could change anything SudoDenied, Overtaken, Conflict or RemoteError.
    """
    answer: Any = None
    try:
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Plan):
                if until_plan:
                    return step
                answer, trace.applied = None, step
            elif isinstance(step, Dialogue | DnsQuery):
                answer = await _talk(step, transport, trace)
            else:
                if until_plan and step.mutates:
                    raise AssertionError(f"a changing command before the plan: {masked(step)}")
                answer = await _run(step, transport, trace)
    finally:
        steps.close()


async def _talk(step: Dialogue | DnsQuery, transport: Transport, trace: Trace) -> Any:
    record = CommandRecord(("dns" if isinstance(step, DnsQuery) else "smtp", step.address, str(step.port)))
    trace.commands.append(record)
    begun = monotonic()
    try:
        reply = await (transport.ask(step) if isinstance(step, DnsQuery) else transport.talk(step))
    except FleetError as error:
        trace.sent = trace.sent or not isinstance(error, NothingSent)
        raise _classified(error, trace.mutated) from error
    finally:
        record.duration_ms = round((monotonic() - begun) * 1000)
    trace.sent = True
    record.stderr_tail = reply.error[-TAIL:]
    return reply


async def _run(command: Command, transport: Transport, trace: Trace) -> Completed:
    if command.mutates and command.timeout > CHANGE_SECONDS:
        raise AssertionError(f"a changing command may run for {CHANGE_SECONDS} s at most: {masked(command)}")
    record = CommandRecord(masked(command))
    trace.commands.append(record)
    had_mutated = trace.mutated
    trace.mutated = had_mutated or command.mutates
    begun = monotonic()
    try:
        done = await transport.run(command)
        trace.sent = True
        record.exit_status = done.exit_status
        record.stderr_tail = done.stderr[-TAIL:].decode("utf-8", "backslashreplace")
        _check_time(command, done)
    except NothingSent as error:
        trace.mutated = had_mutated
        raise _classified(error, had_mutated) from error
    except FleetError as error:
        trace.sent = True
        raise _classified(error, trace.mutated) from error
    finally:
        record.duration_ms = round((monotonic() - begun) * 1000)
    refusal = _refusal(command, done)
    if refusal is not None:
        trace.mutated = had_mutated
        raise _classified(refusal, had_mutated)
    return done


def _refusal(command: Command, done: Completed) -> FleetError | None:
    """Why the command was ended before it did anything, which no adapter has to tell: by sudo, or at the fence."""
    may_be_denied = command.may_be_denied or command.is_hint
    if command.become and not may_be_denied and (refusal := refusal_of(done)):
        return SudoDenied(
            refusal,
            hint="Run the host's installer (hosts/NAME/installer/) there as root, then discover the host again.",
            command=list(masked(command)),
        )
    return fence_error(done) if command.script and command.mutates else None


def _check_time(command: Command, done: Completed) -> None:
    """Raises RemoteTimeout for what timeout(1) ended, unless it was a hint."""
    if not command.is_hint and done.exit_status in (TIMED_OUT, KILLED):
        raise RemoteTimeout(
            f"the command did not end within {command.timeout} s and was ended", seconds=command.timeout
        )


def _classified(error: FleetError, has_mutated: bool) -> FleetError:
    """Once a changing command has begun, nothing but a proof settles the outcome: the cause goes along as data."""
    if not has_mutated:
        return error
    return OutcomeUnknown(
        f"a changing command had begun when this came in between: {error.detail}", hint=error.hint, cause=error.code
    )
