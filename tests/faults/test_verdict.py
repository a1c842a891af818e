"""The judge of the fault rounds sees each kind of broken promise, and nothing where told and truth agree."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.verdict import Told, Truth, problems, restored

JOB = "job-1"
BEFORE = {"A1": "a", "B2": "b", "C3": "c"}
TRUTH = Truth(
    before=BEFORE,
    queued={"C3": [("deferred", "c")]},
    kept={"A1": [(JOB, "a")], "B2": [(JOB, "b")]},
    effects=(("out", "A1"), ("out", "B2")),
)
TOLD = Told(JOB, "failed", {"done": 2, "left": 1, "in_delivery": 0, "already_gone": 0}, ("A1", "B2"))


def test_a_purge_that_says_what_is_so_broke_no_promise() -> None:
    assert problems(TOLD, TRUTH) == []


@pytest.mark.parametrize(
    ("truth", "problem"),
    [
        (replace(TRUTH, queued={}), "lost: 1 (C3)"),
        (replace(TRUTH, queued={**TRUTH.queued, "A1": [("hold", "a")]}), "doubled: 1 (A1)"),
        (replace(TRUTH, queued={"C3": [("deferred", "c"), ("hold", "c")]}), "doubled: 1 (C3)"),
        (replace(TRUTH, kept={**TRUTH.kept, "A1": [(JOB, "x")]}), "not the same bytes: 1 (A1)"),
        (replace(TRUTH, effects=(*TRUTH.effects, ("out", "A1"))), "done twice: 1 (out A1)"),
        (replace(TRUTH, queued={"C3": [("hold", "c")]}), "on hold without being told: 1 (C3)"),
        (replace(TRUTH, kept={**TRUTH.kept, "A1": [("job-2", "a")]}), "a row without its message: 1 (A1)"),
    ],
)
def test_what_is_wrong_on_the_host_is_named(truth: Truth, problem: str) -> None:
    assert problem in problems(TOLD, truth)


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        (replace(TOLD, state="succeeded"), "succeeded with messages left: 1 of 3"),
        (replace(TOLD, result={**TOLD.result, "done": 1}), "claimed wrongly: done 1, in quarantine 2 (failed)"),
        (replace(TOLD, result={}), "claimed wrongly: done 0, in quarantine 2 (failed)"),
        (replace(TOLD, result={**TOLD.result, "left": 0}), "claimed wrongly: left 0, queued 1 (failed)"),
        (replace(TOLD, rows=("A1",)), "in a quarantine without a row: 1 (B2)"),
        (replace(TOLD, rows=("A1", "B2", "C3")), "a row without its message: 1 (C3)"),
        (replace(TOLD, rows=("A1", "A1", "B2")), "two rows: 1 (A1)"),
    ],
)
def test_what_is_told_wrongly_is_named(told: Told, problem: str) -> None:
    assert problem in problems(told, TRUTH)


def test_an_undo_has_to_bring_everything_back_as_it_was() -> None:
    back = {"A1": [("deferred", "a")], "B2": [("deferred", "b")], "C3": [("deferred", "c")]}
    assert restored(BEFORE, back, {}, ()) == []
    assert restored(BEFORE, {**back, "C3": [("hold", "c")]}, {}, ("C3",)) == []
    assert restored(BEFORE, {**back, "C3": [("hold", "c")]}, {}, ()) == ["in hold after undo: C3"]
    assert restored(BEFORE, {**back, "A1": [("deferred", "x")]}, {}, ()) == ["other bytes after undo: A1"]
    still = {name: files for name, files in back.items() if name != "B2"}
    assert restored(BEFORE, still, {"B2": [(JOB, "b")]}, ()) == [
        "not back after undo: 1 (B2)",
        "still in quarantine after undo: 1 (B2)",
    ]
