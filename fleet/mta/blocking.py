"""Blocking a sender, the same on every MTA that keeps a list file: look, plan, change, and look again.

What is not proven is taken back.

An MTA supplies a `Site`: which file, which keys, which answer. Everything else is here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fleet.mta import block_edit, block_file
from fleet.mta.address import BlockPattern, parse_block_pattern
from fleet.mta.block_edit import Change, ListFile, Source
from fleet.mta.block_file import Block, BlockFile, Syntax, fold
from fleet.mta.errors import Conflict, FleetError, NeedsWiring, Refused, RemoteError, Unsupported
from fleet.mta.not_ours import foreign_notes, nothing_of_ours, unreadable
from fleet.mta.operations import Operation, SenderBlock, SenderUnblock
from fleet.mta.smtp_proof import Probe, Seen, read_proof
from fleet.mta.types import Command, Context, Diff, Ended, InstanceFacts, Plan, Result, Steps, run, talk

LOOKS = 5  # one a second; an MTA may notice a new list a moment later


@dataclass(frozen=True, slots=True)
class Wiring:
    """A change of the configuration by which the MTA comes to ask our list, or stops to.

    `command`: as a plan shows it. `apply` makes the change, `take_back` undoes it; either raises FleetError.
    """

    diff: Diff
    command: tuple[str, ...]
    apply: Callable[[], Steps[None]]
    take_back: Callable[[], Steps[None]]


def _no_notes(pattern: BlockPattern) -> tuple[str, ...]:
    return ()


def _no_wiring() -> Steps[Wiring | None]:
    yield from ()
    return None


def _nothing_refused(path: str, file: BlockFile) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Site:
    """How one instance keeps its list of blocked senders.

    `keys`: the lines (or map keys) of a pattern; raises Unsupported for what the list cannot express. `value_of`: the
    right-hand side, "" where the list has none; raises Unsupported. `is_ours`: whether a reply (`550 5.7.1 ...`) is the
    answer to a block with that value. `notes`: how a block means something else here than the pattern says. `probes`:
    the dialogues for (pattern, job, addresses of the host), one per front end. `own_domains`: whose mail it receives.
    `wider`: further keys that refuse the pattern's senders with the same answer. `refuse`: raises Conflict for a file
    in which a line more or less of ours changes what others' lines mean. `needs_file`: the MTA must have one, if need
    be an empty one. `text_when_absent`: what a new file begins with, in our own file. `wiring`: what makes the list
    count, None when it does already. `find_unwiring`: our wiring as it can be taken out again, None when it is not
    there as we wrote it.
    """

    list_file: ListFile
    syntax: Syntax
    keys: Callable[[BlockPattern], tuple[str, ...]]
    value_of: Callable[[SenderBlock], str]
    is_ours: Callable[[str, str], bool]
    notes: Callable[[BlockPattern], tuple[str, ...]]
    probes: Callable[[BlockPattern, str, tuple[str, ...]], tuple[Probe, ...]]
    own_domains: tuple[str, ...] = ()
    wider: Callable[[BlockPattern], tuple[str, ...]] = _no_notes
    refuse: Callable[[str, BlockFile], None] = _nothing_refused
    needs_file: bool = False
    text_when_absent: str = ""
    wiring: Wiring | None = None
    find_unwiring: Callable[[], Steps[Wiring | None]] = _no_wiring

    def keys_of(self, pattern: str) -> tuple[str, ...]:
        return self.keys(parse_block_pattern(pattern))

    def parse(self, source: Source) -> BlockFile:
        text = source.text if source.exists else self.text_when_absent
        return block_file.parse_file(text, source.path, self.syntax, self.keys_of, exists=source.exists)


@dataclass(frozen=True, slots=True)
class _Place:
    """A site's list as it was read."""

    site: Site
    source: Source
    file: BlockFile
    pattern: BlockPattern

    @property
    def keys(self) -> tuple[str, ...]:
        return self.site.keys(self.pattern)

    def data(self) -> dict[str, Any]:
        return {"pattern": self.pattern.text, "file": self.source.path, "keys": list(self.keys)}


Looks = tuple[Seen, ...]


def own_domains(instance: InstanceFacts) -> tuple[str, ...]:
    """The domains whose mail the instance receives, without those of the loopback; the host's own name first."""
    found = [str(each) for each in instance.options.get("own_domains", ())]
    real = [each for each in found if "." in each and not each.startswith("localhost.")]
    return tuple(sorted(real, key=lambda each: each.partition(".")[0] != instance.host.partition(".")[0]))


def refuse_own_domain(own_domains: tuple[str, ...], pattern: BlockPattern) -> None:
    """Raises Conflict for a whole domain whose mail this instance itself receives."""
    if pattern.address is None and pattern.domain in own_domains:
        raise Conflict(
            f"{pattern.domain} is a domain of this instance itself; blocking it would refuse its own users",
            hint="block single addresses of it",
        )


def sender_block(site: Site, operation: SenderBlock, context: Context) -> Steps[Result]:
    """Block a sender. Raises Conflict, Unsupported, NeedsWiring, DiskFull; then nothing is changed."""
    pattern = parse_block_pattern(operation.pattern)
    refuse_own_domain(site.own_domains, pattern)
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
        adding = _adding(place, ours) if ours else _keeping
    else:
        adding = _adding(place, Block(pattern.text, context.job or "-", value))
    yield _plan(place, adding, notes, site.wiring)
    if site.wiring and not context.wiring_approved:
        raise NeedsWiring(
            "this instance checks no senders yet, and its wiring was not approved",
            hint="ask again; the plan then shows the change of the configuration",
        )
    first = yield from _look(place, context)
    before = yield from _evidence(place, first)
    yield from block_edit.change_list(site.list_file, place.source, adding)
    if site.wiring:
        yield from _wire(place, site.wiring)
    return (yield from _proven(place, operation, first, before, context))


def _read_fitting(site: Site, pattern: BlockPattern) -> Steps[_Place]:
    place = yield from _read(site, pattern)
    refuse_stale(place.source)
    return place


def refuse_stale(source: Source, build: str = "build the map") -> None:
    """Raises Conflict for a file that is not what its map was built of. `build`: what an administrator does then."""
    if source.is_stale and not source.exists:
        raise Conflict(
            f"{source.path} is not there and its map is; one built of our lines alone would lack its entries",
            hint="put the file back, or take the map away",
            file=source.path,
        )
    if source.is_stale:
        raise Conflict(
            f"{source.path} was edited and its map is older; our change would put those lines into effect too",
            hint=f"{build}, or take the edit back",
            file=source.path,
        )


def _read(site: Site, pattern: BlockPattern) -> Steps[_Place]:
    site.keys(pattern)
    source = yield from block_edit.read_list(site.list_file)
    return _Place(site, source, site.parse(source), pattern)


def _is_done(place: _Place, value: str) -> bool:
    ours = place.file.block(place.pattern.text)
    if ours:
        return ours.value == value and ours.is_whole
    return block_file.same_by_hand(place.file, place.keys, value)


def _is_settled(place: _Place, seen: Seen, operation: SenderBlock, value: str) -> bool:
    if not seen.is_provable or operation.action == "discard":
        return True
    return place.site.is_ours(seen.reply, value)


def _change(place: _Place, edit: Callable[[BlockFile], tuple[Block, ...]]) -> Change:
    """The same edit of our blocks, whatever else stands in the file by then."""
    site = place.site

    def change(source: Source) -> tuple[str | None, block_edit.Checks]:
        file = site.parse(source)
        blocks = edit(file)
        text = block_file.render(file, blocks, site.syntax, site.keys_of)
        checks = block_file.checks(file, blocks, site.keys_of) if site.syntax.has_values else ()
        return ("" if text is None and site.needs_file else text), checks

    return change


def _adding(place: _Place, block: Block) -> Change:
    def edit(file: BlockFile) -> tuple[Block, ...]:
        place.site.refuse(place.source.path, file)
        return block_file.with_block(file, block, place.site.keys_of, place.source.path)

    return _change(place, edit)


def _removing(place: _Place) -> Change:
    def edit(file: BlockFile) -> tuple[Block, ...]:
        place.site.refuse(place.source.path, file)
        return block_file.without_block(file, place.pattern.text)

    return _change(place, edit)


def _restoring(place: _Place) -> Change:
    """Our block of the pattern as it was when the file was read first, or none."""
    earlier = place.file.block(place.pattern.text)
    kept = (earlier,) if earlier else ()
    return _change(place, lambda file: (*block_file.without_block(file, place.pattern.text), *kept))


def _vanishing(place: _Place, change: Change) -> Change:
    """The same, and no file where only that would be left with which a file of ours begins."""

    def vanish(source: Source) -> tuple[str | None, block_edit.Checks]:
        text, checks = change(source)
        return (None, ()) if text and text == place.site.text_when_absent else (text, checks)

    return vanish


def _keeping(source: Source) -> tuple[str | None, block_edit.Checks]:
    return (source.text if source.exists else None), ()


def _plan(place: _Place, change: Change, notes: tuple[str, ...], wiring: Wiring | None) -> Plan:
    text, _ = change(place.source)
    diffs = [block_edit.difference(place.source, text)]
    commands = [place.site.list_file.shown()]
    if wiring:
        diffs.append(wiring.diff)
        commands.append(wiring.command)
    return Plan(diffs=tuple(diffs), commands=tuple(commands), notes=notes, wiring=wiring is not None)


def _look(place: _Place, context: Context) -> Steps[Looks]:
    return (yield from _look_at(place.site, place.pattern, context, place.source.addresses))


def _look_at(site: Site, pattern: BlockPattern, context: Context, addresses: tuple[str, ...] = ()) -> Steps[Looks]:
    looks = []
    for probe in site.probes(pattern, context.job, addresses):
        said = yield from talk(probe.dialogue())
        looks.append(read_proof(probe, said))
    return tuple(looks)


def _evidence(place: _Place, looks: Looks) -> Steps[dict[str, Any]]:
    """What the dialogues showed and what is in effect for our keys: `lookup` {key: value}, without those not found."""
    found = yield from block_edit.look_up(place.site.list_file, place.keys)
    return _shown(looks, found)


def _shown(looks: Looks, found: dict[str, str]) -> dict[str, Any]:
    first = looks[0].as_json() if looks else {"not_provable": "no SMTP server of this instance is known"}
    also = [seen.as_json() for seen in looks[1:]]
    return {**first, **({"also": also} if also else {}), "lookup": found}


def _wire(place: _Place, wiring: Wiring) -> Steps[None]:
    """The list is there already, so the MTA never meets a check without one. What fails takes the list back too."""
    try:
        yield from wiring.apply()
    except FleetError:
        yield from _drop(place)
        raise


def _drop(place: _Place) -> Steps[None]:
    """Take our entry back; a file that was not there before goes as a whole, unless somebody has written into it."""
    now = yield from block_edit.read_list(place.site.list_file)
    change = _restoring(place) if place.source.exists else _vanishing(place, _restoring(place))
    yield from block_edit.change_list(place.site.list_file, now, change)


def _proven(
    place: _Place, operation: SenderBlock, first: Looks, before: dict[str, Any], context: Context
) -> Steps[Result]:
    site, value = place.site, place.site.value_of(operation)
    looks = yield from _look(place, context)
    for _ in range(LOOKS - 1):
        if all(_is_settled(place, seen, operation, value) for seen in looks):
            break
        yield from run(Command(("sleep", "1")))
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


def _is_in_effect(place: _Place, value: str, after: dict[str, Any]) -> bool:
    found = after["lookup"]
    return all(found.get(fold(key)) == value for key in place.keys)


def _take_back(place: _Place) -> Steps[None]:
    try:
        if place.site.wiring:
            yield from place.site.wiring.take_back()
        yield from _drop(place)
    except Refused as error:
        raise not_taken_back(place.source.path, error) from error


def not_taken_back(path: str, error: Refused) -> RemoteError:
    """For a change that was not proven and is still there, because others stand in the way."""
    hint = f"look whether our entry is in {path}; an unblock takes it out"
    return RemoteError(f"the block was not proven and could not be taken back: {error.detail}", hint=hint)


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
    refuse_stale(place.source)
    return (yield from _unblock(place, block, context))


def _not_ours(place: _Place, context: Context) -> Steps[Result]:
    notes = foreign_notes(place.file, place.keys, place.source.path)
    looks = yield from _look(place, context)
    yield Plan(notes=notes)
    evidence = yield from _evidence(place, looks)
    return Result(Ended.UNCHANGED, data=place.data() | {"notes": list(notes)}, before=evidence, after=evidence)


def _unblock(place: _Place, block: Block, context: Context) -> Steps[Result]:
    unwiring = (yield from _unwiring(place, context)) if context.undo else None
    removing = _removing(place)
    yield _unblock_plan(place, removing, unwiring)
    looks = yield from _look(place, context)
    before = yield from _evidence(place, looks)
    if unwiring:
        refuse_written(
            (yield from _read(place.site, place.pattern)).file, place.source.path, place.site.text_when_absent
        )
        yield from unwiring.take_back()
        removing = _vanishing(place, removing)
    yield from block_edit.change_list(place.site.list_file, place.source, removing)
    return (yield from _freed(place, block.value, before, context))


def _unwiring(place: _Place, context: Context) -> Steps[Wiring | None]:
    """None where something else needs the list: another block of ours, wanted or there, or a line of others."""
    others = block_file.without_block(place.file, place.pattern.text)
    if others or context.wanted_blocks or is_written(place.file, place.site.text_when_absent):
        return None
    return (yield from place.site.find_unwiring())


def is_written(file: BlockFile, head: str) -> bool:
    """Whether a file of ours, which begins with `head`, has anything that others wrote."""
    return file.before + file.after != head


def refuse_written(file: BlockFile, path: str, head: str) -> None:
    """Raises Conflict for a file of ours that must not go, because others wrote into it since the plan."""
    if is_written(file, head):
        raise Conflict(
            f"{path} has lines of somebody else since the plan; they would not count any more without our wiring",
            hint="ask again: the wiring stays then",
            file=path,
        )


def _unblock_plan(place: _Place, removing: Change, unwiring: Wiring | None) -> Plan:
    text, _ = removing(place.source)
    shown = place.site.list_file.shown()
    if unwiring:
        diffs = (unwiring.diff, block_edit.difference(place.source, None))
        return Plan(diffs=diffs, commands=(unwiring.command, shown))
    return Plan(diffs=(block_edit.difference(place.source, text),), commands=(shown,))


def _freed(place: _Place, value: str, before: dict[str, Any], context: Context) -> Steps[Result]:
    looks = yield from _look(place, context)
    for _ in range(LOOKS - 1):
        if not _refused(place, looks, value):
            break
        yield from run(Command(("sleep", "1")))
        looks = yield from _look(place, context)
    after = yield from _evidence(place, looks)
    data = place.data()
    refused = _refused(place, looks, value)
    there = [key for key in map(fold, place.keys) if after["lookup"].get(key) == value]
    if not refused and not there:
        return Result(Ended.SUCCEEDED, data=data, before=before, after=after)
    shared = [other.pattern for other in block_file.without_block(place.file, place.pattern.text)]
    wider = _wider(place)
    if wider and not after["lookup"]:
        data["still_refused_by"] = list(wider)
        return Result(Ended.SUCCEEDED, data=data, before=before, after=after)
    still = f"{place.source.path} still has {there[0]}" if there else ""
    still = f"{refused[0].sender} is still answered {refused[0].reply!r}" if refused else still
    error = RemoteError(still, hint=f"our other blocks: {shared}; else a line of the administrator")
    return Result(Ended.FAILED, data=data, before=before, after=after, error=error)


def _refused(place: _Place, looks: Looks, value: str) -> list[Seen]:
    return [seen for seen in looks if seen.is_provable and place.site.is_ours(seen.reply, value)]


def _wider(place: _Place) -> tuple[str, ...]:
    """Other lines of the list that refuse the same senders: then the answer says nothing about ours."""
    wanted = {fold(key) for key in place.site.wider(place.pattern)}
    kept = block_file.without_block(place.file, place.pattern.text)
    there = [entry.key for entry in place.file.others]
    there += [fold(key) for block in kept for key in place.site.keys_of(block.pattern)]
    return tuple(key for key in dict.fromkeys(there) if key in wanted)


def block_list(site: Site) -> Steps[Result]:
    """What is blocked now: ours, and the administrator's lines. `reply`: the value of a map, else ""."""
    source = yield from block_edit.read_list(site.list_file)
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
