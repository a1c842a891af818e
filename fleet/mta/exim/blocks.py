"""Blocking senders on Exim: a line in the list that the RCPT ACL of Debian's configuration denies, and the proof.

Debian's ACL looks senders up in CONFDIR/local_sender_blacklist when there is one (exim4-config_files(5)); Exim reads it
anew for every recipient. Where no such ACL is, nothing is written: an ACL of somebody's own is not ours to edit.
"""

import re
from functools import partial

from fleet.mta.address import BlockPattern, PatternKind, quote_local, remarks
from fleet.mta.blocks import edit, site
from fleet.mta.blocks.edit import ListFile
from fleet.mta.blocks.listeners import listening
from fleet.mta.blocks.listfile import BlockFile
from fleet.mta.blocks.proof import ELSEWHERE, Probe, sender_probes
from fleet.mta.blocks.site import BlockSite, NoList, one_site
from fleet.mta.errors import Conflict, Unsupported
from fleet.mta.host.commands import Allowed
from fleet.mta.records import InstanceFacts

# An item of an address list in a file (spec, "Address lists") must not begin with ! ^ + * @ # or /, must have no ; (a
# lookup), and no blank before a # (a comment).
LOCAL_PART = re.compile(r"[A-Za-z0-9$%&'=?_`{|}~-][A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]*")
QUOTED = re.compile(r'"(?:[A-Za-z0-9 !$%&\'()*+,./<=>?@\[\]^_`{|}~-]|\\["\\])*"')

NO_DISCARD = "Debian's ACL refuses the senders of this list; it cannot accept and discard their mail"
NOTES = (
    "Debian's ACL answers `550 sender envelope address ... is locally blacklisted here` to RCPT TO; code and text "
    "cannot be chosen",
    "hosts that may relay and authenticated clients are not blocked, nor is mail to postmaster",
    "senders and hosts of local_sender_whitelist and local_host_whitelist are not blocked",
    "mail that local programs submit is not checked",
)


def sudo_commands(instance: InstanceFacts) -> list[Allowed]:
    """Seconds and command line of all that needs root."""
    return edit.sudo_commands([_list_file(instance)] if instance.options.get("blacklist_file") else [])


def site_of(instance: InstanceFacts) -> BlockSite:
    return BlockSite(
        list_file=_list_file(instance),
        keys=lines_of,
        value_of=site.refusing_only(NO_DISCARD),
        is_ours=_is_ours,
        notes=_notes,
        probes=partial(_probes, instance),
        own_domains=site.own_domains(instance),
        wider=_wider,
        refuse=refuse_negated,
        listeners=listening(instance),
    )


def _list_file(instance: InstanceFacts) -> ListFile:
    path = str(instance.options.get("blacklist_file") or "")
    if not path:
        raise NoList(
            "the ACLs of this Exim look senders up in no local_sender_blacklist, and its configuration is hand-written",
            hint="add the deny of Debian's 30_exim4-config_check_rcpt to the RCPT ACL, then discover the host again",
            probes=partial(_probes, instance),
        )
    return ListFile("exim", str(instance.options["config_file"]), path)


def refuse_negated(path: str, file: BlockFile) -> None:
    """Raises Conflict where the administrator's list ends in a negated item: it matches everybody else, which a line of
    ours at the end stops, and the last one that goes brings back."""
    last = file.others[-1] if file.others else None
    if last and last.key.startswith("!"):
        raise Conflict(
            f"{path} line {last.line}: the list ends in the negated item {last.text!r}, so it refuses every other "
            "sender; a change of our lines would change that",
            hint="end the list in an item that is not negated",
            file=path,
            line=last.line,
        )


def lines_of(pattern: BlockPattern) -> tuple[str, ...]:
    """The lines of a pattern. Raises Unsupported for what Exim would read as something else."""
    if pattern.kind is PatternKind.NULL_SENDER:
        raise Unsupported("no item of Exim's sender list matches the null sender")
    if pattern.kind is PatternKind.SUBDOMAINS:
        return (f"*@{pattern.domain}", f"*@*.{pattern.domain}")
    if pattern.address is None:
        return (f"*@{pattern.domain}",)
    local = quote_local(pattern.address.local)
    if not (LOCAL_PART.fullmatch(local) or QUOTED.fullmatch(local)):
        raise Unsupported(f"{pattern.text} cannot be written in Exim's list: it would mean something else there")
    return (f"{local}@{pattern.domain}",)


def _is_ours(reply: str, value: str) -> bool:
    return reply.startswith("550") and "blacklisted" in reply


def _wider(pattern: BlockPattern) -> tuple[str, ...]:
    parents = pattern.domain.split(".")
    above = [".".join(parents[at:]) for at in range(1, len(parents) - 1)]
    own = (f"*@{pattern.domain}", pattern.domain) if pattern.address else (pattern.domain,)
    return (*own, *(f"*@*.{domain}" for domain in above))


def _notes(pattern: BlockPattern) -> tuple[str, ...]:
    extent = site.extent(pattern, has_subdomains=False, separator="+", has_extensions=False, has_unicode=False)
    return (*remarks(pattern), *NOTES, *extent)


def _probes(instance: InstanceFacts, pattern: BlockPattern, job: str, addresses: tuple[str, ...]) -> tuple[Probe, ...]:
    """Not to postmaster, whose mail Debian's ACL accepts before it looks at the sender."""
    own = site.own_domains(instance)
    relayed = instance.options.get("relay_domains", [])
    recipients = tuple(f"root@{domain}" for domain in own[:2]) + tuple(f"abuse@{domain}" for domain in relayed[:2])
    host = own[0] if own else str(instance.options.get("hostname") or "localhost")
    listeners = listening(instance) if recipients else ()
    return sender_probes(listeners, pattern, job, addresses, host=host, recipients=recipients, elsewhere=ELSEWHERE)


SITES = one_site(site_of)
