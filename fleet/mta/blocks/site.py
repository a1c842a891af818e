"""One instance's list of blocked senders: which file, which keys, which answer, and the edits of it that we make.

An edit is a `Change`: it is made anew from what stands in the file when it is written, whatever others did meanwhile.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fleet.mta.address import BlockPattern, PatternKind, own_domain, parse_block_pattern
from fleet.mta.blocks import edit, listfile
from fleet.mta.blocks.edit import Change, Checks, ListFile, Source
from fleet.mta.blocks.listeners import Listener
from fleet.mta.blocks.listfile import Block, BlockFile, Syntax
from fleet.mta.blocks.proof import Probe, one_line
from fleet.mta.errors import Conflict, Refused, RemoteError, Unsupported
from fleet.mta.operations import SenderBlock
from fleet.mta.records import InstanceFacts
from fleet.mta.results.changing import SenderResult
from fleet.mta.steps import Diff, Steps

PLAIN = Syntax(listfile.plain_entries)


Probes = Callable[[BlockPattern, str, tuple[str, ...]], tuple[Probe, ...]]


class NoList(Unsupported):
    """The instance can have no list of senders, so nothing of ours can be in one. `probes`: as of a `BlockSite`."""

    def __init__(self, detail: str, *, hint: str = "", probes: Probes = lambda pattern, job, addresses: ()) -> None:
        super().__init__(detail, hint=hint)
        self.probes = probes


@dataclass(frozen=True, slots=True)
class Wiring:
    """A change of the configuration by which the MTA comes to ask our list, or stops to.

    `command`: as a plan shows it. `apply` makes the change; raises FleetError.
    """

    diff: Diff
    command: tuple[str, ...]
    apply: Callable[[], Steps[None]]


def refusing_only(sentence: str) -> Callable[[SenderBlock], str]:
    """`value_of` of a list whose lines have no right-hand side. `sentence`: why its senders' mail is not discarded."""

    def value_of(operation: SenderBlock) -> str:
        if operation.action == "discard":
            raise Unsupported(sentence)
        return ""

    return value_of


def _no_wiring() -> Steps[Wiring | None]:
    yield from ()
    return None


@dataclass(frozen=True, slots=True)
class BlockSite:
    """One list of senders of an instance.

    `keys`: the lines (or map keys) of a pattern; raises Unsupported for what the list cannot express. `value_of`: the
    right-hand side, "" where the list has none; raises Unsupported. `is_ours`: whether a reply in one line (`550 5.7.1
    ...`) is the answer to a block with that value. `notes`: how a block means something else here than the pattern
    says. `probes`: the dialogues for (pattern, job, addresses of the host), one for each listener that is asked.
    `own_domains`: whose mail it receives.
    `wider`: further keys that refuse the pattern's senders with the same answer. `refuse`: raises Conflict for a file
    in which a line more or less of ours changes what others' lines mean. `needs_file`: the MTA must have one, if need
    be an empty one. `text_when_absent`: what a new file begins with, in our own file. `is_consulted`: the MTA asks
    the list. `find_wiring`: what makes it ask; raises Unsupported, Conflict. `find_unwiring`: what takes our wiring out
    again, None when it is not there as we wrote it. `map_name`: how results name the map, "" where they name its file.
    `rebuild`: how an administrator builds the map. `listeners`: where the instance takes mail, asked or not.
    """

    list_file: ListFile
    keys: Callable[[BlockPattern], tuple[str, ...]]
    value_of: Callable[[SenderBlock], str]
    is_ours: Callable[[str, str], bool]
    notes: Callable[[BlockPattern], tuple[str, ...]]
    probes: Probes
    syntax: Syntax = PLAIN
    own_domains: tuple[str, ...] = ()
    wider: Callable[[BlockPattern], tuple[str, ...]] = lambda pattern: ()
    refuse: Callable[[str, BlockFile], None] = lambda path, file: None
    needs_file: bool = False
    text_when_absent: str = ""
    is_consulted: bool = True
    find_wiring: Callable[[], Steps[Wiring | None]] = _no_wiring
    find_unwiring: Callable[[], Steps[Wiring | None]] = _no_wiring
    map_name: str = ""
    rebuild: str = "build the map"
    listeners: tuple[Listener, ...] = ()

    @property
    def unasked(self) -> tuple[Listener, ...]:
        return tuple(each for each in self.listeners if each.unasked)

    def refuses(self, reply: str, value: str) -> bool:
        """Whether a reply, of any number of lines, is the answer to a block with that value."""
        return self.is_ours(one_line(reply), value)

    def notes_of(self, pattern: BlockPattern) -> tuple[str, ...]:
        """For the approver: how a block means something else here, and what holds where the proof does not ask."""
        return (*self.notes(pattern), *(each.note for each in self.unasked))

    def keys_of(self, pattern: str) -> tuple[str, ...]:
        return self.keys(parse_block_pattern(pattern))

    def parse(self, source: Source) -> BlockFile:
        text = source.text if source.exists else self.text_when_absent
        return listfile.parse_file(text, source.path, self.syntax, self.keys_of, exists=source.exists)


BlockSites = Callable[[InstanceFacts], Steps[tuple[BlockSite, ...]]]
"""All lists of an instance, the one that a block is written to first. Raises NoList where there can be none."""


@dataclass(frozen=True, slots=True)
class ListState:
    """A site's list as it was read. `wiring`: the change of the configuration that a block needs too."""

    site: BlockSite
    source: Source
    file: BlockFile
    pattern: BlockPattern
    wiring: Wiring | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        return self.site.keys(self.pattern)

    @property
    def block(self) -> Block | None:
        return self.file.block(self.pattern.text)

    @property
    def others(self) -> tuple[Block, ...]:
        """Our other blocks."""
        return listfile.without_block(self.file, self.pattern.text)

    def data(self) -> SenderResult:
        name: SenderResult = {"map": self.site.map_name} if self.site.map_name else {"file": self.source.path}
        return {"pattern": self.pattern.text, **name, "keys": list(self.keys)}


def one_site(make: Callable[[InstanceFacts], BlockSite]) -> BlockSites:
    """`BlockSites` of an MTA that has one list, of which discovery knows all."""

    def sites(instance: InstanceFacts) -> Steps[tuple[BlockSite, ...]]:
        yield from ()
        return (make(instance),)

    return sites


def extent(
    pattern: BlockPattern, *, has_subdomains: bool, separator: str, has_extensions: bool, has_unicode: bool
) -> list[str]:
    """How many more or fewer senders than the pattern says a block catches here, for the approver.

    `separator`: between a local part and its extension. `has_unicode`: whether it catches a domain that is sent so.
    """
    catches = {True: "also catches", False: "does not catch"}
    notes = []
    if pattern.kind is PatternKind.DOMAIN:
        notes.append(f"on this instance a block of {pattern.domain} {catches[has_subdomains]} its sub-domains")
    if pattern.address and not (has_extensions and separator in pattern.address.local):
        extended = f"{pattern.address.local}{separator}x@{pattern.domain}"
        notes.append(
            f"on this instance the block {catches[has_extensions]} addresses with an extension, such as {extended}"
        )
    if "xn--" in pattern.domain and not has_unicode:
        notes.append("a client that sends this domain in Unicode (SMTPUTF8) is not caught on this instance")
    return notes


def read(site: BlockSite, pattern: BlockPattern) -> Steps[ListState]:
    """Raises Unsupported, and Conflict where it is unclear what is ours."""
    site.keys(pattern)
    source = yield from edit.read_list(site.list_file)
    return ListState(site, source, site.parse(source), pattern)


def read_all(sites: tuple[BlockSite, ...], pattern: BlockPattern) -> Steps[tuple[ListState, ...]]:
    places: tuple[ListState, ...] = ()
    for site in sites:
        places = (*places, (yield from read(site, pattern)))
    return places


def own_domains(instance: InstanceFacts) -> tuple[str, ...]:
    """The domains whose mail the instance receives, without those of the loopback; the host's own name first."""
    names = [str(each) for each in instance.options.get("own_domains", ())]
    real = [each for each in names if "." in each and not each.startswith("localhost.")]
    return tuple(sorted(real, key=lambda each: each.partition(".")[0] != instance.host.partition(".")[0]))


def refuse_own_domain(site: BlockSite, pattern: BlockPattern) -> None:
    """Raises Conflict for what submission would have refused as `protected`, had it known what the host knows now."""
    hit = own_domain(pattern, site.own_domains)
    if hit:
        raise Conflict(
            f"{hit} is a domain of this instance itself; blocking {pattern.text} would refuse its own users",
            hint="block single addresses of it",
        )


def refuse_stale(place: ListState) -> None:
    """Raises Conflict for a file that is not what its map was built of."""
    source = place.source
    if source.is_stale and not source.exists:
        raise Conflict(
            f"{source.path} is not there and its map is; one built of our lines alone would lack its entries",
            hint="put the file back, or take the map away",
            file=source.path,
        )
    if source.is_stale:
        raise Conflict(
            f"{source.path} was edited and its map is older; our change would put those lines into effect too",
            hint=f"{place.site.rebuild}, or take the edit back",
            file=source.path,
        )


def _change(place: ListState, chosen: Callable[[BlockFile], tuple[Block, ...]]) -> Change:
    """The same edit of our blocks, whatever else stands in the file by then."""
    site = place.site

    def change(source: Source) -> tuple[str | None, Checks]:
        file = site.parse(source)
        blocks = chosen(file)
        text = listfile.render(file, blocks, site.syntax, site.keys_of)
        checks = listfile.checks(file, blocks, site.keys_of) if site.syntax.has_values else ()
        return ("" if text is None and site.needs_file else text), checks

    return change


def adding(place: ListState, block: Block) -> Change:
    def chosen(file: BlockFile) -> tuple[Block, ...]:
        place.site.refuse(place.source.path, file)
        return listfile.with_block(file, block, place.site.keys_of, place.source.path)

    return _change(place, chosen)


def removing(place: ListState) -> Change:
    def chosen(file: BlockFile) -> tuple[Block, ...]:
        place.site.refuse(place.source.path, file)
        return listfile.without_block(file, place.pattern.text)

    return _change(place, chosen)


def restoring(place: ListState) -> Change:
    """Our block of the pattern as it was when the file was read first, or none."""
    kept = (place.block,) if place.block else ()
    return _change(place, lambda file: (*listfile.without_block(file, place.pattern.text), *kept))


def vanishing(place: ListState, change: Change) -> Change:
    """The same, and no file where only that would be left with which a file of ours begins."""

    def vanish(source: Source) -> tuple[str | None, Checks]:
        text, checks = change(source)
        return (None, ()) if text and text == place.site.text_when_absent else (text, checks)

    return vanish


def keeping(source: Source) -> tuple[str | None, Checks]:
    return (source.text if source.exists else None), ()


def foreign_notes(place: ListState) -> tuple[str, ...]:
    """The administrator's lines that decide about the pattern's keys; an unblock leaves them as they are."""
    wanted = {listfile.fold(key) for key in place.keys}
    return tuple(
        f"{place.source.path} line {entry.line} is the administrator's, not ours, and stays: {entry.text!r}"
        for entry in place.file.others
        if entry.key in wanted
    )


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


def not_taken_back(path: str, error: Refused) -> RemoteError:
    """For a change that was not proven and is still there, because others stand in the way."""
    hint = f"look whether our entry is in {path}; an unblock takes it out"
    return RemoteError(f"the block was not proven and could not be taken back: {error.detail}", hint=hint)
