"""qmail: what a change leaves when it is cut off, also with its guardian, and who puts it right."""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet import match
from fleet.mta.errors import Conflict, UnparsedOutput
from fleet.mta.operations import Quarantined, QuarantineErase, QueueHold, QueueList, QueuePurge, QueueRelease, Selection
from fleet.mta.qmail import Qmail, commands
from fleet.mta.qmail.commands import change
from fleet.mta.qmail.driver import lying
from fleet.mta.qmail.queue import QUEUE
from fleet.mta.queue.outcome import Verb
from fleet.mta.records import InstanceFacts, Result
from fleet.ssh.quoting import SCRIPTS, stdin_of
from tests.unit.qmail_host import QmailHost, context, wait
from tests.unit.real_scripts import argv_of

QMAIL = Qmail()
KINDS = ("mess", "info", "remote", "local", "bounce", "todo", "intd")
SETTLED = "a change that was cut off before has been put right"
IN_SESSION = "systemd-run did not start the guardian"
ALL = Selection(match.parse("ALL"))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[QmailHost]:
    found = QmailHost(tmp_path)
    yield found
    found.remove_state()


def listed(host: QmailHost, instance: InstanceFacts | None = None) -> Result:
    return host.carry(QMAIL.queue_list(instance or host.instance, QueueList(match.parse("ALL")), context()))


def frozen(host: QmailHost) -> Any:
    host.carry(QMAIL.queue_hold(host.instance, QueueHold(ALL), context()))
    host.carry(QMAIL.queue_release(host.instance, QueueRelease(ALL), context()))
    return host.plans[0].selected


def read_back(host: QmailHost, operation: Any) -> Result:
    return host.carry(QMAIL.read_back(host.instance, operation, context(frozen=frozen(host))))


def erase(host: QmailHost) -> Result:
    place = f"{host.queue}/mxfleet-quarantine/job-1/9"
    items = (Quarantined("x", "9", place, 1.0, "a@x.test", 1, "deferred"),)
    return host.carry(QMAIL.quarantine_erase(host.instance, QuarantineErase(items), context()))


def purge(host: QmailHost) -> Result:
    return host.carry(QMAIL.queue_purge(host.instance, QueuePurge(Selection(queue_ids=("999999999",))), context()))


def cut_off(host: QmailHost, phase: str) -> dict[str, int]:
    """A message of which some files were moved; qmail-send is down. The files as they were before."""
    name = host.put(local=[b"Tl@qm1.test"])
    before = host.files()
    area = host.queue / "mxfleet-quarantine/job-0"
    for kind in KINDS:
        (area / kind).mkdir(parents=True)
    if phase.startswith("acting"):
        for kind in ("info", "remote"):
            host.path(kind, name).rename(area / kind / name)
    (host.service / "up").unlink()
    host.state.write_text(f"{phase}\n")
    return before


CONTACTS: dict[str, Callable[[QmailHost], Result]] = {
    "list": listed,
    "purge": purge,
    "erase": erase,
    "read a hold back": lambda host: host.carry(
        QMAIL.read_back(host.instance, QueueHold(ALL), context(frozen=()))  # nothing of it is queued
    ),
    "read a purge back": lambda host: host.carry(QMAIL.read_back(host.instance, QueuePurge(ALL), context(frozen=()))),
}


@pytest.mark.parametrize(
    ("contact", "phase"),
    [*((contact, "acting up") for contact in CONTACTS), ("list", "stopped up"), ("list", "acting down")],
)
def test_any_contact_puts_right_what_nobody_lived_to_finish_and_says_so(
    host: QmailHost, contact: str, phase: str
) -> None:
    before = cut_off(host, phase)
    result = CONTACTS[contact](host)
    assert (host.files(), host.state.read_text()) == (before, "")
    assert (host.service / "up").exists() == phase.endswith("up")
    assert [note for note in result.data["notes"] if note.startswith(SETTLED)], result.data["notes"]
    assert not [note for note in CONTACTS[contact](host).data["notes"] if note.startswith(SETTLED)]


def test_a_change_that_follows_puts_right_what_was_before_it(host: QmailHost) -> None:
    before = cut_off(host, "acting up")
    message = replace(next(iter(QmailHost.entries(host).values())), queue_id="1")
    host.state.write_text("acting up\n")
    (host.service / "up").unlink()
    answer = host.carry(change(host.instance, "try", "job-1", [message]))
    assert (host.files(), host.is_up, host.state.read_text()) == (before, True, "")
    assert answer.notes[0].startswith(SETTLED)


@pytest.mark.parametrize("phase", ["stopped up", "acting up"])
def test_a_listing_works_where_it_cannot_be_put_right_and_says_what_to_do(host: QmailHost, phase: str) -> None:
    cut_off(host, phase)
    other = host.put(b"other@x.test")
    unsupervised = replace(host.instance, options={})
    result = listed(host, unsupervised)
    assert other in [entry["queue_id"] for entry in result.data["entries"]]
    assert "`svc -u`" in result.data["notes"][-1]
    if phase == "acting up":
        with pytest.raises(UnparsedOutput, match="svc -u"):
            host.carry(QUEUE.lookup(unsupervised, [other]))
    else:
        assert other in host.carry(QUEUE.lookup(unsupervised, [other]))


@pytest.mark.parametrize("phase", ["stopped up", "stopped down"])
def test_while_a_change_goes_on_a_listing_starts_nothing(host: QmailHost, phase: str) -> None:
    name = host.put()
    (host.service / "up").unlink()
    host.state.write_text(f"{phase}\n")
    with host.job_lock():
        result = listed(host)
    assert ([entry["queue_id"] for entry in result.data["entries"]], result.data["notes"]) == ([name], [])
    assert not (host.service / "calls").exists()
    assert host.state.read_text() == f"{phase}\n"


def waiters() -> str:
    return "".join(line for line in Path("/proc/locks").read_text().splitlines(keepends=True) if "->" in line)


def test_a_listing_waits_while_a_guardian_puts_files_right(host: QmailHost) -> None:
    name = host.put()
    host.state.write_text("acting up\n")
    with ThreadPoolExecutor(1) as pool:
        with host.job_lock(), host.state.with_suffix(".acting").open("a") as acting:
            fcntl.flock(acting, fcntl.LOCK_EX)
            inode = f":{host.state.with_suffix('.acting').stat().st_ino} "
            found = pool.submit(host.entries)
            wait(lambda: inode in waiters(), "the listing waits")
            assert not found.done()
            host.state.write_text("")
        assert name in found.result()


def test_the_quarantine_is_looked_at_under_the_job_lock(host: QmailHost) -> None:
    with ThreadPoolExecutor(1) as pool:
        with host.job_lock():
            inode = f":{host.state.with_suffix('.lock').stat().st_ino} "
            found = pool.submit(host.carry, lying(host.instance, "job-1", Verb.TAKE_OUT, {}))
            wait(lambda: inode in waiters(), "the look waits")
            (host.queue / "mxfleet-quarantine/job-1/mess").mkdir(parents=True)
            (host.queue / "mxfleet-quarantine/job-1/mess/77").touch()
        assert set(found.result().places) == {"77"}


def test_a_read_back_that_cannot_have_the_lock_gives_no_verdict(
    host: QmailHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "STOP_SECONDS", 0)
    name = host.put()
    wanted = host.carry(QUEUE.lookup(host.instance, [name]))
    assert wanted
    for operation in (QueuePurge(ALL), QueuePurge(ALL, mode="delete"), QueueHold(ALL)):
        with host.job_lock(), pytest.raises(Conflict, match="another change is going on") as caught:
            host.carry(QMAIL.read_back(host.instance, operation, context(frozen=())))
        assert caught.value.hint == "try again"


SYSTEMD_RUN = {
    "present": 'echo "$*" >>"$(dirname "$0")/called"; [ "$1 $2" = "--scope --quiet" ] || exit 2; shift 2; exec "$@"',
    "failing": 'echo "Failed to connect to bus" >&2; exit 1',
    "hanging": "exec sleep 30",
    "late": 'sleep 3; shift 2; exec "$@"',
}


def with_systemd(host: QmailHost, kind: str) -> Path:
    host.tools = host.root / "tools"
    (host.tools / "systemd").mkdir(parents=True)
    program = host.tools / "systemd-run"
    program.write_text(f"#!/bin/sh\n{SYSTEMD_RUN[kind]}\n")
    program.chmod(0o755)
    return host.tools


@pytest.mark.parametrize("kind", SYSTEMD_RUN)
def test_the_guardian_gets_a_scope_of_its_own_or_the_result_says_that_it_did_not(host: QmailHost, kind: str) -> None:
    tools = with_systemd(host, kind)
    name = host.put()
    began = time.monotonic()
    result = host.carry(QMAIL.queue_purge(host.instance, QueuePurge(Selection(queue_ids=(name,))), context()))
    assert time.monotonic() - began < 10
    assert (result.data["done"], host.is_up, host.state.read_text()) == (1, True, "")
    assert bool([note for note in result.data["notes"] if note.startswith(IN_SESSION)]) == (kind != "present")
    if kind == "present":
        assert "qmail-guardian" in (tools / "called").read_text()
    wait(lambda: not host.guardians(), "a guardian that came late stayed")


def test_without_systemd_nothing_is_said_of_a_scope(host: QmailHost) -> None:
    name = host.put()
    result = host.carry(QMAIL.queue_purge(host.instance, QueuePurge(Selection(queue_ids=(name,))), context()))
    assert (result.data["done"], result.data["notes"]) == (1, [])


def stopped_in_the_middle(host: QmailHost, *script: str) -> subprocess.Popen[bytes]:
    """A purge that waits for qmail-send to stop. `script`: the words that begin it where it is installed."""
    (host.service / "busy").touch()
    entries = list(host.entries().values())
    asked = next(change(host.instance, "quarantine", "job-1", entries))
    words = [*script, *asked.argv] if script else argv_of(asked, host.tools)
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    assert process.stdin is not None
    process.stdin.write(stdin_of(asked))
    process.stdin.close()
    wait(lambda: (host.service / "want-down").exists(), "qmail-send is asked to stop")
    return process


@pytest.mark.parametrize("contact", ["list", "purge", "read a purge back"])
def test_when_shell_and_guardian_are_killed_the_next_contact_starts_qmail_send(host: QmailHost, contact: str) -> None:
    name = host.put()
    process = stopped_in_the_middle(host)
    for guardian in host.guardians():
        os.kill(guardian, signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait(lambda: not host.guardians(), "the guardian is gone")
    for file in ("busy", "want-down", "up"):
        (host.service / file).unlink()
    assert host.state.read_text() == "stopped up\n"
    result = CONTACTS[contact](host)
    assert (host.is_up, host.state.read_text()) == (True, "")
    assert [note for note in result.data["notes"] if note.startswith(SETTLED)]
    assert name in host.entries()


@pytest.mark.parametrize("kind", ["present", "failing"])
def test_when_the_shell_is_killed_the_guardian_starts_qmail_send_wherever_it_lives(host: QmailHost, kind: str) -> None:
    with_systemd(host, kind)
    host.put()
    process = stopped_in_the_middle(host)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    host.wait_up()


def test_the_guardian_of_an_installed_script_takes_in_the_parts_that_lie_beside_it(host: QmailHost) -> None:
    host.put()
    for script in SCRIPTS.values():
        shutil.copy(script, host.root)
    process = stopped_in_the_middle(host, "/bin/sh", str(host.root / "qmail_change.sh"))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    host.wait_up()


def test_what_cannot_be_started_is_started_by_whoever_comes_next(host: QmailHost) -> None:
    host.tools = host.root / "tools"
    host.tools.mkdir()
    (host.tools / "sleep").write_text("#!/bin/sh\nexec /bin/sleep 0.05\n")
    (host.tools / "sleep").chmod(0o755)
    svc = host.root / "svc"
    text = svc.read_text()
    cut_off(host, "stopped up")
    svc.write_text("#!/bin/sh\nexit 0\n")
    note = listed(host).data["notes"][-1]
    assert ("`svc -u`" in note, host.state.read_text()) == (True, "stopped up\n")
    svc.write_text(text)
    assert listed(host).data["notes"][-1].startswith(SETTLED)
    assert host.is_up
