"""Jobs: ask for one, look at it, decide on it, stop it, put it back."""

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from api import prefer
from api.filters import equals, instance, one_of, when
from api.idempotency import Answer
from api.pagination import Ordering, Page, first_page, paginate
from api.v1 import render
from api.v1.answers import job_answer, made
from api.v1.shapes_fleet import EmptyShape
from api.v1.shapes_jobs import (
    JOB_STATES,
    RUN_STATES,
    CancelledShape,
    DecisionRequest,
    JobRequest,
    JobShape,
    MessageShape,
    PlanShape,
    RejectionRequest,
    RunShape,
    UndoRequest,
)
from api.view import ApiView, Method, found
from jobs import selectors
from jobs.errors import NotFound
from jobs.lifecycle import approval, cancel, followup, submit
from jobs.models import Job as JobRow
from jobs.models import Message
from jobs.models import Run as RunRow

JOBS = {"GET": "jobs:read", "POST": "jobs:request"}
DECIDE = {"POST": "jobs:approve"}
BY_ID = {"id": ("id",)}


class JobView(ApiView):
    """Base of what concerns one job."""

    tag = "jobs"
    scopes = JOBS

    def job(self, pk: UUID) -> JobRow:
        """The job, when the caller may see it."""
        row: JobRow = found(selectors.visible_jobs(self.actor).select_related("requested_by"), pk=pk)
        return row

    def new_job(self, work: Any) -> Response:
        """Answer with the job that `work` makes, as late as the caller prefers."""
        hold = prefer.holder(self.request, job_answer)
        return self.answered(lambda: made(self.url, work()), hold=hold)

    def current(self, pk: UUID) -> Answer:
        """200 and the job as it is now."""
        answer = job_answer(self.url, JobRow(pk=pk))
        return Answer(200, answer.body)


class Jobs(JobView):
    """Jobs that concern only customers that the caller may see."""

    orderings = {"-created_at": ("-id",)}
    filters = {
        "state": one_of("state", JOB_STATES, "Only jobs in this state."),
        "operation": equals("operation", "Only jobs of this operation."),
        "customer": equals("customers__slug", "Only jobs that concern this customer."),
        "requested_by": equals("requested_by__username", "Only jobs of this person or integration."),
        "ticket": equals("ticket", "Only jobs with this ticket."),
        "created_after": when("created_at__gt", "Only jobs made after this time."),
        "created_before": when("created_at__lt", "Only jobs made before this time."),
    }
    methods = {
        "GET": Method("List jobs", JobShape, is_page=True),
        "POST": Method("Ask for a job", JobShape, JobRequest, 202, makes_job=True),
    }

    def get(self, request: Request) -> Response:
        rows = selectors.with_details(selectors.visible_jobs(self.actor))
        return Response(self.page(rows, lambda page: render.jobs(page, self.url)))

    def post(self, request: Request) -> Response:
        requested = submit.Request(**self.read(JobRequest))
        return self.new_job(lambda: submit.submit(self.actor, requested))


class Job(JobView):
    """One job."""

    methods = {"GET": Method("Show a job", JobShape)}

    def get(self, request: Request, pk: UUID) -> Response:
        row = found(selectors.with_details(selectors.visible_jobs(self.actor)), pk=pk)
        answer = self.detail_response(render.jobs([row], self.url)[0])
        if row.state not in render.FINAL:
            answer.headers["Retry-After"] = "1"
        return answer


class Runs(JobView):
    """The job's runs, one per instance."""

    orderings: ClassVar[Mapping[str, Ordering]] = BY_ID
    filters = {
        "state": one_of("state", RUN_STATES, "Only runs in this state."),
        "instance": instance("instance__", "Only the run on this instance, as host/name."),
        "host": equals("host__name", "Only runs on this host."),
    }
    methods = {"GET": Method("List the runs of a job", RunShape, is_page=True)}

    def get(self, request: Request, pk: UUID) -> Response:
        rows = selectors.runs_of(self.job(pk))
        return Response(self.page(rows, lambda page: render.runs(page, self.messages)))

    def messages(self, run: RunRow, rows: list[Message]) -> Page:
        """The first page of a run's messages; its `next` leads to the run's own list."""
        url = self.url(f"/api/v1/jobs/{run.job_id}/runs/{run.pk}/messages/")
        return first_page(rows, render.EMBEDDED, url, BY_ID)


class Run(Runs):
    """One run."""

    orderings = {}
    filters = {}
    methods = {"GET": Method("Show a run", RunShape)}

    def get(self, request: Request, pk: UUID, run: UUID) -> Response:  # type: ignore[override]  # its address has more
        row = found(selectors.runs_of(self.job(pk)), pk=run)
        return self.detail_response(render.runs([row], self.messages)[0])


class RunMessages(JobView):
    """The messages that a run was to change, and what became of them."""

    orderings = BY_ID
    filters = {"outcome": equals("outcome", "Only those with this outcome.")}
    methods = {"GET": Method("List the messages of a run", MessageShape, is_page=True)}

    def get(self, request: Request, pk: UUID, run: UUID) -> Response:
        row = found(selectors.runs_of(self.job(pk)), pk=run)
        return Response(self.page(selectors.messages_of_run(row), render.outcomes))


class Plan(JobView):
    """The frozen plan: what an approver agrees to."""

    orderings = BY_ID
    methods = {"GET": Method("Show the plan", PlanShape)}

    def get(self, request: Request, pk: UUID) -> Response:
        job = self.job(pk)
        if job.frozen_at is None:
            raise NotFound("no_plan", f"the job has no plan; it is {job.state}")
        if job.totals is not None:
            raise NotFound("no_plan", "the job is old, and its plan is kept no longer")
        messages = paginate(selectors.messages_of_job(job), self.params(), self.url(), self.orderings)
        content = {
            "digest": job.digest,
            "frozen_at": render.instant(job.frozen_at),
            "instances": render.plan_instances(list(selectors.runs_of(job).filter(plan__isnull=False))),
            "messages": messages.of(render.planned_messages),
        }
        return Response(content)


class Approve(JobView):
    """Agree to the plan with that digest."""

    scopes = DECIDE
    methods = {"POST": Method("Approve", JobShape, DecisionRequest)}

    def post(self, request: Request, pk: UUID) -> Response:
        job = self.job(pk)
        data = self.read(DecisionRequest)

        def work() -> Answer:
            approval.approve(self.actor, job, data["digest"], data.get("comment", ""))
            return self.current(pk)

        return self.answered(work)


class Reject(JobView):
    """Refuse the plan with that digest; that ends the job."""

    scopes = DECIDE
    methods = {"POST": Method("Reject", JobShape, RejectionRequest)}

    def post(self, request: Request, pk: UUID) -> Response:
        job = self.job(pk)
        data = self.read(RejectionRequest)

        def work() -> Answer:
            approval.reject(self.actor, job, data["digest"], data["comment"])
            return self.current(pk)

        return self.answered(work)


class Cancel(JobView):
    """Stop a job: runs not begun are cancelled, runs in flight finish."""

    methods = {"POST": Method("Cancel", CancelledShape, EmptyShape)}

    def post(self, request: Request, pk: UUID) -> Response:
        job = self.job(pk)
        self.read(EmptyShape)
        return self.answered(lambda: Answer(200, cancel.cancel(self.actor, job)))


class Retry(JobView):
    """A new job on the runs that failed or were unreachable."""

    methods = {"POST": Method("Retry", JobShape, EmptyShape, 202, makes_job=True)}

    def post(self, request: Request, pk: UUID) -> Response:
        job = self.job(pk)
        self.read(EmptyShape)
        return self.new_job(lambda: followup.retry(self.actor, job))


class Undo(JobView):
    """A new job that puts back what this one changed."""

    methods = {"POST": Method("Undo", JobShape, UndoRequest, 202, makes_job=True)}

    def post(self, request: Request, pk: UUID) -> Response:
        job = self.job(pk)
        data = self.read(UndoRequest)
        return self.new_job(lambda: followup.undo(self.actor, job, data["reason"]))
