"""What an MTA declares of its log, for log.search and message.trace."""

from collections.abc import Callable
from dataclasses import dataclass

from fleet.mta.errors import Unsupported
from fleet.mta.host.commands import LISTING_SECONDS, Allowed, script_argv
from fleet.mta.logs.rows import Trace
from fleet.mta.logs.source import SCRIPT, log_source, sources_of
from fleet.mta.operations import MessageTrace
from fleet.mta.records import InstanceFacts

Parser = Callable[[float, str], None]
"""Takes the time of a line and what follows it there: `host tag[pid]: text`, or what the MTA itself writes."""
Sources = Callable[[InstanceFacts], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class MailLog:
    """Where an MTA logs, and how its lines are understood.

    `kind`: the MTA's word for read_log.sh. `parser`: of one reading's lines; puts what they tell into the trace.
    `notes`: what this MTA does not log. `as_logged`: an address as it writes it. `sources`: the logs that are read;
    raises Unsupported where none is known. `beside`: those that only a search reads besides. `without_message_id`: the
    MTA's name where it logs no Message-ID. `unnamed`: what stands in lines about mail that was held, thrown away or
    refused and whose recipients the log may not all name. `zone`: the value of TZ that its stamps without an offset
    have, "" for the host's.
    """

    kind: str
    parser: Callable[[Trace, InstanceFacts], Parser]
    notes: tuple[str, ...] = ()
    as_logged: Callable[[str], str] = str
    sources: Sources = sources_of
    beside: Sources = lambda instance: ()
    without_message_id: str = ""
    unnamed: tuple[str, ...] = ()
    zone: Callable[[InstanceFacts], str] = lambda instance: ""

    def check(self, operation: MessageTrace) -> None:
        """Raises Unsupported for a Message-ID that the MTA does not log."""
        if operation.message_id and self.without_message_id:
            raise Unsupported(f"{self.without_message_id} logs no Message-ID, so a message cannot be traced by it")

    def searched(self, instance: InstanceFacts) -> tuple[str, ...]:
        """The logs that log.search reads."""
        return (*self.sources(instance), *self.beside(instance))

    def sudo_commands(self, instance: InstanceFacts) -> list[Allowed]:
        """What sudo must allow for both operations."""
        if log_source(instance) == "none":
            return []
        readings = (("any", self.searched(instance)), (self.kind, self.sources(instance)))
        return [(LISTING_SECONDS, script_argv(SCRIPT, kind, *sources)) for kind, sources in readings]
