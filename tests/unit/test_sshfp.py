"""SSHFP records count when signatures lead from them to an anchor; the zones are signed here and served on loopback."""

import socketserver
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import asyncssh
import dns.dnssec
import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rdataset
import dns.rdatatype
import dns.rrset
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from dns.dnssectypes import Algorithm

from fleet.ssh import sshfp
from fleet.ssh.comparison import Verdict, by_authority, by_list, by_sshfp, fingerprint_of, verdict_of
from fleet.ssh.hostkeys import HostKey, describe
from fleet.ssh.sshfp import Nameserver, Unproven, fingerprints_of

KEY = describe(asyncssh.generate_private_key("ssh-ed25519").convert_to_public())
LINE = KEY.host_key
NAME = "mx1.example.test"


class Zone:
    """A zone with one key, signed when it is asked for."""

    def __init__(self, name: str, above: "Zone | None" = None) -> None:
        self.name = dns.name.from_text(name)
        self.private = generate_private_key(SECP256R1())
        self.key = dns.dnssec.make_dnskey(self.private.public_key(), Algorithm.ECDSAP256SHA256, flags=257)
        self.records: dict[tuple[dns.name.Name, str], dns.rrset.RRset] = {}
        self.lifetime = 3600
        self.add(name, "DNSKEY", str(self.key))
        if above is not None:
            above.add(name, "DS", str(self.ds))

    @property
    def ds(self) -> Any:
        return dns.dnssec.make_ds(self.name, self.key, "SHA256")

    def add(self, name: str, kind: str, *texts: str) -> None:
        absolute = dns.name.from_text(name)
        self.records[absolute, kind] = dns.rrset.from_text_list(absolute, 300, "IN", kind, texts)

    def signed(self, name: dns.name.Name, kind: str) -> list[dns.rrset.RRset]:
        rrset = self.records[name, kind]
        now = int(time.time())
        made = dns.dnssec.sign(
            rrset, self.private, self.name, self.key, inception=now - 7200, expiration=now + self.lifetime, verify=False
        )
        return [rrset, dns.rrset.from_rdata(name, 300, made)]


@dataclass
class World:
    """The root, test. and example.test., and what a nameserver on loopback answers from them."""

    zones: list[Zone] = field(default_factory=list)
    flags: int = 0
    drops: frozenset[str] = frozenset()
    answers: dict[tuple[dns.name.Name, str], list[dns.rrset.RRset]] = field(default_factory=dict)

    def answer(self, wire: bytes) -> bytes:
        query = dns.message.from_wire(wire)
        asked = query.question[0]
        kind = dns.rdatatype.to_text(asked.rdtype)
        reply = dns.message.make_response(query)
        reply.flags |= self.flags
        given = self.answers.get((asked.name, kind))
        for zone in self.zones:
            if given is None and (asked.name, kind) in zone.records:
                given = zone.signed(asked.name, kind)
        for rrset in given or []:
            if dns.rdatatype.to_text(rrset.rdtype) not in self.drops:
                reply.answer.append(rrset)
        return reply.to_wire()


@contextmanager
def served(world: World) -> Iterator[Nameserver]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, socket = self.request
            socket.sendto(world.answer(data), self.client_address)

    with socketserver.ThreadingUDPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Nameserver("127.0.0.1", server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def world() -> World:
    root = Zone(".")
    test = Zone("test.", root)
    example = Zone("example.test.", test)
    example.add(NAME, "SSHFP", f"4 2 {'ab' * 32}", f"4 1 {'cd' * 20}", f"1 2 {'ef' * 32}")
    return World([root, test, example])


def found(world: World, *, name: str = NAME, key_type: str = "ssh-ed25519", **changes: Any) -> tuple[bytes, ...]:
    with served(world) as server:
        anchors = {dns.name.root: [world.zones[0].ds]}
        return fingerprints_of(name, key_type, replace(server, **changes), anchors)


def test_a_record_that_is_signed_up_to_the_anchor_is_proven(world: World) -> None:
    assert found(world) == (b"\xab" * 32,)
    assert found(world, key_type="ssh-rsa") == (b"\xef" * 32,)


def test_sha_1_proves_nothing(world: World) -> None:
    world.zones[2].add(NAME, "SSHFP", f"4 1 {'cd' * 20}")
    with pytest.raises(Unproven, match="none with SHA-256"):
        found(world)


def wrong_anchor(world: World) -> None:
    world.zones[0] = replaced = Zone(".")
    replaced.add("test.", "DS", str(world.zones[1].ds))
    world.answers[dns.name.root, "DNSKEY"] = Zone(".").signed(dns.name.root, "DNSKEY")


def forged_record(world: World) -> None:
    name = dns.name.from_text(NAME)
    signed = world.zones[2].signed(name, "SSHFP")
    forged = dns.rrset.from_text_list(name, 300, "IN", "SSHFP", [f"4 2 {'00' * 32}"])
    world.answers[name, "SSHFP"] = [forged, signed[1]]


def forged_zone(world: World) -> None:
    """Somebody else's example.test, with keys and signatures of its own."""
    world.zones[2] = Zone("example.test.")
    world.zones[2].add(NAME, "SSHFP", f"4 2 {'00' * 32}")


def signed_by_a_stranger(world: World) -> None:
    """A zone that is signed well, and is not above the name."""
    stranger = Zone("other.test.", world.zones[1])
    name = dns.name.from_text(NAME)
    rrset = world.zones[2].records[name, "SSHFP"]
    made = dns.dnssec.sign(rrset, stranger.private, stranger.name, stranger.key, lifetime=3600)
    world.answers[name, "SSHFP"] = [rrset, dns.rrset.from_rdata(name, 300, made)]
    world.zones.append(stranger)


def wildcard(world: World) -> None:
    zone = world.zones[2]
    zone.add("*.example.test.", "SSHFP", f"4 2 {'ab' * 32}")
    rrset, signature = zone.signed(dns.name.from_text("*.example.test."), "SSHFP")
    name = dns.name.from_text(NAME)
    world.answers[name, "SSHFP"] = [dns.rrset.from_rdata_list(name, 300, list(each)) for each in (rrset, signature)]


def expired(world: World) -> None:
    world.zones[2].lifetime = -3600


def unsigned(world: World) -> None:
    world.drops = frozenset({"RRSIG"})


def no_ds(world: World) -> None:
    del world.zones[1].records[dns.name.from_text("example.test."), "DS"]


def no_record(world: World) -> None:
    del world.zones[2].records[dns.name.from_text(NAME), "SSHFP"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (wrong_anchor, "no key of . is the one"),
        (forged_record, "not good"),
        (forged_zone, "no key of example.test. is the one"),
        (signed_by_a_stranger, "is signed by other.test."),
        (wildcard, "wildcard"),
        (expired, "not good"),
        (unsigned, "not signed"),
        (no_ds, "there is no DS"),
        (no_record, "there is no SSHFP"),
    ],
)
def test_what_is_not_signed_up_to_the_anchor_proves_nothing(world: World, change: Any, reason: str) -> None:
    change(world)
    with pytest.raises(Unproven, match=reason):
        found(world)


def test_what_a_resolver_of_this_machine_has_checked_is_believed(world: World) -> None:
    unsigned(world)
    world.flags = dns.flags.AD
    assert found(world, is_own=True) == (b"\xab" * 32,)
    with pytest.raises(Unproven, match="not signed"):
        found(world)
    world.flags = 0
    with pytest.raises(Unproven, match="not signed"):
        found(world, is_own=True)


def test_a_nameserver_that_is_not_there_proves_nothing(world: World) -> None:
    with served(world) as server:
        gone = server
    with pytest.raises(Unproven, match="did not answer"):
        fingerprints_of(NAME, "ssh-ed25519", gone)


def test_signatures_of_nameservers_that_answer_slowly_are_followed_for_a_while_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sshfp, "MOST_SECONDS", 100.0)
    now = iter([0.0, 1.0, 50.0, 100.0, 101.0])
    monkeypatch.setattr(sshfp, "time", SimpleNamespace(monotonic=lambda: next(now)))
    asked: list[str] = []

    def ask(name: Any, kind: Any) -> Any:
        asked.append(kind.name)
        query = dns.message.make_query(name, kind, want_dnssec=True)
        return dns.message.from_wire(world.answer(query.to_wire()))

    chain = sshfp.Chain(ask, {dns.name.root: [world.zones[0].ds]})
    with pytest.raises(Unproven, match="too long"):
        chain.records(dns.name.from_text(NAME), dns.rdatatype.SSHFP)
    assert asked == ["SSHFP", "DNSKEY", "DS"]


SERVER = Nameserver("192.0.2.53")
RIGHT = sha256(b64decode(LINE.split()[1])).digest()


def told(*fingerprints: bytes) -> Any:
    return lambda name, key_type, server: fingerprints


def nothing(name: str, key_type: str, server: Nameserver) -> tuple[bytes, ...]:
    raise Unproven("not signed")


def test_a_key_matches_or_differs_from_what_dns_has_and_both_are_told() -> None:
    other = b"\x01" * 32
    assert by_sshfp(KEY, NAME, [SERVER], told(other, RIGHT)).verdict is Verdict.MATCHES
    wrong = by_sshfp(KEY, NAME, [SERVER], told(other))
    assert (wrong.verdict, wrong.expected) == (Verdict.DIFFERS, ("SHA256:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",))


def test_without_a_proven_record_dns_says_nothing() -> None:
    unproven = by_sshfp(KEY, NAME, [SERVER], nothing)
    assert (unproven.verdict, unproven.detail) == (Verdict.UNPROVEN, "not signed")
    assert "no name" in by_sshfp(KEY, "192.0.2.1", [SERVER], told(RIGHT)).detail
    assert by_sshfp(KEY, NAME, [], told(RIGHT)).detail == "no nameserver is known"


def test_a_list_and_a_certificate_are_compared_too() -> None:
    assert by_list(KEY, [KEY.fingerprint]).verdict is Verdict.MATCHES
    assert by_list(KEY, ["SHA256:x"]).verdict is Verdict.DIFFERS
    assert by_authority(KEY, KEY).verdict is Verdict.MATCHES
    assert by_authority(KEY, None).verdict is Verdict.UNPROVEN
    assert by_authority(KEY, HostKey("ssh-rsa AAAA", "SHA256:x", "ssh-rsa")).verdict is Verdict.UNPROVEN


def test_one_source_that_differs_outweighs_those_that_match() -> None:
    matches, differs, unproven = by_list(KEY, [KEY.fingerprint]), by_list(KEY, []), by_authority(KEY, None)
    assert verdict_of([matches, differs]) is Verdict.DIFFERS
    assert verdict_of([unproven, matches]) is Verdict.MATCHES
    assert verdict_of([unproven]) is Verdict.UNPROVEN
    assert verdict_of([]) is Verdict.UNPROVEN


@pytest.mark.parametrize(
    "text",
    [KEY.fingerprint, f"{KEY.fingerprint}=", LINE, f"{LINE} root@mx1"],
    ids=["fingerprint", "padded", "key", "key with a comment"],
)
def test_a_fingerprint_is_taken_as_such_or_as_a_key(text: str) -> None:
    assert fingerprint_of(text) == KEY.fingerprint


@pytest.mark.parametrize("text", ["SHA256:abc", "SHA256:" + "!" * 43, "MD5:aa:bb", "ssh-ed25519 AAAA", ""])
def test_no_other_text_is_a_fingerprint(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        fingerprint_of(text)
