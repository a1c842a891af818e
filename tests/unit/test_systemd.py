"""The units as systemd itself reads them: nothing in them is wrong, and what a start of the target starts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
PYTHON = "/opt/mxfleet/venv/bin/python"
STARTED = {
    "mxfleet.target",
    "mxfleet-api.service",
    "mxfleet-control.service",
    "mxfleet-scheduler.service",
    "mxfleet-worker@ssh.0.service",
    "mxfleet-worker@ssh.1.service",
}


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a Python that there is."""
    for file in UNITS.iterdir():
        (tmp_path / file.name).write_text(file.read_text().replace(PYTHON, sys.executable))
    return tmp_path


def verify(units: Path, name: str, level: str = "notice") -> str:
    """What systemd-analyze says of a unit that lies there; with "debug" it tells the jobs of its start."""
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:", "SYSTEMD_LOG_LEVEL": level}
    done = subprocess.run(
        ["systemd-analyze", "verify", str(units / name)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("name", sorted(STARTED))
def test_systemd_finds_nothing_wrong_with_a_unit(units: Path, name: str) -> None:
    assert "mxfleet" not in verify(units, name)


def test_the_target_starts_the_workers_of_every_queue_too(units: Path) -> None:
    jobs = set(re.findall(r"Installed new job (mxfleet\S*)/start", verify(units, "mxfleet.target", "debug")))
    assert jobs == STARTED
