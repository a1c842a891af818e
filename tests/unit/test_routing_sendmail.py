"""What `sendmail -bv` and address test mode say, as seen on 8.17."""

import pytest

from fleet.mta.errors import UnparsedOutput
from fleet.mta.routes.probe import Routing
from fleet.mta.routes.resolve import Destination
from fleet.mta.sendmail.routes import find_routes, parse_answer
from fleet.mta.steps import Completed
from tests.unit.mail_network import Network, instance

SENDMAIL = instance(
    "sendmail", "/etc/mail", program="/usr/sbin/sendmail", config_file="/etc/mail/x.cf", relay_domains=["relay.test"]
)
MAILERS = """test ADDRESS TEST MODE (ruleset 3 NOT automatically invoked)
test Enter <ruleset> <address>
test > mailer 0 (prog): P=/bin/sh S=EnvFromL/HdrFromL R=EnvToL/HdrToL M=0 U=-1:-1 F=9D L=0 E=\\n T=X/X/X r=9 A=sh
test mailer 3 (local): P=/usr/sbin/sensible-mda S=a/b R=c/d M=0 U=-1:-1 F=/59 L=0 E=\\n T=DNS/RFC822/X-Unix r=100 A=mda
test mailer 5 (esmtp): P=[IPC] S=a/b R=c/d M=0 U=-1:-1 F=DFM L=990 E=\\r\\n T=DNS/RFC822/SMTP r=100 A=TCP $h
test mailer 8 (relay): P=[IPC] S=a/b R=c/d M=0 U=-1:-1 F=8DFM L=2040 E=\\r\\n T=DNS/RFC822/SMTP r=100 A=TCP $h 587
test > sm1.test
test > getmxrr(ok.test.) returns 2 value(s):
test \tmx.ok.test.
test \tmx2.ok.test.
test >\x20
end
"""


def routing(*verified: str) -> Routing:
    text = "".join(f"verify {line}\n" for line in verified) + MAILERS
    network = Network({"sendmail_route.sh": text.encode()})
    found = network.drive(find_routes(SENDMAIL, "r@ok.test", ""))
    assert network.sent[0].argv == ("/usr/sbin/sendmail", "/etc/mail/x.cf")
    assert network.sent[0].stdin == b"r@ok.test\n"
    return found


def test_a_remote_recipient_names_mailer_and_host() -> None:
    found = routing("r@ok.test... deliverable: mailer esmtp, host ok.test., user r@ok.test")
    [route] = found.routes
    assert (route.kind, route.transport, route.nexthop) == ("remote", "esmtp", "ok.test.")
    assert route.destinations == (Destination("ok.test", fallback=("mx.ok.test.", "mx2.ok.test.")),)
    assert (found.helo, found.with_hosts) == ("sm1.test", True)


def test_a_smart_host_is_taken_without_mx_and_with_its_mailers_port() -> None:
    [route] = routing("r@x.test... deliverable: mailer relay, host [out.test], user r@x.test").routes
    assert route.destinations == (Destination("out.test", 587, by_mx=False),)
    [route] = routing("r@x.test... deliverable: mailer relay, host [192.0.2.1]:b.test, user r@x.test").routes
    assert [each.host for each in route.destinations] == ["[192.0.2.1]", "b.test"]


def test_local_mail_and_what_sendmail_refuses() -> None:
    found = routing(
        "list@sm1.test... deliverable: mailer local, user root",
        "nosuch@sm1.test... User unknown",
        "x@down.test... Transient parse error -- message queued for future delivery",
        "y@relay.test... deliverable: mailer esmtp, host relay.test., user y@relay.test",
    )
    assert [route.kind for route in found.routes] == ["local", "undeliverable", "deferred", "relay"]
    assert found.routes[0].via == ("list@sm1.test -> root",)
    assert found.routes[1].detail == "User unknown"


def test_a_quoted_recipient_keeps_its_quotes() -> None:
    [route] = routing('"q, b"@ok.test... deliverable: mailer esmtp, host ok.test., user "q, b"@ok.test').routes
    assert route.recipient == '"q, b"@ok.test'


def test_an_answer_without_verdict_or_end_is_refused() -> None:
    with pytest.raises(UnparsedOutput):
        routing("can not chdir(/var/spool/mqueue/): Permission denied")
    with pytest.raises(UnparsedOutput):
        parse_answer(Completed(0, b"verify r@ok.test... deliverable: mailer esmtp, host ok.test., user r@ok.test\n"))
    with pytest.raises(UnparsedOutput):
        parse_answer(Completed(0, b"verify r@ok.test... User unknown\nend\n"))
