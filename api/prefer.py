"""`Prefer: wait=N` (RFC 7240): hold the answer until the job has ended, awaits people, or N seconds have passed."""

import re
import time
from collections.abc import Callable

from rest_framework.request import Request

from api.errors import Problem
from api.idempotency import Answer, Hold
from jobs.models import Job
from jobs.state import JobState

LONGEST = 30
SHORTEST_PAUSE = 0.004
LONGEST_PAUSE = 0.1
SHARE = 0.03
"""A pause is this part of what was waited already, so nobody waits much longer than his job took."""
FINAL = frozenset(state.value for state in JobState.final())
WAIT = re.compile(r'wait\s*=\s*("?)([0-9]{1,6})\1', re.ASCII)


def seconds(request: Request) -> int | None:
    """How long the caller wants to wait, at most LONGEST; None without such a preference. Raises Problem 400."""
    for part in re.split(r"[,;]", request.headers.get("Prefer", "")):
        name = part.split("=")[0].strip().lower()
        if name != "wait":
            continue
        match = WAIT.fullmatch(part.strip().lower())
        if not match:
            raise Problem(400, "malformed_header", "Prefer: wait needs whole seconds, such as wait=10")
        return min(int(match[2]), LONGEST)
    return None


def holder(request: Request, render: Callable[[Job], Answer]) -> Hold | None:
    """What keeps an answer back as the request prefers, or None. `render` makes the answer of the settled job."""
    limit = seconds(request)
    if limit is None:
        return None

    def hold(answer: Answer) -> Answer:
        if answer.job is None:
            return answer
        until_settled(answer.job, limit)
        held = render(answer.job)
        held.headers["Preference-Applied"] = f"wait={limit}"
        return held

    return hold


def until_settled(job: Job, limit: float) -> None:
    """Return when the job has ended or awaits people, or after `limit` seconds. The caller reads it anew."""
    began = time.monotonic()
    while True:
        state = Job.objects.values_list("state", flat=True).get(pk=job.pk)
        waited = time.monotonic() - began
        if state in FINAL or state == JobState.AWAITING_APPROVAL or waited >= limit:
            return
        pause = min(max(waited * SHARE, SHORTEST_PAUSE), LONGEST_PAUSE)
        time.sleep(min(pause, limit - waited))
