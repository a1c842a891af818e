"""Taking a block of ours back, from every list of the instance in which it stands, and reading back how far it got."""

from dataclasses import dataclass
from functools import partial

from fleet.mta.address import parse_block_pattern
from fleet.mta.blocks import edit
from fleet.mta.blocks import site as block_site
from fleet.mta.blocks.edit import Change
from fleet.mta.blocks.evidence import Evidence, ProbeResults, evidence_of, look, look_until, look_without_list
from fleet.mta.blocks.flow import is_in_effect, is_settled
from fleet.mta.blocks.listfile import fold
from fleet.mta.blocks.proof import ProbeResult, one_line
from fleet.mta.blocks.refusals import Rule, deciding, keys_of, merged, still_refused
from fleet.mta.blocks.site import BlockSites, ListState, NoList, Wiring
from fleet.mta.errors import RemoteError, Unsupported
from fleet.mta.operations import Operation, SenderBlock, SenderUnblock
from fleet.mta.records import Context, Ended, InstanceFacts, Result
from fleet.mta.results.changing import SenderResult
from fleet.mta.steps import Plan, Steps


@dataclass(frozen=True, slots=True)
class _Removal:
    """Our block out of one list, and our wiring with it where an undo leaves nothing that needs the list."""

    place: ListState
    change: Change
    unwiring: Wiring | None


def sender_unblock(
    find: BlockSites, instance: InstanceFacts, operation: SenderUnblock, context: Context
) -> Steps[Result]:
    """Take our own block back. As an undo it also takes the wiring back when no other block needs it.

    Where nothing of ours is, whatever the reason, nothing is changed.
    """
    pattern = parse_block_pattern(operation.pattern)
    try:
        sites = yield from find(instance)
    except NoList as error:
        looks = yield from look_without_list(error.probes, pattern, context, ())
        return (yield from _nothing_of_ours(pattern.text, error.detail, looks))
    first = sites[0]
    try:
        first.keys(pattern)
    except Unsupported as error:
        looks = yield from look_without_list(first.probes, pattern, context, first.listeners)
        return (yield from _nothing_of_ours(pattern.text, error.detail, looks))
    try:
        places = yield from block_site.read_all(sites, pattern)
    except Unsupported as error:
        looks = yield from look_without_list(first.probes, pattern, context, first.listeners)
        return (yield from _unreadable(pattern.text, error, looks))
    ours = tuple(place for place in places if place.block)
    if not ours:
        return (yield from _not_ours(places, context))
    for place in ours:
        block_site.refuse_stale(place)
    return (yield from _unblock(places, ours, context))


def _nothing_of_ours(pattern: str, note: str, looks: ProbeResults) -> Steps[Result]:
    """Where a block of the pattern is impossible, so that none of ours can be there; others may refuse the sender."""
    told = still_refused((), looks, {})
    notes = [note, *told.get("notes", ())]
    yield Plan(notes=tuple(notes))
    data: SenderResult = {"pattern": pattern, **told, "notes": notes}
    return Result(Ended.UNCHANGED, data=data)


def _unreadable(pattern: str, error: Unsupported, looks: ProbeResults) -> Steps[Result]:
    """Where the list is none that we edit now. What was ours may still stand in it, so the MTA must say otherwise.

    Raises the error when the MTA did not accept the sender on every port that was asked.
    """
    if not looks or not all(result.is_accepted for result in looks):
        raise error
    return (yield from _nothing_of_ours(pattern, error.detail, looks))


def _not_ours(places: tuple[ListState, ...], context: Context) -> Steps[Result]:
    place = places[0]
    looks = yield from look(place, context)
    evidence = yield from evidence_of(place, looks)
    foreign = [note for each in places for note in block_site.foreign_notes(each)]
    told = still_refused(deciding(places), looks, evidence.in_effect)
    data = merged({"notes": foreign}, told)
    yield Plan(notes=tuple(data["notes"]))
    seen = evidence.as_json()
    return Result(Ended.UNCHANGED, data=place.data() | data, before=seen, after=seen)


def _unblock(places: tuple[ListState, ...], ours: tuple[ListState, ...], context: Context) -> Steps[Result]:
    removals = []
    for place in ours:
        unwiring = (yield from _unwiring(place, context)) if context.undo else None
        removals.append(_Removal(place, block_site.removing(place), unwiring))
    yield _plan(removals)
    before = yield from evidence_of(ours[0], (yield from look(ours[0], context)), *ours[1:])
    for removal in removals:
        yield from _remove(removal)
    return (yield from _freed(places, ours, before, context))


def _unwiring(place: ListState, context: Context) -> Steps[Wiring | None]:
    """None where something else needs the list: another block of ours, wanted or there, or a line of others."""
    if place.others or context.wanted_blocks or block_site.is_written(place.file, place.site.text_when_absent):
        return None
    return (yield from place.site.find_unwiring())


def _plan(removals: list[_Removal]) -> Plan:
    diffs, commands = [], []
    for each in removals:
        text, _ = each.change(each.place.source)
        if each.unwiring:
            diffs.append(each.unwiring.diff)
            commands.append(each.unwiring.command)
            text = None
        diffs.append(edit.difference(each.place.source, text))
        commands.append(each.place.site.list_file.command_line())
    return Plan(diffs=tuple(diffs), commands=tuple(commands))


def _remove(removal: _Removal) -> Steps[None]:
    place = removal.place
    write = partial(edit.change_list, place.site.list_file, place.source)
    if removal.unwiring is None:
        yield from write(removal.change)
        return
    now = yield from block_site.read(place.site, place.pattern)
    block_site.refuse_written(now.file, place.source.path, place.site.text_when_absent)
    yield from removal.unwiring.apply()
    yield from edit.remove_or_empty(write, block_site.vanishing(place, removal.change), removal.change)


def _freed(
    places: tuple[ListState, ...], ours: tuple[ListState, ...], before: Evidence, context: Context
) -> Steps[Result]:
    first = ours[0]
    looks = yield from look_until(first, context, lambda looks: not _refused(ours, looks))
    after = yield from evidence_of(first, looks, *ours[1:])
    refused, rules = _refused(ours, looks), deciding(places)
    left = [fold(key) for place in ours for key in place.keys if _is_left(place, fold(key), rules, after)]
    result = partial(Result, before=before.as_json(), after=after.as_json())
    if not left and (rules or not refused):
        return result(Ended.SUCCEEDED, data=first.data() | still_refused(rules, looks, after.in_effect))
    still = f"{first.source.path} still has {left[0]}" if left else ""
    still = f"{refused[0].sender} is still answered {one_line(refused[0].reply)!r}" if refused else still
    shared = [other.pattern for place in places for other in place.others]
    error = RemoteError(still, hint=f"our other blocks: {shared}; else a line of the administrator")
    return result(Ended.FAILED, data=first.data(), error=error)


def _refused(ours: tuple[ListState, ...], looks: ProbeResults) -> list[ProbeResult]:
    return [result for result in looks if result.is_provable and any(_is_ours(place, result) for place in ours)]


def _is_ours(place: ListState, result: ProbeResult) -> bool:
    return place.block is not None and place.site.refuses(result.reply, place.block.value)


def _is_left(place: ListState, key: str, rules: tuple[Rule, ...], after: Evidence) -> bool:
    """Whether our entry is still in effect, and not that of another who has the same."""
    return key not in keys_of(rules) and place.block is not None and after.in_effect.get(key) == place.block.value


def read_back_block(
    find: BlockSites, instance: InstanceFacts, operation: Operation, context: Context
) -> Steps[Result | None]:
    """How far a block or unblock got: answer, what is in effect and our mark decide. Either is safe to apply again."""
    if not isinstance(operation, SenderBlock | SenderUnblock):
        return None
    pattern = parse_block_pattern(operation.pattern)
    places = yield from block_site.read_all((yield from find(instance)), pattern)
    ours = tuple(place for place in places if place.block)
    place = (ours or places)[0]
    block_site.refuse_stale(place)
    looks = yield from look(place, context)
    also = [] if isinstance(operation, SenderBlock) else [each for each in places if each is not place]
    after = yield from evidence_of(place, looks, *also)
    data = place.data()
    if isinstance(operation, SenderBlock):
        is_there = place.block is not None and place.block.value == place.site.value_of(operation)
        is_done = is_there and place.site.is_consulted and is_in_effect(place, operation, after)
        is_done = is_done and is_settled(place, looks, operation)
    else:
        rules = deciding(places)
        is_done = not ours and after.in_effect.keys() <= set(keys_of(rules))
        data |= still_refused(rules, looks, after.in_effect) if is_done else {}
    if is_done:
        return Result(Ended.SUCCEEDED, data=data, after=after.as_json())
    error = RemoteError("the change was not made, or only in part", hint="it is safe to ask for it again")
    return Result(Ended.FAILED, data=data, after=after.as_json(), error=error)
