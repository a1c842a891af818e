"""The one edit of main.cf, that makes an instance check senders with our map, and its way back: by postfix_wire.sh."""

import re
from functools import partial

from fleet.mta.blocks.edit import EDIT_SECONDS, READ_SECONDS, Source, apply, difference, read_configuration
from fleet.mta.blocks.site import Wiring
from fleet.mta.errors import Conflict
from fleet.mta.host.commands import changing, reading, script_argv
from fleet.mta.postfix.access_facts import BlockFacts
from fleet.mta.postfix.restrictions import RESTRICTIONS, AccessMap, element
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Steps
from fleet.mta.text import digest_of, short_digest

SCRIPT = "postfix_wire.sh"
MAIN_CF = 1 << 20

_DEFINED = re.compile(rf"^{RESTRICTIONS}[ \t]*=", re.MULTILINE)
_APPENDED = "# Added by mxfleet, so that it can block senders. Undoing the job that added it takes it out.\n"
_APPENDED_OPEN = "# Added by mxfleet behind a line without end ({}), so that it can block senders.\n"
_ADDED = r"^# Added by mxfleet(?: behind a line without end(?: \((\w+)\))?)?, so that it can block senders\..*\n"
_CONTINUES = re.compile(r"(?:[ \t]*(?:#.*)?\n)*[ \t]+[^\s#]")


def wire(main_cf: str, access_map: AccessMap) -> str:
    """main.cf with our check as the first element. Nothing else changes, and `unwire` gives the same bytes back.

    A last line without an end gets one; our comment remembers by a digest what the file was then.
    """
    defined = list(_DEFINED.finditer(main_cf))
    if defined:
        at = defined[-1].end()  # the last definition of a parameter counts
        return f"{main_cf[:at]} {element(access_map)},{main_cf[at:]}"
    line = f"{RESTRICTIONS} = {element(access_map)}\n"
    if main_cf and not main_cf.endswith("\n"):
        return f"{main_cf}\n{_APPENDED_OPEN.format(short_digest(main_cf))}{line}"
    return f"{main_cf}{_APPENDED}{line}"


def unwire(main_cf: str, access_map: AccessMap) -> str | None:
    """main.cf without our check, whatever else was edited since; None when it is not there as we wrote it."""
    line = f"{RESTRICTIONS} = {element(access_map)}\n"
    added = re.search(_ADDED + re.escape(line), main_cf, re.MULTILINE)
    if added:
        before, after = main_cf[: added.start()], main_cf[added.end() :]
        as_found = before.removesuffix("\n")
        if not after and added[1] == short_digest(as_found):
            return as_found
        return None if _CONTINUES.match(after) else before + after
    inserted = re.compile(rf"(^{RESTRICTIONS}[ \t]*=) {re.escape(element(access_map))},", re.MULTILINE)
    return inserted.sub(r"\1", main_cf, count=1) if inserted.search(main_cf) else None


def argv(instance: InstanceFacts, action: str, access_map: AccessMap) -> tuple[str, ...]:
    return (action, instance.config_dir, access_map.type)


def find_wiring(instance: InstanceFacts, facts: BlockFacts, access_map: AccessMap) -> Steps[Wiring]:
    """Raises Conflict where strangers come in by a service that would not ask the map though main.cf is wired."""
    blind = [each for each in facts.asked if each.smtpd and not facts.asks_first(each, access_map)]
    if blind:
        named = "; ".join(
            f"{each.shown} at {facts.addresses[each.name]} port {each.port} ({facts.restrictions_of(each) or 'none'})"
            for each in blind
        )
        raise Conflict(
            f"mail of strangers comes in by services for which master.cf sets smtpd_sender_restrictions that do not "
            f"ask {access_map.name} first, so a block there would refuse nobody: {named}",
            hint=f"put {element(access_map)} first in those lines of master.cf, and reload Postfix",
        )
    main_cf = yield from _read_main_cf(instance, access_map)
    return _wiring(instance, access_map, main_cf, wire(main_cf.text, access_map))


def find_unwiring(instance: InstanceFacts, access_map: AccessMap, *, is_own: bool) -> Steps[Wiring | None]:
    """None when our check does not stand there as we wrote it."""
    if not is_own:
        return None
    main_cf = yield from _read_main_cf(instance, access_map)
    text = unwire(main_cf.text, access_map)
    return None if text is None else _wiring(instance, access_map, main_cf, text)


def _wiring(instance: InstanceFacts, access_map: AccessMap, main_cf: Source, text: str) -> Wiring:
    return Wiring(
        diff=difference(main_cf, text),
        command=script_argv(SCRIPT, *argv(instance, "apply", access_map)),
        apply=partial(_change_main_cf, instance, access_map, main_cf, text),
    )


def _read_main_cf(instance: InstanceFacts, access_map: AccessMap) -> Steps[Source]:
    command = reading(SCRIPT, argv(instance, "read", access_map), seconds=READ_SECONDS, most=MAIN_CF)
    return (yield from read_configuration(command, SCRIPT, f"{instance.config_dir}/main.cf"))


def _change_main_cf(instance: InstanceFacts, access_map: AccessMap, source: Source, text: str) -> Steps[None]:
    """Replace main.cf and reload. Raises Conflict, DiskFull, RemoteError; the old one stays or is put back."""
    stdin = f"{source.digest}\n{digest_of(text)}\n{text}".encode("utf-8", "surrogateescape")
    words = argv(instance, "apply", access_map)
    yield from apply(changing(SCRIPT, words, stdin, seconds=EDIT_SECONDS), SCRIPT)
