"""What `exim -bt` says, as seen on 4.96."""

import pytest

from fleet.mta.errors import RemoteError, UnparsedOutput
from fleet.mta.exim.routes import find_routes, parse_test
from fleet.mta.routes.probe import Routing
from fleet.mta.routes.resolve import Exchanger
from fleet.mta.steps import Completed
from tests.unit.mail_network import Network, instance

EXIM = instance("exim", "/etc/exim4", program="/usr/sbin/exim4", relay_domains=["ok.test"])


def routing(said: str) -> Routing:
    network = Network({"exim_route.sh": f"test\n{said}\ntested 0\nhostname ex1.test\nend\n".encode()})
    found = network.drive(find_routes(EXIM, "r@ok.test", "<>"))
    assert network.sent[0].argv == ("/usr/sbin/exim4",)
    assert network.sent[0].stdin == b"r@ok.test\n<>\n"
    return found


def test_hosts_come_with_preference_addresses_and_port() -> None:
    found = routing(
        "> r@ok.test\n  router = dnslookup, transport = remote_smtp\n"
        "  host mx.ok.test     [192.0.2.1]    MX=10\n"
        "  host mx.ok.test     [2001:db8::1]  MX=10\n"
        "  host backup.ok.test [192.0.2.3]    MX=20 port=2525\n"
        "  host lost.ok.test   [unknown]      MX=30\n> "
    )
    [route] = found.routes
    assert (route.kind, route.transport, route.via) == ("relay", "remote_smtp", ("router dnslookup",))
    assert route.hosts == (
        Exchanger("mx.ok.test", 10, ("192.0.2.1", "2001:db8::1")),
        Exchanger("backup.ok.test", 20, ("192.0.2.3",), 2525),
        Exchanger("lost.ok.test", 30),
    )
    assert found.helo == "ex1.test"


def test_an_alias_becomes_its_recipients() -> None:
    found = routing(
        "> a@far.test\n    <-- list@ok.test\n  router = smarthost, transport = remote_smtp_smarthost\n"
        "  host out.test [192.0.2.5] port=587\n"
        "root@ex1.test -> /var/mail/mail\n    <-- list@ok.test\n  transport = address_file\n> "
    )
    remote, local = found.routes
    assert (remote.recipient, remote.kind) == ("a@far.test", "remote")
    assert remote.via == ("from list@ok.test", "router smarthost")
    assert (local.recipient, local.kind, local.transport) == ("root@ex1.test", "local", "address_file")
    assert local.via == ("to /var/mail/mail", "from list@ok.test")


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("> x@no.test is undeliverable: Unrouteable address\n> ", "undeliverable"),
        ("> x@down.test cannot be resolved at this time: host lookup did not complete\n> ", "deferred"),
        ("> mail to x@ok.test is discarded\n> ", "local"),
    ],
)
def test_no_later_and_nowhere_are_told_apart(said: str, kind: str) -> None:
    [route] = routing(said).routes
    assert route.kind == kind
    assert route.hosts == ()
    assert route.detail


def test_quotes_and_a_leading_dash_stay_what_they_are() -> None:
    found = routing('> "q b"@ok.test\n  router = r, transport = t\n  host h [192.0.2.1] MX=1\n> ')
    assert found.routes[0].recipient == '"q b"@ok.test'


@pytest.mark.parametrize("said", ["", "> ", "> r@ok.test\n> "])
def test_an_answer_that_names_no_route_is_refused(said: str) -> None:
    with pytest.raises(UnparsedOutput):
        routing(said)


def test_a_cut_off_answer_is_refused() -> None:
    with pytest.raises(UnparsedOutput):
        parse_test(Completed(0, b"test\nr@ok.test\n  router = r, transport = t\n"))
    with pytest.raises(RemoteError):
        parse_test(Completed(64, b"", b"no program"))


@pytest.mark.parametrize("answer", [b"", b"end\n", b"r@ok.test\n  router = r, transport = t\nend\n"])
def test_an_answer_without_its_first_line_is_refused(answer: bytes) -> None:
    with pytest.raises(UnparsedOutput):
        parse_test(Completed(0, answer))
