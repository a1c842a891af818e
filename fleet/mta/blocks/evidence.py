"""The evidence of a block: what the MTA answers the pattern's senders, and what is in effect for our keys."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from fleet.mta.address import BlockPattern
from fleet.mta.blocks import edit
from fleet.mta.blocks.listeners import ANY_ADDRESS, Listener
from fleet.mta.blocks.listfile import fold
from fleet.mta.blocks.proof import ProbeResult, read_proof
from fleet.mta.blocks.site import ListState, Probes
from fleet.mta.host.commands import pause
from fleet.mta.records import Context
from fleet.mta.results.changing import DialogueSeen, ListenerSeen, SenderSeen
from fleet.mta.steps import Command, Steps, run, talk

LOOKS = 5  # one a second; an MTA may notice a new list a moment later

ProbeResults = tuple[ProbeResult, ...]
"""What each dialogue of a site showed."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """`in_effect`: {key: value} of what is in effect, keys folded, without those not found. `unasked`: where no
    dialogue was held."""

    looks: ProbeResults
    in_effect: dict[str, str]
    lookup: Any
    unasked: tuple[Listener, ...] = ()

    def as_json(self) -> SenderSeen:
        nobody: DialogueSeen = {"not_provable": "no SMTP server of this instance is known"}
        first, *rest = [result.as_json() for result in self.looks] or [nobody]
        listeners: list[ListenerSeen] = [result.at_listener() for result in self.looks]
        listeners += [{**each.as_json(), "not_asked": each.unasked} for each in self.unasked]
        shown: SenderSeen = {**cast(SenderSeen, first), "lookup": self.lookup, "listeners": listeners}
        if rest:
            shown["also"] = rest
        return shown


def look(place: ListState, context: Context) -> Steps[ProbeResults]:
    return (yield from _look_at(place.site.probes, place.pattern, context, place.source.addresses))


def look_until(place: ListState, context: Context, is_over: Callable[[ProbeResults], bool]) -> Steps[ProbeResults]:
    """LOOKS at most, until what they show is what it ought to be."""
    looks = yield from look(place, context)
    for _ in range(LOOKS - 1):
        if is_over(looks):
            break
        yield from pause(1)
        looks = yield from look(place, context)
    return looks


def look_without_list(
    probes: Probes, pattern: BlockPattern, context: Context, listeners: tuple[Listener, ...]
) -> Steps[ProbeResults]:
    """The same where no list is read, which comes with the host's addresses: they are asked for where they are needed.

    `listeners`: where the probes go, none where that is not known.
    """
    addresses: tuple[str, ...] = ()
    if not listeners or any(each.address in ANY_ADDRESS for each in listeners):
        done = yield from run(Command(("hostname", "-I")))
        addresses = () if done.exit_status else tuple(done.stdout.decode("ascii", "replace").split())
    return (yield from _look_at(probes, pattern, context, addresses))


def _look_at(
    probes: Probes, pattern: BlockPattern, context: Context, addresses: tuple[str, ...]
) -> Steps[ProbeResults]:
    looks = []
    for probe in probes(pattern, context.job, addresses):
        transcript = yield from talk(probe.dialogue())
        looks.append(read_proof(probe, transcript))
    return tuple(looks)


def evidence_of(place: ListState, looks: ProbeResults, *also: ListState) -> Steps[Evidence]:
    """`also`: further lists of the instance; where two have a key, the place's counts."""
    values: dict[str, str] = {}
    for each in (*also, place):
        values |= yield from edit.look_up(each.site.list_file, each.keys)
    # A map's own name in the result is Postfix's form, in which the one value of the first key stands for all.
    lookup = values.get(fold(place.keys[0])) if place.site.map_name else values
    return Evidence(looks, values, lookup, place.site.unasked)
