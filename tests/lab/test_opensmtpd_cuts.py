"""What OpenSMTPD's scripts leave behind when they are cut off anywhere, and who may lead them astray."""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from fleet.mta.errors import FleetError
from fleet.mta.host.commands import sudoers_section
from fleet.mta.host.discovery import discover_host
from fleet.mta.operations import (
    MessageDeliver,
    MessageShow,
    QuarantineRestore,
    QueueHold,
    QueuePurge,
    QueueRelease,
    Selection,
)
from fleet.mta.records import Context
from fleet.ssh.engine import Engine
from fleet.ssh.quoting import SCRIPTS
from tests.lab.lab import Host, Lab
from tests.lab.test_opensmtpd_queue import OPENSMTPD, SPOOL, Remote, by_match, engine, items

__all__ = ["engine"]

pytestmark = pytest.mark.lab
HELPERS = "/usr/local/libexec/mxfleet"

# smtpctl, but its call number N of WORD, or one beside it, first ends all that holds the lock: the script, and the
# guard as well, as when the machine goes down.
CUTTER = r"""#!/bin/sh
what=$(cat /root/cut)
if [ "$1" = "${what% *}" ]; then
    echo >>/root/calls
    if [ "$(wc -l </root/calls)" -ge "${what#* }" ]; then
        find /proc/[0-9]*/fd -lname '*/mxfleet-quarantine/lock' 2>/dev/null | cut -d / -f 3 | sort -u |
            grep -vx $$ | xargs -r kill -KILL 2>/dev/null
        kill -KILL $$
    fi
fi
exec /usr/sbin/smtpctl "$@"
"""
# smtpctl, but its "remove" only says so, as when smtpd is slow to remove the files.
PROMISER = r"""#!/bin/sh
[ "$1" != remove ] || { echo "1 envelope removed"; exit; }
exec /usr/sbin/smtpctl "$@"
"""
# smtpctl, but its call number N of "show" leaves an envelope out, as if it had been delivered meanwhile.
DROPPER = r"""#!/bin/sh
if [ "$1" = show ]; then
    echo >>/root/calls
    if [ "$(wc -l </root/calls)" -eq "$(cat /root/cut)" ]; then
        /usr/sbin/smtpctl "$@" | sed 1d
        exit
    fi
fi
exec /usr/sbin/smtpctl "$@"
"""


@pytest.fixture
def remote(engine: Engine, lab: Lab) -> Iterator[Remote]:
    host = lab.host("os2")
    host.reset()
    lab.sink.reset()
    yield Remote(engine, host, lab)
    host.sh("rm -f /root/smtpctl /root/cut /root/calls")


def with_program(remote: Remote, text: str, cut: str) -> None:
    """The scripts call this program for smtpctl from now on."""
    remote.host.exec("cat > /root/smtpctl && chmod 755 /root/smtpctl", stdin=text)
    remote.host.sh(f"echo {cut} > /root/cut; : > /root/calls")
    remote.instance = replace(remote.instance, options={**remote.instance.options, "program": "/root/smtpctl"})


def without_program(remote: Remote) -> None:
    remote.instance = replace(remote.instance, options={**remote.instance.options, "program": "/usr/sbin/smtpctl"})


def read_back(remote: Remote, operation: Any, frozen: Any) -> Any:
    context = Context(now=time.time(), job="job-1", frozen=frozen)
    return remote.carry(lambda: OPENSMTPD.read_back(remote.instance, operation, context))


def in_queue(remote: Remote) -> set[str]:
    """What smtpd knows of, each with its message file in the queue."""
    known = {line[:8] for line in remote.smtpctl("show queue").splitlines()}
    whole = set(remote.host.sh(f"find {SPOOL}/queue -name message | sed 's,/message$,,; s,.*/,,'").split())
    assert known == whole
    return known


@pytest.mark.parametrize("cut", ["show 3", "show 4", "remove 1", "remove 2"])
@pytest.mark.parametrize("mode", ["quarantine", "delete"])
def test_a_purge_that_dies_with_its_guard_is_settled_when_it_is_read_back(remote: Remote, cut: str, mode: str) -> None:
    remote.inject(3, sender="n{i}@bulk.example", recipients=["r{i}@defer.test"], connections=1)
    names = set(remote.await_state("ALL", "deferred", 3))
    purge = QueuePurge(by_match("ALL"), mode=mode)
    frozen = remote.plan("queue_purge", purge).selected
    with_program(remote, CUTTER, cut)
    with pytest.raises(FleetError):
        remote.do("queue_purge", purge, frozen=frozen)
    without_program(remote)
    seen = read_back(remote, purge, frozen)
    left = {each.queue_id for each in seen.messages if each.outcome == "left"}
    assert left == in_queue(remote)
    assert set(seen.data["places"]) == (names - left if mode == "quarantine" else set())
    there = remote.host.sh(f"find {SPOOL}/mxfleet-quarantine -name message").split()
    assert sorted(there) == sorted(f"{place}/message" for place in seen.data["places"].values())
    again = remote.do("queue_purge", purge)
    assert (again.data["done"], in_queue(remote)) == (len(left), set())


@pytest.mark.parametrize("mode", ["quarantine", "delete"])
def test_what_smtpd_has_yet_to_remove_is_not_told_as_left(remote: Remote, mode: str) -> None:
    remote.inject(2, sender="n{i}@bulk.example", recipients=["r{i}@defer.test"], connections=1)
    remote.await_state("ALL", "deferred", 2)
    purge = QueuePurge(by_match("ALL"), mode=mode)
    frozen = remote.plan("queue_purge", purge).selected
    with_program(remote, CUTTER, "remove 1")
    with pytest.raises(FleetError):
        remote.do("queue_purge", purge, frozen=frozen)
    with_program(remote, PROMISER, "-")
    with pytest.raises(FleetError) as caught:
        read_back(remote, purge, frozen)
    assert "smtpd has not removed" in caught.value.data["stderr"]
    without_program(remote)
    seen = read_back(remote, purge, frozen)
    assert {each.outcome for each in seen.messages} == {"done" if mode == "quarantine" else "left_queue"}
    assert in_queue(remote) == set()


@pytest.mark.parametrize("cut", ["discover 1", "discover 2", "pause 1", "pause 2", "schedule 1"])
def test_a_restore_that_dies_with_its_guard_is_settled_when_it_is_read_back(remote: Remote, cut: str) -> None:
    remote.inject(2, sender="n{i}@bulk.example", recipients=["a{i}@defer.test", "b{i}@defer.test"], connections=1)
    remote.inject(sender="free@bulk.example", recipients=["r@defer.test"])
    remote.await_state("ALL", "deferred", 3)
    assert remote.do("queue_hold", QueueHold(by_match("-from:free@bulk.example"))).data["done"] == 2
    entries = {entry["queue_id"]: entry for entry in remote.queue()}
    purged = remote.do("queue_purge", QueuePurge(by_match("ALL")))
    restore = QuarantineRestore(items(purged, entries))
    with_program(remote, CUTTER, cut)
    with pytest.raises(FleetError):
        remote.do("quarantine_restore", restore)
    without_program(remote)
    seen = read_back(remote, restore, None)
    outcomes = {each.queue_id: each.outcome for each in seen.messages}
    assert set(outcomes.values()) <= {"done", "left"}
    assert "done" in outcomes.values()
    assert in_queue(remote) == {name for name, outcome in outcomes.items() if outcome == "done"}
    again = remote.do("quarantine_restore", restore)
    assert again.data["done"] == 3
    assert in_queue(remote) == set(entries)
    assert {name for name, each in entries.items() if each["state"] == "hold"} == {
        entry["queue_id"] for entry in remote.queue("state:hold")
    }
    assert remote.host.sh(f"find {SPOOL}/mxfleet-quarantine -type f ! -name lock") == ""


def test_a_message_left_aside_is_given_back_by_the_next_run_of_another_job(remote: Remote) -> None:
    remote.inject(2, sender="n{i}@bulk.example", recipients=["r{i}@defer.test"], connections=1)
    one, two = remote.await_state("ALL", "deferred", 2)
    with_program(remote, CUTTER, "show 3")
    with pytest.raises(FleetError):
        remote.do("queue_purge", QueuePurge(Selection(queue_ids=(one,))))
    without_program(remote)
    remote.host.stop_mta()
    remote.host.start_mta()
    assert remote.do("queue_purge", QueuePurge(Selection(queue_ids=(two,))), job="job-2").data["done"] == 1
    assert in_queue(remote) == {one}
    remote.lab.sink.set("defer.test", remote.lab.sink.rule("ok.test"))
    assert remote.do("message_deliver", MessageDeliver(one)).data["outcome"] == "sent"


def test_a_message_of_which_an_envelope_was_done_meanwhile_is_not_claimed(remote: Remote) -> None:
    remote.inject(sender="n@bulk.example", recipients=["a@defer.test", "b@defer.test"])
    [name] = remote.await_state("ALL", "deferred")
    with_program(remote, DROPPER, "3")
    purged = remote.do("queue_purge", QueuePurge(by_match("ALL")))
    assert {each.queue_id: each.outcome for each in purged.messages} == {name: "in_delivery"}
    assert in_queue(remote) == {name}


def test_deliver_one_leaves_the_envelopes_that_are_paused(remote: Remote) -> None:
    remote.inject(sender="n@bulk.example", recipients=["a@defer.test", "b@defer.test"])
    [name] = remote.await_state("ALL", "deferred")
    held = remote.smtpctl("show queue").split("|")
    remote.smtpctl("pause envelope", held[0])
    remote.lab.sink.set("defer.test", remote.lab.sink.rule("ok.test"))
    tried = remote.do("message_deliver", MessageDeliver(name)).data
    assert [each["address"] for each in tried["recipients"]] == [
        each for each in ("a@defer.test", "b@defer.test") if each != held[5]
    ]
    assert [line.split("|")[0] for line in remote.smtpctl("show queue").splitlines()] == [held[0]]


def test_links_that_smtpd_did_not_make_lead_to_no_other_file(remote: Remote) -> None:
    remote.inject(2, sender="n{i}@bulk.example", recipients=["r{i}@defer.test"], connections=1)
    one, two = remote.await_state("ALL", "deferred", 2)
    remote.host.sh(
        "mkdir /root/other && chmod 700 /root/other && echo secret > /root/other/message && "
        f"cd {SPOOL}/queue/{one[:2]} && mv {one} /root/kept && ln -s /root/other {one} && "
        f"cd ../{two[:2]}/{two} && mv message old && ln -s /root/other/message message"
    )
    owner = remote.host.sh("stat -c %U /root/other")
    for name in (one, two):
        with pytest.raises(FleetError):
            remote.do("message_show", MessageShow(name, ("headers", "body")))
    assert remote.do("queue_purge", QueuePurge(Selection(queue_ids=(one, two)))).data["done"] == 0
    assert remote.host.sh("cat /root/other/message; stat -c %U /root/other") == f"secret\n{owner}"
    remote.host.sh(f"cd {SPOOL}/queue/{two[:2]}/{two} && rm -f message && mv old message")
    entries = {entry["queue_id"]: entry for entry in remote.queue()}
    purged = remote.do("queue_purge", QueuePurge(Selection(queue_ids=(two,))))
    assert purged.data["done"] == 1
    remote.host.sh(f"cd {SPOOL}/queue && rmdir {two[:2]} && ln -s /root/other {two[:2]}")
    back = remote.do("quarantine_restore", QuarantineRestore(items(purged, entries)))
    assert back.data["left"] == 1
    assert remote.host.sh("ls /root/other; stat -c %U /root/other") == f"message\n{owner}"


def test_the_sudoers_lines_are_enough_and_other_commands_are_refused(remote: Remote, os2: Host) -> None:
    for script in SCRIPTS.values():
        os2.exec(
            f"mkdir -p {HELPERS} && cat > {HELPERS}/{script.name} && chmod 755 {HELPERS}/{script.name}",
            stdin=script.read_text(),
        )
    lines = sudoers_section("fleetops", 1, OPENSMTPD.sudoers(remote.instance, "fleetops"))
    facts, _ = remote.carry(lambda: discover_host("os2", time.time))
    remote.endpoint = replace(remote.endpoint, helpers=frozenset(facts.helpers))
    remote.inject(sender="news@bulk.example", recipients=["r@defer.test"])
    [name] = remote.await_state("ALL", "deferred")
    os2.exec("cat > /etc/sudoers.d/fleetops && chmod 440 /etc/sudoers.d/fleetops && visudo -c", stdin=lines)
    entries = {name: remote.entry(name)}
    assert remote.do("queue_hold", QueueHold(by_match("ALL"))).data["done"] == 1
    assert remote.do("message_show", MessageShow(name)).data["queue_id"] == name
    assert remote.do("queue_release", QueueRelease(Selection(queue_ids=(name,)))).data["done"] == 1
    assert remote.do("message_deliver", MessageDeliver(name)).data["outcome"] == "deferred"
    purged = remote.do("queue_purge", QueuePurge(Selection(queue_ids=(name,))))
    back = remote.do("quarantine_restore", QuarantineRestore(items(purged, entries)), undo=True)
    assert back.data["done"] == 1
    refused = subprocess.run(
        os2.ssh_command(f"sudo -n /usr/sbin/smtpctl show message {name}"), capture_output=True, text=True, check=False
    )
    assert "a password is required" in refused.stderr
