"""qmail-send's and qmail-remote's rules over control/."""

import pytest

from fleet.mta.errors import RemoteError, UnparsedOutput
from fleet.mta.qmail.routes import find_routes, parse_control, route
from fleet.mta.routes.probe import Route, Routing
from fleet.mta.routes.resolve import Destination
from fleet.mta.steps import Completed
from tests.unit.mail_network import Network, instance

CONTROL = b"""file me
line mx.test
line
file locals
line mx.test
line # a comment
line Home.test \t
file virtualdomains
line virt.test:joe
line .virt.test:sub
line not.virt.test:
line one@me.away.test:solo
file percenthack
line mx.test
file smtproutes
line away.test:[192.0.2.9]:2525
line .away.test:relay.test
line open.away.test:
line twice.test:first.test
line twice.test:last.test
end
"""


def found(recipient: str, control: bytes = CONTROL) -> Route:
    return route(parse_control(Completed(0, control)), recipient)


@pytest.mark.parametrize(
    ("recipient", "kind", "nexthop", "hops"),
    [
        ("u@MX.test", "local", "", ()),
        ("u@home.test", "local", "", ()),
        ("u@virt.test", "virtual", "joe", ()),
        ("u@deep.sub.virt.test", "virtual", "sub", ()),
        ("u@not.virt.test", "remote", "not.virt.test", (Destination("not.virt.test"),)),
        ("ONE@me.away.test", "virtual", "solo", ()),
        ("u@away.test", "remote", "[192.0.2.9]:2525", (Destination("[192.0.2.9]", 2525, by_mx=False),)),
        ("u@a.b.away.test", "remote", "relay.test", (Destination("relay.test", 25, by_mx=False),)),
        ("u@open.away.test", "remote", "open.away.test", (Destination("open.away.test"),)),
        ("u@twice.test", "remote", "last.test", (Destination("last.test", 25, by_mx=False),)),
        ("u%far.test@mx.test", "remote", "far.test", (Destination("far.test"),)),
        ("u%home.test@mx.test", "local", "", ()),
        ("u%x@other.test", "remote", "other.test", (Destination("other.test"),)),
    ],
)
def test_the_control_files_decide(recipient: str, kind: str, nexthop: str, hops: tuple[Destination, ...]) -> None:
    each = found(recipient)
    assert (each.kind, each.nexthop, each.destinations) == (kind, nexthop, hops)


def test_without_locals_me_is_the_only_local_domain() -> None:
    control = b"file me\nline mx.test\nend\n"
    assert found("u@mx.test", control).kind == "local"
    assert found("u@home.test", control).kind == "remote"
    assert found("u@home.test", b"file me\nline mx.test\nfile locals\nend\n").kind == "remote"
    assert found("u@mx.test", b"file me\nline mx.test\nfile locals\nend\n").kind == "remote"


def test_an_empty_key_is_for_everything_that_has_no_other() -> None:
    control = CONTROL.replace(b"line away.test:", b"line :out.test:587\nline away.test:")
    assert found("u@else.test", control).destinations == (Destination("out.test", 587, by_mx=False),)
    assert found("u@open.away.test", control).destinations == (Destination("open.away.test"),)
    everything = CONTROL.replace(b"line virt.test:joe", b"line :all")
    assert found("u@else.test", everything).nexthop == "all"


def test_the_way_through_the_files_is_told() -> None:
    assert found("u@deep.sub.virt.test").via == ("virtualdomains: .virt.test:sub",)
    assert found("u%away.test@mx.test").via == ("percenthack: mx.test", "smtproutes: away.test:[192.0.2.9]:2525")


def test_the_host_greets_as_helohost_or_me() -> None:
    def routing(control: bytes) -> Routing:
        network = Network({"qmail_control.sh": control})
        return network.drive(find_routes(instance("qmail", "/var/qmail/control"), "u@x.test", ""))

    assert routing(CONTROL).helo == "mx.test"
    assert routing(CONTROL.replace(b"end\n", b"file helohost\nline out.mx.test\nend\n")).helo == "out.mx.test"


def test_files_that_cannot_be_read_are_no_answer() -> None:
    with pytest.raises(RemoteError, match="control/locals"):
        found("u@x.test", b"file me\nline mx.test\nunreadable locals\nend\n")
    with pytest.raises(UnparsedOutput):
        found("u@x.test", b"file me\nline mx.test\n")
    with pytest.raises(UnparsedOutput):
        found("u@x.test", b"end\n")
