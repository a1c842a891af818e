"""Who still refuses a sender that is not blocked by us, or not any more: another block of ours, the administrator's
line, or something else. Every unblock that leaves a sender refused says so, however it ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet.mta.blocks.listfile import fold
from fleet.mta.blocks.proof import ProbeResult, one_line
from fleet.mta.blocks.site import ListState
from fleet.mta.results.changing import SenderResult

NOT_OURS = "not ours"
UNPROVEN = "it is not proven that {} is accepted at {}: {}"
REFUSING = ("REJECT", "DEFER", "DISCARD", "ERROR", "4", "5")
"""How values of access maps begin that let nobody pass: access(5), cf/README of Sendmail."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Another entry that decides about the pattern's senders. `name`: as people are told of it. `answers`: whether a
    reply may be due to it. `is_discard`: it takes their mail and throws it away."""

    key: str
    name: str
    place: ListState
    value: str
    is_ours: bool

    @property
    def is_discard(self) -> bool:
        return self.value.startswith("DISCARD")

    @property
    def refuses(self) -> bool:
        return not self.value or self.value.upper().startswith(REFUSING)

    def answers(self, reply: str) -> bool:
        return self.place.site.refuses(reply, self.value) if self.is_ours else self.refuses


def deciding(places: Sequence[ListState]) -> tuple[Rule, ...]:
    """Entries of others, and our other blocks, that decide about the same senders."""
    return tuple(rule for place in places for rule in _deciding(place))


def _deciding(place: ListState) -> list[Rule]:
    wanted = {fold(key) for key in (*place.site.wider(place.pattern), *place.keys)}
    rules = []
    for entry in place.file.others:
        name = f"line {entry.line} of {place.source.path}, which is not ours: {entry.text!r}"
        rules.append(Rule(entry.key, name, place, entry.value, is_ours=False))
    for block in place.others:
        keys = dict.fromkeys(fold(key) for key in place.site.keys_of(block.pattern))
        rules += [Rule(key, f"our block of {block.pattern}", place, block.value, is_ours=True) for key in keys]
    return [rule for rule in rules if rule.key in wanted]


def keys_of(rules: Sequence[Rule]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(rule.key for rule in rules))


def still_refused(rules: Sequence[Rule], looks: Sequence[ProbeResult], in_effect: Mapping[str, str]) -> SenderResult:
    """`still_refused_by` and `notes` of a result, nothing where the sender passes. `in_effect`: of the pattern's keys.

    Where no dialogue proves anything, what is in effect and our own blocks count, and a note says so.
    """
    refused = [each for each in looks if each.is_refused]
    by = [rule for rule in rules if _is_due_to(rule, refused, looks, in_effect)]
    unproven = [UNPROVEN.format(each.sender, each.listener.name, each.reason) for each in looks if not each.is_provable]
    if not (refused or by):
        return {"notes": unproven} if unproven else {}
    notes = [f"{each.sender} is still answered {one_line(each.reply)!r} at {each.listener.name}" for each in refused]
    whose = (
        "; ".join(dict.fromkeys(rule.name for rule in by)) or "a rule that is not ours, in none of the lists we know"
    )
    return {"still_refused_by": list(keys_of(by)) or [NOT_OURS], "notes": [*notes, f"what decides: {whose}", *unproven]}


def _is_due_to(
    rule: Rule, refused: Sequence[ProbeResult], looks: Sequence[ProbeResult], in_effect: Mapping[str, str]
) -> bool:
    if refused:
        return any(rule.answers(each.reply) for each in refused)
    if any(each.is_accepted for each in looks):
        return rule.is_discard
    return rule.refuses and (rule.is_ours or rule.key in in_effect)


def merged(data: SenderResult, told: SenderResult) -> SenderResult:
    """A result's data with what is told. Notes that are there already name the line."""
    return {**told, **data} if data.get("notes") else {**data, **told}
