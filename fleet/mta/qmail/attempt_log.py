"""What qmail-send's log tells of attempts (qmail-log(5)): deliveries by number, and the bounce of a message."""

import re
from collections.abc import Sequence

from fleet.mta.errors import UnparsedOutput, Unsupported
from fleet.mta.host.commands import READ_SECONDS, error_of
from fleet.mta.qmail.change_script import Answer
from fleet.mta.qmail.commands import WATCH, log_source
from fleet.mta.queue.delivery import Attempt
from fleet.mta.records import InstanceFacts, QueueEntry
from fleet.mta.steps import Command, Steps, run

WAIT_SECONDS = 40
DELIVERED = "sent"
OUTCOMES = {"success": DELIVERED, "failure": "bounced", "deferral": "deferred"}
STARTING = re.compile(r"starting delivery (\d+): msg (\d+) to (?:local|remote) (.*)$")
ENDED = re.compile(r"(?<!starting )delivery (\d+): (success|failure|deferral): ?(.*)$")
# The second is the end of mail whose sender is #@[], a double bounce that bounced.
BOUNCE = re.compile(r"bounce msg (\d+) qp \d+|triple bounce: discarding bounce/(\d+)")
ADDRESS = re.compile(r"(\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f:]*::?[0-9a-f:]+)_")


def check_watchable(instance: InstanceFacts) -> None:
    """Raises Unsupported where qmail-send's log cannot be read: nothing could be proven."""
    if log_source(instance) == "none":
        raise Unsupported("qmail-send's log is nowhere to be read, so what comes of an attempt cannot be told")


def watch(instance: InstanceFacts, messages: Sequence[QueueEntry], answer: Answer) -> Steps[list[str]]:
    """The log's lines about these messages' attempts since qmail-send was down; waits for their end, at most 40 s."""
    if not messages or answer.mark is None:
        return []
    wanted = "".join(f"{each.queue_id} {to_do(each)}\n" for each in messages)
    command = Command(
        (log_source(instance),),
        script=WATCH,
        stdin=f"{answer.mark[0]} {answer.mark[1]} {WAIT_SECONDS}\n{wanted}".encode(),
        become=True,
        timeout=READ_SECONDS,
        max_output=16 << 20,
    )
    done = yield from run(command)
    if done.exit_status:
        raise error_of(done, WATCH)
    lines = done.stdout.decode("utf-8", "backslashreplace").split("\n")
    if lines[-2:] != ["end", ""]:
        raise UnparsedOutput(f"{WATCH} did not come to its end")
    return lines[:-2]


def to_do(entry: QueueEntry) -> int:
    """How many recipients are not done."""
    return sum(each.state != "delivered" for each in entry.recipients)


def attempts_of(lines: Sequence[str], queue_id: str) -> dict[str, Attempt]:
    """The message's attempts by delivery number, with an empty outcome while one goes on.

    Numbers begin anew with every start of qmail-send.
    """
    found: dict[str, Attempt] = {}
    for line in lines:
        if (began := STARTING.search(line)) and began[2] == queue_id:
            found[began[1]] = Attempt(began[3], "")
        elif (ended := ENDED.search(line)) and ended[1] in found:
            remote = ADDRESS.match(ended[3])
            found[ended[1]] = Attempt(
                found[ended[1]].address,
                OUTCOMES[ended[2]],
                remote[1] if remote else "",
                ended[3].replace("_", " ").strip("/ "),
            )
    return found


def returned(lines: Sequence[str]) -> frozenset[str]:
    """The messages that were given up: bounced to their sender, or discarded as a bounce that bounced twice."""
    return frozenset(found[1] or found[2] for line in lines if (found := BOUNCE.search(line)))
