"""The product's story against qmail, over HTTP: what is claimed is compared with the queue's files and qmail-send."""

from __future__ import annotations

import pytest

from tests.lab.config import OUTSIDER
from tests.lab.lab import Host, Lab
from tests.lab.qmail.control import SERVICE
from tests.lab.service import ENDED, Json, People, Person, Service, await_true

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
SPAMMER = "newsletter@sillyplace.test"
FRIEND = "friend@ok.test"
INSTANCE = "story-qm1/qmail"
FILES = "cd /var/qmail/queue && find . -type f -name '[1-9]*' -exec sha256sum {} + | sort -k 2"


@pytest.fixture(scope="module")
def people_of_qm1(lab: Lab, service: Service, people: People) -> tuple[Person, Person]:
    """Of the customer who owns the host, one who asks and one who agrees."""
    people.admin.post("customers/", {"slug": "qmail", "name": "qmail"})
    host = lab.host("qm1")
    credential = {"name": "lab-qmail", "customer": "qmail", "private_key": host.private_key}
    people.admin.post("credentials/", credential)
    persons = people.person("ines", "operator", "qmail"), people.person("jan", "approver", "qmail")
    people.admin.ended(people.register(host, "story-qm1", customer="qmail", credential="lab-qmail"))
    return persons


def agreed(persons: tuple[Person, Person], job: Json) -> Json:
    """The job, agreed to where the policy wants that, which has to succeed."""
    ines, jan = persons
    if job["state"] == "awaiting_approval":
        jan.approve(job)
    return ines.ended(ines.wait(job, 60, ENDED))


def test_qmails_mail_is_held_purged_and_blocked_and_all_of_it_undone(
    people_of_qm1: tuple[Person, Person], qm1: Host
) -> None:
    ines, _ = people_of_qm1

    def done(operation: str, **params: Json) -> Json:
        job = agreed(people_of_qm1, ines.job(operation, INSTANCE, **params))
        assert ": up " in qm1.sh(f"svstat {SERVICE}")
        return job

    def undone(job: Json) -> Json:
        return agreed(people_of_qm1, ines.undo(job))

    def queued() -> set[str]:
        return set(qm1.sh("/var/qmail/bin/qmail-qread | sed -n 's/.* #\\([0-9]*\\)  .*/\\1/p'").split())

    def knock(sender: str) -> str:
        tried = qm1.inject(sender=sender, recipients=("r@ok.test",), stop_at="rcpt", source=OUTSIDER)
        return (tried.errors or ["250"])[0]

    control = qm1.sh("ls /var/qmail/control -I '*.mxfleet-2*'")
    for sender, count in ((SPAMMER, 3), (FRIEND, 2)):
        assert qm1.inject(n=count, sender=sender, recipients=("r{i}@defer.test",)).accepted == count
    settled = 'test -z "$(find /var/qmail/queue/todo -type f)" && ! pgrep -x qmail-remote'
    await_true(lambda: len(queued()) == 5 and qm1.exec(settled).returncode == 0, 30, queued)
    spam = {entry["queue_id"] for entry in ines.entries(INSTANCE, f"from:{SPAMMER}")}
    friends = queued() - spam
    assert len(spam) == 3
    before = qm1.sh(FILES)

    held = done("queue.hold", match=f"from:{SPAMMER}")
    assert queued() == friends
    undone(held)
    assert qm1.sh(FILES) == before

    purged = done("queue.purge", match=f"from:{SPAMMER}")
    assert queued() == friends
    undone(purged)
    assert qm1.sh(FILES) == before

    assert knock(SPAMMER) == "250"
    blocked = done("sender.block", pattern=SPAMMER)
    assert knock(SPAMMER).startswith("553")
    assert knock(FRIEND) == "250"
    undone(blocked)
    assert knock(SPAMMER) == "250"
    assert qm1.sh("ls /var/qmail/control -I '*.mxfleet-2*'") == control

    done("queue.purge", match=f"from:{SPAMMER}", mode="delete")
    assert queued() == friends
