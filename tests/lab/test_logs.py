"""log.search and message.trace on real hosts of every MTA: what became of mail, told by each log in the same words."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from fleet.mta.adapter import adapter_for
from fleet.mta.host.discovery import discover_host
from fleet.mta.operations import LogSearch, MessageTrace, Operation
from fleet.mta.records import Context, InstanceFacts
from fleet.mta.steps import Steps
from fleet.ssh.endpoint import AddressPolicy, Endpoint
from fleet.ssh.engine import Engine, Request
from tests.lab.config import OUTSIDER
from tests.lab.lab import Host, Lab
from tests.lab.service import People, asked, await_true

pytestmark = pytest.mark.lab

HOSTS = ("pf1", "pf2", "pf3", "sm1", "sm2", "ex1", "ex3", "os1", "os2", "qm1")
RECIPIENTS = {"ok1@ok.test": "sent", "ok2@ok2.test": "sent", "d@defer.test": "deferred", "x@reject.test": "bounced"}
TOTALS = {"sent": 2, "deferred": 1, "bounced": 1, "rejected": 0}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    found = Engine(AddressPolicy())
    yield found
    found.close()


class Remote:
    """The instance of a host that listens on its address, through the product's SSH."""

    def __init__(self, engine: Engine, host: Host) -> None:
        self.engine = engine
        self.host = host
        key = host.private_key.encode()
        self.endpoint = Endpoint(host.name, host.address, 22, host.user, key, host_key=host.host_key, become="sudo")
        _, found = self.carry(lambda: discover_host(host.name, time.time))
        self.instance: InstanceFacts = found[-1] if host.name == "pf1" else found[0]

    def carry(self, steps: Callable[[], Steps[Any]]) -> Any:
        [[found]] = list(self.engine.outcomes([Request("one", self.endpoint, steps, False, 120)]))
        if found.error is not None:
            raise found.error
        return found.value

    def do(self, operation: Operation) -> dict[str, Any]:
        adapter = adapter_for(self.instance.mta)
        method = getattr(adapter, operation.name.replace(".", "_"))
        context = Context(now=time.time(), job="job-1")
        data: dict[str, Any] = self.carry(lambda: method(self.instance, operation, context)).data
        return data

    def outcomes(self, operation: MessageTrace) -> dict[str, str]:
        return {row["recipient"]: row["status"] for row in self.do(operation)["rows"]}


@pytest.fixture
def remote(request: pytest.FixtureRequest, lab: Lab, engine: Engine) -> Remote:
    lab.sink.reset()
    return Remote(engine, lab.host(request.param))


def unique(name: str) -> str:
    return f"{name}{time.time_ns()}@bulk.example"


@pytest.mark.parametrize("remote", HOSTS, indirect=True)
def test_a_message_is_traced_to_each_of_its_recipients(remote: Remote) -> None:
    sender = unique("Trace")
    trace = MessageTrace(sender=sender.lower())
    assert remote.host.inject(sender=sender, recipients=tuple(RECIPIENTS)).accepted == 1
    await_true(lambda: remote.outcomes(trace) == RECIPIENTS, 20, lambda: str(remote.do(trace)))
    data = remote.do(trace)
    assert {name: data["totals"][name] for name in TOTALS} == TOTALS
    assert abs(data["rows"][-1]["time"] - time.time()) < 60
    assert {row["client"] != "" for row in data["rows"]} == {True}
    assert any(message["recipients"] == ["ok1@ok.test"] for message in Lab().sink.messages())

    found = remote.do(LogSearch(contains=data["rows"][0]["queue_id"]))
    assert found["matched"] >= len(RECIPIENTS)


@pytest.mark.parametrize("remote", HOSTS, indirect=True)
def test_mail_that_is_refused_is_traced(remote: Remote) -> None:
    recipient = unique("nobody").replace("bulk.example", "nowhere.test")
    assert remote.host.inject(sender="evil@bulk.example", recipients=(recipient,), source=OUTSIDER).refused == 1
    trace = MessageTrace(recipient=recipient)
    await_true(lambda: remote.outcomes(trace) == {recipient: "rejected"}, 10, lambda: str(remote.do(trace)))
    [row] = remote.do(trace)["rows"]
    assert OUTSIDER in row["client"]
    assert row["sender"] in ("evil@bulk.example", None)
    assert row["reply"]


# As logrotate does it, far more often: rename, start anew, pack the old one.
ROTATE = """
cd /var/log
cat > rot.log
cat > rotate.sh <<'EOF'
for n in 1 2 3 4 5 6; do
    mv rot.log rot.log.$n
    : > rot.log
    gzip rot.log.$n
    sleep 0.3
    zcat rot.log.1.gz | head -n 500 >> rot.log
done
EOF
setsid sh rotate.sh > /dev/null 2>&1 < /dev/null &
"""
BIG = """
awk -v "t=$(date +%Y-%m-%dT%H:%M:%S%:z) pf2 postfix/" 'BEGIN { for (i = 0; i < 250000; i++) {
    id = t "PROGRAM[1]: " sprintf("%011X", 1000000000 + i) ": "
    say("smtpd", "client=a[192.0.2.1]")
    say("qmgr", "from=<" (i % 1000 ? "user" i : "wanted") "@dom.test>, size=1, nrcpt=1 (queue active)")
    say("smtp", "to=<r@b.test>, relay=b[192.0.2.2]:25, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (250 ok)")
    say("qmgr", "removed")
} }
function say(program, text,    line) { line = id; sub("PROGRAM", program, line); print line text }' |
    gzip -1 > /var/log/big.log.1.gz
: > /var/log/big.log
"""
BARE = "zcat /var/log/big.log.1.gz | grep -aiF wanted@dom.test | wc -l; zcat /var/log/big.log.1.gz | grep -caF 3B9ACA"


@pytest.mark.parametrize("remote", ["pf2"], indirect=True)
def test_no_line_is_lost_while_the_log_is_rotated_again_and_again(remote: Remote) -> None:
    stamp = datetime.now(UTC).isoformat()
    remote.instance.options["log_source"] = "/var/log/rot.log"
    lines = "".join(f"{stamp} pf2 x[1]: needle {number}\n" for number in range(4000))
    assert remote.host.exec(ROTATE, stdin=lines).returncode == 0
    results = [remote.do(LogSearch(contains="needle")) for _ in range(8)]
    seen = [data["matched"] for data in results if not data["notes"]]
    assert seen == sorted(seen)
    assert all(4000 <= matched <= 7000 for matched in seen)
    await_true(
        lambda: remote.do(LogSearch(contains="needle"))["matched"] == 7000, 20, lambda: f"lines were lost: {seen}"
    )


@pytest.mark.parametrize("remote", ["pf2"], indirect=True)
def test_a_million_packed_lines_are_traced_about_as_fast_as_two_zgreps(remote: Remote) -> None:
    remote.host.sh(BIG)
    remote.instance.options["log_source"] = "/var/log/big.log"
    began = time.monotonic()
    remote.host.sh(BARE)
    bare = time.monotonic() - began
    began = time.monotonic()
    data = remote.do(MessageTrace(sender="wanted@dom.test"))
    seconds = time.monotonic() - began
    assert (data["matched"], data["totals"]["sent"]) == (250, 250)
    assert seconds < 3 * bare + 1, f"{seconds:.1f} s against {bare:.1f} s"


def test_who_received_mail_from_a_sender_is_one_job_over_the_fleet(people: People, lab: Lab) -> None:
    sender = unique("everywhere")
    hosts = [lab.host(name) for name in ("pf1", "pf2", "pf3")]
    for host in hosts:
        assert host.inject(sender=sender, recipients=(f"{host.name}@ok.test", f"{host.name}@reject.test")).accepted == 1
    expected = {
        (f"{host.name}@{domain}.test", status)
        for host in hosts
        for domain, status in (("ok", "sent"), ("reject", "bounced"))
    }

    def told() -> list[dict[str, Any]]:
        job = people.alice.job("message.trace", {"mta": ["postfix"]}, **{"from": sender, "since": "1h"})
        return [run["result"] for run in people.alice.runs(people.alice.ended(job))]

    await_true(
        lambda: {(row["recipient"], row["status"]) for each in told() for row in each["rows"]} == expected, 20, told
    )
    results = told()
    assert len(results) == 4  # pf1 has two instances
    assert sum(each["totals"]["sent"] for each in results) == 3
    assert sum(each["matched"] for each in results) == 6
    times = [datetime.fromisoformat(row["time"]) for each in results for row in each["rows"]]
    assert all(abs(moment.timestamp() - time.time()) < 60 for moment in times)
    refused = people.alice.ask("POST", "jobs/", asked("message.trace", {"mta": ["postfix"]}, {"since": "1h"}))
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "required")
