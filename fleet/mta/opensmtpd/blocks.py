"""Blocking senders on OpenSMTPD: a file's table that the first rule of smtpd.conf(5) refuses, proven by a dialogue.

smtpd keeps a table in memory until `smtpctl update table`; block_file.sh does that. 6.8 does not start with an empty
table of senders, so a file of ours begins with an address that nobody has.
"""

import re
from functools import partial

from fleet.mta.address import BlockPattern, PatternKind, remarks
from fleet.mta.blocks import edit
from fleet.mta.blocks.edit import READ_SECONDS, ListFile, Source
from fleet.mta.blocks.listeners import listening
from fleet.mta.blocks.proof import Probe, sender_probes
from fleet.mta.blocks.site import BlockSite, Wiring, extent, refusing_only
from fleet.mta.errors import Unsupported
from fleet.mta.host.commands import CHANGE_SECONDS, Allowed, changing, script_argv
from fleet.mta.opensmtpd import conf
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Command, Steps
from fleet.mta.text import split_lines

WIRE = "opensmtpd_wire.sh"
TABLE = "mxfleet_senders"
PLACEHOLDER = "placeholder@blocked.invalid\n"
ATEXT = re.compile(r"[A-Za-z0-9!$%&'*+/=?^_`{|}~.-][A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]*")
REPLY = "550 Invalid recipient"
CONFIGURATION = 1 << 20
OTHER_PORTS = "not asked; the same rules decide there, and those who log in are refused as well"


def sudo_commands(instance: InstanceFacts) -> list[Allowed]:
    """Seconds and command line of all that needs root."""
    files = [_own_file(instance)]
    tables = instance.options.get("tables", {})
    files += [
        ListFile("opensmtpd", _config(instance), place.removeprefix("file:"), name)
        for name, place in tables.items()
        if place.startswith("file:/") and name != TABLE
    ]
    wire = [
        (seconds, script_argv(WIRE, action, str(instance.options["smtpd"]), _config(instance)))
        for action, seconds in (("read", READ_SECONDS), ("wire", CHANGE_SECONDS), ("unwire", CHANGE_SECONDS))
    ]
    return [*edit.sudo_commands(files), *wire]


def _config(instance: InstanceFacts) -> str:
    return str(instance.options["config_file"])


def _own_file(instance: InstanceFacts) -> ListFile:
    return ListFile("opensmtpd", _config(instance), f"{instance.config_dir}/{TABLE}", TABLE)


def sites(instance: InstanceFacts) -> Steps[tuple[BlockSite, ...]]:
    """The table that the configuration asks first now, without one ours; and ours where it stands behind another."""
    source = yield from _read(instance)
    config = conf.statements(split_lines(source.text))
    rule, own = conf.sender_rule(config), _own_file(instance)
    first = ListFile("opensmtpd", _config(instance), rule.path, rule.table) if rule else own
    has_own = rule is not None and rule.path != own.path and conf.tables(config).get(TABLE) == f"file:{own.path}"
    made = partial(_site, instance, source)
    return (made(first, is_consulted=rule is not None), *((made(own, is_consulted=True),) if has_own else ()))


def _site(instance: InstanceFacts, source: Source, list_file: ListFile, *, is_consulted: bool) -> BlockSite:
    is_own = list_file.path == _own_file(instance).path
    return BlockSite(
        list_file=list_file,
        keys=lines_of,
        value_of=refusing_only("smtpd can refuse a sender, not accept and discard its mail"),
        is_ours=_is_ours,
        notes=partial(_notes, is_new=not is_consulted),
        probes=partial(_probes, instance),
        own_domains=tuple(instance.options.get("own_domains", ())),
        wider=_wider,
        needs_file=not is_own,
        text_when_absent=PLACEHOLDER if is_own else "",
        is_consulted=is_consulted,
        listeners=listening(instance, OTHER_PORTS),
        find_wiring=partial(_find_wiring, instance, source),
        find_unwiring=partial(_find_unwiring, instance),
    )


def _read(instance: InstanceFacts) -> Steps[Source]:
    """The configuration as it is. Raises UnparsedOutput, Unsupported and others."""
    return (yield from edit.read_configuration(_wire_command(instance, "read"), WIRE, _config(instance)))


def _wire_command(instance: InstanceFacts, action: str, stdin: str = "") -> Command:
    return changing(
        WIRE,
        (action, str(instance.options["smtpd"]), _config(instance)),
        stdin.encode(),
        seconds=READ_SECONDS if action == "read" else CHANGE_SECONDS,
        most=CONFIGURATION,
        mutates=action != "read",
    )


def our_lines(instance: InstanceFacts) -> list[str]:
    """What opensmtpd_wire.sh writes, word for word."""
    return [
        "# BEGIN mxfleet\n",
        f"table {TABLE} file:{_own_file(instance).path}\n",
        f"match from any mail-from <{TABLE}> for any reject\n",
        "# END mxfleet\n",
    ]


def _find_wiring(instance: InstanceFacts, source: Source) -> Steps[Wiring]:
    """Our rule before the first one. Raises Unsupported where it is unclear which one that is."""
    yield from ()
    lines = split_lines(source.text)
    config = conf.statements(lines)
    at = conf.first_match(config)
    if TABLE in conf.tables(config):
        raise Unsupported(
            f"{_config(instance)} has the table {TABLE}, and its rule does not come first", hint=_by_hand(instance)
        )
    if at is None or any(each.words[0] == "include" and each.line < at for each in config):
        raise Unsupported(f"the first rule of {_config(instance)} may be in a file of its own", hint=_by_hand(instance))
    text = "".join((*lines[:at], *our_lines(instance), *lines[at:]))
    return _wiring(instance, "wire", source, text, at + 1)


def _wiring(instance: InstanceFacts, action: str, source: Source, text: str, place: int) -> Wiring:
    """`place`: the line before which our rule goes, 0 where it is taken out."""
    command = _wire_command(instance, action, f"{source.digest} {place}\n")
    return Wiring(
        diff=edit.difference(source, text),
        command=script_argv(WIRE, *command.argv),
        apply=partial(edit.apply, command, WIRE),
    )


def _by_hand(instance: InstanceFacts) -> str:
    _, table, rule, _ = our_lines(instance)
    return f"add {table.strip()!r} and, before every other rule, {rule.strip()!r}, and restart smtpd"


def _find_unwiring(instance: InstanceFacts) -> Steps[Wiring | None]:
    source = yield from _read(instance)
    ours = "".join(our_lines(instance))
    if source.text.count(ours) != 1:
        return None
    return _wiring(instance, "unwire", source, source.text.replace(ours, ""), 0)


def lines_of(pattern: BlockPattern) -> tuple[str, ...]:
    """The one line of a pattern: the address, or @domain. Raises Unsupported."""
    if pattern.kind is PatternKind.NULL_SENDER:
        raise Unsupported("a table of senders cannot name the null sender: @ alone means everybody")
    if pattern.kind is PatternKind.SUBDOMAINS:
        raise Unsupported(
            f"smtpd has no pattern for all sub-domains of {pattern.domain}: its * ends at the first dot",
            hint="block each domain by itself",
        )
    if pattern.address is None:
        return (f"@{pattern.domain}",)
    if pattern.text.startswith('"') or not ATEXT.fullmatch(pattern.address.local):
        raise Unsupported(
            f"{pattern.text} cannot be a line of a table: no quoted or 8-bit local parts, and # is a comment"
        )
    return (f"{pattern.address.local}@{pattern.domain}",)


def _is_ours(reply: str, value: str) -> bool:
    return reply.startswith(REPLY)


def _wider(pattern: BlockPattern) -> tuple[str, ...]:
    """An address with an extension is caught by the one without; * stands for one label."""
    labels = pattern.domain.split(".")
    wider = [f"@*.{'.'.join(labels[1:])}"] if len(labels) > 1 else []
    if pattern.address is None:
        return tuple(wider)
    base, plus, _ = pattern.address.local.partition("+")
    return (*((f"{base}@{pattern.domain}",) if plus else ()), f"@{pattern.domain}", *wider)


def _notes(pattern: BlockPattern, *, is_new: bool) -> tuple[str, ...]:
    notes = [*remarks(pattern)]
    if is_new:
        notes.append("smtpd is restarted to read its configuration: for a second or so it takes no mail")
        notes.append("refused when envelopes are paused: a restart would release them")
    notes.append(f"smtpd answers `{REPLY}: <recipient>` to RCPT TO; code and text cannot be chosen")
    notes += extent(pattern, has_subdomains=False, separator="+", has_extensions=True, has_unicode=True)
    notes.append("clients that may relay, authenticated ones and local programs (sendmail -f) are refused too")
    return tuple(notes)


def _probes(instance: InstanceFacts, pattern: BlockPattern, job: str, addresses: tuple[str, ...]) -> tuple[Probe, ...]:
    own = [str(each) for each in instance.options.get("own_domains", ())]
    host = own[0] if own else "localhost"
    others = [str(each) for each in instance.options.get("open_domains", ())]
    recipients = tuple(f"{name}@{domain}" for domain in own[:2] for name in ("postmaster", "root"))
    recipients += tuple(f"postmaster@{domain}" for domain in others[:2])
    return sender_probes(listening(instance, OTHER_PORTS), pattern, job, addresses, host=host, recipients=recipients)
