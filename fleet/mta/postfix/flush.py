"""Attempts of the queue manager: asked for, waited for, seen by the times of the queue files."""

from collections.abc import Callable, Iterable

from fleet.match import wildcards
from fleet.match.nodes import Op, Term
from fleet.mta.host.commands import READ_SECONDS, pause
from fleet.mta.operations import Selection
from fleet.mta.postfix.attempt_log import parse_lines
from fleet.mta.postfix.commands import TIMES
from fleet.mta.postfix.parse import error_of, ids_input
from fleet.mta.postfix.queue import proof
from fleet.mta.records import InstanceFacts, QueueEntry
from fleet.mta.steps import Command, Completed, Steps, run

PAUSE = 3
NOT_CONFIGURED = b"Flush service is not configured for destination"


def native_flush(instance: InstanceFacts, selection: Selection) -> tuple[str, ...]:
    """postqueue's own words for the selection: -f for ALL, -s for a domain that flush(8) keeps; else nothing."""
    if selection.match is None:
        return ()
    if selection.match.is_all:
        return ("-f",)
    root = selection.match.root
    if not isinstance(root, Term) or root.field != "to-domain" or root.op is not Op.IS:
        return ()
    domain = (wildcards.literal(str(root.value)) or "").lower()
    kept = str(instance.options.get("fast_flush_domains", ""))
    kept = kept.replace("$relay_domains", str(instance.options.get("relay_domains", "")))
    return ("-s", domain) if domain and domain in kept.lower().replace(",", " ").split() else ()


def check_flush(done: Completed | None) -> None:
    """Raises what postqueue says. A domain that flush(8) does not keep after all is attempted one by one later."""
    if done and done.exit_status and NOT_CONFIGURED not in done.stderr:
        raise error_of(done, "postqueue")


def attempt_times(instance: InstanceFacts, queue_ids: Iterable[str]) -> Steps[dict[str, str]]:
    """Queue ID to the change time of its file, of those that lie in deferred/. Changes nothing."""
    stdin = ids_input(queue_ids)
    if not stdin:
        return {}
    command = Command(
        (instance.queue_dirs[0],),
        script=TIMES,
        stdin=stdin,
        become=True,
        timeout=READ_SECONDS,
        max_output=64 << 20,
    )
    lines = parse_lines((yield from run(command)), TIMES)
    return {name: time for name, _, time in (line.partition(" ") for line in lines)}


def not_attempted(instance: InstanceFacts, times: dict[str, str], *, looks: int) -> Steps[list[str]]:
    """Those whose files nobody touched, after up to so many looks with a pause before each."""
    rest = list(times)
    for _ in range(looks if times else 0):
        yield from pause(PAUSE)
        now = yield from attempt_times(instance, times)
        rest = [name for name in times if now.get(name) == times[name]]
        if not rest:
            break
    return rest


def wait_until(
    instance: InstanceFacts, queue_ids: Iterable[str], is_over: Callable[[dict[str, QueueEntry]], bool], looks: int
) -> Steps[dict[str, QueueEntry]]:
    """What the queue holds of these, looked at with pauses until it is over or so many looks are done."""
    wanted = tuple(queue_ids)
    found: dict[str, QueueEntry] = {}
    for _ in range(looks if wanted else 0):
        found = yield from proof(instance, wanted)
        if is_over(found):
            break
        yield from pause(PAUSE)
    return found
