"""The evidence of a block: what the MTA answers the pattern's senders, and what is in effect for our keys."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleet.mta.address import BlockPattern
from fleet.mta.blocks import edit
from fleet.mta.blocks.listfile import fold
from fleet.mta.blocks.proof import ProbeResult, read_proof
from fleet.mta.blocks.site import BlockSite, ListState
from fleet.mta.host.commands import pause
from fleet.mta.records import Context
from fleet.mta.steps import Steps, talk

LOOKS = 5  # one a second; an MTA may notice a new list a moment later

ProbeResults = tuple[ProbeResult, ...]
"""What each dialogue of a site showed."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """`in_effect`: {key: value} of what is in effect, keys folded, without those not found."""

    looks: ProbeResults
    in_effect: dict[str, str]
    lookup: Any

    def as_json(self) -> dict[str, Any]:
        nobody = {"not_provable": "no SMTP server of this instance is known"}
        first, *rest = [result.as_json() for result in self.looks] or [nobody]
        return {**first, **({"also": rest} if rest else {}), "lookup": self.lookup}


def look(place: ListState, context: Context) -> Steps[ProbeResults]:
    return (yield from look_at(place.site, place.pattern, context, place.source.addresses))


def look_until(place: ListState, context: Context, is_over: Callable[[ProbeResults], bool]) -> Steps[ProbeResults]:
    """LOOKS at most, until what they show is what it ought to be."""
    looks = yield from look(place, context)
    for _ in range(LOOKS - 1):
        if is_over(looks):
            break
        yield from pause(1)
        looks = yield from look(place, context)
    return looks


def look_at(
    site: BlockSite, pattern: BlockPattern, context: Context, addresses: tuple[str, ...] = ()
) -> Steps[ProbeResults]:
    looks = []
    for probe in site.probes(pattern, context.job, addresses):
        transcript = yield from talk(probe.dialogue())
        looks.append(read_proof(probe, transcript))
    return tuple(looks)


def evidence_of(place: ListState, looks: ProbeResults, *also: ListState) -> Steps[Evidence]:
    """`also`: further lists of the instance; where two have a key, the place's counts."""
    values: dict[str, str] = {}
    for each in (*also, place):
        values |= yield from edit.look_up(each.site.list_file, each.keys)
    # A map's own name in the result is Postfix's form, in which the one value of the first key stands for all.
    return Evidence(looks, values, values.get(fold(place.keys[0])) if place.site.map_name else values)
