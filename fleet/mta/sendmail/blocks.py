"""Blocking senders on Sendmail: a From: entry in the access map, proven by an SMTP dialogue.

An instance without an access map is not wired by us: that takes a new sendmail.cf from m4 and a restart.
"""

from functools import partial

from fleet.mta.address import BlockPattern, remarks
from fleet.mta.blocks import edit, site
from fleet.mta.blocks.edit import ListFile
from fleet.mta.blocks.listeners import listening
from fleet.mta.blocks.listfile import Syntax
from fleet.mta.blocks.proof import Probe, sender_probes
from fleet.mta.blocks.site import BlockSite, NoList, one_site
from fleet.mta.host.commands import Allowed
from fleet.mta.records import InstanceFacts
from fleet.mta.sendmail import access

MSA = (
    "not asked; the same access map decides there, but FEATURE(delay_checks) lets those pass who log in by a mechanism "
    "of TRUST_AUTH_MECH"
)
WIRING = "FEATURE(`access_db', `hash -T<TMPF> -o /etc/mail/access')dnl"


def sudo_commands(instance: InstanceFacts) -> list[Allowed]:
    """Seconds and command line of all that needs root."""
    return edit.sudo_commands([_list_file(instance)] if instance.options.get("access_map") else [])


def site_of(instance: InstanceFacts) -> BlockSite:
    """Raises Unsupported for an instance without an access map."""
    return BlockSite(
        list_file=_list_file(instance),
        syntax=Syntax(access.entries, access.VALUE),
        keys=access.keys_of,
        value_of=access.value_of,
        is_ours=access.is_ours,
        notes=partial(_notes, instance),
        probes=partial(_probes, instance),
        own_domains=site.own_domains(instance),
        wider=access.wider_keys,
        needs_file=True,
        listeners=listening(instance, MSA),
    )


def _list_file(instance: InstanceFacts) -> ListFile:
    kind, _, path = str(instance.options.get("access_map", "")).partition(":")
    config = str(instance.options.get("config_file", f"{instance.config_dir}/sendmail.cf"))
    if not path:
        raise NoList(
            f"{config} has no access map, so this Sendmail checks no senders",
            hint=f"put {WIRING} and FEATURE(`delay_checks')dnl into the .mc file of it, build the access map with "
            f"makemap and {config} with m4, restart Sendmail, and discover the host again",
            probes=partial(_probes, instance),
        )
    return ListFile("sendmail", config, path.removesuffix(".db"), kind)


def _notes(instance: InstanceFacts, pattern: BlockPattern) -> tuple[str, ...]:
    notes = list(remarks(pattern))
    notes += site.extent(pattern, has_subdomains=True, separator="+", has_extensions=True, has_unicode=False)
    notes.append("clients that may relay are blocked too (Connect: ... RELAY does not exempt them)")
    notes.append("mail that local programs submit (sendmail -f) is refused too, and the blocked sender gets a bounce")
    notes.append(f"every Sendmail of this host whose configuration names {_list_file(instance).path} refuses it too")
    notes.append("makemap builds the map anew: an undo brings back the same entries, and the same bytes of its source")
    return tuple(notes)


def _probes(instance: InstanceFacts, pattern: BlockPattern, job: str, addresses: tuple[str, ...]) -> tuple[Probe, ...]:
    own = site.own_domains(instance) or ("localhost",)
    # root is an account of every host; postmaster is often missing in the aliases.
    recipients = tuple(f"{local}@{domain}" for domain in own[:2] for local in ("root", "postmaster"))
    return sender_probes(listening(instance, MSA), pattern, job, addresses, host=own[0], recipients=recipients)


SITES = one_site(site_of)
