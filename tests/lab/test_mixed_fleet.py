"""One job over five MTAs: a sender is blocked and his mail purged everywhere, each proven, then both undone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.lab.config import OUTSIDER
from tests.lab.lab import Host, Lab
from tests.lab.service import ENDED, Json, People, Service, await_true

pytestmark = pytest.mark.lab
SPAMMER = "newsletter@sillyplace.test"
BYSTANDER = "friend@ok.test"
SPAM, OTHER = 3, 2
ACCESS_MAP = "makemap -u hash /etc/mail/access | sort"
MIXED = {"labels": {"fleet": ["mixed"]}}


@dataclass(frozen=True)
class Eyes:
    """How root looks at an MTA without us: which files are its queue, and which its configuration."""

    instance: str
    queue: str
    config: str


EYES = {
    "pf2": Eyes("postfix", "/var/spool/postfix/deferred /var/spool/postfix/hold", "/etc/postfix"),
    "sm2": Eyes("sendmail", "/var/spool/mqueue/q?", "/etc/mail"),
    "qm1": Eyes("qmail", "/var/qmail/queue/mess /var/qmail/queue/info /var/qmail/queue/remote", "/var/qmail/control"),
    "ex1": Eyes("exim", "/var/spool/exim4/input", "/etc/exim4"),
    "os1": Eyes("opensmtpd", "/var/spool/smtpd/queue", "/etc/smtpd.conf /etc/mail"),
}


class Fleet:
    """The hosts, and two people of the customer who owns them: erin asks, frank agrees."""

    def __init__(self, lab: Lab, people: People) -> None:
        self.hosts = {name: lab.host(name) for name in EYES}
        self.erin = people.person("erin", "operator", "blend")
        self.frank = people.person("frank", "approver", "blend")

    @property
    def instances(self) -> set[str]:
        return {f"mixed-{name}/{eyes.instance}" for name, eyes in EYES.items()}

    def agreed(self, job: Json) -> Json:
        """The job, agreed to where the policy wants that, ended."""
        if job["state"] == "awaiting_approval":
            self.frank.approve(job)
        return self.erin.wait(job, 150, ENDED)

    def plans(self, job: Json) -> dict[str, Json]:
        return {row["instance"]: row for row in self.erin.get(f"jobs/{job['id']}/plan/")["instances"]}

    def queues(self) -> dict[str, str]:
        return {name: _digests(host, EYES[name].queue) for name, host in self.hosts.items()}

    def configs(self) -> dict[str, str]:
        return {name: _digests(host, EYES[name].config) for name, host in self.hosts.items()}

    def knock(self, sender: str) -> dict[str, str]:
        """What a stranger hears at each host who says MAIL FROM and RCPT."""
        heard = {}
        for name, host in self.hosts.items():
            tried = host.inject(sender=sender, recipients=("r@ok.test",), stop_at="rcpt", source=OUTSIDER)
            heard[name] = (tried.errors or ["250"])[0]
        return heard


def _digests(host: Host, places: str) -> str:
    """SHA-256 of every file, without locks, our backups and Sendmail's built map, whose source is among them."""
    kept = "! -name '*mxfleet-2*' ! -name '*lock*' ! -name access.db"
    return host.sh(f"find {places} -type f {kept} -exec sha256sum {{}} + | sort -k 2")


@pytest.fixture(scope="module")
def fleet(lab: Lab, service: Service, people: People) -> Fleet:
    """Five hosts freshly started, with the spammer's mail and a bystander's in each queue."""
    lab.reset(*EYES)
    lab.sink.reset()
    people.admin.post("customers/", {"slug": "blend", "name": "blend"})
    key = lab.host("pf2").private_key
    people.admin.post("credentials/", {"name": "lab-blend", "customer": "blend", "private_key": key})
    for name in EYES:
        fields = {"customer": "blend", "credential": "lab-blend", "labels": {"fleet": "mixed"}}
        people.admin.ended(people.register(lab.host(name), f"mixed-{name}", **fields))
    found = Fleet(lab, people)
    for host in found.hosts.values():
        for sender, count in ((SPAMMER, SPAM), (BYSTANDER, OTHER)):
            assert host.inject(n=count, sender=sender, recipients=("r{i}@defer.test",)).accepted == count
    await_true(lambda: _settled(found), 90, "not all are deferred", 1)
    return found


def _settled(fleet: Fleet) -> bool:
    job = fleet.erin.ended(fleet.erin.job("queue.list", MIXED))
    states = [[row["state"] for row in run["result"]["entries"]] for run in fleet.erin.runs(job)]
    return all(found == ["deferred"] * (SPAM + OTHER) for found in states)


@pytest.mark.timeout(400)
def test_one_job_blocks_and_one_purges_over_five_mtas_and_both_are_undone(fleet: Fleet) -> None:
    queues, configs = fleet.queues(), fleet.configs()
    access_map = fleet.hosts["sm2"].sh(ACCESS_MAP)
    assert fleet.knock(SPAMMER) == dict.fromkeys(EYES, "250")

    block = fleet.erin.job("sender.block", MIXED, pattern=SPAMMER)
    plans = fleet.plans(block)
    assert plans.keys() == fleet.instances
    silent = {
        name: plan["notes"] for name, plan in plans.items() if not any("extension" in each for each in plan["notes"])
    }
    assert silent == {}, "each says whether addresses with an extension are meant"
    assert fleet.configs() == configs
    fleet.erin.ended(fleet.agreed(block))
    assert {run["instance"]: run["state"] for run in fleet.erin.runs(block)} == dict.fromkeys(
        fleet.instances, "succeeded"
    )
    for name, heard in fleet.knock(SPAMMER).items():
        assert heard.startswith("55"), (name, heard)
    assert fleet.knock(BYSTANDER) == dict.fromkeys(EYES, "250")

    purge = fleet.agreed(fleet.erin.job("queue.purge", MIXED, match=f"from:{SPAMMER}"))
    fleet.erin.ended(purge)
    assert [run["result"]["done"] for run in fleet.erin.runs(purge)] == [SPAM] * len(EYES)
    listed = fleet.erin.runs(fleet.erin.job("queue.list", MIXED))
    assert [{row["sender"] for row in run["result"]["entries"]} for run in listed] == [{BYSTANDER}] * len(EYES)

    undone = fleet.agreed(fleet.erin.undo(block, 150))
    fleet.erin.ended(undone)
    assert fleet.knock(SPAMMER) == dict.fromkeys(EYES, "250")
    assert fleet.configs() == configs
    assert fleet.hosts["sm2"].sh(ACCESS_MAP) == access_map
    fleet.erin.ended(fleet.agreed(fleet.erin.undo(purge, 150)))
    assert fleet.queues() == queues
    listed = fleet.erin.runs(fleet.erin.job("queue.list", MIXED))
    assert [run["result"]["total"] for run in listed] == [SPAM + OTHER] * len(EYES)


def test_a_trace_over_the_fleet_tells_who_was_written_to(fleet: Fleet) -> None:
    job = fleet.erin.ended(fleet.erin.job("message.trace", MIXED, since="1h", **{"from": BYSTANDER}))
    for run in fleet.erin.runs(job):
        rows = [row for row in run["result"]["rows"] if row["status"] == "deferred"]
        assert {row["recipient"] for row in rows} == {f"r{number}@defer.test" for number in range(1, OTHER + 1)}, run
