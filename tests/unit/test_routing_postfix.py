"""trivial-rewrite's rules over what postconf and postmap say."""

import pytest

from fleet.mta.errors import RemoteError, UnparsedOutput
from fleet.mta.postfix.routes import destination, find_routes
from fleet.mta.routes.probe import Route, Routing
from fleet.mta.routes.resolve import Destination
from tests.unit.mail_network import Network, instance

POSTFIX = instance("postfix", "/etc/postfix", command_directory="/usr/sbin")
MASTER = """smtp       inet  n - y - - smtpd
smtp       unix  - - y - - smtp
relay      unix  - - y - - smtp -o syslog_name=${multi_instance_name?{$multi_instance_name}:{postfix}}/$service_name
error      unix  - - y - - error
retry      unix  - - y - - error
local      unix  - n n - - local
virtual    unix  - n n - - virtual
"""
SETTINGS = {
    "mydestination": "me.test, localhost",
    "relay_domains": "relay.test",
    "virtual_mailbox_domains": "boxes.test",
    "local_transport": "local:me.test",
    "virtual_transport": "virtual",
    "relay_transport": "relay",
    "default_transport": "smtp",
    "recipient_delimiter": "+",
    "propagate_unmatched_extensions": "canonical, virtual",
    "parent_domain_matches_subdomains": "relay_domains, smtpd_access_maps",
    "myorigin": "/etc/mailname",
    "smtp_helo_name": "me.test",
    "smtp_host_lookup": "dns",
}


class Postfix(Network):
    """Tables by `TYPE:NAME`; a missing table is one that postfix_route.sh does not answer for."""

    def __init__(self, tables: dict[str, dict[str, str]] | None = None, **settings: str) -> None:
        super().__init__()
        self.tables = {"/etc/mailname": {}, **(tables or {})}
        self.settings = SETTINGS | settings
        lines = []
        for table, entries in self.tables.items():
            lines.append(f"map {table}")
            lines += ["word origin.test"] if table == "/etc/mailname" else []
            lines += [f"found {key}\t{value}" for key, value in entries.items()] + ["status 0"]
        self.prints["postfix_route.sh"] = "\n".join([*lines, "end", ""]).encode()

    def routing(self, recipient: str, sender: str = "") -> Routing:
        lines = [f"setting {name} = {value}" for name, value in self.settings.items()]
        lines += [f"service {line}" for line in MASTER.splitlines()]
        self.prints["postfix_route_facts.sh"] = "\n".join([*lines, "end", ""]).encode()
        return self.drive(find_routes(POSTFIX, recipient, sender))

    def route(self, recipient: str, sender: str = "") -> Route:
        [found] = self.routing(recipient, sender).routes
        return found


@pytest.mark.parametrize(
    ("recipient", "kind", "transport", "nexthop"),
    [
        ("u@me.test", "local", "local", "me.test"),
        ("u@boxes.test", "virtual", "virtual", "boxes.test"),
        ("u@Relay.test", "relay", "relay", "relay.test"),
        ("u@sub.relay.test", "relay", "relay", "sub.relay.test"),
        ("u@away.test", "remote", "smtp", "away.test"),
    ],
)
def test_the_domain_decides_the_class(recipient: str, kind: str, transport: str, nexthop: str) -> None:
    found = Postfix().route(recipient)
    assert (found.kind, found.transport, found.nexthop) == (kind, transport, nexthop)
    is_smtp = transport in ("smtp", "relay")
    assert found.destinations == ((Destination(nexthop),) if is_smtp else ())


def test_relayhost_takes_relayed_and_remote_mail_but_not_what_ends_here() -> None:
    postfix = Postfix(relayhost="[out.test]:587")
    assert postfix.route("u@away.test").destinations == (Destination("out.test", 587, by_mx=False),)
    assert postfix.route("u@relay.test").nexthop == "[out.test]:587"
    assert postfix.route("u@me.test").nexthop == "me.test"


TRANSPORT = {
    "u@away.test": "slow:",
    "away.test": "smtp:[in.away.test]:2525",
    ".away.test": ":[inner.test]",
    "dead.test": "error:5.1.2 gone",
    "late.test": "retry:4.4.1 later",
    "*": "smtp:fallback.test",
}


@pytest.mark.parametrize(
    ("recipient", "kind", "transport", "nexthop"),
    [
        ("u@away.test", "remote", "slow", "away.test"),
        ("u+x@away.test", "remote", "slow", "away.test"),
        ("other@away.test", "remote", "smtp", "[in.away.test]:2525"),
        ("u@deep.sub.away.test", "remote", "smtp", "[inner.test]"),
        ("u@dead.test", "undeliverable", "error", "5.1.2 gone"),
        ("u@late.test", "deferred", "retry", "4.4.1 later"),
        ("u@any.test", "remote", "smtp", "fallback.test"),
    ],
)
def test_transport_maps_go_over_everything(recipient: str, kind: str, transport: str, nexthop: str) -> None:
    found = Postfix({"hash:/t": TRANSPORT}, transport_maps="hash:/t").route(recipient)
    assert (found.kind, found.transport, found.nexthop) == (kind, transport, nexthop)
    assert found.via[-1].startswith("transport_maps hash:/t: ")


def test_a_transport_that_is_not_smtp_asks_nobody() -> None:
    found = Postfix({"hash:/t": {"away.test": "slow:"}}, transport_maps="hash:/t").route("u@away.test")
    assert found.destinations == ()
    assert "master.cf does not have" in found.detail


def test_virtual_aliases_are_followed_and_keep_the_unmatched_extension() -> None:
    table = {"list@me.test": "a@away.test, root", "@old.test": "@away.test", "a@away.test": "a@away.test"}
    postfix = Postfix({"hash:/v": table}, virtual_alias_maps="hash:/v")
    assert [each.recipient for each in postfix.routing("list@me.test").routes] == ["a@away.test", "root@origin.test"]
    assert [each.recipient for each in postfix.routing("list+x@me.test").routes] == [
        "a+x@away.test",
        "root+x@origin.test",
    ]
    assert postfix.route("who@old.test").recipient == "who@away.test"
    assert postfix.route("who@old.test").via[0] == "virtual_alias_maps hash:/v: @old.test"


def test_an_endless_alias_ends() -> None:
    table = {"a@me.test": "b@me.test", "b@me.test": "a@me.test"}
    found = Postfix({"hash:/v": table}, virtual_alias_maps="hash:/v").route("a@me.test")
    assert (found.recipient, found.kind) == ("a@me.test", "deferred")
    assert "circle" in found.detail


def test_a_domain_of_aliases_only_delivers_nobody() -> None:
    found = Postfix({"hash:/v": {"al.test": "x"}}, virtual_alias_domains="hash:/v").route("nobody@al.test")
    assert found.kind == "undeliverable"
    assert "virtual alias table" in found.detail


def test_patterns_are_asked_for_the_whole_address_only() -> None:
    tables = {"regexp:/t": {"u@away.test": "smtp:[one.test]", "away.test": "smtp:[wrong.test]"}}
    postfix = Postfix(tables, transport_maps="regexp:/t")
    assert postfix.route("u@away.test").nexthop == "[one.test]"
    assert postfix.route("v@away.test").nexthop == "away.test"


def test_the_sender_may_choose_relayhost_and_transport() -> None:
    tables = {
        "hash:/r": {"boss@me.test": "[vip.test]", "<>": "[bounces.test]", "@quiet.test": "DUNNO"},
        "hash:/x": {"@bulk.test": "slow"},
    }
    postfix = Postfix(
        tables,
        sender_dependent_relayhost_maps="hash:/r",
        sender_dependent_default_transport_maps="hash:/x",
        relayhost="[out.test]",
        empty_address_relayhost_maps_lookup_key="<>",
    )
    assert postfix.route("u@away.test", "boss+1@me.test").nexthop == "[vip.test]"
    assert postfix.route("u@away.test", "<>").nexthop == "[bounces.test]"
    assert postfix.route("u@away.test", "x@quiet.test").nexthop == "away.test"
    assert postfix.route("u@away.test", "x@bulk.test").transport == "slow"
    assert postfix.route("u@away.test", "x@else.test").nexthop == "[out.test]"
    assert postfix.routing("u@away.test").notes == ("the sender matters here too: smtp.probe takes it into account",)


def test_lists_of_domains_know_files_tables_and_exceptions() -> None:
    postfix = Postfix({"hash:/d": {"in-table.test": "x"}}, relay_domains="!not.relay.test, relay.test, hash:/d")
    assert postfix.route("u@not.relay.test").kind == "remote"
    assert postfix.route("u@relay.test").kind == "relay"
    assert postfix.route("u@in-table.test").kind == "relay"


def test_a_table_that_cannot_be_asked_is_an_error_and_never_an_absent_key() -> None:
    with pytest.raises(RemoteError, match="hash:/t"):
        Postfix(transport_maps="hash:/t").route("u@away.test")
    failing = Postfix({"hash:/t": {}}, transport_maps="hash:/t")
    failing.prints["postfix_route.sh"] = (
        b"map /etc/mailname\nstatus 0\nmap hash:/t\nfound postmap: fatal: open /t: Permission denied\nstatus 70\nend\n"
    )
    with pytest.raises(RemoteError, match="Permission denied"):
        failing.route("u@away.test")
    failing.prints["postfix_route.sh"] = b"map /etc/mailname\nstatus 0\nmap hash:/t\n"
    with pytest.raises(UnparsedOutput):
        failing.route("u@away.test")


def test_everything_is_asked_at_once_and_as_data() -> None:
    postfix = Postfix({"hash:/t": {}}, transport_maps="hash:/t")
    postfix.routing('"$(id) x"@away.test')
    [asked] = [step for step in postfix.sent if getattr(step, "script", None) == "postfix_route.sh"]
    assert asked.argv == ("/usr/sbin", "/etc/postfix")
    assert b'key "$(id) x"@away.test\n' in asked.stdin
    assert asked.stdin.startswith(b"map hash:/t\n")


@pytest.mark.parametrize(
    ("nexthop", "hop"),
    [
        ("h.test", Destination("h.test")),
        ("h.test:submission", Destination("h.test", 587)),
        ("[h.test]", Destination("h.test", by_mx=False)),
        ("[192.0.2.1]:26", Destination("[192.0.2.1]", 26, by_mx=False)),
        ("[IPv6:2001:db8::1]", Destination("[IPv6:2001:db8::1]", by_mx=False)),
    ],
)
def test_next_hops_are_read(nexthop: str, hop: Destination) -> None:
    assert destination(nexthop) == hop


def test_without_dns_no_mx_is_asked_for() -> None:
    routing = Postfix(disable_dns_lookups="yes").routing("u@away.test")
    assert routing.with_hosts
    assert routing.routes[0].destinations == (Destination("away.test", by_mx=False),)
