"""The rules of smtpd.conf: the first that fits decides, and what cannot be known is said."""

import pytest

from fleet.mta.errors import UnparsedOutput
from fleet.mta.opensmtpd.routes import EMULATED, find_routes
from fleet.mta.routes.probe import Routing
from fleet.mta.routes.resolve import Destination
from tests.unit.mail_network import Network, instance

CONF = """
table aliases file:/etc/aliases
table ours { "relay.test", "*.relay.test" }
table partners file:/etc/smtpd/partners
table secret db:/etc/smtpd/secret.db
action "local" mbox alias <aliases>
action "virtual" maildir virtual <aliases>
action "out" relay
action "smart" relay host smtp+tls://label@smart.test:587 helo "helo.test"
action "table" relay host <secret>
match from any mail-from "spam@bad.test" for any reject
match from any for domain <ours> action "out"
match for domain <partners> action "smart"
match from auth for any action "table"
match for domain "virt.test" action "virtual"
match for local action "local"
match from src 192.0.2.0/24 for any action "table"
match !for domain { "dead.test", gone.test } action "out"
"""


def routing(recipient: str, sender: str = "", conf: str = CONF) -> Routing:
    network = Network()
    lines = [f"conf {line}" for line in conf.strip().split("\n")]
    text = "\n".join(["version 7.6", "mailname short", "mailname os1.test", *lines, "end", ""])
    network.prints["opensmtpd_discover.sh"] = text.encode()
    network.prints["opensmtpd_tables.sh"] = (
        b"file /etc/aliases\nline root: x\nfile /etc/smtpd/partners\nline # who\nline Partner.test\nend\n"
    )
    return network.drive(find_routes(instance("opensmtpd"), recipient, sender))


@pytest.mark.parametrize(
    ("recipient", "kind", "transport", "hops"),
    [
        ("u@relay.test", "relay", "relay", (Destination("relay.test"),)),
        ("u@Sub.relay.test", "relay", "relay", (Destination("sub.relay.test"),)),
        ("u@partner.test", "relay", "relay", (Destination("smart.test", 587, by_mx=False),)),
        ("u@virt.test", "virtual", "maildir", ()),
        ("u@os1.test", "local", "mbox", ()),
        ("u@localhost", "local", "mbox", ()),
        ("u@else.test", "relay", "relay", (Destination("else.test"),)),
        ("u@gone.test", "undeliverable", "", ()),
    ],
)
def test_the_first_rule_that_fits_decides(
    recipient: str, kind: str, transport: str, hops: tuple[Destination, ...]
) -> None:
    [route] = routing(recipient).routes
    assert (route.kind, route.transport, route.destinations) == (kind, transport, hops)


def test_the_sender_decides_once_he_is_known() -> None:
    assert any("mail-from" in note for note in routing("u@relay.test").notes)
    refused = routing("u@relay.test", "spam+x@bad.test")
    assert refused.routes[0].kind == "undeliverable"
    assert routing("u@relay.test", "<>").notes == (EMULATED,)


def test_the_action_names_the_helo_else_the_host_does() -> None:
    assert routing("u@partner.test").helo == "helo.test"
    assert routing("u@relay.test").helo == "os1.test"


def test_a_rule_that_cannot_be_judged_is_named() -> None:
    conf = 'action "out" relay\nmatch from any for domain regex "x.*" action "out"\nmatch tag IN for any action "out"\n'
    found = routing("u@x.test", conf=f'{conf}match for any action "out"')
    assert [note.partition(" may fit")[0] for note in found.notes[1:]] == ["line 2", "line 3"]
    assert found.routes[0].destinations == (Destination("x.test"),)


def test_a_relay_host_in_a_table_is_said_to_be_unknown() -> None:
    conf = 'table h file:/x\naction "out" relay host <h>\nmatch for any action "out"'
    [route] = routing("u@x.test", conf=conf).routes
    assert route.destinations == ()
    assert "not known" in route.detail


def test_a_configuration_that_cannot_be_read_is_no_answer() -> None:
    network = Network({"opensmtpd_discover.sh": b"version 7.6\nunreadable /etc/smtpd.conf\nend\n"})
    with pytest.raises(UnparsedOutput, match="cannot be read"):
        network.drive(find_routes(instance("opensmtpd"), "u@x.test", ""))
    network.prints["opensmtpd_discover.sh"] = b'conf match for any action "x"\n'
    with pytest.raises(UnparsedOutput):
        network.drive(find_routes(instance("opensmtpd"), "u@x.test", ""))
