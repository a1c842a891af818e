"""Blocking a sender, the same on every MTA that keeps a list file: look, plan, change, and look again.

What is not proven is taken back.

An MTA supplies a `Site`: which file, which keys, which answer. Everything else is here.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from fleet.mta.address import BlockPattern, parse_block_pattern
from fleet.mta.blocks import edit, listfile
from fleet.mta.blocks import site as block_site
from fleet.mta.blocks.edit import Change
from fleet.mta.blocks.listfile import Block, fold
from fleet.mta.blocks.not_ours import foreign_notes, nothing_of_ours, unreadable
from fleet.mta.blocks.proof import Seen, read_proof
from fleet.mta.blocks.site import Place, Site, Wiring
from fleet.mta.errors import FleetError, NeedsWiring, Refused, RemoteError, Unsupported
from fleet.mta.host.commands import pause
from fleet.mta.operations import Operation, SenderBlock, SenderUnblock
from fleet.mta.records import Context, Ended, Result
from fleet.mta.steps import Plan, Steps, talk

LOOKS = 5  # one a second; an MTA may notice a new list a moment later


Looks = tuple[Seen, ...]


def sender_block(site: Site, operation: SenderBlock, context: Context) -> Steps[Result]:
    """Block a sender. Raises Conflict, Unsupported, NeedsWiring, DiskFull; then nothing is changed."""
    pattern = parse_block_pattern(operation.pattern)
    block_site.refuse_own_domain(site.own_domains, pattern)
    value = site.value_of(operation)
    place = yield from _read_fitting(site, pattern)
    notes = site.notes(pattern)
    ours = place.file.block(pattern.text)
    if site.wiring is None and _is_done(place, value):
        looks = yield from _look(place, context)
        evidence = yield from _evidence(place, looks)
        is_there = ours is None or _is_in_effect(place, value, evidence)
        if is_there and all(_is_settled(place, seen, operation, value) for seen in looks):
            yield Plan(notes=notes)
            return Result(Ended.UNCHANGED, data=place.data(), before=evidence, after=evidence)
        # Written and not yet in effect: whatever loads it is done again.
        adding = block_site.adding(place, ours) if ours else block_site.keeping
    else:
        adding = block_site.adding(place, Block(pattern.text, context.job or "-", value))
    yield _plan(place, adding, notes, site.wiring)
    if site.wiring and not context.wiring_approved:
        raise NeedsWiring(
            "this instance checks no senders yet, and its wiring was not approved",
            hint="ask again; the plan then shows the change of the configuration",
        )
    first = yield from _look(place, context)
    before = yield from _evidence(place, first)
    yield from edit.change_list(site.list_file, place.source, adding)
    if site.wiring:
        yield from _wire(place, site.wiring)
    return (yield from _proven(place, operation, first, before, context))


def _read_fitting(site: Site, pattern: BlockPattern) -> Steps[Place]:
    place = yield from _read(site, pattern)
    block_site.refuse_stale(place.source)
    return place


def _read(site: Site, pattern: BlockPattern) -> Steps[Place]:
    site.keys(pattern)
    source = yield from edit.read_list(site.list_file)
    return Place(site, source, site.parse(source), pattern)


def _is_done(place: Place, value: str) -> bool:
    ours = place.file.block(place.pattern.text)
    if ours:
        return ours.value == value and ours.is_whole
    return listfile.same_by_hand(place.file, place.keys, value)


def _is_settled(place: Place, seen: Seen, operation: SenderBlock, value: str) -> bool:
    if not seen.is_provable or operation.action == "discard":
        return True
    return place.site.is_ours(seen.reply, value)


def _plan(place: Place, change: Change, notes: tuple[str, ...], wiring: Wiring | None) -> Plan:
    text, _ = change(place.source)
    diffs = [edit.difference(place.source, text)]
    commands = [place.site.list_file.shown()]
    if wiring:
        diffs.append(wiring.diff)
        commands.append(wiring.command)
    return Plan(diffs=tuple(diffs), commands=tuple(commands), notes=notes, wiring=wiring is not None)


def _look(place: Place, context: Context) -> Steps[Looks]:
    return (yield from _look_at(place.site, place.pattern, context, place.source.addresses))


def _look_at(site: Site, pattern: BlockPattern, context: Context, addresses: tuple[str, ...] = ()) -> Steps[Looks]:
    looks = []
    for probe in site.probes(pattern, context.job, addresses):
        said = yield from talk(probe.dialogue())
        looks.append(read_proof(probe, said))
    return tuple(looks)


def _evidence(place: Place, looks: Looks) -> Steps[dict[str, Any]]:
    """What the dialogues showed and what is in effect for our keys: `lookup` {key: value}, without those not found."""
    found = yield from edit.look_up(place.site.list_file, place.keys)
    return _shown(looks, found)


def _shown(looks: Looks, found: dict[str, str]) -> dict[str, Any]:
    first = looks[0].as_json() if looks else {"not_provable": "no SMTP server of this instance is known"}
    also = [seen.as_json() for seen in looks[1:]]
    return {**first, **({"also": also} if also else {}), "lookup": found}


def _wire(place: Place, wiring: Wiring) -> Steps[None]:
    """The list is there already, so the MTA never meets a check without one. What fails takes the list back too."""
    try:
        yield from wiring.apply()
    except FleetError:
        yield from _drop(place)
        raise


def _drop(place: Place) -> Steps[None]:
    """Take our entry back; a file that was not there before goes as a whole, unless somebody has written into it."""
    now = yield from edit.read_list(place.site.list_file)
    restoring = block_site.restoring(place)
    write = partial(edit.change_list, place.site.list_file, now)
    if place.source.exists:
        yield from write(restoring)
    else:
        yield from edit.remove_or_empty(write, block_site.vanishing(place, restoring), restoring)


def _proven(
    place: Place, operation: SenderBlock, first: Looks, before: dict[str, Any], context: Context
) -> Steps[Result]:
    site, value = place.site, place.site.value_of(operation)
    looks = yield from _look(place, context)
    for _ in range(LOOKS - 1):
        if all(_is_settled(place, seen, operation, value) for seen in looks):
            break
        yield from pause(1)
        looks = yield from _look(place, context)
    looks = tuple(_judged(seen, earlier, operation) for seen, earlier in zip(looks, first, strict=True))
    after = yield from _evidence(place, looks)
    if not _is_in_effect(place, value, after):
        yield from _take_back(place)
        gone = RemoteError(f"the entry was written and is not in {place.source.path}; the change was taken back")
        return Result(Ended.FAILED, data=place.data(), before=before, after=after, error=gone)
    wrong = [seen for seen in looks if seen.is_provable and not site.is_ours(seen.reply, value)]
    if not wrong:
        return Result(Ended.SUCCEEDED, data=place.data(), before=before, after=after)
    yield from _take_back(place)
    error = RemoteError(
        f"the list has the entry, yet {wrong[0].sender} was answered {wrong[0].reply!r}; the change was taken back",
        hint="look at what the MTA checks before this list, and whether its account can read the list",
    )
    return Result(Ended.FAILED, data=place.data(), before=before, after=after, error=error)


def _is_in_effect(place: Place, value: str, after: dict[str, Any]) -> bool:
    found = after["lookup"]
    return all(found.get(fold(key)) == value for key in place.keys)


def _take_back(place: Place) -> Steps[None]:
    try:
        if place.site.wiring:
            yield from place.site.wiring.take_back()
        yield from _drop(place)
    except Refused as error:
        raise block_site.not_taken_back(place.source.path, error) from error


def _judged(seen: Seen, first: Seen, operation: SenderBlock) -> Seen:
    """The same with a reason where the answer cannot be due to our entry."""
    if operation.action == "discard" and seen.is_accepted:
        return replace(seen, reason="a discarded message is answered like an accepted one")
    if first.is_provable and not first.is_accepted and seen.reply == first.reply:
        return replace(seen, reason=f"this sender was refused before the block too: {seen.reply}")
    return seen


def sender_unblock(find_site: Callable[[], Site], operation: SenderUnblock, context: Context) -> Steps[Result]:
    """Take our own block back. As an undo it also takes the wiring back when no other block needs it.

    `find_site` may raise Unsupported. Where nothing of ours is, whatever the reason, nothing is changed.
    """
    pattern = parse_block_pattern(operation.pattern)
    try:
        site = find_site()
        site.keys(pattern)
    except Unsupported as error:
        return (yield from nothing_of_ours(pattern.text, error.detail))
    try:
        place = yield from _read(site, pattern)
    except Unsupported as error:
        return (yield from unreadable(pattern.text, error, (yield from _look_at(site, pattern, context))))
    block = place.file.block(pattern.text)
    if block is None:
        return (yield from _not_ours(place, context))
    block_site.refuse_stale(place.source)
    return (yield from _unblock(place, block, context))


def _not_ours(place: Place, context: Context) -> Steps[Result]:
    notes = foreign_notes(place.file, place.keys, place.source.path)
    looks = yield from _look(place, context)
    yield Plan(notes=notes)
    evidence = yield from _evidence(place, looks)
    return Result(Ended.UNCHANGED, data=place.data() | {"notes": list(notes)}, before=evidence, after=evidence)


def _unblock(place: Place, block: Block, context: Context) -> Steps[Result]:
    unwiring = (yield from _unwiring(place, context)) if context.undo else None
    removing = block_site.removing(place)
    yield _unblock_plan(place, removing, unwiring)
    looks = yield from _look(place, context)
    before = yield from _evidence(place, looks)
    write = partial(edit.change_list, place.site.list_file, place.source)
    if unwiring:
        block_site.refuse_written(
            (yield from _read(place.site, place.pattern)).file, place.source.path, place.site.text_when_absent
        )
        yield from unwiring.take_back()
        yield from edit.remove_or_empty(write, block_site.vanishing(place, removing), removing)
    else:
        yield from write(removing)
    return (yield from _freed(place, block.value, before, context))


def _unwiring(place: Place, context: Context) -> Steps[Wiring | None]:
    """None where something else needs the list: another block of ours, wanted or there, or a line of others."""
    others = listfile.without_block(place.file, place.pattern.text)
    if others or context.wanted_blocks or block_site.is_written(place.file, place.site.text_when_absent):
        return None
    return (yield from place.site.find_unwiring())


def _unblock_plan(place: Place, removing: Change, unwiring: Wiring | None) -> Plan:
    text, _ = removing(place.source)
    shown = place.site.list_file.shown()
    if unwiring:
        diffs = (unwiring.diff, edit.difference(place.source, None))
        return Plan(diffs=diffs, commands=(unwiring.command, shown))
    return Plan(diffs=(edit.difference(place.source, text),), commands=(shown,))


def _freed(place: Place, value: str, before: dict[str, Any], context: Context) -> Steps[Result]:
    looks = yield from _look(place, context)
    for _ in range(LOOKS - 1):
        if not _refused(place, looks, value):
            break
        yield from pause(1)
        looks = yield from _look(place, context)
    after = yield from _evidence(place, looks)
    data = place.data()
    refused = _refused(place, looks, value)
    there = [key for key in map(fold, place.keys) if after["lookup"].get(key) == value]
    if not refused and not there:
        return Result(Ended.SUCCEEDED, data=data, before=before, after=after)
    shared = [other.pattern for other in listfile.without_block(place.file, place.pattern.text)]
    wider = _wider(place)
    if wider and not after["lookup"]:
        data["still_refused_by"] = list(wider)
        return Result(Ended.SUCCEEDED, data=data, before=before, after=after)
    still = f"{place.source.path} still has {there[0]}" if there else ""
    still = f"{refused[0].sender} is still answered {refused[0].reply!r}" if refused else still
    error = RemoteError(still, hint=f"our other blocks: {shared}; else a line of the administrator")
    return Result(Ended.FAILED, data=data, before=before, after=after, error=error)


def _refused(place: Place, looks: Looks, value: str) -> list[Seen]:
    return [seen for seen in looks if seen.is_provable and place.site.is_ours(seen.reply, value)]


def _wider(place: Place) -> tuple[str, ...]:
    """Other lines of the list that refuse the same senders: then the answer says nothing about ours."""
    wanted = {fold(key) for key in place.site.wider(place.pattern)}
    kept = listfile.without_block(place.file, place.pattern.text)
    there = [entry.key for entry in place.file.others]
    there += [fold(key) for block in kept for key in place.site.keys_of(block.pattern)]
    return tuple(key for key in dict.fromkeys(there) if key in wanted)


def block_list(site: Site) -> Steps[Result]:
    """What is blocked now: ours, and the administrator's lines. `reply`: the value of a map, else ""."""
    source = yield from edit.read_list(site.list_file)
    file = site.parse(source)
    placeholder = site.text_when_absent.splitlines()
    ours = [
        {"pattern": block.pattern, "action": "discard" if block.value == "DISCARD" else "reject", "reply": block.value}
        for block in file.blocks
    ]
    others = [{"file": source.path, "line": each.text} for each in file.others if each.text not in placeholder]
    return Result(Ended.SUCCEEDED, data={"ours": ours, "others": others})


def read_back_block(site: Site, operation: Operation, context: Context) -> Steps[Result | None]:
    """How far a block or unblock got: what is in effect and our mark decide. Either is safe to apply again."""
    if not isinstance(operation, SenderBlock | SenderUnblock):
        return None
    place = yield from _read_fitting(site, parse_block_pattern(operation.pattern))
    looks = yield from _look(place, context)
    after = yield from _evidence(place, looks)
    block = place.file.block(place.pattern.text)
    if isinstance(operation, SenderBlock):
        value = site.value_of(operation)
        is_done = site.wiring is None and block is not None and block.value == value
        is_done = is_done and _is_in_effect(place, value, after)
        is_done = is_done and all(_is_settled(place, seen, operation, value) for seen in looks)
    else:
        is_done = block is None and not after["lookup"]
    if is_done:
        return Result(Ended.SUCCEEDED, data=place.data(), after=after)
    error = RemoteError("the change was not made, or only in part", hint="it is safe to ask for it again")
    return Result(Ended.FAILED, data=place.data(), after=after, error=error)
