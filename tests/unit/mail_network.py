"""A host's surroundings for tests: what its commands print, what DNS knows, and what the servers on port 25 answer."""

from dataclasses import dataclass, field
from typing import Any

import dns.message
import dns.rcode
import dns.rrset

from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Command, Completed, Dialogue, DnsQuery, DnsReply, Steps, T, Transcript

RESOLVER = b"nameserver 192.0.2.53\nend\n"


def instance(mta: str, config_dir: str = "/etc", **options: Any) -> InstanceFacts:
    return InstanceFacts("mx1", mta, mta, "1", config_dir, (), options=options)


@dataclass
class Network:
    """`prints`: stdout by script name or by the words of a command. `zone`: rdata texts by (name, type).

    `servers`: replies by address and port, the greeting first; others refuse the connection. `dns`: what
    goes wrong with every question, by nameserver; `servfail`: names that no server can resolve.
    """

    prints: dict[str, bytes] = field(default_factory=dict)
    zone: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    servers: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    dns: dict[str, str] = field(default_factory=dict)
    servfail: set[str] = field(default_factory=set)
    smtp_error: str = ""
    sent: list[Command | Dialogue | DnsQuery] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prints.setdefault("host_resolver.sh", RESOLVER)
        self.prints.setdefault("host_addresses.sh", b"end\n")

    def drive(self, steps: Steps[T]) -> T:
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                return end.value
            self.sent.append(step)  # type: ignore[arg-type]
            if isinstance(step, DnsQuery):
                answer = self._resolve(step)
            elif isinstance(step, Dialogue):
                answer = self._converse(step)
            else:
                assert isinstance(step, Command)
                assert not step.mutates
                answer = Completed(0, self.prints[step.script or " ".join(step.argv)])

    @property
    def dialogues(self) -> list[Dialogue]:
        return [step for step in self.sent if isinstance(step, Dialogue)]

    def _resolve(self, query: DnsQuery) -> DnsReply:
        if query.address in self.dns:
            return DnsReply((), self.dns[query.address])
        return DnsReply(tuple(self._answer(packet) for packet in query.packets))

    def _answer(self, packet: bytes) -> bytes:
        message = dns.message.from_wire(packet)
        question = message.question[0]
        kind = question.to_text().split()[-1]
        name = question.name.to_text(omit_final_dot=True)
        reply = dns.message.make_response(message)
        if name in self.servfail:
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif not any(known == name for known, _ in self.zone):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        while alias := self.zone.get((name, "CNAME")):
            reply.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "CNAME", *alias))
            name = alias[0].rstrip(".")
        if found := self.zone.get((name, kind)):
            reply.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", kind, *found))
        return reply.to_wire()

    def _converse(self, dialogue: Dialogue) -> Transcript:
        if self.smtp_error:
            return Transcript((), self.smtp_error)
        replies = self.servers.get((dialogue.address, dialogue.port))
        if replies is None:
            return Transcript((), f"no connection to {dialogue.address} port {dialogue.port}: Connection refused")
        lines = ("", *dialogue.lines)
        error = "" if len(replies) >= len(lines) else "the server closed the connection"
        return Transcript(tuple(zip(lines, replies, strict=False)), error)
