"""Whatever program of a script is ended, on every MTA: told is what lies there, and no message is lost."""

import json
import subprocess
from pathlib import Path

import pytest

from fleet.mta.exim import Exim
from fleet.mta.opensmtpd import OpenSmtpd
from fleet.mta.postfix import Postfix
from fleet.mta.records import InstanceFacts
from fleet.mta.sendmail import Sendmail
from fleet.mta.steps import Command, Completed
from tests.unit import exim_spool, smtpd_spool
from tests.unit.cut_programs import QUARANTINE, QUEUE, ROUNDS, Cuttable, Tools, cut_rounds
from tests.unit.real_scripts import run_script
from tests.unit.sendmail_host import SendmailHost

pytestmark = pytest.mark.timeout(60 + ROUNDS * 10)


def sendmail(base: Path) -> Cuttable:
    host = SendmailHost(base / "host")
    for part in ("qf", "df"):
        (host.root / "mqueue/q2" / part).mkdir()
    names = tuple(f"6AKAxcI{letter}000281" for letter in "defgh")

    def refill() -> None:
        for at, name in enumerate(names):
            if not list(host.root.glob(f"**/?f{name}")):
                host.add(name, queue=f"mqueue/q{at % 2 + 1}", body=name.encode())

    refill()
    before = {Path(path).name: content for path, content in host.files().items()}

    def places() -> dict[str, str]:
        """Data alone in quarantine are what an erase has left."""
        files = host.files()
        assert all(content == before[Path(path).name] for path, content in files.items())
        lying = {Path(path).name: "mxfleet-quarantine" in path for path in files}
        assert len(lying) == len(files)
        queued = {name for name in names if lying.get(f"qf{name}") is False}
        kept = {name for name in names if f"qf{name}" in lying} - queued
        assert all(lying.get(f"df{name}") is False for name in queued)
        assert all(f"df{name}" in lying for name in kept)
        rest = {name for name in names if f"df{name}" in lying} - queued - kept
        assert all(lying[f"df{name}"] for name in rest)
        return dict.fromkeys(queued, QUEUE) | dict.fromkeys(kept | rest, QUARANTINE)

    return Cuttable(Sendmail(), host.instance(), Tools(base / "tools"), run_script, places, names, refill)


def test_of_sendmail(tmp_path: Path) -> None:
    cut_rounds(sendmail(tmp_path))


def exim(base: Path) -> Cuttable:
    spool, tools = base / "spool", Tools(base / "tools")
    names = tuple(f"1xUMS{letter}-00005F-0r" for letter in "QRSTU")

    def refill() -> None:
        for name in names:
            if not list(spool.glob(f"**/{name}-H")):
                exim_spool.add(spool, name)

    def places() -> dict[str, str]:
        """Header and data make a message. What is in both queues, amid a move by links, is the main one's."""
        found = {}
        for name in names:
            kinds = [{at.name[-1] for at in spool.glob(f"{queue}input/{name}-?")} for queue in ("", "mxfleet-*/")]
            wholes = [place for place, kind in zip((QUEUE, QUARANTINE), kinds, strict=True) if kind == {"H", "D"}]
            assert "H" not in kinds[0] or QUEUE in wholes
            if wholes:
                found[name] = wholes[0]
        return found

    refill()
    program = tools.put("exim4", exim_spool.EXIM.format(tools=tools.directory, spool=spool))
    return Cuttable(Exim(), exim_spool.instance(spool, program), tools, run_script, places, names, refill)


def test_of_exim(tmp_path: Path) -> None:
    cut_rounds(exim(tmp_path))


def opensmtpd(base: Path) -> Cuttable:
    spool, tools = base / "spool", Tools(base / "tools")
    names = tuple(f"17e3a5b{digit}" for digit in "12345")
    program = tools.put("smtpctl", smtpd_spool.SMTPCTL.format(spool=spool))

    def refill() -> None:
        for name in names:
            if not list(spool.glob(f"**/{name}/message")):
                smtpd_spool.add(spool, name)

    def settle() -> None:
        """The guard has the lock when the script has ended without it."""
        if (lock := spool / "mxfleet-quarantine/lock").exists():
            subprocess.run(["flock", lock, "true"], check=True)

    def places() -> dict[str, str]:
        found = {}
        for name in names:
            homes = {QUEUE: spool / "queue" / name[:2] / name}
            homes[QUARANTINE] = next(spool.glob(f"mxfleet-quarantine/*/{name}"), spool / "none")
            lying = {place: {path.name for path in home.glob("*")} for place, home in homes.items()}
            lying = {place: files for place, files in lying.items() if files}
            assert len(lying) <= 1
            for place, files in lying.items():
                assert files == {"message", f"{name}00000000", f"{name}00000001"}
                assert (homes[place] / "message").read_text() == f"Subject: {name}\n\nbody\n"
                found[name] = place
        return found

    refill()
    adapter, instance = OpenSmtpd(), smtpd_spool.instance(spool, program)
    return Cuttable(adapter, instance, tools, run_script, places, names, refill, settle)


def test_of_opensmtpd(tmp_path: Path) -> None:
    cut_rounds(opensmtpd(tmp_path))


def played(queue: Path, command: Command) -> Completed:
    """postqueue -j and -p, and postsuper -h and -H, on a flat queue."""
    if command.argv[3] == "-p":
        has_mail = any(path.is_file() for state in ("deferred", "hold") for path in (queue / state).iterdir())
        return Completed(0, b"-- 1 Kbytes in 5 Requests.\n" if has_mail else b"Mail queue is empty\n")
    if command.argv[3] == "-j":
        told = [
            {
                "queue_name": path.parent.name,
                "queue_id": path.name,
                "arrival_time": 1795172380,
                "message_size": 5,
                "forced_expire": False,
                "sender": "a@b.test",
                "recipients": [{"address": "r@x.test", "delay_reason": "later"}],
            }
            for state in ("deferred", "hold")
            for path in sorted((queue / state).iterdir())
        ]
        return Completed(0, "".join(json.dumps(each) + "\n" for each in told).encode())
    assert command.argv[3] in ("-h", "-H"), command
    source, target, word = {
        "-h": ("deferred", "hold", "placed on hold"),
        "-H": ("hold", "deferred", "released from hold"),
    }[command.argv[3]]
    done = [name for name in command.stdin.decode().split() if (queue / source / name).exists()]
    for name in done:
        (queue / source / name).rename(queue / target / name)
    said = "".join(f"postsuper: {name}: {word}\n" for name in done)
    return Completed(0, stderr=f"{said}postsuper: {word.capitalize()}: {len(done)} messages\n".encode())


def postfix(base: Path) -> Cuttable:
    queue, tools = base / "queue", Tools(base / "tools")
    names = tuple(f"AAAAAA{digit}" for digit in "12345")
    for state in ("deferred", "hold"):
        (queue / state).mkdir(parents=True)

    def refill() -> None:
        for name in names:
            if not list(queue.glob(f"**/{name}")):
                (queue / "deferred" / name).write_text("whole")

    def places() -> dict[str, str]:
        found = {}
        for path in (path for path in queue.rglob("*") if path.is_file() and path.suffix != ".restored"):
            assert path.name not in found
            assert path.read_text() == "whole"
            found[path.name] = QUARANTINE if "mxfleet-quarantine" in path.parts else QUEUE
        return found

    def answer(command: Command, directory: Path | None) -> Completed:
        return run_script(command, directory) if command.script else played(queue, command)

    refill()
    options = {"command_directory": "/usr/sbin", "can_quarantine": True, "log_source": "none"}
    instance = InstanceFacts("mx1", "postfix", "postfix", "3.7.11", "/etc/postfix", (str(queue),), options=options)
    host = Cuttable(Postfix(), instance, tools, answer, places, names, refill)
    host.half = lambda: {path.name for path in (queue / "hold").iterdir()}
    return host


def test_of_postfix(tmp_path: Path) -> None:
    cut_rounds(postfix(tmp_path))
