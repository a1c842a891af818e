"""message.deliver and message.trace on a real Exim that logs all it can, in a time zone of its own."""

import time

import pytest

from fleet.mta.operations import MessageDeliver, MessageTrace
from fleet.ssh.engine import Engine
from tests.lab.lab import Host
from tests.lab.test_exim_queue import Remote, engine

__all__ = ["engine"]
pytestmark = pytest.mark.lab
TOLD = """
cat >> /etc/exim4/conf.d/main/00_local <<EOF
MAIN_LOG_SELECTOR = +all
timezone = Asia/Tokyo
EOF
cat >> /etc/aliases <<EOF
team: joe@ok.test, ann@reject.test
trash: :blackhole:
EOF
update-exim4.conf
for try in $(seq 400); do ! grep -q 'End queue run' /var/log/exim4/mainlog || exit 0; sleep 0.1; done
exit 1
"""
"""For every Exim that starts from now on, and the daemon's first queue run is over, which would deliver what is only
queued. The daemon takes no part: told to read its configuration it would begin another run."""


@pytest.fixture
def remote(ex1: Host, engine: Engine) -> Remote:
    ex1.sh(TOLD)
    return Remote(engine, ex1)


def deliver(remote: Remote, recipient: str) -> dict[str, object]:
    sent = f"printf 'Subject: \"a\" R=x\\n\\nx\\n' | exim4 -odq -f news@bulk.example {recipient}@ex1.lab.test"
    remote.host.sh(sent)
    [queue_id] = remote.await_states("queued", 1)
    data: dict[str, object] = remote.do("message_deliver", MessageDeliver(queue_id)).data
    return data


def test_an_alias_that_bounced_in_part_and_what_was_thrown_away_are_told_as_they_were(remote: Remote) -> None:
    begun = time.time()
    assert remote.instance.options["log_zone"] == "Asia/Tokyo"
    data = deliver(remote, "team")
    assert data["outcome"] == "bounced"
    assert deliver(remote, "trash")["outcome"] == "discarded"
    traced = remote.do("message_trace", MessageTrace(sender="news@bulk.example")).data
    assert {(row["recipient"], row["orig_to"], row["status"]) for row in traced["rows"]} >= {
        ("joe@ok.test", "team@ex1.lab.test", "sent"),
        ("ann@reject.test", "team@ex1.lab.test", "bounced"),
        ("trash@ex1.lab.test", "", "discarded"),
    }
    assert all(begun - 5 < row["time"] < time.time() + 5 for row in traced["rows"])
