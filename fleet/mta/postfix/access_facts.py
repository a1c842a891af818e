"""What decides about blocking senders on an instance: its restrictions, how it looks keys up, where it listens."""

import re
from dataclasses import dataclass

from fleet.mta.address import BlockPattern, PatternKind, remarks
from fleet.mta.blocks.proof import NULL_SENDER, Probe, sender_probe
from fleet.mta.errors import UnparsedOutput
from fleet.mta.postfix.access import KeyRules
from fleet.mta.postfix.parse import error_of
from fleet.mta.postfix.restrictions import (
    RESTRICTIONS,
    AccessMap,
    Service,
    checked_maps,
    listening_address,
    own_map,
    smtp_service,
    wired_map,
)
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
    "myhostname",
    "mydestination",
    "virtual_mailbox_domains",
    "virtual_alias_domains",
    "relay_domains",
)
MOST_RECIPIENTS = 3
_SECTION = re.compile(r"^== (\w+)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class BlockFacts:
    """`settings`: postconf, expanded. `service`: where mail from other hosts comes in. `address`: where we ask it."""

    config_dir: str
    settings: dict[str, str]
    service: Service
    types: frozenset[str]
    address: str

    @property
    def restrictions(self) -> str:
        """The restrictions that count for that service: master.cf wins over main.cf."""
        return self.service.overrides.get(RESTRICTIONS, self.settings.get(RESTRICTIONS, ""))

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
        return wired_map(self.restrictions)

    @property
    def own(self) -> AccessMap:
        """Our own map: of the type under which it is checked already, or the one we would make."""
        mine = own_map(self.config_dir, self.settings.get("default_database_type", ""), self.types)
        return next((each for each in self.maps if each.path == mine.path), mine)

    @property
    def maps(self) -> tuple[AccessMap, ...]:
        return checked_maps(self.restrictions)

    def words(self, name: str) -> tuple[str, ...]:
        return tuple(word for word in re.split(r"[,\s]+", self.settings.get(name, "")) if word)

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
    service = smtp_service(sections["services"], sections["overrides"])
    address = listening_address(service, settings.get("inet_interfaces", "all"), sections["addresses"])
    return BlockFacts(config_dir, settings, service, frozenset(sections["types"].split()), address)


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
    notes.append("clients of mynetworks and those who log in are refused as well")
    notes.append("mail that local programs submit (sendmail -f) is not checked by Postfix's smtpd")
    return tuple(notes)


def probes(facts: BlockFacts, pattern: BlockPattern, job: str, addresses: tuple[str, ...] = ()) -> tuple[Probe, ...]:
    """The one dialogue; where it goes to, the settings decide already."""
    host = facts.settings.get("myhostname", "localhost")
    port, recipients = facts.service.port, _recipients(facts)
    return (sender_probe(pattern, job, address=facts.address, port=port, host=host, recipients=recipients),)


def _recipients(facts: BlockFacts) -> tuple[str, ...]:
    """Mailboxes that ought to exist: RFC 5321 4.5.1 wants postmaster at every domain.

    Never the bare `postmaster`: smtpd lets that pass before it looks at any restriction (smtpd_check.c).
    """
    local = [each for each in facts.domains("mydestination") if not each.startswith("localhost")][:1]
    others = facts.domains("relay_domains", "virtual_mailbox_domains", "virtual_alias_domains")
    domains = (*local, *others) or (facts.settings.get("myhostname", "localhost"),)
    return tuple(f"postmaster@{domain.lstrip('.')}" for domain in domains[:MOST_RECIPIENTS])
