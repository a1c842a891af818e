"""The document's lists of codes hold all that the code can answer, and no others."""

import ast
from collections.abc import Iterator
from pathlib import Path

from api.codes import FIELD_CODES, HOST_CODES, PROBLEM_CODES
from api.errors import CODES, KEPT_CODES
from jobs.errors import TOP_CODES

ROOT = Path(__file__).parents[2]
PROBLEMS = {
    "Problem": 1,
    "Forbidden": 0,
    "NotFound": 0,
    "Clash": 0,
    "CountDiffers": 0,
    "Unavailable": 0,
    "Invalid": 0,
}
FIELDS = {
    "FieldError": 1,
    "TargetError": 1,
    "ParamError": 1,
    "BadValue": 0,
    "AddressError": 0,
    "field": 1,
    "matching": 1,
}
"""Which argument of which call is a code."""


def codes(calls: dict[str, int]) -> Iterator[str]:
    """The codes that stand in the source."""
    for path in (path for package in ("api", "jobs", "fleet") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                given = node.args[calls[name] :][:1] if name in calls else []
                yield from (
                    each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)
                )


def test_the_list_of_problem_codes_is_whole() -> None:
    assert set(PROBLEM_CODES) == {*codes(PROBLEMS), *CODES.values(), *TOP_CODES} - {"no_gap"}  # of a command


def test_the_list_of_field_codes_is_whole() -> None:
    assert set(FIELD_CODES) == {*codes(FIELDS), *KEPT_CODES}


def test_host_codes_come_from_the_errors_themselves() -> None:
    assert {"unreachable", "timeout", "plan_stale", "overtaken"} <= set(HOST_CODES)
