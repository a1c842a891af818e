"""An access map of an instance as it was read, and the edits of it that we make; block_site.py of the other MTAs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fleet.mta.address import parse_block_pattern
from fleet.mta.blocks import listfile, site
from fleet.mta.blocks.edit import Change, Checks, Source
from fleet.mta.blocks.listfile import Block, BlockFile
from fleet.mta.postfix import access, access_edit
from fleet.mta.postfix.access_facts import BlockFacts
from fleet.mta.postfix.wiring import AccessMap
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Steps


@dataclass(frozen=True, slots=True)
class Place:
    """A map on an instance as it was read: where a block stands or will stand."""

    instance: InstanceFacts
    facts: BlockFacts
    access_map: AccessMap
    source: Source
    file: BlockFile

    def keys(self, pattern: str) -> tuple[str, ...]:
        return keys_of(self.facts, pattern)


def keys_of(facts: BlockFacts, pattern: str) -> tuple[str, ...]:
    return access.keys_of(parse_block_pattern(pattern), facts.rules)


def refuse_stale(place: Place) -> None:
    site.refuse_stale(place.source, f"run postmap {place.access_map.name}")


def read_place(instance: InstanceFacts, facts: BlockFacts, access_map: AccessMap) -> Steps[Place]:
    source = yield from access_edit.read_map(instance, access_map)
    return Place(instance, facts, access_map, source, parse(facts, access_map, source))


def parse(facts: BlockFacts, access_map: AccessMap, source: Source) -> BlockFile:
    text = access.OWN_HEAD if access_map == facts.own and not source.exists else source.text
    return access.parse_access(text, source.path, partial(keys_of, facts))


def _change(place: Place, edit: Callable[[BlockFile], tuple[Block, ...]]) -> Change:
    """The same edit of our blocks, whatever else stands in the file by then."""

    def change(source: Source) -> tuple[str | None, Checks]:
        file = parse(place.facts, place.access_map, source)
        blocks = edit(file)
        return access.render_access(file, blocks, place.keys), listfile.checks(file, blocks, place.keys)

    return change


def vanishing(place: Place, change: Change) -> Change:
    """The same, and no map of our own in which only that would be left with which it begins."""

    def vanish(source: Source) -> tuple[str | None, Checks]:
        text, checks = change(source)
        return (None, ()) if text == access.OWN_HEAD and place.access_map == place.facts.own else (text, checks)

    return vanish


def adding(place: Place, block: Block) -> Change:
    return _change(place, lambda file: listfile.with_block(file, block, place.keys, place.source.path))


def removing(place: Place, pattern: str) -> Change:
    return _change(place, lambda file: listfile.without_block(file, pattern))


def restoring(place: Place, pattern: str) -> Change:
    """Our block of the pattern as it was when the map was read first, or none."""
    earlier = place.file.block(pattern)
    kept = (earlier,) if earlier else ()
    return _change(place, lambda file: (*listfile.without_block(file, pattern), *kept))
