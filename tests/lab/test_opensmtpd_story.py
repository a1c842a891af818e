"""OpenSMTPD through the running service: what is claimed over HTTP is compared with what root sees on the host."""

from __future__ import annotations

import pytest

from tests.lab.lab import Lab
from tests.lab.service import Json, People, Service

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
SPAMMER = "newsletter@sillyplace.test"
NAME = "os2/opensmtpd"
SUMS = "cd /var/spool/smtpd/queue && find . -type f -exec sha256sum {} + | sort; stat -c '%n %U %a' $(find . | sort)"
PAUSED = "smtpctl show queue | awk -F '|' '$4 ~ /suspend/' | cut -c 1-8 | sort -u"


def test_mail_is_held_purged_and_its_sender_blocked_and_all_of_it_undone(
    lab: Lab, service: Service, people: People
) -> None:
    host = lab.host("os2")
    host.reset()
    lab.sink.reset()
    people.admin.ended(people.register(host, "os2"))

    def done(operation: str, **params: Json) -> Json:
        return people.alice.ended(people.changed(operation, NAME, **params))

    def undone(job: Json) -> None:
        undo = people.alice.undo(job)
        people.alice.ended(people.agreed(undo) if undo["state"] == "awaiting_approval" else undo)

    def knock() -> str:
        return (host.inject(sender=SPAMMER, recipients=("r@ok.test",), stop_at="rcpt").errors or ["250"])[0]

    config = host.sh("sha256sum /etc/smtpd.conf; ls /etc | grep -x mxfleet_senders; true")
    assert knock() == "250"
    blocked = done("sender.block", pattern=SPAMMER)
    assert knock().startswith("550 Invalid recipient")
    undone(blocked)
    assert knock() == "250"
    assert host.sh("sha256sum /etc/smtpd.conf; ls /etc | grep -x mxfleet_senders; true") == config

    assert host.inject(n=3, sender=SPAMMER, recipients=("r{i}@defer.test",)).accepted == 3
    assert host.inject(n=1, sender="friend@ok.test", recipients=("f@defer.test",)).accepted == 1
    host.sh("for i in $(seq 300); do [ $(smtpctl show queue | grep -c '451 4') -ne 4 ] || break; sleep 0.2; done")
    queued = set(host.sh("smtpctl show queue | cut -c 1-8").split())
    spam = set(host.sh(f"smtpctl show queue | grep -F {SPAMMER} | cut -c 1-8").split())
    theirs = min(spam)
    host.sh(f"smtpctl pause envelope {theirs}")
    held = done("queue.hold", match=f"from:{SPAMMER}")
    assert set(host.sh(PAUSED).split()) == spam
    undone(held)
    assert host.sh(PAUSED).split() == [theirs]
    before = host.sh(SUMS)
    purged = done("queue.purge", match=f"from:{SPAMMER}")
    assert set(host.sh("smtpctl show queue | cut -c 1-8").split()) == queued - spam
    undone(purged)
    assert host.sh(SUMS) == before
    assert host.sh(PAUSED).split() == [theirs]
    done("queue.purge", match=f"from:{SPAMMER}", mode="delete")
    assert host.sh("find /var/spool/smtpd -name message | wc -l") == "1\n"
