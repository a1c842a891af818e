"""Generators and type checkers, in the environments that `tests/run clients` makes."""

import subprocess
from pathlib import Path

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs/openapi.yaml"
PROGRAMS = HERE / ".venv/bin"
MODULES = HERE / "node_modules/.bin"


def run(program: Path, *arguments: str | Path, cwd: Path = HERE, fails: bool = False) -> str:
    """What it prints. `fails`: it may."""
    assert program.exists(), f"{program} is missing: type tests/run clients"
    search = f"{program.parent}:/usr/local/bin:/usr/bin:/bin"
    done = subprocess.run([program, *arguments], cwd=cwd, env={"PATH": search}, capture_output=True, text=True)
    assert fails or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def python_client(directory: Path) -> tuple[Path, str]:
    """Where the package mxfleet_client is, and what its generator said."""
    target = directory / "mxfleet_client"
    said = run(
        *(PROGRAMS / "openapi-python-client", "generate", "--path", DOCUMENT, "--output-path", target),
        *("--meta", "none", "--config", HERE / "python.yaml"),
    )
    return directory, said
