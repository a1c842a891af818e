"""The drill of docs/operating.md on the real service: back up, go on working, restore, start, read back, let go."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx2
import pytest

from tests.faults import table
from tests.faults.host import SPEED, Host
from tests.faults.service import World
from tests.lab.service import Json, Service, asked, await_true
from tests.services import postgres_program

MESSAGES = 6
SLOW = 0.4
"""Seconds that each message takes, so that the backup meets one purge in its middle and another one waiting."""
SETTLED_SECONDS = 240.0

pytestmark = pytest.mark.timeout(600)


def test_after_a_restore_nothing_is_done_twice_and_what_was_done_is_told(
    world: World, hosts: list[Host], tmp_path: Path
) -> None:
    host = hosts[0]
    world.service.await_whole()
    host.set_pause(SLOW)
    try:
        running, waiting = _purges(world, host)
        backup = _dump(world, tmp_path)
        assert [job["state"] for job in world.ended([running, waiting], 120)] == ["succeeded", "succeeded"]
    finally:
        host.set_pause(SPEED)
    done = host.effects()

    _restore(world, backup)
    await_true(lambda: "paused since" in _parts(world)["dispatch"], 90, "the service did not come up paused")
    assert "lacks entries" in _parts(world)["audit"]
    refused = httpx2.post(
        f"{world.service.url}/api/v1/jobs/",
        headers={"Authorization": f"Bearer {world.alice.token}"},
        json=asked("queue.hold", host.instance, {"match": "ALL"}),
    )
    assert (refused.status_code, refused.json()["code"]) == (503, "paused")

    told = world.ended([running, waiting], SETTLED_SECONDS)
    assert [job["state"] for job in told] == ["succeeded", "succeeded"]
    assert [job["counts"]["messages"] for job in told] == [MESSAGES, MESSAGES]
    assert host.effects() == done, "something was done on the host after the restore"

    said = world.service.manage("audit_acknowledge_gap", "--reason", "the drill")
    assert "chain acme" in said
    world.service.manage("resume", "--reason", "the drill is over")
    world.service.await_whole()
    for job in told:
        world.alice.ended(world.alice.undo(job, 90))
    assert "gap acknowledged in chain acme" in world.service.manage("audit_verify")
    table.note("restore of a backup, one purge in its middle and one waiting", 1, "nothing done twice, all told", "")


def _purges(world: World, host: Host) -> tuple[Json, Json]:
    """One that is at work on the host, and one that waits for it."""
    seen = len(host.effects())
    jobs = []
    for sender in ("first@drill.example", "second@drill.example"):
        host.fill(MESSAGES, sender)
        jobs.append(world.alice.submit("queue.purge", host.instance, match=f"from:{sender}", max_messages=100))
    running, waiting = jobs
    await_true(lambda: len(host.effects()) > seen, 60, "the first purge does not begin")
    await_true(lambda: _state(world, waiting) == "queued", 60, "the second purge is not ready")
    assert _state(world, running) == "running"
    return running, waiting


def _state(world: World, job: Json) -> str:
    return str(world.admin.get(f"jobs/{job['id']}/")["state"])


def _dump(world: World, directory: Path) -> Path:
    backup = directory / "mxfleet.dump"
    _run("pg_dump", "-Fc", "-f", str(backup), world.service.database.url)
    return backup


def _restore(world: World, backup: Path) -> None:
    Service.stop(world.service)  # and not its database
    _run("pg_restore", "--clean", "--if-exists", "-d", world.service.database.url, str(backup))
    world.service.launch()


def _run(name: str, *arguments: str) -> None:
    done = subprocess.run([postgres_program(name), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"{name}: {done.stderr}"


def _parts(world: World) -> dict[str, str]:
    """What readyz says of each part; nothing while it does not answer."""
    try:
        parts: dict[str, str] = httpx2.get(f"{world.service.url}/readyz", timeout=5).json()["parts"]
    except (httpx2.HTTPError, ValueError, KeyError):
        return {"dispatch": "", "audit": ""}
    return parts
