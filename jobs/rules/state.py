"""States of jobs and runs, and which may follow which. Pure: who wins a race is decided by a conditional UPDATE."""

from enum import StrEnum


class JobState(StrEnum):
    """As in the API. A job is final from `planned` on."""

    PLANNING = "planning"
    AWAITING_APPROVAL = "awaiting_approval"
    QUEUED = "queued"
    RUNNING = "running"
    PLANNED = "planned"
    SUCCEEDED = "succeeded"
    PARTLY_FAILED = "partly_failed"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @classmethod
    def final(cls) -> list["JobState"]:
        return [state for state in cls if not JOB_TRANSITIONS[state]]


JOB_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.PLANNING: frozenset(
        {
            JobState.AWAITING_APPROVAL,
            JobState.QUEUED,
            JobState.PLANNED,
            JobState.SUCCEEDED,
            JobState.PARTLY_FAILED,
            JobState.FAILED,
            JobState.CANCELLED,
        }
    ),
    JobState.AWAITING_APPROVAL: frozenset(
        {JobState.QUEUED, JobState.REJECTED, JobState.EXPIRED, JobState.CANCELLED, JobState.FAILED}
    ),
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.EXPIRED, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.PARTLY_FAILED, JobState.FAILED, JobState.CANCELLED}),
    JobState.PLANNED: frozenset(),
    JobState.SUCCEEDED: frozenset(),
    JobState.PARTLY_FAILED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.REJECTED: frozenset(),
    JobState.EXPIRED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class RunState(StrEnum):
    """As in the API. `planned` is the end of a run of a dry run that has its plan."""

    PENDING = "pending"
    RUNNING = "running"
    PLANNED = "planned"
    SUCCEEDED = "succeeded"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    UNSUPPORTED = "unsupported"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"


RUN_ENDED = frozenset(
    {
        RunState.PLANNED,
        RunState.SUCCEEDED,
        RunState.UNCHANGED,
        RunState.FAILED,
        RunState.UNREACHABLE,
        RunState.UNSUPPORTED,
        RunState.CANCELLED,
    }
)
"""Runs that will not move again. `unknown` may still be settled by reading back."""


def may_follow(old: JobState, new: JobState) -> bool:
    """Whether a job may go from `old` to `new`."""
    return new in JOB_TRANSITIONS[old]


def job_end(runs: dict[RunState, int]) -> JobState:
    """The end of a job whose runs ended so ({state: how many}); `unknown` counts as no success.

    `unchanged` counts as success, `unsupported` counts neither way beside a success; any other state beside a success
    is `partly_failed`; no success is `failed`; nothing but cancelled runs is `cancelled`.
    """
    good = runs.get(RunState.SUCCEEDED, 0) + runs.get(RunState.UNCHANGED, 0)
    cancelled = runs.get(RunState.CANCELLED, 0)
    total = sum(runs.values())
    if cancelled == total:
        return JobState.CANCELLED
    if not good:
        return JobState.FAILED
    neutral = runs.get(RunState.UNSUPPORTED, 0)
    return JobState.SUCCEEDED if good + neutral == total else JobState.PARTLY_FAILED
