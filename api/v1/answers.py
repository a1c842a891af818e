"""The answers of POSTs that make a job."""

from typing import Any

from api.idempotency import Answer
from api.prefer import SETTLED, Url
from api.v1 import render
from jobs import selectors
from jobs.models import Job

POLL_AGAIN = "1"
"""Seconds, as Retry-After of a job that has not ended."""


def job_answer(url: Url, job: Job) -> Answer:
    """The job as it is now: 200 when it has ended or awaits people, else 202."""
    row = selectors.with_details(Job.objects.filter(pk=job.pk)).get()
    answer = _answer(url, row, render.jobs([row], url)[0])
    answer.status = 200 if row.state in SETTLED else 202
    return answer


def made(url: Url, job: Job) -> Answer:
    """202 and the new job."""
    return _answer(url, job, render.new_job(job, url))


def _answer(url: Url, row: Job, body: dict[str, Any]) -> Answer:
    headers = {"Location": url(f"/api/v1/jobs/{row.pk}/")}
    if row.state not in render.FINAL:
        headers["Retry-After"] = POLL_AGAIN
    return Answer(202, body, headers, row)
