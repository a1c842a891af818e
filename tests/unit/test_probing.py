"""smtp.probe: which hosts are asked, what is said to them, and what the verdict is. Never DATA."""

import pytest

from fleet.mta.operations import AddressTest, SmtpProbe
from fleet.mta.records import Context, InstanceFacts
from fleet.mta.routes import probe as probing
from fleet.mta.routes.probe import Route, Routing
from fleet.mta.routes.resolve import Destination
from fleet.mta.steps import FORWARDING_PROHIBITED, Steps
from tests.unit.mail_network import Network, instance

GOOD = ["220 mx", "250-mx\n250 SIZE", "250 ok", "250 ok", "250 ok", "221 bye"]
ZONE = {
    ("ok.test", "MX"): ["10 a.test.", "20 b.test."],
    ("a.test", "A"): ["192.0.2.1"],
    ("b.test", "A"): ["192.0.2.2"],
    ("null.test", "MX"): ["0 ."],
}


def probe(network: Network, *routes: Route, sender: str = "a@b.test", recipient: str = "r@ok.test") -> dict:
    def find_routes(facts: InstanceFacts, to: str, by: str) -> Steps[Routing]:
        return Routing(routes or (Route(to, "remote", "smtp", "ok.test", (), (Destination("ok.test"),)),), "me.test")
        yield

    network.zone = dict(ZONE)
    return network.drive(
        probing.smtp_probe(find_routes, instance("any"), SmtpProbe(sender, recipient), Context(now=0.0))
    ).data


def with_reply(at: int, reply: str) -> list[str]:
    return [*GOOD[:at], reply, *GOOD[at + 1 :]]


def test_the_first_host_that_answers_is_asked_as_the_mta_would_and_never_for_data() -> None:
    network = Network(servers={("192.0.2.2", 25): GOOD})
    said = probe(network, sender="<>")
    assert said["verdict"] == "accepted"
    assert [(each["host"], bool(each["error"])) for each in said["attempts"]] == [("a.test", True), ("b.test", False)]
    lines = ("EHLO me.test", "MAIL FROM:<>", "RCPT TO:<r@ok.test>", "RSET", "QUIT")
    assert [each.lines for each in network.dialogues] == [lines, lines]
    assert [turn["sent"] for turn in said["dialogue"]] == ["", *lines]
    assert any("TLS" in note for note in said["notes"])
    assert any("source address" in note for note in said["notes"])


@pytest.mark.parametrize(
    ("at", "reply", "verdict"),
    [
        (2, "550 5.7.1 blocked", "refused"),
        (2, "450 4.7.1 later", "deferred"),
        (3, "550-no\n550 such user", "refused"),
        (3, "451 greylisted", "deferred"),
        (1, "421 busy", "deferred"),
    ],
)
def test_the_first_refusal_is_the_verdict(at: int, reply: str, verdict: str) -> None:
    said = probe(Network(servers={("192.0.2.1", 25): with_reply(at, reply), ("192.0.2.2", 25): GOOD}))
    assert said["verdict"] == verdict
    assert reply in said["reason"]
    assert len(said["attempts"]) == 1


def test_a_host_that_greets_with_a_refusal_or_breaks_off_is_passed_over() -> None:
    for replies in (["554 no service"], ["421 busy"], GOOD[:3], ["junk", *GOOD[1:]]):
        said = probe(Network(servers={("192.0.2.1", 25): replies, ("192.0.2.2", 25): GOOD}))
        assert said["verdict"] == "accepted"
        assert said["attempts"][0]["error"]
    assert probe(Network(servers={("192.0.2.2", 25): ["421 busy"]}))["verdict"] == "deferred"
    assert probe(Network())["verdict"] == "unreachable"


def test_a_server_that_knows_no_ehlo_is_greeted_with_helo() -> None:
    network = Network(servers={("192.0.2.1", 25): with_reply(1, "500 what")})
    probe(network)
    assert [each.lines[0] for each in network.dialogues] == ["EHLO me.test", "HELO me.test"]


def test_letters_beyond_ascii_ask_for_smtputf8() -> None:
    network = Network(servers={("192.0.2.1", 25): GOOD})
    probe(network, sender="jürgen@b.test")
    assert "MAIL FROM:<jürgen@b.test> SMTPUTF8" in network.dialogues[0].lines


def test_a_prohibited_forwarding_is_no_verdict() -> None:
    network = Network(smtp_error=f"no connection to 192.0.2.1 port 25: {FORWARDING_PROHIBITED}")
    said = probe(network)
    assert said["verdict"] == "unknown"
    assert FORWARDING_PROHIBITED in said["reason"]
    assert len(said["attempts"]) == 1
    assert probe(Network(dns={"192.0.2.53": FORWARDING_PROHIBITED}))["verdict"] == "unknown"


def test_without_a_host_to_ask_the_route_is_the_verdict() -> None:
    network = Network()
    hops = (Destination("null.test"),)
    assert probe(network, Route("r@null.test", "remote", "smtp", destinations=hops))["verdict"] == "refused"
    assert probe(network, Route("r@me.test", "local", "local"))["verdict"] == "not_remote"
    assert probe(network, Route("r@x.test", "undeliverable", "error", detail="5.1.2 gone"))["verdict"] == "refused"
    assert probe(network, Route("r@x.test", "deferred", "", detail="later"))["verdict"] == "deferred"
    assert probe(network, Route("r@x.test", "remote", "", destinations=(Destination("no.test"),)))["verdict"] == (
        "unreachable"
    )
    assert network.dialogues == []


def test_at_most_five_addresses_are_tried() -> None:
    network = Network()
    hops = tuple(Destination(f"192.0.2.{number}") for number in range(1, 9))
    said = probe(network, Route("r@ok.test", "remote", "smtp", "", (), hops))
    assert len(said["attempts"]) == len(network.dialogues) == 5


def test_an_address_that_stands_for_several_says_which_one_was_asked() -> None:
    routes = (
        Route("me@me.test", "local", "local"),
        Route("x@ok.test", "relay", "relay", "", (), (Destination("ok.test"),)),
    )
    said = probe(Network(servers={("192.0.2.1", 25): GOOD}), *routes)
    assert said["route"]["recipient"] == "x@ok.test"
    assert "stands for 2 recipients; x@ok.test was asked for" in " ".join(said["notes"])


def test_address_test_shows_every_route_and_sends_nothing() -> None:
    network = Network(zone=dict(ZONE))
    routes = tuple(
        Route(f"u{n}@ok.test", "remote", "smtp", "ok.test", (), (Destination("ok.test"),)) for n in range(25)
    )

    def find_routes(facts: InstanceFacts, to: str, by: str) -> Steps[Routing]:
        return Routing(routes, "me.test", ("a note",))
        yield

    data = network.drive(
        probing.address_test(find_routes, instance("any"), AddressTest("list@ok.test"), Context(now=0.0))
    ).data
    assert len(data["routes"]) == 20
    assert data["notes"] == ["a note", "5 more recipients are not shown"]
    assert data["routes"][0]["hosts"][0] == {
        "name": "a.test",
        "preference": 10,
        "addresses": ["192.0.2.1"],
        "port": 25,
    }
    assert network.dialogues == []
