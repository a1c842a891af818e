"""Blocking a sender, the same on every MTA: look, plan, change, and look again. What is not proven is taken back.

An MTA supplies its `BlockSites`: which files, which keys, which answer. Everything else is here and in `unblock`.
"""

import re
from dataclasses import replace
from functools import partial

from fleet.mta.address import BlockPattern, parse_block_pattern
from fleet.mta.blocks import edit, listfile
from fleet.mta.blocks import site as block_site
from fleet.mta.blocks.edit import Change
from fleet.mta.blocks.evidence import Evidence, ProbeResults, evidence_of, look, look_until
from fleet.mta.blocks.listfile import Block, fold
from fleet.mta.blocks.proof import ProbeResult, one_line
from fleet.mta.blocks.site import BlockSite, BlockSites, ListState
from fleet.mta.errors import FleetError, NeedsWiring, Refused, RemoteError
from fleet.mta.operations import BlockList, SenderBlock
from fleet.mta.records import Context, Ended, InstanceFacts, Result
from fleet.mta.results.changing import SenderSeen
from fleet.mta.results.reading import BlockListResult, ListedBlock
from fleet.mta.steps import Plan, Steps

_FOR_GOOD = re.compile(r"REJECT(?:\s|$)|5\d\d\s", re.IGNORECASE)
"""The value of a line by hand, of an access map."""


def sender_block(find: BlockSites, instance: InstanceFacts, operation: SenderBlock, context: Context) -> Steps[Result]:
    """Block a sender. Raises Conflict, Unsupported, NeedsWiring, DiskFull; then nothing is changed."""
    pattern = parse_block_pattern(operation.pattern)
    site, *_ = yield from find(instance)
    block_site.refuse_own_domain(site, pattern)
    value = site.value_of(operation)
    place = yield from _read_fitting(site, pattern)
    adding = block_site.adding(place, Block(pattern.text, context.job or "-", value))
    if site.is_consulted and (_is_done(place, operation) or _is_by_hand(place, operation)):
        looks = yield from look(place, context)
        evidence = yield from evidence_of(place, looks)
        if _stands(place, operation, evidence):
            return (yield from _unchanged(place, evidence))
    if site.is_consulted and _is_done(place, operation):
        # Written and not yet in effect: whatever loads it is done again.
        adding = block_site.adding(place, place.block) if place.block else block_site.keeping
    yield _plan(place, adding)
    if place.wiring and not context.wiring_approved:
        raise NeedsWiring(
            "this instance checks no senders yet, and its wiring was not approved",
            hint="ask again; the plan then shows the change of the configuration",
        )
    before = yield from evidence_of(place, (yield from look(place, context)))
    yield from edit.change_list(site.list_file, place.source, adding)
    yield from _wire(place)
    return (yield from _proven(place, operation, before, context))


def _read_fitting(site: BlockSite, pattern: BlockPattern) -> Steps[ListState]:
    """The list to write to, with the wiring that it needs."""
    wiring = None if site.is_consulted else (yield from site.find_wiring())
    place = yield from block_site.read(site, pattern)
    block_site.refuse_stale(place)
    return replace(place, wiring=wiring)


def _is_done(place: ListState, operation: SenderBlock) -> bool:
    value = place.site.value_of(operation)
    if place.block:
        return place.block.value == value and place.block.is_whole
    return listfile.value_by_hand(place.file, place.keys) == value


def _is_by_hand(place: ListState, operation: SenderBlock) -> bool:
    """Whether lines of the administrator decide about all our keys, in whatever words: he may refuse already."""
    is_his = place.block is None and listfile.value_by_hand(place.file, place.keys) is not None
    return is_his and operation.action == "reject"


def _stands(place: ListState, operation: SenderBlock, evidence: Evidence) -> bool:
    """Whether nothing has to be written: our block is in effect, or the MTA refuses by the administrator's line."""
    if place.block:
        return is_in_effect(place, operation, evidence) and is_settled(place, evidence.looks, operation)
    if _is_done(place, operation):
        return is_settled(place, evidence.looks, operation)
    # A line that refuses for good stands also where the MTA answers softly for now (soft_bounce of Postfix).
    is_for_good = _FOR_GOOD.match(listfile.value_by_hand(place.file, place.keys) or "")
    refusals = [each.is_refused and (is_for_good or each.reply.startswith("5")) for each in evidence.looks]
    return bool(refusals) and all(refusals)


def _unchanged(place: ListState, evidence: Evidence) -> Steps[Result]:
    """`notes` in the result name the administrator's line, where it is that which refuses."""
    his = block_site.foreign_notes(place) if place.block is None else ()
    yield Plan(notes=(*place.site.notes_of(place.pattern), *his))
    result = _result(Ended.UNCHANGED, place, evidence, evidence)
    return replace(result, data={**result.data, "notes": list(his)}) if his else result


def _result(
    ended: Ended, place: ListState, before: Evidence | None, after: Evidence, error: FleetError | None = None
) -> Result:
    evidence: SenderSeen = before.as_json() if before else {}
    return Result(ended, data=place.data(), before=evidence, after=after.as_json(), error=error)


def is_settled(place: ListState, looks: ProbeResults, operation: SenderBlock) -> bool:
    """Whether no dialogue says otherwise than that the block counts."""
    return operation.action == "discard" or not _wrong(place, looks, operation)


def _wrong(place: ListState, looks: ProbeResults, operation: SenderBlock) -> list[ProbeResult]:
    value = place.site.value_of(operation)
    return [result for result in looks if result.is_provable and not place.site.refuses(result.reply, value)]


def is_in_effect(place: ListState, operation: SenderBlock, evidence: Evidence) -> bool:
    value = place.site.value_of(operation)
    return all(evidence.in_effect.get(fold(key)) == value for key in place.keys)


def _plan(place: ListState, change: Change) -> Plan:
    text, _ = change(place.source)
    diffs = [edit.difference(place.source, text)]
    commands = [place.site.list_file.command_line()]
    if place.wiring:
        diffs.append(place.wiring.diff)
        commands.append(place.wiring.command)
    notes = place.site.notes_of(place.pattern)
    return Plan(diffs=tuple(diffs), commands=tuple(commands), notes=notes, wiring=place.wiring is not None)


def _wire(place: ListState) -> Steps[None]:
    """The list is there already, so the MTA never meets a check without one. What fails takes the list back too."""
    if place.wiring is None:
        return
    try:
        yield from place.wiring.apply()
    except FleetError:
        yield from _drop(place)
        raise


def _drop(place: ListState) -> Steps[None]:
    """Take our entry back; a file that was not there before goes as a whole, unless somebody has written into it."""
    now = yield from edit.read_list(place.site.list_file)
    restoring = block_site.restoring(place)
    write = partial(edit.change_list, place.site.list_file, now)
    if place.source.exists:
        yield from write(restoring)
    else:
        yield from edit.remove_or_empty(write, block_site.vanishing(place, restoring), restoring)


def _proven(place: ListState, operation: SenderBlock, before: Evidence, context: Context) -> Steps[Result]:
    looks = yield from look_until(place, context, lambda looks: is_settled(place, looks, operation))
    looks = tuple(_qualified(result, earlier, operation) for result, earlier in zip(looks, before.looks, strict=True))
    after = yield from evidence_of(place, looks)
    wrong = _wrong(place, looks, operation)
    if not is_in_effect(place, operation, after):
        error = RemoteError(f"the entry was written and is not in {place.source.path}; the change was taken back")
    elif wrong:
        sender, reply, where = wrong[0].sender, one_line(wrong[0].reply), wrong[0].listener.name
        error = RemoteError(
            f"the list has the entry, yet {sender} was answered {reply!r} at {where}; the change was taken back",
            hint="look at what the MTA checks before this list, and whether its account can read the list",
        )
    else:
        return _result(Ended.SUCCEEDED, place, before, after)
    yield from _take_back(place)
    return _result(Ended.FAILED, place, before, after, error)


def _take_back(place: ListState) -> Steps[None]:
    try:
        unwiring = (yield from place.site.find_unwiring()) if place.wiring else None
        if unwiring:
            yield from unwiring.apply()
        yield from _drop(place)
    except Refused as error:
        raise block_site.not_taken_back(place.source.path, error) from error


def _qualified(result: ProbeResult, first: ProbeResult, operation: SenderBlock) -> ProbeResult:
    """The same with a reason where the answer cannot be due to our entry."""
    if operation.action == "discard" and result.is_accepted:
        return replace(result, reason="a discarded message is answered like an accepted one")
    if first.is_provable and not first.is_accepted and result.reply == first.reply:
        return replace(result, reason=f"this sender was refused before the block too: {result.reply}")
    return result


def block_list(find: BlockSites, instance: InstanceFacts, operation: BlockList, context: Context) -> Steps[Result]:
    """What is blocked now: ours, and the administrator's lines, of the lists that the MTA asks.

    `reply`: the value of a map, else "".
    """
    return Result(Ended.SUCCEEDED, (yield from listed((yield from find(instance)))))


def listed(sites: tuple[BlockSite, ...]) -> Steps[BlockListResult]:
    """What these lists say, of those that the MTA asks."""
    data: BlockListResult = {"ours": [], "others": []}
    for site in (each for each in sites if each.is_consulted):
        source = yield from edit.read_list(site.list_file)
        file = site.parse(source)
        placeholder = site.text_when_absent.splitlines()
        data["ours"] += [_listed(block) for block in file.blocks]
        data["others"] += [
            {"file": source.path, "line": each.text} for each in file.others if each.text not in placeholder
        ]
    return data


def _listed(block: Block) -> ListedBlock:
    action = "discard" if block.value.partition(" ")[0] == "DISCARD" else "reject"
    return {"pattern": block.pattern, "action": action, "reply": block.value.removeprefix("DISCARD ")}
