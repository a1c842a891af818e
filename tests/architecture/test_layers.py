"""The layers (pyproject.toml), and how long a file or a function may get."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("fleet", "jobs", "api", "deploy")


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in (ROOT / folder).rglob("*.py") if "migrations" not in path.parts)


def test_the_contracts_of_import_linter_are_kept() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("path", sorted(sources(*PACKAGES)), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_and_no_function_is_too_long_to_read(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 370
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, functions)
    }
    assert {name: lines for name, lines in lengths.items() if lines > 40} == {}
