"""`Prefer: wait=N` (RFC 7240): hold the answer until the job has ended, awaits people, or N seconds have passed."""

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from api.errors import Problem
from api.held import Exchange, exchange_of
from api.hub import Listener
from api.idempotency import Answer, Hold, complete
from jobs import selectors
from jobs.models import Job
from jobs.rules.state import JobState

LONGEST = 30
SETTLED = frozenset({*JobState.final(), JobState.AWAITING_APPROVAL})
"""States in which nothing more happens to a job before somebody acts."""
WAIT = re.compile(r'wait\s*=\s*("?)([0-9]{1,6})\1', re.ASCII)
log = logging.getLogger(__name__)


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


Url = Callable[[str], str]


def holder(request: Request, render: Callable[[Url, Job], Answer]) -> Hold | None:
    """What keeps an answer back as the request prefers. None: it does not, or so many wait that no place is left.

    `render` makes the answer with the job as it is, once the request has ended; its Url makes a path's address.
    """
    limit = seconds(request)
    exchange = exchange_of(request._request)
    if limit is None or exchange is None or not exchange.take_place("waits", str(request.user.pk)):
        return None
    base = request.build_absolute_uri("/").removesuffix("/")

    def hold(first: Answer) -> None:
        if first.job is not None:
            rest = _Wait(first, first.job, limit, partial(render, lambda path: base + path))
            exchange.go_on(rest, first.job.pk)

    return hold


@dataclass(frozen=True)
class _Wait:
    """What is left to do: wait for `limit` seconds at most, then answer with the job as it is, or else with `first`."""

    first: Answer
    job: Job
    limit: int
    render: Callable[[Job], Answer]

    async def __call__(self, exchange: Exchange, listener: Listener) -> None:
        try:
            await self._settled(exchange, listener)
            answer = await exchange.hub.query(self._answer)
        except Exception as error:  # the job is made, whatever happens to the database meanwhile
            log.warning("an answer was not held to its end: %s: %s", type(error).__name__, error)
            answer = self.first
        await exchange.start(answer.status, answer.headers, instead_of=self.first.headers)
        await exchange.write(JSONRenderer().render(answer.body), is_last=True)

    async def _settled(self, exchange: Exchange, listener: Listener) -> None:
        """Return when the job has ended or awaits people, when nobody is there any more, or when the time is over."""
        now = asyncio.get_running_loop().time
        until = now() + self.limit
        while True:
            found = await exchange.hub.query(selectors.news_of, [self.job.pk])
            state, listener.seen = found[self.job.pk]
            if state in SETTLED or listener.is_over or now() >= until:
                return
            await listener.news(until - now())

    def _answer(self) -> Answer:
        answer = self.render(self.job)
        answer.headers["Preference-Applied"] = f"wait={self.limit}"
        complete(self.first, answer)
        return answer
