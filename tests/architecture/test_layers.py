"""The layers (pyproject.toml), how long a file or a function may get, and that pages name files that are there."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("fleet", "jobs", "api", "deploy")
INSTALLED = frozenset({".venv", "node_modules"})


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in (ROOT / folder).rglob("*.py") if "migrations" not in path.parts)


def scripts() -> Iterator[Path]:
    yield from (ROOT / name / "run" for name in (".ci", "deploy", "tests"))
    for folder in (*PACKAGES, "tests"):
        yield from (each for each in (ROOT / folder).rglob("*.sh") if not INSTALLED & {*each.parts})


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_contracts_of_import_linter_are_kept() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("path", [*sorted(sources(*PACKAGES)), *sorted(scripts())], ids=named)
def test_no_file_and_no_function_is_too_long_to_read(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 350
    lengths, most = (python_functions(text), 40) if path.suffix == ".py" else (shell_functions(text), 60)
    assert [(name, lines) for name, lines in lengths if lines > most] == []


def python_functions(text: str) -> list[tuple[str, int]]:
    return [
        (node.name, (node.end_lineno or 0) - node.lineno + 1)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def shell_functions(text: str) -> list[tuple[str, int]]:
    found = re.finditer(r"^(\w+)\(\) *([{(])(?!.* [)}](?: #.*)?$).*\n(?:.*\n)*?[)}](?: .*)?$", text, re.M)
    return [(each[1], each[0].count("\n") + 1) for each in found]


def test_functions_are_measured_each_for_itself() -> None:
    twice = "class A:\n    def go(self):\n        a\n        b\n\nclass B:\n    def go(self): ...\n"
    assert python_functions(twice) == [("go", 3), ("go", 1)]
    script = "one() { a; } # WHAT\ntwo() { # WHAT\n    a\n}\n\nthree() (\n    { a; }\n    b\n)\n"
    assert shell_functions(script) == [("two", 3), ("three", 4)]


PAGES = (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_page_names_files_that_are_there(page: Path) -> None:
    here = [f"/{named(path)}" for folder in (*PACKAGES, "tests") for path in (ROOT / folder).rglob("*.*")]
    told = set(re.findall(r"`(\w[\w./-]*\.(?:py|sh))`", page.read_text()))
    assert {name for name in told if not any(path.endswith(f"/{name}") for path in here)} - {"manage.py"} == set()
