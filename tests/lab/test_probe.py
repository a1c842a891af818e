"""address.test and smtp.probe on real hosts, over the product's own SSH, against the lab's DNS and sink."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fleet.mta.adapter import adapter_for, method_for
from fleet.mta.operations import AddressTest, Operation, SmtpProbe
from fleet.mta.records import Context, HostFacts, InstanceFacts, Result
from fleet.mta.steps import Steps
from fleet.ssh.endpoint import AddressPolicy, Endpoint
from fleet.ssh.engine import Engine, Request
from tests.lab.config import SINKS
from tests.lab.lab import Host, Lab

pytestmark = pytest.mark.lab
HOSTS = {"pf1": "postfix", "sm1": "sendmail", "qm1": "qmail", "ex1": "exim", "os1": "opensmtpd"}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    found = Engine(AddressPolicy())
    yield found
    found.close()


class Remote:
    """An instance of a host, through the product's SSH."""

    def __init__(self, engine: Engine, host: Host) -> None:
        self.engine = engine
        key = host.private_key.encode()
        self.endpoint = Endpoint(host.name, host.address, 22, host.user, key, host_key=host.host_key, become="sudo")
        self.adapter = adapter_for(HOSTS[host.name])
        facts = HostFacts(has_sudo=True)
        found: tuple[InstanceFacts, ...] = self.carry(lambda: self.adapter.discover(facts, host.name))
        self.instance = next((each for each in found if each.name == "postfixEXT"), found[0])

    def carry(self, steps: Callable[[], Steps[Any]]) -> Any:
        [[found]] = list(self.engine.outcomes([Request("one", self.endpoint, steps, False, 120)]))
        if found.error is not None:
            raise found.error
        return found.value

    def routes(self, address: str) -> list[dict[str, Any]]:
        return self._done(AddressTest(address))["routes"]

    def probe(self, sender: str, recipient: str) -> dict[str, Any]:
        return self._done(SmtpProbe(sender, recipient))

    def _done(self, operation: Operation) -> dict[str, Any]:
        method = method_for(self.adapter, operation.name)
        assert method is not None
        result: Result = self.carry(lambda: method(self.instance, operation, Context(now=time.time())))
        return result.data


@pytest.fixture(params=HOSTS)
def remote(request: pytest.FixtureRequest, lab: Lab, engine: Engine) -> Remote:
    lab.sink.reset()
    return Remote(engine, lab.host(request.param))


def test_a_domains_mx_is_found_as_the_host_resolves_it(remote: Remote) -> None:
    for address in ("r@ok.test", "-d+x@ok.test", '"q b"@OK.test'):
        [route] = remote.routes(address)
        assert route["class"] in ("relay", "remote")
        assert route["resolution"] == "mx"
        [host] = route["hosts"]
        assert host == {"name": "mx.ok.test", "preference": 10, "addresses": [SINKS["ok.test"]], "port": 25}


def test_a_name_that_does_not_exist_is_said_to_be_none(remote: Remote) -> None:
    [route] = remote.routes("x@nowhere.example")
    assert (route["resolution"], route["hosts"]) in (("nxdomain", []), ("none", []))
    assert route["resolution"] == "nxdomain" or "Unrouteable" in route["detail"]


def test_what_the_next_hop_answers_is_the_verdict_and_nothing_is_sent(remote: Remote, lab: Lab) -> None:
    verdicts = {"ok.test": "accepted", "defer.test": "deferred", "reject.test": "refused"}
    for domain, verdict in verdicts.items():
        said = remote.probe("<>", f"r@{domain}")
        assert said["verdict"] == verdict, said
        assert said["attempts"] == [{"host": f"mx.{domain}", "address": SINKS[domain], "port": 25, "error": ""}]
        assert [turn["sent"].split()[:1] for turn in said["dialogue"]] == [
            [], ["EHLO"], ["MAIL"], ["RCPT"], ["RSET"], ["QUIT"],
        ]  # fmt: skip
    assert lab.sink.messages() == []


def test_an_own_address_is_asked_of_nobody(remote: Remote) -> None:
    if remote.instance.name == "postfixEXT":
        return
    name = remote.endpoint.name
    said = remote.probe("a@b.test", f"root@{name}.lab.test")
    assert (said["verdict"], said["attempts"]) == ("not_remote", [])
    assert said["route"]["class"] == "local"


TABLES = r"""
cd /etc/postfixEXT
printf 'list@ok.test a@ok.test, b@other.test\n' > virtual
printf 'ok2.test smtp:[mx.other.test]:25\ndead.example error:5.1.2 gone\n' > transport
chmod 600 virtual transport
postmap hash:/etc/postfixEXT/virtual hash:/etc/postfixEXT/transport
postconf -c /etc/postfixEXT -e virtual_alias_maps=hash:/etc/postfixEXT/virtual \
    transport_maps=hash:/etc/postfixEXT/transport
touch -d '1 minute ago' main.cf
postfix -c /etc/postfixEXT reload
"""


def test_what_postfix_delivers_is_what_was_said(pf1: Host, lab: Lab, engine: Engine) -> None:
    pf1.sh(TABLES)
    remote = Remote(engine, pf1)
    routes = remote.routes("list+ext@ok.test")
    assert [route["recipient"] for route in routes] == ["a+ext@ok.test", "b+ext@other.test"]
    [moved] = remote.routes("r@ok2.test")
    assert moved["hosts"][0]["addresses"] == [SINKS["other.test"]]
    assert remote.routes("r@dead.example")[0]["class"] == "undeliverable"
    pf1.inject(recipients=("list+ext@ok.test",))
    arrived = {to for message in lab.sink.wait(2) for to in message["recipients"]}
    assert arrived == {route["recipient"] for route in routes}
