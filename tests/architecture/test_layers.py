"""Who may import whom, and how long a function may get: docs say it, this proves it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.mta import REGISTRY

ROOT = Path(__file__).parents[2]
PACKAGES = ("fleet", "jobs", "api", "deploy")


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in (ROOT / folder).rglob("*.py") if "migrations" not in path.parts)


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def importers(module: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in sources(*PACKAGES)
        if any(name == module or name.startswith(f"{module}.") for name in imports(path))
    }


def test_the_contracts_of_import_linter_are_kept() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_only_fleet_ssh_imports_asyncssh() -> None:
    found = importers("asyncssh")
    assert found
    assert {name for name in found if not name.startswith("fleet/ssh/")} == set()


def test_only_fleet_ssh_and_the_api_import_asyncio() -> None:
    found = importers("asyncio")
    assert found
    assert {name for name in found if not name.startswith(("fleet/ssh/", "api/"))} == set()


def test_nothing_imports_the_composition_root() -> None:
    assert {name for name in importers("deploy") if not name.startswith("deploy/")} == set()


def test_no_adapter_imports_another() -> None:
    adapters = {dotted.rpartition(".")[0] for dotted in REGISTRY.values()}
    assert adapters
    for adapter in adapters:
        place = ROOT / adapter.replace(".", "/")
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        for path in files:
            for name in imports(path):
                for other in adapters - {adapter}:
                    assert not f"{name}.".startswith(f"{other}."), f"{path} imports {other}"


@pytest.mark.parametrize("path", sorted(sources(*PACKAGES)), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_and_no_function_is_too_long_to_read(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 450
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, functions)
    }
    assert {name: lines for name, lines in lengths.items() if lines > 60} == {}
