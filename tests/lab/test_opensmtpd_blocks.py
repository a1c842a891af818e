"""Blocks on real OpenSMTPD hosts: os1 refuses the senders of a table already, os2 is wired by the first block."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fleet.mta.blocks import edit
from fleet.mta.errors import Conflict, FleetError, NeedsWiring, Unsupported
from fleet.mta.host.discovery import discover_host
from fleet.mta.opensmtpd import OpenSmtpd
from fleet.mta.operations import BlockList, SenderBlock, SenderUnblock
from fleet.mta.records import Context, Ended, InstanceFacts, Result
from fleet.mta.steps import Plan, Steps
from fleet.ssh.endpoint import AddressPolicy, Endpoint
from fleet.ssh.engine import Engine, Request
from fleet.ssh.quoting import script_text
from tests.lab.config import OUTSIDER
from tests.lab.lab import Host, Lab
from tests.lab.waiting import await_true

pytestmark = pytest.mark.lab
OPENSMTPD = OpenSmtpd()
SENDER = "newsletter@sillyplace.test"
AT_WORK = (
    "find /proc/[0-9]*/fd -lname '*/mxfleet-locks/opensmtpd-wire' 2>/dev/null | cut -d / -f 3 | sort -u | "
    "while read -r pid; do grep -qsx smtpd /proc/$pid/comm || echo $pid; done"
)
"""Prints the pids of the script, of what it runs, and of its guard."""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    found = Engine(AddressPolicy())
    yield found
    found.close()


class Remote:
    """OpenSMTPD of a host, through the product's SSH."""

    def __init__(self, engine: Engine, host: Host) -> None:
        self.engine = engine
        self.host = host
        key = host.private_key.encode()
        self.endpoint = Endpoint(host.name, host.address, 22, host.user, key, host_key=host.host_key, become="sudo")
        self.instance = self._instance()

    def _instance(self) -> InstanceFacts:
        facts, _ = self.carry(lambda: discover_host(self.host.name, time.time))
        [instance] = self.carry(lambda: OPENSMTPD.discover(facts, self.host.name))
        return instance

    def carry(self, steps: Callable[[], Steps[Any]], *, until_plan: bool = False) -> Any:
        [[found]] = list(self.engine.outcomes([Request("one", self.endpoint, steps, until_plan, 180)]))
        if found.error is not None:
            raise found.error
        return found.value

    def _steps(self, operation: Any, fields: dict[str, Any]) -> Steps[Result]:
        context = Context(**{"now": time.time(), "job": "job-1", **fields})
        return getattr(OPENSMTPD, operation.name.replace(".", "_"))(self.instance, operation, context)

    def do(self, operation: Any, **fields: Any) -> Result:
        return self.carry(lambda: self._steps(operation, fields))

    def plan(self, operation: Any, **fields: Any) -> Plan:
        return self.carry(lambda: self._steps(operation, fields), until_plan=True)

    def answer(self, sender: str) -> str:
        """What an outsider is told at RCPT."""
        found = self.host.inject(sender=sender, source=OUTSIDER, recipients=["r@ok.test"], stop_at="rcpt")
        return found.errors[0] if found.errors else "accepted"

    def config(self) -> str:
        return self.host.sh("cat /etc/smtpd.conf; stat -c '%U %G %a' /etc/smtpd.conf")


def fresh(lab: Lab, engine: Engine, name: str) -> Remote:
    host = lab.host(name)
    host.reset()
    lab.sink.reset()
    return Remote(engine, host)


@pytest.fixture
def wired(lab: Lab, engine: Engine) -> Remote:
    return fresh(lab, engine, "os1")


@pytest.fixture
def unwired(lab: Lab, engine: Engine) -> Remote:
    return fresh(lab, engine, "os2")


def test_a_block_is_proven_and_its_undo_gives_the_file_back(wired: Remote) -> None:
    before = wired.host.sh("cat /etc/smtpd/blocked; stat -c '%U %G %a' /etc/smtpd/blocked")
    assert not wired.plan(SenderBlock(SENDER)).wiring
    done = wired.do(SenderBlock(SENDER))
    assert done.ended is Ended.SUCCEEDED
    assert done.before["blocked"]["code"] == "250"
    assert done.after["blocked"]["code"] == "550"
    assert done.after["control"]["reply"].startswith("250")
    assert wired.answer(SENDER).startswith("550 Invalid recipient")
    assert wired.answer(SENDER.upper()).startswith("550")
    assert wired.answer("newsletter+x@sillyplace.test").startswith("550"), "as the plan's note says"
    assert wired.answer("other@sillyplace.test") == "accepted"
    assert wired.do(SenderBlock(SENDER)).ended is Ended.UNCHANGED
    listed = wired.do(BlockList()).data
    assert [each["pattern"] for each in listed["ours"]] == [SENDER]
    assert [each["line"] for each in listed["others"]] == ["placeholder@blocked.invalid"]
    freed = wired.do(SenderUnblock(SENDER))
    assert (freed.ended, freed.after["blocked"]["code"]) == (Ended.SUCCEEDED, "250")
    assert wired.answer(SENDER) == "accepted"
    assert wired.host.sh("cat /etc/smtpd/blocked; stat -c '%U %G %a' /etc/smtpd/blocked") == before
    wired.host.stop_mta()
    wired.host.start_mta()


def test_a_domain_is_blocked_exactly_and_what_cannot_be_said_is_unsupported(wired: Remote) -> None:
    assert wired.do(SenderBlock("sillyplace.test")).ended is Ended.SUCCEEDED
    assert wired.answer("anybody@sillyplace.test").startswith("550")
    assert wired.answer("anybody@sub.sillyplace.test") == "accepted"
    assert wired.answer("anybody@notsillyplace.test") == "accepted"
    for pattern in ("<>", ".sillyplace.test", '"a b"@x.test', "#x@y.test"):
        with pytest.raises(Unsupported):
            wired.plan(SenderBlock(pattern))
    with pytest.raises(Unsupported):
        wired.plan(SenderBlock(SENDER, action="discard"))
    odd = "!a%b=c|d{e}*'~`^@x.test"
    assert wired.do(SenderBlock(odd)).ended is Ended.SUCCEEDED
    assert wired.answer(odd).startswith("550")
    assert wired.answer("a@x.test") == "accepted"


def test_what_another_rule_lets_pass_first_is_no_wiring(wired: Remote) -> None:
    wired.host.sh("sed -i '0,/^match/s//match from src 192.0.2.1 for any action \"relay\"\\nmatch/' /etc/smtpd.conf")
    assert wired.plan(SenderBlock(SENDER)).wiring


def test_wiring_is_planned_approved_and_taken_back(unwired: Remote) -> None:
    before = unwired.config()
    plan = unwired.plan(SenderBlock(SENDER))
    assert plan.wiring
    assert "+match from any mail-from <mxfleet_senders> for any reject" in plan.diffs[1].unified
    with pytest.raises(NeedsWiring):
        unwired.do(SenderBlock(SENDER))
    assert unwired.config() == before
    done = unwired.do(SenderBlock(SENDER), wiring_approved=True)
    assert (done.ended, done.after["blocked"]["code"]) == (Ended.SUCCEEDED, "550")
    assert unwired.answer(SENDER).startswith("550")
    assert not unwired.plan(SenderBlock("two@x.test")).wiring
    assert unwired.do(SenderBlock("two@x.test")).ended is Ended.SUCCEEDED
    assert unwired.do(SenderUnblock("two@x.test"), undo=True).ended is Ended.SUCCEEDED
    assert "mxfleet_senders" in unwired.config()
    freed = unwired.do(SenderUnblock(SENDER), undo=True)
    assert (freed.ended, freed.after["blocked"]["code"]) == (Ended.SUCCEEDED, "250")
    assert unwired.config() == before
    assert unwired.host.exec("ls /etc/mxfleet_senders").returncode != 0
    assert unwired.answer(SENDER) == "accepted"


def test_nothing_is_wired_while_a_restart_would_release_what_is_paused(unwired: Remote) -> None:
    unwired.host.inject(recipients=["r@defer.test"])
    name = await_true(lambda: unwired.host.sh("smtpctl show queue | cut -c 1-8").strip(), 10)
    unwired.host.sh(f"smtpctl pause envelope {name}")
    before = unwired.config()
    with pytest.raises(Conflict):
        unwired.do(SenderBlock(SENDER), wiring_approved=True)
    assert unwired.config() == before
    assert unwired.host.exec("ls /etc/mxfleet_senders").returncode != 0
    assert "|suspend|" in unwired.host.sh("smtpctl show queue")


def test_a_configuration_that_does_not_start_is_taken_back(unwired: Remote) -> None:
    before = unwired.config()
    # smtpd -n reads the configuration alone; a port that is taken shows only at the start.
    unwired.host.sh("mv /usr/sbin/smtpd /usr/sbin/smtpd.real")
    unwired.host.sh(
        "printf '%s\\n' '#!/bin/sh' 'case \"$*\" in *-n*) exec /usr/sbin/smtpd.real \"$@\";; esac' "
        "'! grep -q mxfleet /etc/smtpd.conf || exit 1' 'exec /usr/sbin/smtpd.real \"$@\"' > /usr/sbin/smtpd; "
        "chmod 755 /usr/sbin/smtpd"
    )
    with pytest.raises(FleetError, match="did not come up"):
        unwired.do(SenderBlock(SENDER), wiring_approved=True)
    assert unwired.config() == before
    unwired.host.machine.await_ready()
    assert unwired.answer(SENDER) == "accepted"


def test_wiring_that_is_killed_leaves_smtpd_running(unwired: Remote) -> None:
    killer = threading.Thread(
        target=lambda: unwired.host.sh(
            "for i in $(seq 6000); do ! ls -d /etc/smtpd.conf.mxfleet-work.* || break; sleep 0.01; done; "
            f"{AT_WORK} | while read -r pid; do kill -KILL $pid 2>/dev/null; done; true"
        )
    )
    killer.start()
    with pytest.raises(FleetError):
        unwired.do(SenderBlock(SENDER), wiring_approved=True)
    killer.join()
    await_true(lambda: not unwired.host.sh(AT_WORK), 30, "the guard has not ended")
    unwired.host.machine.await_ready()
    assert unwired.host.exec("smtpd -n").returncode == 0
    done = unwired.do(SenderBlock(SENDER), wiring_approved=True)
    assert done.ended in (Ended.SUCCEEDED, Ended.UNCHANGED)
    assert unwired.answer(SENDER).startswith("550")


def test_as_root_the_script_edits_no_table_but_that_of_refused_senders(os1: Host) -> None:
    """aliases(5) may name programs: who may write them can do more than refuse senders."""
    script, _ = script_text(edit.SCRIPT)
    statuses = [
        os1.exec(f"sh -s read opensmtpd /etc/smtpd.conf {file} {name}", stdin=script).returncode
        for file, name in (("/etc/aliases", "aliases"), ("/etc/smtpd/blocked", "blocked"))
    ]
    assert statuses == [66, 0]
