"""What an MTA adapter is. An adapter is one folder whose class satisfies `Adapter`, and one line in REGISTRY.

The method that carries out `queue.hold` is `queue_hold(instance, operation, context) -> Steps[Result]`; an operation
without a method is unsupported. Capabilities are derived from that, so nothing can claim what is not there.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from importlib import import_module
from typing import Any, ClassVar, Protocol

from fleet.mta import REGISTRY
from fleet.mta.operations import Operation
from fleet.mta.records import Capability, Context, HostFacts, InQuarantine, InstanceFacts, Result, Support
from fleet.mta.steps import Command, Plan, Steps, T

Method = Callable[[InstanceFacts, Operation, Context], Steps[Result]]

REPLACES = "replaces_files"
"""The option of an instance on whose host nothing exchanges two files in one step."""
REPLACED = (
    "nothing on this host exchanges two files in one step (mv of coreutils 9.5, exch, perl or python3): what somebody "
    "saves under the same name in the moment between our last look and our rename is lost"
)


class Adapter(Protocol):
    """One MTA.

    `emulated`: operations done by other means than the MTA's own, with the sentence that an approver reads.
    `match_fields`: fields of the selection language that this MTA keeps.
    """

    mta: ClassVar[str]
    emulated: ClassVar[dict[str, str]]
    notes: ClassVar[dict[str, str]]
    match_fields: ClassVar[frozenset[str]]

    def discover(self, host: HostFacts, name: str) -> Steps[tuple[InstanceFacts, ...]]:
        """The instances of this MTA on the host `name`; empty when it is not installed.

        Their own names are those that they get where there are several: fleet.mta.host.names.
        """

    def queue_id_error(self, queue_id: str) -> str | None:
        """What is wrong with the grammar of a queue ID, or None."""

    def read_back(self, instance: InstanceFacts, operation: Operation, context: Context) -> Steps[Result | None]:
        """After an unknown outcome: look, change nothing, and say how far it got. None: nothing to read back."""

    def in_quarantine(self, instance: InstanceFacts) -> Steps[InQuarantine]:
        """All that lies in our quarantine of the instance, whoever put it there. Reads only; the answer is bounded."""

    def quarantine_mark(self, job: str) -> str:
        """What the quarantine calls a job, as `Found.job` has it."""

    def allowed(self, instance: InstanceFacts) -> list[tuple[int, tuple[str, ...]]]:
        """Seconds and command line of all that sudo must allow for this instance."""

    def sudoers(self, instance: InstanceFacts, user: str) -> tuple[str, ...]:
        """The least-privilege sudoers lines (command specifications) for this instance."""


def adapter_for(mta: str) -> Adapter:
    """The adapter of that name. Raises KeyError for an MTA that is not in the registry."""
    module, _, attribute = REGISTRY[mta].rpartition(".")
    adapter: Adapter = getattr(import_module(module), attribute)()
    return adapter


def method_name(operation_name: str) -> str:
    """`queue.hold` is carried out by `queue_hold`."""
    return operation_name.replace(".", "_")


def method_for(adapter: Adapter, operation_name: str) -> Method | None:
    """The adapter's method for an operation, or None when it has none.

    No adapter has to think of the context's fence, or of what a plan says of the host, so none can forget it.
    """
    method: Method | None = getattr(adapter, method_name(operation_name), None)
    if method is None:
        return None

    @wraps(method)
    def completed(instance: InstanceFacts, operation: Operation, context: Context) -> Steps[Result]:
        notes = (REPLACED,) if instance.options.get(REPLACES) else ()
        return _completed(method(instance, operation, context), context.fence, notes)

    return completed


def _completed(steps: Steps[T], fence: int, notes: tuple[str, ...]) -> Steps[T]:
    """The same steps, each command with this fence, and a plan that changes a file with these notes."""
    answer: Any = None
    try:
        while True:
            step = steps.send(answer)
            if isinstance(step, Command):
                step = replace(step, fence=fence)
            elif isinstance(step, Plan) and step.diffs:
                step = replace(step, notes=(*step.notes, *notes))
            answer = yield step
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()


def capability(adapter: Adapter, operation_name: str) -> Capability:
    """Native, emulated or absent, and what a person should know about it."""
    if method_for(adapter, operation_name) is None:
        return Capability(Support.ABSENT, adapter.notes.get(operation_name, ""))
    if operation_name in adapter.emulated:
        return Capability(Support.EMULATED, adapter.emulated[operation_name])
    return Capability(Support.NATIVE, adapter.notes.get(operation_name, ""))
