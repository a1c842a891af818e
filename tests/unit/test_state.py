"""The table of a job's states, and how a job ends by its runs."""

import pytest

from jobs.rules.state import JOB_TRANSITIONS, JobState, RunState, job_end, may_follow

FINAL = {"planned", "succeeded", "partly_failed", "failed", "rejected", "expired", "cancelled"}


def test_exactly_the_states_that_the_api_calls_ends_are_final() -> None:
    assert {state.value for state in JobState.final()} == FINAL
    assert set(JOB_TRANSITIONS) == set(JobState)


@pytest.mark.parametrize("state", sorted(FINAL))
def test_nothing_follows_an_end(state: str) -> None:
    assert not any(may_follow(JobState(state), new) for new in JobState)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("planning", "running"),
        ("awaiting_approval", "running"),
        ("awaiting_approval", "succeeded"),
        ("queued", "succeeded"),
        ("queued", "awaiting_approval"),
        ("running", "expired"),
        ("running", "rejected"),
        ("running", "planning"),
    ],
)
def test_no_state_skips_approval_or_goes_back(old: str, new: str) -> None:
    assert not may_follow(JobState(old), JobState(new))


def test_only_a_job_that_awaits_people_can_be_rejected() -> None:
    assert [old for old in JobState if may_follow(old, JobState.REJECTED)] == [JobState.AWAITING_APPROVAL]


def test_only_a_queued_job_begins_to_run() -> None:
    assert [old for old in JobState if may_follow(old, JobState.RUNNING)] == [JobState.QUEUED]


def test_every_state_can_be_reached_from_planning_and_reaches_an_end() -> None:
    seen = {JobState.PLANNING}
    while new := {after for state in seen for after in JOB_TRANSITIONS[state]} - seen:
        seen |= new
    assert seen == set(JobState)


@pytest.mark.parametrize(
    ("runs", "end"),
    [
        ({"succeeded": 2}, "succeeded"),
        ({"unchanged": 2}, "succeeded"),
        ({"succeeded": 1, "unchanged": 1}, "succeeded"),
        ({"succeeded": 1, "unsupported": 3}, "succeeded"),
        ({"unchanged": 1, "unsupported": 3}, "succeeded"),
        ({"unsupported": 3}, "failed"),
        ({"succeeded": 1, "failed": 1}, "partly_failed"),
        ({"succeeded": 1, "unreachable": 1}, "partly_failed"),
        ({"succeeded": 1, "unknown": 1}, "partly_failed"),
        ({"succeeded": 1, "cancelled": 1}, "partly_failed"),
        ({"succeeded": 1, "unsupported": 1, "failed": 1}, "partly_failed"),
        ({"failed": 1}, "failed"),
        ({"unreachable": 2}, "failed"),
        ({"unknown": 1}, "failed"),
        ({"failed": 1, "cancelled": 1}, "failed"),
        ({"cancelled": 2}, "cancelled"),
    ],
)
def test_a_job_ends_as_its_runs_did(runs: dict[str, int], end: str) -> None:
    assert job_end({RunState(state): count for state, count in runs.items()}) == end
