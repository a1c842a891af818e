"""Blocks on one lab host through the SSH of the product, whatever its MTA."""

from collections.abc import Callable
from copy import copy
from typing import Any

from fleet.mta.errors import FleetError
from fleet.mta.operations import BlockList, SenderBlock, SenderUnblock
from fleet.mta.records import Context, HostFacts, InstanceFacts, Result
from fleet.mta.steps import Plan, Steps
from fleet.ssh.endpoint import AddressPolicy, Endpoint
from fleet.ssh.engine import Engine, Outcome, Request
from tests.lab.config import OUTSIDER
from tests.lab.lab import Host

SENDER = "newsletter@sillyplace.test"
BLOCK = SenderBlock(SENDER)
CONTEXT = Context(now=0, job="0190a1b2", wiring_approved=True)


class BlockedHost:
    """`adapter`: of its MTA. `instance`: the first that is found."""

    def __init__(self, host: Host, adapter: Any) -> None:
        self.engine = Engine(AddressPolicy())
        self.host = host
        self.adapter = adapter
        self.endpoint = Endpoint(
            host.name, host.address, 22, host.user, host.private_key.encode(), host_key=host.host_key, become="sudo"
        )
        facts = HostFacts(has_sudo=True, log_source="/var/log/mail.log")
        self.instances: tuple[InstanceFacts, ...] = self.value(lambda: adapter.discover(facts, host.name))
        self.instance = self.instances[0]

    def of(self, instance: InstanceFacts) -> "BlockedHost":
        """The same host, another instance."""
        other = copy(self)
        other.instance = instance
        return other

    def close(self) -> None:
        self.engine.close()

    def outcome(self, steps: Callable[[], Steps[Any]], *, until_plan: bool = False) -> Outcome:
        [[found]] = list(self.engine.outcomes([Request("one", self.endpoint, steps, until_plan, 120)]))
        return found

    def value(self, steps: Callable[[], Steps[Any]], *, until_plan: bool = False) -> Any:
        found = self.outcome(steps, until_plan=until_plan)
        if found.error is not None:
            raise found.error
        return found.value

    def plan(self, operation: SenderBlock = BLOCK) -> Plan:
        found = self.value(lambda: self.adapter.sender_block(self.instance, operation, CONTEXT), until_plan=True)
        assert isinstance(found, Plan)
        return found

    def block(self, operation: SenderBlock = BLOCK, context: Context = CONTEXT) -> Result:
        return self.value(lambda: self.adapter.sender_block(self.instance, operation, context))

    def unblock(self, pattern: str = SENDER, context: Context = CONTEXT) -> Result:
        return self.value(lambda: self.adapter.sender_unblock(self.instance, SenderUnblock(pattern), context))

    def refused(self, error: type[FleetError], operation: SenderBlock = BLOCK) -> FleetError:
        found = self.outcome(lambda: self.adapter.sender_block(self.instance, operation, CONTEXT)).error
        assert isinstance(found, error)
        return found

    def listed(self) -> dict[str, Any]:
        return self.value(lambda: self.adapter.block_list(self.instance, BlockList(), CONTEXT)).data

    def read_back(self, operation: SenderBlock | SenderUnblock = BLOCK) -> Result:
        return self.value(lambda: self.adapter.read_back(self.instance, operation, CONTEXT))

    def reply(self, sender: str, port: int = 25, recipient: str = "r@defer.test", source: str = OUTSIDER) -> str:
        """What an outsider is answered: the refusal, or "accepted"."""
        found = self.host.inject(
            sender=sender, recipients=(recipient,), stop_at="rcpt", source=source, port=port, connections=1
        )
        return found.errors[0] if found.errors else "accepted"
