"""The answers of POSTs that make a job."""

from typing import Any

from api.idempotency import Answer
from api.v1 import render
from api.view import ApiView
from jobs import selectors
from jobs.models import Job
from jobs.state import JobState

POLL_AGAIN = "1"
"""Seconds, as Retry-After of a job that has not ended."""


def job_answer(view: ApiView, job: Job) -> Answer:
    """The job as it is now: 200 when it has ended or awaits people, else 202."""
    row = selectors.with_details(Job.objects.filter(pk=job.pk)).get()
    answer = _answer(view, row, render.jobs([row], view.url)[0])
    is_settled = row.state in render.FINAL or row.state == JobState.AWAITING_APPROVAL
    answer.status = 200 if is_settled else 202
    return answer


def made(view: ApiView, job: Job) -> Answer:
    """202 and the new job."""
    return _answer(view, job, render.new_job(job, view.url))


def _answer(view: ApiView, row: Job, body: dict[str, Any]) -> Answer:
    headers = {"Location": view.url(f"/api/v1/jobs/{row.pk}/")}
    if row.state not in render.FINAL:
        headers["Retry-After"] = POLL_AGAIN
    return Answer(202, body, headers, row)
