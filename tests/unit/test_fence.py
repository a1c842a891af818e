"""A host refuses a changing script of an older worker: every one of our own scripts, on this machine."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from fleet.mta.errors import Conflict, Overtaken
from fleet.mta.host.commands import fence_error
from fleet.mta.qmail.commands import change
from fleet.mta.steps import Command, Completed
from fleet.ssh.quoting import SCRIPTS, is_fenced, script_text
from tests.unit import real_scripts
from tests.unit.qmail_host import QmailHost
from tests.unit.real_scripts import argv_of, run_script
from tests.unit.sendmail_host import queue_file

OLD, NOW, NEW = 1_764_470_000_000_000, 1_764_470_060_000_000, 1_764_470_120_000_000
EXIM_ID = "1xUMSQ-00005F-0r"
PROGRAM = """#!/bin/sh
# Any MTA's program: says where its configuration is, and logs what would change something.
case $1 in
-h) echo "${0%/*}" ;;
show) echo '17e3a5b10f3c5d12|inet4|mta||n@bulk.example|r@x.test|r@x.test|1795172609|1795172609|0|1|pending|390|x' ;;
*) echo "$*" >>"${0%/*}/calls" ;;
esac
"""


@pytest.fixture
def mark(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the host's mark will be."""
    directory = tmp_path_factory.mktemp("run")
    monkeypatch.setattr(real_scripts, "RUN", str(directory))
    return directory / "mxfleet-fence"


@dataclass
class Case:
    """A changing script in a directory of its own, up to where it has checked the fence and a little further."""

    directory: Path
    argv: tuple[str, ...]
    stdin: str
    close: Callable[[], None] = lambda: None

    def files(self) -> dict[str, bytes]:
        """Everything that is there, directories too."""
        found = sorted(self.directory.rglob("*"))
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in found}


def exim(*words: str, head: str = "") -> Callable[[Path], Case]:
    def made(at: Path) -> Case:
        return Case(at, tuple(word.format(at=at) for word in words), f"{head}{EXIM_ID}\n")

    return made


def opensmtpd(*words: str, stdin: str) -> Callable[[Path], Case]:
    def made(at: Path) -> Case:
        (at / "queue/17/17e3a5b1").mkdir(parents=True)
        (at / "mxfleet-quarantine").mkdir()
        (at / "mxfleet-quarantine/lock").touch()
        (at / "queue/17/17e3a5b1/message").write_text("Subject: x\n\n")
        return Case(at, tuple(word.format(at=at) for word in words), stdin)

    return made


def opensmtpd_wire(at: Path) -> Case:
    (at / "smtpd.conf").write_text("match for any action x\n")
    (at / "smtpd").write_text(PROGRAM)
    return Case(at, ("unwire", f"{at}/smtpd", f"{at}/smtpd.conf"), "0 0\n")


def postfix(*words: str, stdin: str) -> Callable[[Path], Case]:
    def made(at: Path) -> Case:
        for name in ("main.cf", "master.cf"):
            (at / name).write_text("")
        (at / "hold").mkdir()
        (at / "hold/AAAAAA1").write_text("x")
        return Case(at, tuple(word.format(at=at) for word in words), stdin)

    return made


def qmail(at: Path) -> Case:
    host = QmailHost(at / "host")
    host.put()
    command = next(change(host.instance, "hold", "job-1", list(host.entries().values())))
    assert isinstance(command, Command)
    return Case(at, command.argv, command.stdin.decode(), host.remove_state)


def block_file(at: Path) -> Case:
    for name in ("bin", "control"):
        (at / name).mkdir()
    (at / "bin/qmail-queue").write_text(PROGRAM)
    (at / "bin/qmail-queue").chmod(0o755)
    return Case(
        at,
        ("apply", "qmail", str(at), f"{at}/control/badmailfrom", "-"),
        f"-\nwrite {sha256(b'a@b.test').hexdigest()}\n0\na@b.test",
    )


def sendmail(*words: str, stdin: str) -> Callable[[Path], Case]:
    def made(at: Path) -> Case:
        (at / "q1").mkdir()
        (at / "q1/qf6AKAxcId000281").write_bytes(queue_file())
        return Case(at, tuple(word.format(at=at) for word in words), stdin)

    return made


SENDMAIL = "6AKAxcId000281 1795172378 news@bulk.example\n"
ENVELOPE = "17e3a5b1 1795172609\n"
CASES: dict[str, Callable[[Path], Case]] = {
    "block_file.sh": block_file,
    "exim_attempt.sh": exim("{at}/program", "5"),
    "exim_bounce.sh": exim("{at}/program", "5"),
    "exim_change.sh": exim("{at}/program", "-Mf"),
    "exim_deliver.sh": exim("{at}/program", "5"),
    "exim_quarantine.sh": exim("out", "{at}/program", "{at}", head="job-1\n"),
    "opensmtpd_act.sh": opensmtpd("{at}/program", "{at}", "pause", stdin=ENVELOPE),
    "opensmtpd_deliver.sh": opensmtpd("{at}/program", "{at}", "none", "1", stdin="17e3a5b1 release\n"),
    "opensmtpd_quarantine.sh": opensmtpd("{at}/program", "{at}", "out", stdin=f"job-1\n{ENVELOPE}"),
    "opensmtpd_wire.sh": opensmtpd_wire,
    "postfix_attempt.sh": postfix("{at}/program", "{at}", stdin="AAAAAA1\n"),
    "postfix_deliver.sh": postfix("{at}/program", "{at}", "{at}", "none", "1", stdin="AAAAAA1\n"),
    "postfix_quarantine.sh": postfix("out", "{at}", stdin="job-1\nAAAAAA1\n"),
    "postfix_wire.sh": postfix("apply", "{at}", "hash", stdin="0\n0\n"),
    "qmail_change.sh": qmail,
    "sendmail_change.sh": sendmail("delete", "none", "{at}/q1", stdin=f"job-1\n{SENDMAIL}"),
    "sendmail_run.sh": sendmail("attempt", "{at}/program", "/etc/x.cf", "none", "{at}/q1", stdin=f"5\n{SENDMAIL}"),
}
WITH_A_DIGEST = frozenset({"postfix_wire.sh", "opensmtpd_wire.sh"})
"""Here the file is another one than was planned with, which is found right behind the fence."""


def test_every_script_with_a_fence_is_tried() -> None:
    assert {path.name for path in SCRIPTS.values() if is_fenced(path.name)} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_an_older_workers_script_changes_nothing_and_the_same_and_a_newer_one_go_on(
    name: str, tmp_path: Path, mark: Path
) -> None:
    for program in ("program", "postconf"):
        (tmp_path / program).write_text(PROGRAM)
        (tmp_path / program).chmod(0o755)
    case = CASES[name](tmp_path)

    def run(fence: int) -> Completed:
        command = Command(case.argv, script=name, stdin=case.stdin.encode(), mutates=True, fence=fence)
        return run_script(command, tmp_path)

    mark.write_text(f"{NOW}\n")
    before = case.files()
    refused = run(OLD)
    assert isinstance(fence_error(refused), Overtaken), refused
    assert case.files() == before
    assert mark.read_text() == f"{NOW}\n"
    same = run(NOW)
    assert fence_error(same) is None
    assert case.files() != before or (name in WITH_A_DIGEST and same.exit_status == 76), same
    assert fence_error(run(NEW)) is None
    assert mark.read_text() == f"{NEW}\n"
    case.close()


BODY = f"""{script_text("fence.sh")[0]}
set -u
read_fence
check_fence
echo "in $fence" >>"$1"
echo in
read -r go
echo "out $fence" >>"$1"
"""


class Racer:
    """A script that goes past the fence, tells so, and ends when it is let go."""

    def __init__(self, log: Path, fence: int) -> None:
        text = BODY.replace("/run/mxfleet-fence", f"{real_scripts.RUN}/mxfleet-fence").replace(
            "[ -w /run ]", f"[ -w {real_scripts.RUN} ]"
        )
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", text, "racer", str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(f"fence {fence}\n")
        self.process.stdin.flush()

    def await_past(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "in\n"

    def await_lock(self) -> None:
        """Until it waits for the lock that raises the mark."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        until = time.monotonic() + 20
        while True:
            for child in children.read_text().split():
                try:
                    words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if words[0] == b"flock" and b"-x" in words:
                    return
            assert time.monotonic() < until, "it did not wait"
            time.sleep(0.01)

    def go(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it was refused already
            os.write(self.process.stdin.fileno(), b"go\n")

    def end(self) -> Completed:
        out, err = self.process.communicate("go\n", timeout=60)
        return Completed(self.process.returncode, out.encode(), err.encode())


def test_a_newer_one_begins_when_the_older_that_went_past_has_ended(tmp_path: Path, mark: Path) -> None:
    log = tmp_path / "log"
    older = Racer(log, OLD)
    older.await_past()
    beside = Racer(log, OLD)
    beside.await_past()
    newer = Racer(log, NEW)
    newer.await_lock()
    assert older.end().exit_status == beside.end().exit_status == 0
    newer.await_past()
    late = Racer(log, OLD).end()
    assert isinstance(fence_error(late), Overtaken)
    assert newer.end().exit_status == 0
    said = log.read_text().splitlines()
    assert said == [f"in {OLD}", f"in {OLD}", f"out {OLD}", f"out {OLD}", f"in {NEW}", f"out {NEW}"]


def test_of_many_at_once_none_runs_behind_or_beside_a_newer_one(tmp_path: Path, mark: Path) -> None:
    log = tmp_path / "log"
    racers = [Racer(log, OLD + at % 4) for at in range(12)]
    for racer in racers:
        racer.go()
    ended = [racer.end() for racer in racers]
    assert all(one.exit_status == 0 or isinstance(fence_error(one), Overtaken) for one in ended)
    running: list[int] = []
    highest = 0
    for word, number in (line.split() for line in log.read_text().splitlines()):
        if word == "out":
            running.remove(int(number))
            continue
        assert int(number) >= highest
        assert set(running) <= {int(number)}
        highest = int(number)
        running.append(highest)
    assert highest == OLD + 3
    assert mark.read_text() == f"{OLD + 3}\n"


def test_one_that_waits_too_long_for_an_older_one_changes_nothing(tmp_path: Path, mark: Path) -> None:
    with mark.with_name("mxfleet-fence.lock").open("w") as lock:
        held = subprocess.Popen(["flock", "-x", str(lock.fileno())], pass_fds=(lock.fileno(),))
        assert held.wait() == 0
        made = tmp_path / "flock"
        made.write_text('#!/bin/sh\nexec /usr/bin/flock -n "$3" "$4"\n')
        made.chmod(0o755)
        program = tmp_path / "program"
        program.write_text(PROGRAM)
        program.chmod(0o755)
        stdin = f"{EXIM_ID}\n".encode()
        command = Command((str(program), "-Mf"), script="exim_change.sh", stdin=stdin, mutates=True, fence=NOW)
        done = run_script(command, tmp_path)
    assert isinstance(fence_error(done), Conflict)
    assert not (tmp_path / "calls").exists()


FUTURE = 4_102_444_800_000_000  # the year 2100


@pytest.mark.parametrize(
    "garbage", ["", "\n", "x\n", f"{OLD}", "-5\n", "9" * 30 + "\n", f"{FUTURE}\n", "5 5\n", "\xff\n"]
)
def test_a_mark_that_no_worker_can_have_made_counts_as_none(garbage: str, tmp_path: Path, mark: Path) -> None:
    mark.write_text(garbage, encoding="latin-1")
    racer = Racer(tmp_path / "log", NOW)
    assert racer.end().exit_status == 0
    assert mark.read_text() == f"{NOW}\n"


def test_without_a_number_nothing_is_checked_and_the_mark_stays(tmp_path: Path, mark: Path) -> None:
    mark.write_text(f"{NOW}\n")
    assert Racer(tmp_path / "log", 0).end().exit_status == 0
    assert mark.read_text() == f"{NOW}\n"
    assert not mark.with_name("mxfleet-fence.lock").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs an account that may write there to compare with")
def test_an_account_that_may_not_write_in_run_goes_on_without(tmp_path: Path, mark: Path) -> None:
    missing = mark.parent / "absent"
    real_scripts.RUN = str(missing)
    assert Racer(tmp_path / "log", OLD).end().exit_status == 0
    assert not missing.exists()


@pytest.mark.parametrize(
    "line", ["", "job-1\n", "fence\n", "fence \n", "fence x\n", "fence 1 2\n", f"fence {10**18}\n"]
)
def test_a_script_without_its_fence_is_not_run(line: str, mark: Path) -> None:
    done = subprocess.run(
        argv_of(Command(("/bin/true", "-Mf"), script="exim_change.sh")),
        input=line + f"{EXIM_ID}\n",
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (64, "")


def test_who_may_not_be_root_cannot_lock_the_fence(tmp_path: Path, mark: Path) -> None:
    assert Racer(tmp_path / "log", NOW).end().exit_status == 0
    assert mark.with_name("mxfleet-fence.lock").stat().st_mode & 0o077 == 0


@pytest.fixture
def released(tmp_path: Path) -> Iterator[Path]:
    """What a stand-in for exim waits for in a delivery that goes on."""
    gate = tmp_path / "gate"
    yield gate
    gate.touch()


# In the place of sleep(1) and timeout(1): our scripts stop waiting once the delivery has begun.
STAND_INS = {
    "sleep": "until [ -e {begun} ]; do /bin/sleep 0.02; done",
    "timeout": 'shift 2\nexec 5<&0\n"$@" <&5 &\nuntil [ -e {begun} ]; do /bin/sleep 0.02; done',
    "exim4": ": >{begun}\nuntil [ -e {released} ]; do /bin/sleep 0.1; done",
}


@pytest.mark.parametrize("name", ["exim_deliver.sh", "exim_attempt.sh", "exim_bounce.sh"])
def test_a_delivery_that_goes_on_by_itself_keeps_no_newer_worker_waiting(
    name: str, tmp_path: Path, mark: Path, released: Path
) -> None:
    for program, text in STAND_INS.items():
        made = tmp_path / program
        made.write_text("#!/bin/sh\n" + text.format(begun=tmp_path / "begun", released=released))
        made.chmod(0o755)
    argv = (str(tmp_path / "exim4"), "1")
    command = Command(argv, script=name, stdin=f"{EXIM_ID}\n".encode(), mutates=True, fence=OLD)
    assert run_script(command, tmp_path).exit_status == 0
    assert (tmp_path / "begun").exists()
    lock = mark.with_name("mxfleet-fence.lock")
    assert subprocess.run(["flock", "-n", "-x", lock, "true"]).returncode == 0
