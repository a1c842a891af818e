"""What a hostile request may cost: its CPU grows with its length only, and its answer stays short."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from api import parsers
from api.errors import ERRORS_LISTED, Problem
from fleet.match import parse_any
from tests.http.cast import World
from tests.http.test_errors import JOB, refused


def cpu(work: Callable[[], Any]) -> float:
    """Seconds of CPU that the work takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def test_a_doubled_key_among_many_is_found_in_linear_time() -> None:
    names = [f'"{number:x}":0' for number in range(28_000)]
    raw = ("{" + ",".join([*names, names[-1]]) + "}").encode()

    def refuse() -> None:
        with pytest.raises(Problem, match="'6d5f' stands twice") as caught:
            parsers.parse(raw)
        assert caught.value.code == "duplicate_key"

    assert cpu(refuse) < 2


def test_a_thousand_thresholds_are_judged_in_linear_time() -> None:
    text = " ".join(f"size>{number}" for number in range(1000))
    assert min(cpu(parse_any(text).matches_everything) for _ in range(3)) < 0.15


def test_at_most_a_hundred_errors_are_told_and_the_rest_is_counted(world: World) -> None:
    many = {f"x{number}": 0 for number in range(ERRORS_LISTED + 23)}
    for request in (JOB | many, JOB | {"params": many}):
        problem = refused(world.alice.post("jobs/", request), 422, "invalid")
        assert (len(problem["errors"]), problem["more_errors"]) == (ERRORS_LISTED, 23)
    problem = refused(world.alice.post("jobs/", JOB | {"x": 0}), 422, "invalid")
    assert "more_errors" not in problem


def test_a_list_that_is_too_long_is_one_error_and_not_one_for_each_item(world: World) -> None:
    problem = refused(world.dana.post("tokens/", {"name": "x", "scopes": ["x"] * 1000}), 422, "invalid")
    assert [error["field"] for error in problem["errors"]] == ["scopes"]


def test_too_many_query_parameters_are_the_callers_mistake(world: World) -> None:
    query = "&".join(f"a{number}=1" for number in range(1001))
    refused(world.alice.get(f"jobs/?{query}"), 400, "bad_request")
