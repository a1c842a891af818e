"""Where mail for a name goes: MX, implicit MX, null MX, loops, and the difference between "no" and "do not know"."""

import dns.message
import dns.rrset
import pytest

from fleet.mta.errors import UnparsedOutput
from fleet.mta.routes.resolve import Destination, Exchanger, Resolution, Resolved, Resolver, find, read_resolver
from tests.unit.mail_network import Network

RESOLVER = Resolver(("192.0.2.53",))
ZONE = {
    ("two.test", "MX"): ["20 b.mx.test.", "10 a.mx.test.", "10 c.mx.test."],
    ("a.mx.test", "A"): ["192.0.2.1", "192.0.2.2"],
    ("a.mx.test", "AAAA"): ["2001:db8::1"],
    ("b.mx.test", "A"): ["192.0.2.3"],
    ("c.mx.test", "AAAA"): ["2001:db8::3"],
    ("plain.test", "A"): ["192.0.2.9"],
    ("null.test", "MX"): ["0 ."],
    ("alias.test", "CNAME"): ["plain.test."],
    ("dangling.test", "MX"): ["10 nowhere.test."],
    ("broken.test", "MX"): ["10 lame.test."],
}


def found(name: str, network: Network | None = None, resolver: Resolver = RESOLVER, own: str = "me.test") -> Resolved:
    network = network or Network(zone=dict(ZONE), servfail={"lame.test", "down.test"})
    return network.drive(find(resolver, Destination(name), (own,)))


def names(each: Resolved) -> list[str]:
    return [host.name for host in each.hosts]


def test_exchangers_come_in_the_order_of_their_preference_with_all_addresses() -> None:
    each = found("two.test")
    assert each.resolution is Resolution.MX
    assert each.hosts == (
        Exchanger("a.mx.test", 10, ("192.0.2.1", "192.0.2.2", "2001:db8::1")),
        Exchanger("c.mx.test", 10, ("2001:db8::3",)),
        Exchanger("b.mx.test", 20, ("192.0.2.3",)),
    )


def test_a_domain_without_mx_takes_its_own_mail() -> None:
    assert found("plain.test") == Resolved(Resolution.IMPLICIT_MX, (Exchanger("plain.test", 0, ("192.0.2.9",)),))
    assert names(found("alias.test")) == ["plain.test"]


def test_no_mail_no_name_no_address_and_no_answer_are_four_things() -> None:
    assert found("null.test").resolution is Resolution.NULL_MX
    assert found("missing.test").resolution is Resolution.NXDOMAIN
    assert found("dangling.test").resolution is Resolution.NO_ADDRESS
    assert found("down.test") == Resolved(Resolution.FAILED, detail="MX of down.test: SERVFAIL")
    assert found("broken.test").resolution is Resolution.FAILED


def test_only_what_is_preferred_to_ourselves_is_asked() -> None:
    assert names(found("two.test", own="B.mx.test.")) == ["a.mx.test", "c.mx.test"]
    assert found("two.test", own="a.mx.test").resolution is Resolution.LOOP


@pytest.mark.parametrize("asked", ["other.test. IN MX", "two.test. IN A", ""])
def test_an_answer_to_another_question_settles_nothing(asked: str) -> None:
    class Forging(Network):
        def _answer(self, packet: bytes) -> bytes:
            question = dns.message.from_wire(packet)
            name, _, kind = asked.split() if asked else ("two.test.", "", "MX")
            reply = dns.message.make_response(dns.message.make_query(name, kind, id=question.id, use_edns=False))
            data = "10 evil.test." if kind == "MX" else "192.0.2.66"
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", kind, data))
            if not asked:
                reply.question = []
            return reply.to_wire()

    each = found("two.test", Forging())
    assert (each.resolution, each.hosts) == (Resolution.FAILED, ())


def test_the_next_nameserver_answers_for_one_that_does_not() -> None:
    network = Network(zone=dict(ZONE), dns={"192.0.2.52": "no answer"})
    assert names(found("plain.test", network, Resolver(("192.0.2.52", "192.0.2.53")))) == ["plain.test"]
    assert found("plain.test", network, Resolver(("192.0.2.52",))).detail == "MX of plain.test: no answer"


def test_without_a_nameserver_what_the_mta_named_is_looked_up_by_the_host() -> None:
    network = Network({"host_addresses.sh": b"mx.test 192.0.2.7\nend\n"}, dns={"192.0.2.53": "prohibited"})
    each = network.drive(find(RESOLVER, Destination("x.test", 587, fallback=("mx.test.",))))
    assert each.hosts == (Exchanger("mx.test", None, ("192.0.2.7",), 587),)
    assert "prohibited" in each.detail


@pytest.mark.parametrize("literal", ["192.0.2.4", "[192.0.2.4]"])
def test_an_address_is_not_looked_up(literal: str) -> None:
    network = Network()
    each = network.drive(find(RESOLVER, Destination(literal, 26)))
    assert [(host.addresses, host.port) for host in each.hosts] == [(("192.0.2.4",), 26)]
    assert network.sent == []


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".test", ".".join(["a" * 60] * 5)])
def test_what_is_no_name_is_not_asked_for(name: str) -> None:
    network = Network()
    assert network.drive(find(RESOLVER, Destination(name))).resolution is Resolution.FAILED
    assert network.sent == []


def test_the_hosts_file_goes_before_dns_only_where_the_mta_reads_it() -> None:
    network = Network({"host_resolver.sh": b"host 192.0.2.77 plain.test p\nhost junk x\nnameserver 192.0.2.53\nend\n"})
    network.zone = dict(ZONE)
    for with_hosts, address in ((True, "192.0.2.77"), (False, "192.0.2.9")):
        resolver = network.drive(read_resolver(with_hosts=with_hosts))
        each = network.drive(find(resolver, Destination("plain.test", by_mx=False)))
        assert each.hosts[0].addresses == (address,)


def test_a_host_without_resolv_conf_asks_itself_and_a_cut_off_answer_is_refused() -> None:
    assert Network({"host_resolver.sh": b"end\n"}).drive(read_resolver(with_hosts=True)).servers == ("127.0.0.1",)
    with pytest.raises(UnparsedOutput):
        Network({"host_resolver.sh": b"nameserver 192.0.2.53\n"}).drive(read_resolver(with_hosts=True))
