"""What the contract suite needs of each MTA: a host that is played by hand, or by the real scripts on files of a test.

`tests/contract/MTA.py` has `SENDERS` and `host(directory, senders)`; see `Host` and test_contract.py.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fleet.mta.adapter import Adapter
from fleet.mta.blocks.proof import ELSEWHERE
from fleet.mta.errors import FleetError
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Command, Completed, Dialogue, DnsQuery, DnsReply, Plan, Steps, Transcript
from fleet.ssh.drive import Trace, drive
from tests.unit.mail_network import Network
from tests.unit.real_scripts import run_script

KINDS = frozenset({"plain", "non_utf8", "null", "quote", "newline"})
"""The senders that every MTA is tried with."""
NEXT_HOP = "192.0.2.1"
HOST_ADDRESS = "192.0.2.9"

Answer = Callable[[Command], Completed]


@dataclass
class Host:
    """`answers` by script or by the base name of a program. `queued`: what really lies in the queue, ID to state.

    `judge`: the reply to RCPT for a sender, by what is blocked on the host. `block_by_hand`: the administrator writes a
    line for an address into the list himself. `more_services`: addresses at which it takes mail too, where discovery
    does not tell them. `unguarded`: one at which it refuses nobody. `directory`: for the files of this test; `close`
    removes what is elsewhere.
    """

    adapter: Adapter
    instance: InstanceFacts
    directory: Path
    answers: dict[str, Answer]
    queued: Callable[[], dict[str, str]]
    judge: Callable[[str], str]
    block_by_hand: Callable[[str], None]
    more_services: list[str] | None = None
    unguarded: str = ""
    close: Callable[[], None] = lambda: None
    sent: list[Command | Dialogue | DnsQuery] = field(default_factory=list)
    network: Network = field(default_factory=Network)

    def __post_init__(self) -> None:
        self.network.zone = {("ok.test", "MX"): ["10 mx.ok.test."], ("mx.ok.test", "A"): [NEXT_HOP]}
        self.network.servers = {(NEXT_HOP, 25): ["220 mx", "250 mx", "250 ok", "250 ok", "250 ok", "221 bye"]}
        self.answers = {
            "read_log.sh": run_script,
            "quarantine_find.sh": run_script,
            "host_resolver.sh": lambda command: Completed(0, b"nameserver 192.0.2.53\nend\n"),
            "host_addresses.sh": lambda command: Completed(0, b"end\n"),
            "sleep": lambda command: Completed(0),
            "hostname": lambda command: Completed(0, f"{HOST_ADDRESS}\n".encode()),
        } | self.answers

    def listen_at(self, address: str) -> None:
        """The instance takes mail at one more address."""
        if self.more_services is None:
            self.instance.options["listen"].append([address, 25])
        else:
            self.more_services.append(address)

    def answer(self, command: Command) -> Completed:
        """What the command prints; a sink is left to the caller."""
        return self.answers[command.script or command.argv[0].rpartition("/")[2]](command)

    def talk(self, dialogue: Dialogue) -> Transcript:
        if (dialogue.address, dialogue.port) in self.network.servers:
            return self.network._converse(dialogue)
        said, sender = [("", "220 ready")], ""
        for line in dialogue.lines:
            if line.startswith("MAIL FROM:"):
                sender = line.removeprefix("MAIL FROM:").partition(" ")[0].strip("<>") or "<>"
            is_asked = line.startswith("RCPT") and dialogue.address != self.unguarded
            refusal = self.judge(sender) if is_asked else ""
            if line == f"RCPT TO:<{ELSEWHERE}>":
                refusal = "550 5.7.1 relaying denied"  # as every server answers a stranger
            said.append((line, refusal or "250 2.1.5 ok"))
        return Transcript(tuple(said))


class Gather:
    """A sink that only keeps the bytes."""

    def __init__(self) -> None:
        self.data = b""

    def feed(self, data: bytes) -> None:
        self.data += data

    def close(self) -> bytes:
        return self.data


Change = Callable[[int, Command, Completed], Completed]


def as_it_is(number: int, command: Command, done: Completed) -> Completed:
    return done


@dataclass
class Wire:
    """The transport between `drive` and the host. `change` alters what comes back of the command of that number.

    `refuses_root`: sudo says no, and the command does not reach the host.
    """

    host: Host
    change: Change = as_it_is
    refuses_root: bool = False
    commands: list[Command] = field(default_factory=list)

    async def run(self, command: Command) -> Completed:
        self.commands.append(command)
        if command.become and self.refuses_root:
            return Completed(1, b"", b"sudo: a password is required\n")
        gather = Gather()
        done = self.host.answer(replace(command, sink=gather) if command.sink else command)
        done = self.change(len(self.commands) - 1, command, replace(done, stdout=gather.data or done.stdout))
        if command.sink is None:
            return done
        for at in range(0, len(done.stdout), 997):
            command.sink.feed(done.stdout[at : at + 997])
        return replace(done, stdout=b"", result=command.sink.close())

    async def talk(self, dialogue: Dialogue) -> Transcript:
        return self.host.talk(dialogue)

    async def ask(self, query: DnsQuery) -> DnsReply:
        return self.host.network._resolve(query)


@dataclass
class Ran:
    """How an operation ended: a result or plan, or an error. `plans`: how many, with the number of commands before."""

    value: Any
    error: FleetError | None
    commands: list[Command]
    mutated: bool
    plans: list[tuple[Plan, int]]


def carry(wire: Wire, steps: Steps[Any], *, until_plan: bool = False) -> Ran:
    """Through the product's own bridge."""
    trace, plans = Trace(), list[tuple[Plan, int]]()

    def counted() -> Steps[Any]:
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                return end.value
            if isinstance(step, Plan):
                plans.append((step, len(wire.commands)))
            answer = yield step

    value, error = None, None
    try:
        value = asyncio.run(drive(counted(), wire, trace, until_plan=until_plan))
    except FleetError as caught:
        error = caught
    return Ran(value, error, wire.commands, trace.mutated, plans)


def make_program(path: Path, text: str) -> None:
    """A program beside the queue, and a `sleep` that is short: our scripts wait for what these programs do at once."""
    for each, content in ((path, text), (path.with_name("sleep"), "#!/bin/sh\nexec /bin/sleep 0.05\n")):
        each.write_text(content)
        each.chmod(0o755)


def senders_of(senders: dict[str, tuple[bytes, str] | str]) -> Sequence[tuple[bytes, str]]:
    """(as the MTA keeps it, as we show it) of each kind that this MTA can have in its queue."""
    return [each for each in senders.values() if not isinstance(each, str)]
