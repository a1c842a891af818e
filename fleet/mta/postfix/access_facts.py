"""What decides about blocking senders on an instance: its restrictions, how it looks keys up, where it listens."""

import re
from dataclasses import dataclass

from fleet.mta.address import BlockPattern, PatternKind, remarks
from fleet.mta.blocks.listeners import Listener, is_loopback
from fleet.mta.blocks.proof import NULL_SENDER, Probe, sender_probes
from fleet.mta.errors import UnparsedOutput
from fleet.mta.postfix.access import KeyRules
from fleet.mta.postfix.parse import error_of
from fleet.mta.postfix.restrictions import RESTRICTIONS, AccessMap, checked_maps, own_map, wired_map
from fleet.mta.postfix.services import Service, address_of, of_strangers, services_of, words
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Command, Completed, Steps, run

SETTINGS = (
    RESTRICTIONS,
    "parent_domain_matches_subdomains",
    "smtpd_null_access_lookup_key",
    "recipient_delimiter",
    "smtputf8_enable",
    "default_database_type",
    "inet_interfaces",
    "inet_protocols",
    "master_service_disable",
    "smtpd_service_name",
    "soft_bounce",
    "myhostname",
    "mydestination",
    "virtual_mailbox_domains",
    "virtual_alias_domains",
    "relay_domains",
)
MOST_RECIPIENTS = 3
_SECTION = re.compile(r"^== (\w+)\n", re.MULTILINE)
_NAMED = re.compile(r"\$(?:\{(\w+)\}|\((\w+)\)|(\w+))")


@dataclass(frozen=True, slots=True)
class BlockFacts:
    """`settings`: postconf, expanded. `written`: the restrictions of main.cf as they stand there, not expanded.

    `services`: all SMTP servers of master.cf; `addresses`: where each is reached, by its name.
    """

    config_dir: str
    settings: dict[str, str]
    services: tuple[Service, ...]
    addresses: dict[str, str]
    types: frozenset[str]
    written: str = ""

    @property
    def asked(self) -> tuple[Service, ...]:
        """Where mail of strangers comes in; each must ask the map."""
        return of_strangers(self.services, self.addresses)

    def restrictions_of(self, service: Service) -> str:
        """Those that count for a service: master.cf wins over main.cf, also in a parameter that main.cf refers to."""
        if RESTRICTIONS in service.overrides:
            return service.overrides[RESTRICTIONS]
        named = {name for found in _NAMED.findall(self.written) for name in found if name}
        if named & service.overrides.keys():
            return _NAMED.sub(lambda found: service.overrides.get("".join(found.groups("")), found[0]), self.written)
        return self.settings.get(RESTRICTIONS, "")

    @property
    def rules(self) -> KeyRules:
        return KeyRules(
            has_subdomains="smtpd_access_maps" in self.words("parent_domain_matches_subdomains"),
            null_key=self.settings.get("smtpd_null_access_lookup_key", NULL_SENDER),
            has_utf8=self.settings.get("smtputf8_enable") == "yes",
            delimiters=self.settings.get("recipient_delimiter", ""),
        )

    @property
    def wired(self) -> AccessMap | None:
        """The map that every service of strangers asks first, None without one."""
        found = {wired_map(self.restrictions_of(each)) for each in self.asked if each.smtpd}
        return found.pop() if len(found) == 1 else None

    @property
    def target(self) -> AccessMap:
        """The map that a block is written to."""
        return self.wired or wired_map(self.settings.get(RESTRICTIONS, "")) or self.own

    @property
    def own(self) -> AccessMap:
        """Our own map: of the type under which it is checked already, or the one we would make."""
        mine = own_map(self.config_dir, self.settings.get("default_database_type", ""), self.types)
        return next((each for each in self.maps if each.path == mine.path), mine)

    @property
    def maps(self) -> tuple[AccessMap, ...]:
        """Those that a service of strangers asks."""
        asked = (self.restrictions_of(each) for each in self.asked if each.smtpd)
        return tuple(dict.fromkeys(each for restrictions in asked for each in checked_maps(restrictions)))

    def asks_first(self, service: Service, access_map: AccessMap) -> bool:
        """Whether the service asks the map first, or will once main.cf is wired."""
        if RESTRICTIONS in service.overrides:
            return wired_map(service.overrides[RESTRICTIONS]) == access_map
        if wired_map(self.restrictions_of(service)) == access_map:
            return True
        return self.wired is None and wired_map(self.settings.get(RESTRICTIONS, "")) is None

    def words(self, name: str) -> tuple[str, ...]:
        return words(self.settings.get(name, ""))

    def domains(self, *names: str) -> tuple[str, ...]:
        """The domains that these parameters list, those in tables left out."""
        listed = (word.lower() for name in names for word in self.words(name))
        return tuple(dict.fromkeys(word for word in listed if not re.search(r"[:/$]", word)))


def read_facts(instance: InstanceFacts) -> Steps[BlockFacts]:
    """Ask the host. Raises UnparsedOutput, MtaNotFound, RemoteError, Unsupported."""
    done = yield from run(Command((instance.config_dir, *SETTINGS), script="postfix_access_facts.sh"))
    return parse_facts(instance.config_dir, done)


def parse_facts(config_dir: str, done: Completed) -> BlockFacts:
    """The answer of postfix_access_facts.sh."""
    if done.exit_status:
        raise error_of(done, "postconf")
    text = done.stdout.decode("utf-8", "surrogateescape")
    pieces = _SECTION.split(text)
    sections = dict(zip(pieces[1::2], pieces[2::2], strict=False))
    if pieces[-2:] != ["end", ""] or not {"settings", "services", "overrides", "types", "addresses"} <= sections.keys():
        raise UnparsedOutput("the answer of postconf was cut off")
    pairs = (line.partition("=") for line in sections["settings"].splitlines())
    settings = {name.strip(): value.strip() for name, _, value in pairs}
    services = services_of(sections["services"], sections["overrides"], settings)
    addresses = {each.name: address_of(each, settings, sections["addresses"]) for each in services}
    written = sections.get("written", "").partition("=")[2].strip()
    return BlockFacts(config_dir, settings, services, addresses, frozenset(sections["types"].split()), written)


def own_domains(facts: BlockFacts) -> tuple[str, ...]:
    """The domains whose mail this instance itself receives."""
    return facts.domains("mydestination", "virtual_mailbox_domains", "virtual_alias_domains")


def differences(facts: BlockFacts, pattern: BlockPattern) -> tuple[str, ...]:
    """How this block means something else here than the pattern says; for the approver."""
    notes = list(remarks(pattern))
    delimiters = facts.settings.get("recipient_delimiter", "")
    if pattern.kind is PatternKind.DOMAIN and facts.rules.has_subdomains:
        notes.append(f"on this instance a block of {pattern.domain} also catches its sub-domains")
    if pattern.address and delimiters and not set(delimiters) & set(pattern.address.local):
        extended = f"{pattern.address.local}{delimiters[0]}x@{pattern.domain}"
        notes.append(f"on this instance the block also catches addresses with an extension, such as {extended}")
    if pattern.domain in facts.domains("relay_domains"):
        notes.append(f"{pattern.domain} is a domain that this instance relays mail for")
    asked = ", ".join(each.shown for each in facts.asked)
    notes.append(f"at {asked} clients of mynetworks, and those who log in there, are refused as well")
    soft = [each.shown for each in facts.asked if _is_soft(facts, each)]
    if soft:
        notes.append(
            f"soft_bounce = yes ({', '.join(soft)}): Postfix answers 4xx where the block says 5xx, so refused servers "
            "keep the mail and try again, and get the 5xx once it is off"
        )
    notes.append("mail that local programs submit (sendmail -f) is not checked by Postfix's smtpd")
    return tuple(notes)


def _is_soft(facts: BlockFacts, service: Service) -> bool:
    return service.overrides.get("soft_bounce", facts.settings.get("soft_bounce", "no")) == "yes"


def listeners(facts: BlockFacts, access_map: AccessMap) -> tuple[Listener, ...]:
    """Every SMTP server of the instance: those of strangers are asked; of the others, what holds there."""
    asked = facts.asked
    return tuple(
        Listener(
            facts.addresses[each.name],
            each.port,
            each.shown,
            "" if each in asked else f"not asked; {_what_holds(facts, each, access_map)}",
        )
        for each in facts.services
    )


def _what_holds(facts: BlockFacts, service: Service, access_map: AccessMap) -> str:
    """Of a block by the map at a service by which strangers' mail does not come."""
    is_inside = is_loopback(facts.addresses[service.name])
    who = "programs of this host" if is_inside else "those who log in"
    if not service.smtpd:
        return "Postfix's smtpd does not answer there"
    if facts.asks_first(service, access_map):
        return f"it asks {access_map.name} first too, so the block holds there, and {who} are refused as well"
    own = facts.restrictions_of(service) or "none"
    where = "master.cf sets" if RESTRICTIONS in service.overrides else "it has"
    if access_map in checked_maps(own):
        return (
            f"{where} smtpd_sender_restrictions for it ({own}), which ask {access_map.name} behind others: whom these "
            f"permit, such as {who}, still sends"
        )
    return (
        f"{where} smtpd_sender_restrictions for it ({own}), which do not ask {access_map.name}: the block does not "
        f"hold there, and {who} still send" + ("" if is_inside else ", as does whoever else may send there")
    )


def probes(facts: BlockFacts, pattern: BlockPattern, job: str, addresses: tuple[str, ...] = ()) -> tuple[Probe, ...]:
    """One dialogue for each service of strangers; where they go to, the settings decide already."""
    host = facts.settings.get("myhostname", "localhost")
    asked = [each for each in listeners(facts, facts.target) if not each.unasked]
    return sender_probes(asked, pattern, job, (), host=host, recipients=_recipients(facts))


def _recipients(facts: BlockFacts) -> tuple[str, ...]:
    """Mailboxes that ought to exist: RFC 5321 4.5.1 wants postmaster at every domain.

    Never the bare `postmaster`: smtpd lets that pass before it looks at any restriction (smtpd_check.c).
    """
    local = [each for each in facts.domains("mydestination") if not each.startswith("localhost")][:1]
    others = facts.domains("relay_domains", "virtual_mailbox_domains", "virtual_alias_domains")
    domains = (*local, *others) or (facts.settings.get("myhostname", "localhost"),)
    return tuple(f"postmaster@{domain.lstrip('.')}" for domain in domains[:MOST_RECIPIENTS])
