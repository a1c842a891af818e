"""Blocking senders on qmail: a line in control/badmailfrom, qmail-smtpd(8), proven by an SMTP dialogue.

qmail-smtpd and mailfront's smtpfront-qmail both read the file for each connection, in their own ways: only what both
understand alike is written.
"""

from functools import partial

from fleet.mta.address import BlockPattern, PatternKind, remarks
from fleet.mta.blocks import edit, site
from fleet.mta.blocks.edit import ListFile
from fleet.mta.blocks.listeners import listening
from fleet.mta.blocks.proof import Probe, sender_probes
from fleet.mta.blocks.site import BlockSite, one_site
from fleet.mta.errors import Unsupported
from fleet.mta.host.commands import Allowed
from fleet.mta.records import InstanceFacts

REPLIES = {
    "smtpfront-qmail": "smtpfront-qmail answers `553 5.1.0 Sorry, your envelope sender is in my badmailfrom list.` to "
    "MAIL FROM; code and text cannot be chosen",
    "qmail-smtpd": "qmail-smtpd answers `553 sorry, your envelope sender is in my badmailfrom list (#5.7.1)` to RCPT "
    "TO; code and text cannot be chosen",
}


def sudo_commands(instance: InstanceFacts) -> list[Allowed]:
    """Seconds and command line of all that needs root."""
    return edit.sudo_commands([_list_file(instance)])


def site_of(instance: InstanceFacts) -> BlockSite:
    return BlockSite(
        list_file=_list_file(instance),
        keys=lines_of,
        value_of=site.refusing_only("qmail can refuse a sender, not accept and discard its mail"),
        is_ours=_is_ours,
        notes=partial(_notes, instance),
        probes=partial(_probes, instance),
        own_domains=site.own_domains(instance),
        wider=_wider,
        listeners=listening(instance),
    )


def _list_file(instance: InstanceFacts) -> ListFile:
    return ListFile("qmail", str(instance.options.get("home", "/var/qmail")), f"{instance.config_dir}/badmailfrom")


def lines_of(pattern: BlockPattern) -> tuple[str, ...]:
    """The one line of a pattern: the address without quoting, or @domain. Raises Unsupported."""
    if pattern.kind is PatternKind.NULL_SENDER:
        raise Unsupported("qmail never looks the null sender up in badmailfrom")
    if pattern.kind is PatternKind.SUBDOMAINS:
        raise Unsupported(
            f"badmailfrom has no line for all sub-domains of {pattern.domain}", hint="block each domain by itself"
        )
    if pattern.address is None:
        return (f"@{pattern.domain}",)
    local = pattern.address.local
    if local.startswith("#"):
        raise Unsupported(f"{pattern.text} begins with #, which is a comment in badmailfrom")
    if not local or local.startswith((" ", "@")):
        raise Unsupported(f"{pattern.text} cannot be written in badmailfrom: it would be a line for other senders")
    return (f"{local}@{pattern.domain}",)


def _is_ours(reply: str, value: str) -> bool:
    return reply.startswith("553 ") and "badmailfrom" in reply


def _wider(pattern: BlockPattern) -> tuple[str, ...]:
    return (f"@{pattern.domain}",) if pattern.address else ()


def _notes(instance: InstanceFacts, pattern: BlockPattern) -> tuple[str, ...]:
    notes = list(remarks(pattern))
    notes += [REPLIES[name] for name in instance.front_ends or REPLIES]
    notes += site.extent(pattern, has_subdomains=False, separator="-", has_extensions=False, has_unicode=False)
    notes.append("clients that may relay are blocked too (RELAYCLIENT does not exempt them)")
    notes.append("mail that local programs submit (qmail-inject, sendmail -f) is not checked")
    return tuple(notes)


def _probes(instance: InstanceFacts, pattern: BlockPattern, job: str, addresses: tuple[str, ...]) -> tuple[Probe, ...]:
    """One dialogue for each server that the host runs."""
    own = site.own_domains(instance) or ("localhost",)
    recipients = tuple(f"postmaster@{domain}" for domain in own[:3])
    return sender_probes(listening(instance), pattern, job, addresses, host=own[0], recipients=recipients)


SITES = one_site(site_of)
