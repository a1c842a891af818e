"""What every adapter finds in quarantine, whoever put it there, and what no host can make it believe."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.mta import REGISTRY
from fleet.mta.adapter import adapter_for
from fleet.mta.errors import RemoteError, SudoDenied, UnparsedOutput
from fleet.mta.operations import QueuePurge, Selection
from fleet.mta.queue.in_quarantine import MOST, SCRIPT
from fleet.mta.records import Context, InQuarantine, InstanceFacts
from fleet.mta.steps import Command, Completed
from tests.contract.play import Host, Ran, Wire, carry
from tests.contract.test_contract import ALL, GARBAGE, NOW, check_command, module_of, played
from tests.unit.real_scripts import run_script

JOB = "01998b5e-7d2a-7c3e-9f10-2b8d4c6e1f33"
FILES = {
    "postfix": "mxfleet-quarantine/{job}/{id}",
    "sendmail": "mxfleet-quarantine/{job}/qf{id}",
    "opensmtpd": "mxfleet-quarantine/{job}/{id}/message",
    "qmail": "mxfleet-quarantine/{job}/mess/{id}",
    "exim": "mxfleet-{job}/input/{id}-H",
}
"""The file that makes a message in quarantine, below its queue directory."""


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while HOSTS:
        HOSTS.pop().close()


HOSTS: list[Host] = []


def purged(mta: str, directory: Path, mode: str = "quarantine") -> tuple[Host, dict[str, str]]:
    """A host after a purge of its three messages, and the places that the purge told."""
    host = played(mta, directory)
    HOSTS.append(host)
    steps = host.adapter.queue_purge(host.instance, QueuePurge(Selection(ALL), mode=mode), Context(now=NOW, job=JOB))  # type: ignore[attr-defined]
    ran = carry(Wire(host), steps)
    assert ran.error is None
    return host, ran.value.data.get("places", {})


def look(host: Host, wire: Wire | None = None) -> Ran:
    return carry(wire or Wire(host), host.adapter.in_quarantine(host.instance))


def on_disk(mta: str, directory: Path) -> InstanceFacts:
    """An instance with an empty queue directory, for the real script."""
    options = {"queue_patterns": [f"{directory}/queue*"], "client_queue": ""}
    (directory / "queue").mkdir(exist_ok=True)
    return InstanceFacts("mx1", mta, mta, "1", "/etc", (f"{directory}/queue",), options=options)


def put(mta: str, directory: Path, job: str, queue_id: str) -> Path:
    path = directory / "queue" / FILES[mta].format(job=job, id=queue_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def found_on_disk(mta: str, directory: Path) -> InQuarantine:
    """What the real script and the adapter find there."""
    steps = adapter_for(mta).in_quarantine(on_disk(mta, directory))
    command = next(steps)
    assert isinstance(command, Command)
    with pytest.raises(StopIteration) as end:
        steps.send(run_script(command))
    found: InQuarantine = end.value.value
    return found


@pytest.mark.parametrize("mta", REGISTRY)
def test_what_a_purge_put_there_is_found_under_its_job_and_at_its_place(mta: str, tmp_path: Path) -> None:
    host, places = purged(mta, tmp_path)
    assert len(places) == 3
    ran = look(host)
    assert ran.error is None
    assert {each.queue_id: each.place for each in ran.value.found} == places
    assert {each.job for each in ran.value.found} == {host.adapter.quarantine_mark(JOB)}
    assert (ran.value.more, ran.value.odd) == (0, 0)


@pytest.mark.parametrize("mta", REGISTRY)
def test_looking_is_one_reading_command_that_sudo_may_allow(mta: str, tmp_path: Path) -> None:
    host, _ = purged(mta, tmp_path)
    before = look(host).value
    ran = look(host)
    assert [command.script for command in ran.commands] == [SCRIPT]
    assert not ran.mutated
    check_command(host, ran.commands[0])
    assert ran.value == before


@pytest.mark.parametrize("mta", REGISTRY)
def test_nothing_is_found_where_nothing_was_ever_purged(mta: str, tmp_path: Path) -> None:
    assert found_on_disk(mta, tmp_path) == InQuarantine(())


@pytest.mark.parametrize("mta", REGISTRY)
def test_a_refusal_garbage_and_a_cut_off_answer_are_errors(mta: str, tmp_path: Path) -> None:
    host, _ = purged(mta, tmp_path)
    assert isinstance(look(host, Wire(host, refuses_root=True)).error, SudoDenied)

    def garbage(number: int, command: Command, done: Completed) -> Completed:
        return replace(done, stdout=GARBAGE)

    def cut(number: int, command: Command, done: Completed) -> Completed:
        return replace(done, stdout=done.stdout[:-3])

    def failed(number: int, command: Command, done: Completed) -> Completed:
        return replace(done, exit_status=66)

    assert isinstance(look(host, Wire(host, garbage)).error, UnparsedOutput)
    assert isinstance(look(host, Wire(host, cut)).error, UnparsedOutput)
    assert isinstance(look(host, Wire(host, failed)).error, RemoteError)


@pytest.mark.parametrize("mta", REGISTRY)
def test_names_that_no_job_of_ours_made_are_counted_and_never_guessed(mta: str, tmp_path: Path) -> None:
    good = module_of(mta).ABSENT_ID
    mark = adapter_for(mta).quarantine_mark(JOB)
    put(mta, tmp_path, mark, good)
    odd = [
        put(mta, tmp_path, mark, "*"),
        put(mta, tmp_path, mark, "x" * 150),
        put(mta, tmp_path, mark, "ALL"),
        put(mta, tmp_path, mark, "a\nend 0 0 0\n"),
        put(mta, tmp_path, mark, "\udcff$(id)"),
        put(mta, tmp_path, "deleting-" + mark, good),
        put(mta, tmp_path, "-d", good),
        put(mta, tmp_path, mark.upper(), good),
    ]
    seen = found_on_disk(mta, tmp_path)
    assert [(each.job, each.queue_id) for each in seen.found] == [(mark, good)]
    assert (seen.more, seen.odd) == (0, len(odd))


@pytest.mark.parametrize("mta", REGISTRY)
def test_links_are_not_followed(mta: str, tmp_path: Path) -> None:
    path = put(mta, tmp_path, adapter_for(mta).quarantine_mark(JOB), module_of(mta).ABSENT_ID)
    top = tmp_path / "queue" / path.relative_to(tmp_path / "queue").parts[0]
    elsewhere = tmp_path / "elsewhere"
    top.rename(elsewhere)
    top.symlink_to(elsewhere)
    assert found_on_disk(mta, tmp_path).found == ()
    top.unlink()
    top.mkdir()
    (top / "link").symlink_to(elsewhere)
    assert found_on_disk(mta, tmp_path).found == ()


@pytest.mark.parametrize("mta", REGISTRY)
def test_what_lies_outside_of_the_instances_queues_is_not_believed(mta: str, tmp_path: Path) -> None:
    host, places = purged(mta, tmp_path)

    def elsewhere(number: int, command: Command, done: Completed) -> Completed:
        lines = [b"in /etc" if line.startswith(b"in ") else line for line in done.stdout.split(b"\n")]
        return replace(done, stdout=b"\n".join(lines))

    ran = look(host, Wire(host, elsewhere))
    assert (ran.value.found, ran.value.odd) == ((), len(places))


def test_of_very_many_only_so_many_are_told_by_the_script(tmp_path: Path) -> None:
    directory = put("postfix", tmp_path, JOB, "ABCDEF1").parent
    first = directory / "ABCDEF1"
    for number in range(MOST + 9):
        os.link(first, directory / f"BBBBBBBB{number:X}")
    value = found_on_disk("postfix", tmp_path)
    assert (len(value.found), value.more, value.odd) == (MOST, 10, 0)


def test_of_very_many_only_so_many_are_taken_from_a_host_that_tells_more(tmp_path: Path) -> None:
    host, _ = purged("postfix", tmp_path)

    def flood(number: int, command: Command, done: Completed) -> Completed:
        lines = [f"./mxfleet-quarantine/{JOB}/BBBBBBBB{number:X}" for number in range(MOST + 7)]
        return replace(done, stdout="\n".join([f"in {host.instance.queue_dirs[0]}", *lines, "end 1 0 0", ""]).encode())

    value = look(host, Wire(host, flood)).value
    assert (len(value.found), value.more) == (MOST, 7)


def test_a_pattern_of_sendmail_that_is_none_is_refused(tmp_path: Path) -> None:
    for pattern in ("/var/spool/*/q", "/var/../etc", "queue", "/var/spool/$(id)"):
        done = run_script(Command(("sendmail", "none", pattern), script=SCRIPT))
        assert done.exit_status == 64, pattern
