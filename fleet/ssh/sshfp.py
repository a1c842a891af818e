"""SSHFP records (RFC 4255) as proof: only what DNSSEC has shown to be the zone's own word.

That is shown by a resolver on this machine's loopback, which says so (AD), or by us, from the root's keys down.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import dns.dnssec
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataset
import dns.rdatatype
import dns.resolver
import dns.rrset

SECONDS = 3.0
"""For one question."""
MOST_QUESTIONS = 40
MOST_SECONDS = 15.0
"""For all questions about one host, after which none more is asked: a zone's own servers may answer as slowly as they
like, and somebody waits for the whole list."""
MOST_RECORDS = 24
"""Of one answer, so that no zone can make the check of signatures costly."""
ALGORITHMS = {
    "ssh-rsa": 1, "ecdsa-sha2-nistp256": 3, "ecdsa-sha2-nistp384": 3, "ecdsa-sha2-nistp521": 3, "ssh-ed25519": 4,
}  # fmt: skip
"""RFC 4255, 6594 and 7479."""
SHA256 = 2

Anchors = Mapping[dns.name.Name, Sequence[Any]]
ROOT: dict[dns.name.Name, Sequence[Any]] = {
    dns.name.root: [
        dns.rdata.from_text("IN", "DS", text)
        for text in (
            "20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D",
            "38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16",
        )
    ]
}
"""https://data.iana.org/root-anchors/root-anchors.xml"""


class Unproven(Exception):
    """The records are not there, or nothing proves them; the text says which."""


@dataclass(frozen=True, slots=True)
class Nameserver:
    """`is_own`: it is this machine's, so what it says of its checks is believed."""

    address: str
    port: int = 53
    is_own: bool = False

    def ask(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.message.Message:
        """The answer with its signatures. Raises Unproven."""
        query = dns.message.make_query(name, kind, want_dnssec=True, payload=1232)
        query.flags |= dns.flags.AD
        try:
            answer, _ = dns.query.udp_with_fallback(query, self.address, SECONDS, self.port)
        except (dns.exception.DNSException, OSError) as error:
            raise Unproven(f"the nameserver {self.address} did not answer: {error}") from error
        if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise Unproven(f"the nameserver {self.address} says {dns.rcode.to_text(answer.rcode())} of {name}")
        return answer


def nameservers() -> list[Nameserver]:
    """Those of this machine's resolv.conf."""
    try:
        addresses = [str(each) for each in dns.resolver.Resolver().nameservers]
    except dns.exception.DNSException:
        return []
    return [Nameserver(each, is_own=ip_address(each.partition("%")[0]).is_loopback) for each in addresses]


def fingerprints_of(name: str, key_type: str, server: Nameserver, anchors: Anchors = ROOT) -> tuple[bytes, ...]:
    """The SHA-256 fingerprints that DNS proves for keys of that type of the host `name`. Raises Unproven."""
    try:
        asked = dns.name.from_text(name)
    except dns.exception.DNSException as error:
        raise Unproven(f"{name} is no name of DNS") from error
    answer = server.ask(asked, dns.rdatatype.SSHFP)
    if server.is_own and answer.flags & dns.flags.AD:
        records, _ = _of(answer, asked, dns.rdatatype.SSHFP)
    else:
        records = Chain(server.ask, anchors).records(asked, dns.rdatatype.SSHFP)
    algorithm = ALGORITHMS[key_type]
    fitting = [each for each in records if (each.algorithm, each.fp_type) == (algorithm, SHA256)]
    if not fitting:
        raise Unproven(f"{name} has SSHFP records, but none with SHA-256 for a key of type {key_type}")
    return tuple(each.fingerprint for each in fitting)


@dataclass
class Chain:
    """Follows the signatures from a record to an anchor. Each step leads to a zone with a shorter name, so it ends."""

    ask: Callable[[dns.name.Name, dns.rdatatype.RdataType], dns.message.Message]
    anchors: Anchors
    asked: int = 0
    until: float = field(default_factory=lambda: time.monotonic() + MOST_SECONDS)
    _keys: dict[dns.name.Name, dns.rrset.RRset] = field(default_factory=dict)

    def records(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.rrset.RRset:
        """The records, signed by the zone that they are in. Raises Unproven."""
        records, signatures = self._answer(name, kind)
        zone = signatures[0].signer
        is_above = name.is_subdomain(zone) and (kind != dns.rdatatype.DS or name != zone)
        if not is_above:
            raise Unproven(f"{kind.name} of {name} is signed by {zone}")
        self._validated(records, signatures, zone, self._keys_of(zone))
        return records

    def _keys_of(self, zone: dns.name.Name) -> dns.rrset.RRset:
        if zone not in self._keys:
            keys, signatures = self._answer(zone, dns.rdatatype.DNSKEY)
            entries = self.anchors.get(zone) or self.records(zone, dns.rdatatype.DS)
            entered = [key for key in keys if any(_is_of(entry, zone, key) for entry in entries)]
            if not entered:
                raise Unproven(f"no key of {zone} is the one that the zone above names")
            trusted = dns.rrset.from_rdata_list(zone, keys.ttl, entered)
            self._validated(keys, signatures, zone, trusted)
            self._keys[zone] = keys
        return self._keys[zone]

    def _answer(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> tuple[dns.rrset.RRset, dns.rrset.RRset]:
        self.asked += 1
        if self.asked > MOST_QUESTIONS:
            raise Unproven("it takes too many questions to follow the signatures")
        if time.monotonic() > self.until:
            raise Unproven("it takes too long to follow the signatures")
        records, signatures = _of(self.ask(name, kind), name, kind)
        if not signatures:
            raise Unproven(f"{kind.name} of {name} is not signed")
        return records, signatures

    def _validated(
        self, records: dns.rrset.RRset, signatures: dns.rrset.RRset, zone: dns.name.Name, keys: dns.rrset.RRset
    ) -> None:
        # One that stands for a wildcard would need proof that the name itself is not there.
        labels = len(records.name.labels) - 1
        whole = [each for each in signatures if each.signer == zone and each.labels == labels]
        kind = dns.rdatatype.to_text(records.rdtype)
        if not whole:
            raise Unproven(f"{kind} of {records.name} is made from a wildcard")
        try:
            checked = dns.rrset.from_rdata_list(records.name, records.ttl, whole)
            dns.dnssec.validate(records, checked, {zone: dns.rdataset.from_rdata_list(keys.ttl, list(keys))})
        except dns.exception.DNSException as error:
            raise Unproven(f"the signature of {kind} of {records.name} is not good: {error}") from error


def _of(
    answer: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType
) -> tuple[dns.rrset.RRset, dns.rrset.RRset]:
    """The records of exactly that name, and their signatures (may be empty). Raises Unproven."""
    found = answer.get_rrset(answer.answer, name, dns.rdataclass.IN, kind)
    if found is None:
        raise Unproven(f"there is no {kind.name} of {name}")
    signed = answer.get_rrset(answer.answer, name, dns.rdataclass.IN, dns.rdatatype.RRSIG, kind)
    signed = signed if signed is not None else dns.rrset.RRset(name, dns.rdataclass.IN, dns.rdatatype.RRSIG, kind)
    if len(found) > MOST_RECORDS or len(signed) > MOST_RECORDS:
        raise Unproven(f"{name} has more records than are looked at")
    return found, signed


def _is_of(entry: Any, zone: dns.name.Name, key: Any) -> bool:
    """Whether a DS names the key. SHA-1 proves nothing any more (RFC 8624)."""
    if entry.digest_type not in (2, 4) or entry.key_tag != dns.dnssec.key_id(key):
        return False
    made = dns.dnssec.make_ds(zone, key, "SHA256" if entry.digest_type == 2 else "SHA384")
    return bool(made.algorithm == entry.algorithm and made.digest == entry.digest)
