"""The answers of POSTs that make a job."""

from collections.abc import Callable

from api.idempotency import Answer
from api.prefer import SETTLED
from api.v1.serializers.jobs import JobSerializer
from jobs import selectors
from jobs.models import Job

Url = Callable[[str], str]
POLL_AGAIN = "1"
"""Seconds, as Retry-After of a job that has not ended."""


def job_answer(url: Url, job: Job) -> Answer:
    """The job as it is now: 200 when it has ended or awaits people, else 202."""
    rows = selectors.with_details(Job.objects.filter(pk=job.pk))
    answer = _answer(url, selectors.detailed(list(rows))[0])
    answer.status = 200 if answer.body["state"] in SETTLED else 202
    return answer


def made(url: Url, job: Job) -> Answer:
    """202 and the new job."""
    return _answer(url, selectors.made_now(job))


def _answer(url: Url, row: Job) -> Answer:
    headers = {"Location": url(f"/api/v1/jobs/{row.pk}/")}
    if row.state not in selectors.FINAL:
        headers["Retry-After"] = POLL_AGAIN
    return Answer(202, JobSerializer(row, context={"url": url}).data, headers, row)
