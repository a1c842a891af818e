"""Blocking senders on Postfix: an entry in the access map that smtpd asks first, proven by an SMTP dialogue.

Where no such map is wired, the first block makes our own and puts it in front of smtpd_sender_restrictions; undoing
it takes both back. access(5), postconf(5), SMTPD_ACCESS_README.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from fleet.mta.address import BlockPattern, parse_block_pattern
from fleet.mta.blocks import listfile, site
from fleet.mta.blocks.edit import Change, Source, difference, remove_or_empty
from fleet.mta.blocks.listfile import Block
from fleet.mta.blocks.not_ours import foreign_notes, nothing_of_ours, unreadable
from fleet.mta.blocks.proof import Seen, read_proof
from fleet.mta.errors import Conflict, FleetError, NeedsWiring, Refused, RemoteError, Unsupported
from fleet.mta.host.commands import HELPERS, pause
from fleet.mta.operations import BlockList, Operation, SenderBlock, SenderUnblock
from fleet.mta.postfix import access, access_edit, access_place, wiring
from fleet.mta.postfix.access_facts import BlockFacts, differences, probe_for, read_facts, refuse_own_domain
from fleet.mta.postfix.access_place import Place
from fleet.mta.records import Context, Ended, InstanceFacts, Result
from fleet.mta.steps import Plan, Steps, talk

LOOKS = 5  # smtpd notices a new map when its next client comes, a reload within a second or two


def _look(place: Place, pattern: BlockPattern, job: str) -> Steps[Seen]:
    return (yield from _look_at(place.facts, pattern, job))


def _look_at(facts: BlockFacts, pattern: BlockPattern, job: str) -> Steps[Seen]:
    probe = probe_for(facts, pattern, job)
    said = yield from talk(probe.dialogue())
    return read_proof(probe, said)


def _evidence(place: Place, pattern: BlockPattern, seen: Seen) -> Steps[dict[str, Any]]:
    """What the dialogue showed and what the live map gives, the latter None where nothing is found."""
    found = yield from _look_up(place, pattern)
    return _shown(seen, place, pattern, found)


def _look_up(place: Place, pattern: BlockPattern) -> Steps[dict[str, str]]:
    return (yield from access_edit.look_up(place.instance, place.access_map, place.keys(pattern.text)))


def _shown(seen: Seen, place: Place, pattern: BlockPattern, found: dict[str, str]) -> dict[str, Any]:
    return {**seen.as_json(), "lookup": found.get(place.keys(pattern.text)[0])}


def sender_block(instance: InstanceFacts, operation: SenderBlock, context: Context) -> Steps[Result]:
    """Block a sender. Raises Conflict, Unsupported, NeedsWiring, DiskFull; then nothing is changed."""
    facts = yield from read_facts(instance)
    pattern = parse_block_pattern(operation.pattern)
    refuse_own_domain(facts, pattern)
    _refuse_override(facts)
    place = yield from access_place.read_place(instance, facts, facts.wired or facts.own)
    access_place.refuse_stale(place)
    value = access.value_of(operation)
    notes = differences(facts, pattern)
    if facts.wired and _is_done(place, pattern, value):
        found = yield from _look_up(place, pattern)
        if place.file.block(pattern.text) is None or _is_in_effect(place, pattern, value, found):
            yield Plan(notes=notes)
            evidence = _shown((yield from _look(place, pattern, context.job)), place, pattern, found)
            return Result(Ended.UNCHANGED, data=_data(place, pattern), before=evidence, after=evidence)
    adding = access_place.adding(place, Block(pattern.text, context.job or "-", value))
    main_cf = None if facts.wired else (yield from access_edit.read_main_cf(instance, place.access_map))
    yield _block_plan(place, main_cf, adding, notes)
    if main_cf and not context.wiring_approved:
        raise NeedsWiring(
            "this instance checks no senders yet, and its wiring was not approved",
            hint="ask again; the plan then shows the change of main.cf",
        )
    seen = yield from _look(place, pattern, context.job)
    before = yield from _evidence(place, pattern, seen) if place.source.exists else _nothing(seen)
    yield from access_edit.change_map(instance, place.access_map, place.source, adding)
    if main_cf:
        yield from _wire(place, main_cf, pattern)
    return (yield from _proven(place, main_cf, operation, seen, before, context))


def _nothing(seen: Seen) -> Steps[dict[str, Any]]:
    """Evidence where there is no map to look into yet."""
    yield from ()
    return {**seen.as_json(), "lookup": None}


def _refuse_override(facts: BlockFacts) -> None:
    if wiring.RESTRICTIONS in facts.service.overrides and not facts.wired:
        raise Conflict(
            "master.cf sets smtpd_sender_restrictions for this service, so a check in main.cf would not count",
            hint=f"put {wiring.element(facts.own)} first in that line of master.cf",
        )


def _is_done(place: Place, pattern: BlockPattern, value: str) -> bool:
    ours = place.file.block(pattern.text)
    if ours:
        return ours.value == value and ours.is_whole
    return listfile.same_by_hand(place.file, place.keys(pattern.text), value)


def _block_plan(place: Place, main_cf: Source | None, adding: Change, notes: tuple[str, ...]) -> Plan:
    text, _ = adding(place.source)
    diffs = [difference(place.source, text)]
    commands = [_command(place, access_edit.ACCESS)]
    if main_cf:
        diffs.append(difference(main_cf, wiring.wire(main_cf.text, place.access_map)))
        commands.append(_command(place, access_edit.WIRE))
    return Plan(diffs=tuple(diffs), commands=tuple(commands), notes=notes, wiring=main_cf is not None)


def _command(place: Place, script: str) -> tuple[str, ...]:
    argv = access_edit.access_argv if script == access_edit.ACCESS else access_edit.wire_argv
    return (f"{HELPERS}/{script}", *argv(place.instance, "apply", place.access_map))


def _wire(place: Place, main_cf: Source, pattern: BlockPattern) -> Steps[None]:
    """The map is there already, so smtpd never meets a check without a map. What fails takes the map back too."""
    text = wiring.wire(main_cf.text, place.access_map)
    try:
        yield from access_edit.change_main_cf(place.instance, place.access_map, main_cf, text)
    except FleetError:
        yield from _drop(place, pattern)
        raise


def _drop(place: Place, pattern: BlockPattern) -> Steps[None]:
    """Take our entry back; a map that was not there before goes as a whole, unless somebody has written into it."""
    now = yield from access_edit.read_map(place.instance, place.access_map)
    restoring = access_place.restoring(place, pattern.text)
    write = partial(access_edit.change_map, place.instance, place.access_map, now)
    if place.source.exists:
        yield from write(restoring)
    else:
        yield from remove_or_empty(write, access_place.vanishing(place, restoring), restoring)


def _take_back(place: Place, main_cf: Source | None, pattern: BlockPattern) -> Steps[None]:
    try:
        if main_cf:
            yield from _unwire(place)
        yield from _drop(place, pattern)
    except Refused as error:
        raise site.not_taken_back(place.source.path, error) from error


def _proven(
    place: Place,
    main_cf: Source | None,
    operation: SenderBlock,
    first: Seen,
    before: dict[str, Any],
    context: Context,
) -> Steps[Result]:
    pattern = parse_block_pattern(operation.pattern)
    seen = yield from _look(place, pattern, context.job)
    for _ in range(LOOKS - 1):
        if not seen.is_provable or operation.action == "discard" or _is_ours(seen, operation):
            break
        yield from pause(1)
        seen = yield from _look(place, pattern, context.job)
    seen = _judged(seen, first, operation)
    found = yield from _look_up(place, pattern)
    after = _shown(seen, place, pattern, found)
    is_there = _is_in_effect(place, pattern, access.value_of(operation), found)
    if is_there and (not seen.is_provable or _is_ours(seen, operation)):
        return Result(Ended.SUCCEEDED, data=_data(place, pattern), before=before, after=after)
    yield from _take_back(place, main_cf, pattern)
    error = RemoteError(
        f"the map has the entry, yet {seen.sender} was answered {seen.reply!r}; the change was taken back",
        hint="look at smtpd_sender_restrictions and the restrictions before it",
    )
    if not is_there:
        error = RemoteError(f"the entry was written and {place.access_map.name} lacks it; the change was taken back")
    return Result(Ended.FAILED, data=_data(place, pattern), before=before, after=after, error=error)


def _is_in_effect(place: Place, pattern: BlockPattern, value: str, found: dict[str, str]) -> bool:
    return all(found.get(key) == value for key in place.keys(pattern.text))


def _is_ours(seen: Seen, operation: SenderBlock) -> bool:
    return seen.reply.startswith(f"{operation.code} {operation.enhanced} ") and operation.text in seen.reply


def _judged(seen: Seen, first: Seen, operation: SenderBlock) -> Seen:
    """The same with a reason where the answer cannot be due to our entry."""
    if operation.action == "discard" and seen.is_accepted:
        return replace(seen, reason="a discarded message is answered like an accepted one, access(5)")
    if first.is_provable and not first.is_accepted and seen.reply == first.reply:
        return replace(seen, reason=f"this sender was refused before the block too: {seen.reply}")
    return seen


def _unwire(place: Place) -> Steps[bool]:
    """Take our check out of main.cf. False when it does not stand there as we wrote it."""
    main_cf = yield from access_edit.read_main_cf(place.instance, place.access_map)
    text = wiring.unwire(main_cf.text, place.access_map)
    if text is None:
        return False
    yield from access_edit.change_main_cf(place.instance, place.access_map, main_cf, text)
    return True


def sender_unblock(instance: InstanceFacts, operation: SenderUnblock, context: Context) -> Steps[Result]:
    """Take our own block back. As an undo it also takes the wiring back when no other block needs it.

    Where nothing of ours is, whatever the reason, nothing is changed.
    """
    pattern = parse_block_pattern(operation.pattern)
    try:
        facts = yield from read_facts(instance)
        access_place.keys_of(facts, pattern.text)
    except Unsupported as error:
        return (yield from nothing_of_ours(pattern.text, error.detail))
    try:
        place = yield from _find(instance, facts, pattern)
    except Unsupported as error:
        return (yield from unreadable(pattern.text, error, [(yield from _look_at(facts, pattern, context.job))]))
    if place.file.block(pattern.text) is None:
        return (yield from _not_ours(place, pattern, context))
    access_place.refuse_stale(place)
    return (yield from _unblock(place, pattern, context))


def _not_ours(place: Place, pattern: BlockPattern, context: Context) -> Steps[Result]:
    notes = foreign_notes(place.file, place.keys(pattern.text), place.source.path)
    yield Plan(notes=notes)
    seen = yield from _look(place, pattern, context.job)
    data = _data(place, pattern) | {"notes": list(notes)}
    return Result(Ended.UNCHANGED, data=data, before=seen.as_json(), after=seen.as_json())


def _unblock(place: Place, pattern: BlockPattern, context: Context) -> Steps[Result]:
    removing = access_place.removing(place, pattern.text)
    main_cf = (yield from _main_cf_to_restore(place, pattern, context)) if context.undo else None
    yield _unblock_plan(place, main_cf, removing)
    seen = yield from _look(place, pattern, context.job)
    before = yield from _evidence(place, pattern, seen)
    write = partial(access_edit.change_map, place.instance, place.access_map, place.source)
    if main_cf:
        now = yield from access_place.read_place(place.instance, place.facts, place.access_map)
        site.refuse_written(now.file, place.source.path, access.OWN_HEAD)
        text = wiring.unwire(main_cf.text, place.access_map) or main_cf.text
        yield from access_edit.change_main_cf(place.instance, place.access_map, main_cf, text)
        yield from remove_or_empty(write, access_place.vanishing(place, removing), removing)
    else:
        yield from write(removing)
    return (yield from _freed(place, pattern, before, is_unwired=main_cf is not None, context=context))


def _find(instance: InstanceFacts, facts: BlockFacts, pattern: BlockPattern) -> Steps[Place]:
    """Where our block stands: the wired map, or our own one that somebody has put behind another since."""
    place = yield from access_place.read_place(instance, facts, facts.wired or facts.own)
    if place.file.block(pattern.text) is None and place.access_map != facts.own and facts.own in facts.maps:
        return (yield from access_place.read_place(instance, facts, facts.own))
    return place


def _main_cf_to_restore(place: Place, pattern: BlockPattern, context: Context) -> Steps[Source | None]:
    """None where something else needs the map: another block of ours, wanted or there, or a line of others."""
    others = [block for block in place.file.blocks if block.pattern != pattern.text]
    if others or context.wanted_blocks or place.access_map != place.facts.own:
        return None
    if site.is_written(place.file, access.OWN_HEAD):
        return None
    main_cf = yield from access_edit.read_main_cf(place.instance, place.access_map)
    return main_cf if wiring.unwire(main_cf.text, place.access_map) is not None else None


def _unblock_plan(place: Place, main_cf: Source | None, removing: Change) -> Plan:
    if main_cf:
        text = wiring.unwire(main_cf.text, place.access_map) or main_cf.text
        return Plan(diffs=(difference(main_cf, text),), commands=(_command(place, access_edit.WIRE),))
    left, _ = removing(place.source)
    return Plan(diffs=(difference(place.source, left),), commands=(_command(place, access_edit.ACCESS),))


def _freed(
    place: Place, pattern: BlockPattern, before: dict[str, Any], *, is_unwired: bool, context: Context
) -> Steps[Result]:
    block = place.file.block(pattern.text)
    value = block.value if block else ""
    seen = yield from _look(place, pattern, context.job)
    for _ in range(LOOKS - 1):
        if not _is_refused_by(seen, value):
            break
        yield from pause(1)
        seen = yield from _look(place, pattern, context.job)
    found = {} if is_unwired else (yield from _look_up(place, pattern))
    after = _shown(seen, place, pattern, found)
    data = _data(place, pattern)
    there = [key for key in place.keys(pattern.text) if value and found.get(key) == value]
    if not there and not _is_refused_by(seen, value):
        return Result(Ended.SUCCEEDED, data=data, before=before, after=after)
    shared = [other.pattern for other in place.file.blocks if other.pattern != pattern.text]
    still = f"{place.access_map.name} still has {there[0]}" if there else ""
    still = f"{seen.sender} is still answered {seen.reply!r}" if _is_refused_by(seen, value) else still
    error = RemoteError(still, hint=f"our other blocks: {shared}; else a line of the administrator")
    return Result(Ended.FAILED, data=data, before=before, after=after, error=error)


def _is_refused_by(seen: Seen, value: str) -> bool:
    """`550 5.7.1 <a@b.c>: Sender address rejected: text` against the value `550 5.7.1 text`."""
    code, _, rest = value.partition(" ")
    enhanced, _, text = rest.partition(" ")
    return code.isdigit() and seen.reply.startswith(f"{code} {enhanced} ") and seen.reply.endswith(text)


def _data(place: Place, pattern: BlockPattern) -> dict[str, Any]:
    return {"pattern": pattern.text, "map": place.access_map.name, "keys": list(place.keys(pattern.text))}


def block_list(instance: InstanceFacts, operation: BlockList, context: Context) -> Steps[Result]:
    """What is blocked now: ours, and the administrator's lines of every map that smtpd checks senders with."""
    facts = yield from read_facts(instance)
    ours: list[dict[str, str]] = []
    others: list[dict[str, str]] = []
    for access_map in facts.maps:
        if access_map.type not in wiring.EDITABLE:
            others.append({"file": access_map.name, "line": f"(a {access_map.type} table, not listed)"})
            continue
        source = yield from access_edit.read_map(instance, access_map)
        file = access_place.parse(facts, access_map, source)
        ours += [_listed(block) for block in file.blocks]
        placeholder = access.OWN_HEAD.splitlines()[-1]
        others += [{"file": source.path, "line": each.text} for each in file.others if each.text != placeholder]
    return Result(Ended.SUCCEEDED, data={"ours": ours, "others": others})


def _listed(block: Block) -> dict[str, str]:
    action, _, text = block.value.partition(" ")
    if action == "DISCARD":
        return {"pattern": block.pattern, "action": "discard", "reply": text}
    return {"pattern": block.pattern, "action": "reject", "reply": block.value}


def read_back_block(instance: InstanceFacts, operation: Operation, context: Context) -> Steps[Result | None]:
    """How far a block or unblock got: the live map and our mark decide. Either is safe to apply again."""
    if not isinstance(operation, SenderBlock | SenderUnblock):
        return None
    facts = yield from read_facts(instance)
    pattern = parse_block_pattern(operation.pattern)
    place = yield from _find(instance, facts, pattern)
    access_place.refuse_stale(place)
    found: dict[str, str] = {}
    if place.source.exists:
        found = yield from _look_up(place, pattern)
    is_marked = place.file.block(pattern.text) is not None
    seen = yield from _look(place, pattern, context.job)
    after = _shown(seen, place, pattern, found)
    if isinstance(operation, SenderBlock):
        is_done = facts.wired is not None and is_marked
        is_done = is_done and _is_in_effect(place, pattern, access.value_of(operation), found)
    else:
        is_done = not is_marked and not found
    if is_done:
        return Result(Ended.SUCCEEDED, data=_data(place, pattern), after=after)
    error = RemoteError("the change was not made, or only in part", hint="it is safe to ask for it again")
    return Result(Ended.FAILED, data=_data(place, pattern), after=after, error=error)
