"""An adapter, made of what its MTA declares.

Each operation is built once, here. One whose part an MTA does not declare is absent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from fleet.mta.adapter import Adapter, method_name
from fleet.mta.blocks.flow import block_list, sender_block
from fleet.mta.blocks.site import BlockSites
from fleet.mta.blocks.unblock import read_back_block, sender_unblock
from fleet.mta.host.commands import READ_SECONDS, Allowed, sudoers_line
from fleet.mta.logs.mail_log import MailLog
from fleet.mta.logs.search import log_search
from fleet.mta.logs.tracing import message_trace
from fleet.mta.operations import Operation, QuarantineErase, QuarantineRestore, QueuePurge
from fleet.mta.queue.changes import VERBS, change
from fleet.mta.queue.delivery import Delivery, message_deliver
from fleet.mta.queue.driver import QueueDriver
from fleet.mta.queue.in_quarantine import find, find_argv
from fleet.mta.queue.listing import message_show, queue_list
from fleet.mta.queue.outcome import Verb
from fleet.mta.queue.quarantine import erase, restore
from fleet.mta.queue.readback import read_back
from fleet.mta.queue.summary import queue_summary
from fleet.mta.records import Context, HostFacts, InQuarantine, InstanceFacts, Result
from fleet.mta.routes.probe import FindRoutes, address_test, smtp_probe
from fleet.mta.steps import Steps

Built = Callable[..., Steps[Result]]

BY_VERB: dict[Verb, tuple[str, Built]] = {
    **{verb: (kind.name, change) for kind, verb in VERBS.items()},
    Verb.TAKE_OUT: (QueuePurge.name, change),
    Verb.PUT_BACK: (QuarantineRestore.name, restore),
    Verb.ERASE: (QuarantineErase.name, erase),
}
"""What a driver that has the verb is good for: the operation, and its flow."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What an MTA is made of. What it lacks is None, and the operations of it are absent.

    `discover`: see Adapter. `driver`: its queue and how messages of it are changed; `driver.verbs` says which changes
    there are.
    """

    discover: Callable[[HostFacts, str], Steps[tuple[InstanceFacts, ...]]]
    driver: QueueDriver
    delivery: Delivery | None = None
    sites: BlockSites | None = None
    log: MailLog | None = None
    find_routes: FindRoutes | None = None

    def operations(self) -> dict[str, Built]:
        """By name, each as (instance, operation, context)."""
        queue = self.driver.queue
        built: dict[str, Built] = {
            "queue.list": partial(queue_list, queue),
            "queue.summary": partial(queue_summary, queue),
        }
        able = (built_by for verb, built_by in BY_VERB.items() if verb in self.driver.verbs)
        built |= {name: partial(flow, self.driver) for name, flow in able}
        if queue.content:
            built["message.show"] = partial(message_show, queue)
        if self.delivery:
            built["message.deliver"] = partial(message_deliver, self.delivery)
        if self.sites:
            built["block.list"] = partial(block_list, self.sites)
            built["sender.block"] = partial(sender_block, self.sites)
            built["sender.unblock"] = partial(sender_unblock, self.sites)
        if self.log:
            built["log.search"] = partial(log_search, self.log)
            built["message.trace"] = partial(message_trace, self.log)
        if self.find_routes:
            built["address.test"] = partial(address_test, self.find_routes)
            built["smtp.probe"] = partial(smtp_probe, self.find_routes)
        return built


class DeclaredAdapter(Adapter):
    """Satisfies Adapter. A subclass has `mta`, `emulated`, `notes`, `parts` and `sudo`: what sudo must allow for the
    commands of each part, but for the log and the quarantine. An operation that it defines itself is not built."""

    parts: ClassVar[Parts]
    sudo: ClassVar[Sequence[Callable[[InstanceFacts], Sequence[Allowed]]]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.match_fields = cls.parts.driver.queue.match_fields
        for name, method in cls.parts.operations().items():
            if method_name(name) not in vars(cls):
                setattr(cls, method_name(name), staticmethod(method))

    def discover(self, host: HostFacts, name: str) -> Steps[tuple[InstanceFacts, ...]]:
        return self.parts.discover(host, name)

    def queue_id_error(self, queue_id: str) -> str | None:
        return self.parts.driver.layout.queue_id_error(queue_id)

    def read_back(self, instance: InstanceFacts, operation: Operation, context: Context) -> Steps[Result | None]:
        parts = self.parts
        read_block = partial(read_back_block, parts.sites) if parts.sites else None
        return read_back(parts.driver, parts.delivery, read_block, instance, operation, context)

    def in_quarantine(self, instance: InstanceFacts) -> Steps[InQuarantine]:
        return find(self.parts.driver.layout, instance)

    def quarantine_mark(self, job: str) -> str:
        return self.parts.driver.layout.name_of(job)

    def allowed(self, instance: InstanceFacts) -> list[Allowed]:
        parts = self.parts
        allowed = [each for commands in self.sudo for each in commands(instance)]
        allowed.append((READ_SECONDS, find_argv(parts.driver.layout, instance)))
        allowed += parts.log.sudo_commands(instance) if parts.log else ()
        return allowed

    def sudoers(self, instance: InstanceFacts, user: str) -> tuple[str, ...]:
        """Literal down to the last word: what is told of a message goes through stdin, so nothing is a wildcard. The
        scripts must be installed, owned by root, in HELPERS."""
        return tuple(sudoers_line(user, seconds, argv) for seconds, argv in self.allowed(instance))
