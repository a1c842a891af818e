"""Jobs: ask for one, look at it, decide on it, stop it, put it back."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from api import prefer
from api.filters import Rows, Through, asked, equals, instance, number, one_of, when
from api.idempotency import Answer
from api.v1.answers import POLL_AGAIN, job_answer, made
from api.v1.serializers.fleet import EmptySerializer
from api.v1.serializers.jobs import (
    BY_ID,
    EMBEDDED,
    JOB_STATES,
    RUN_STATES,
    ApproveSerializer,
    CancelledSerializer,
    ConfirmSerializer,
    JobRequestSerializer,
    JobSerializer,
    MessageSerializer,
    RejectSerializer,
    RetrySerializer,
    RunSerializer,
    UndoSerializer,
)
from api.v1.serializers.plans import PlanSerializer
from api.v1.serializers.requests import ANY_REQUEST
from api.v1.serializers.runs import any_run
from api.v1.serializers.summary import ANY_SUMMARY, JobSummarySerializer, summary_of
from api.viewsets import ReadViewSet, found
from jobs import selectors
from jobs.errors import NotFound
from jobs.lifecycle import approval, cancel, drift, followup, submit
from jobs.models import Job, Run
from jobs.rules.state import JobState, RunState
from jobs.worker import liveness

JOBS = {"GET": "jobs:read", "POST": "jobs:request"}
DECIDE = {"POST": "jobs:approve"}
CUSTOMERS = Through(lambda actor: Job.customers.through.objects.all(), "job")
RUNS = Through(lambda actor: Run.objects.all(), "job")
RUN_FILTERS = {
    "state": one_of("state", RUN_STATES, "Only runs in this state."),
    "instance": instance("instance__", "Only the run on this instance, as host/name."),
    "host": equals("host__name", "Only runs on this host."),
}

MERGED_ROWS = 100
"""Rows of a merged listing, when no other number is asked for."""
SUMMARY_FILTERS = {"limit": number(1, 1000, MERGED_ROWS, "At most so many entries, rows or lines of a listing.")}


@extend_schema(tags=["jobs"])
@extend_schema_view(
    list=extend_schema(operation_id="get_jobs", summary="List jobs"),
    create=extend_schema(
        operation_id="post_jobs",
        summary="Ask for a job",
        request=ANY_REQUEST,
        responses={202: JobSerializer},
    ),
    retrieve=extend_schema(operation_id="get_job", summary="Show a job"),
)
class Jobs(ReadViewSet):
    """Jobs that concern only customers that the caller may see."""

    scopes = JOBS
    serializer_class = JobSerializer
    lookup_value_converter = "uuid"
    orderings = {"-created_at": ("-id",)}
    filters = {
        "state": one_of("state", JOB_STATES, "Only jobs in this state."),
        "operation": equals("operation", "Only jobs of this operation."),
        "customer": equals("customer__slug", "Only jobs that concern this customer.", CUSTOMERS),
        "host": equals("host__name", "Only jobs with a run on this host.", RUNS),
        "requested_by": equals("requested_by__username", "Only jobs of this person or integration."),
        "ticket": equals("ticket", "Only jobs with this ticket."),
        "group": equals("group", "Only jobs of this group."),
        "since": when("created_at__gte", "Only jobs made from this time on."),
        "until": when("created_at__lt", "Only jobs made before this time."),
        "created_after": when("created_at__gt", "Only jobs made after this time."),
        "created_before": when("created_at__lt", "Only jobs made before this time."),
    }
    filtered = frozenset({"list", "runs", "messages", "summary"})
    paged = frozenset({"list", "runs", "messages", "plan"})
    trimmed = frozenset({"list", "retrieve", "summary", "runs", "run", "messages", "plan"})

    def get_queryset(self) -> Rows:
        return selectors.with_details(selectors.visible_jobs(self.actor))

    def get_serializer_class(self) -> type[BaseSerializer[Any]]:
        return JobRequestSerializer if self.action == "create" else super().get_serializer_class()

    def paginate_queryset(self, queryset: Any) -> list[Any]:
        """With what the rows' representation needs, in a few statements for all of them."""
        rows = list(super().paginate_queryset(queryset) or ())
        if self.action == "list":
            return selectors.detailed(rows)
        return selectors.with_messages(rows, EMBEDDED + 1) if self.action == "runs" else rows

    def job(self) -> Job:
        """The job that the address names, when the caller may see it; without its details."""
        row: Job = found(selectors.visible_jobs(self.actor).select_related("requested_by"), pk=self.kwargs["pk"])
        return row

    def new_job(self, work: Callable[[], Job]) -> Response:
        """Answer with the job that `work` makes, as late as the caller prefers."""
        hold = prefer.holder(self.request, job_answer)
        return self.answered(lambda: made(self.url, work()), hold=hold)

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        requested = submit.Request(**self.body())
        return self.new_job(lambda: submit.submit(self.actor, requested))

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        row = selectors.detailed([self.get_object()])[0]
        answer = self.tagged(self.get_serializer(row).data)
        if row.state not in selectors.FINAL:
            answer.headers["Retry-After"] = POLL_AGAIN
        return answer

    @extend_schema(operation_id="get_job_summary", summary="Show what all runs came to", responses=ANY_SUMMARY)
    @action(detail=True, serializer_class=JobSummarySerializer, filters=SUMMARY_FILTERS)
    def summary(self, request: Request, pk: UUID) -> Response:
        """The results of all runs merged, what did not answer, and the same as text; of a job that goes on, so far."""
        job = self.job()
        runs = selectors.merged(job, asked(request, self.filters).get("limit", MERGED_ROWS))
        waits = runs.runs[RunState.PENDING] and job.state in (JobState.PLANNING, JobState.QUEUED, JobState.RUNNING)
        merged = summary_of(job, runs, liveness.unserved_hosts(job) if waits else ())
        answer = self.tagged(self.get_serializer(merged).data)
        if not merged["complete"]:
            answer.headers["Retry-After"] = POLL_AGAIN
        return answer

    @extend_schema(operation_id="get_runs", summary="List the runs of a job", responses=any_run(many=True))
    @action(detail=True, serializer_class=RunSerializer, filters=RUN_FILTERS, orderings=BY_ID)
    def runs(self, request: Request, pk: UUID) -> Response:
        """The job's runs, one per instance."""
        return self.page(selectors.runs_of(self.job()))

    def _run(self) -> Run:
        row: Run = found(selectors.runs_of(self.job()), pk=self.kwargs["run"])
        return row

    @extend_schema(operation_id="get_run", summary="Show a run", responses=any_run())
    @action(detail=True, url_path="runs/<uuid:run>", serializer_class=RunSerializer)
    def run(self, request: Request, pk: UUID, run: UUID) -> Response:
        """One run."""
        row = selectors.with_messages([self._run()], EMBEDDED + 1)[0]
        return self.tagged(self.get_serializer(row).data)

    @extend_schema(
        operation_id="get_run_messages", summary="List the messages of a run", responses=MessageSerializer(many=True)
    )
    @action(
        detail=True,
        url_path="runs/<uuid:run>/messages",
        serializer_class=MessageSerializer,
        filters={"outcome": equals("outcome", "Only those with this outcome.")},
        orderings=BY_ID,
    )
    def messages(self, request: Request, pk: UUID, run: UUID) -> Response:
        """The messages that a run was to change, and what became of them."""
        return self.page(selectors.messages_of_run(self._run()))

    @extend_schema(operation_id="get_plan", summary="Show the plan")
    @action(detail=True, serializer_class=PlanSerializer, orderings=BY_ID)
    def plan(self, request: Request, pk: UUID) -> Response:
        """The frozen plan: what an approver agrees to."""
        job = self.job()
        if job.frozen_at is None:
            raise NotFound("no_plan", f"the job has no plan; it is {job.state}")
        if job.totals is not None:
            raise NotFound("no_plan", "the job is old, and its plan is kept no longer")
        rows = self.paginate_queryset(selectors.messages_of_job(job))
        page = self.get_paginated_response(rows).data
        runs = selectors.runs_of(job).filter(plan__isnull=False)
        content = {"digest": job.digest, "frozen_at": job.frozen_at, "instances": runs, "messages": page}
        return Response(self.get_serializer(content).data)

    def _decided(self) -> Answer:
        """200 and the job as it is now."""
        return Answer(200, job_answer(self.url, Job(pk=self.kwargs["pk"])).body)

    @extend_schema(operation_id="post_approve", summary="Approve", responses=JobSerializer)
    @action(methods=["post"], detail=True, serializer_class=ApproveSerializer, scopes=DECIDE)
    def approve(self, request: Request, pk: UUID) -> Response:
        """Agree to the plan with that digest."""
        job, data = self.job(), self.body()

        def work() -> Answer:
            approval.approve(self.actor, job, data["digest"], data.get("comment", ""))
            return self._decided()

        return self.answered(work)

    @extend_schema(operation_id="post_reject", summary="Reject", responses=JobSerializer)
    @action(methods=["post"], detail=True, serializer_class=RejectSerializer, scopes=DECIDE)
    def reject(self, request: Request, pk: UUID) -> Response:
        """Refuse the plan with that digest; that ends the job."""
        job, data = self.job(), self.body()

        def work() -> Answer:
            approval.reject(self.actor, job, data["digest"], data["comment"])
            return self._decided()

        return self.answered(work)

    @extend_schema(operation_id="post_confirm", summary="Confirm", responses=JobSerializer)
    @action(methods=["post"], detail=True, serializer_class=ConfirmSerializer)
    def confirm(self, request: Request, pk: UUID) -> Response:
        """Stand by the plan with that digest, of a job that was asked for with `confirm`; now others may decide."""
        job, data = self.job(), self.body()

        def work() -> Answer:
            approval.confirm(self.actor, job, data["digest"])
            return self._decided()

        return self.answered(work)

    @extend_schema(operation_id="post_drift", summary="Look again", responses={202: JobSerializer})
    @action(methods=["post"], detail=True, serializer_class=EmptySerializer)
    def drift(self, request: Request, pk: UUID) -> Response:
        """A new job that compares the frozen plan with the queues as they are now; the plan stays as it is."""
        job = self.job()
        self.body()
        return self.new_job(lambda: drift.look(self.actor, job))

    @extend_schema(operation_id="post_cancel", summary="Cancel", responses=CancelledSerializer)
    @action(methods=["post"], detail=True, serializer_class=EmptySerializer)
    def cancel(self, request: Request, pk: UUID) -> Response:
        """Stop a job: runs not begun are cancelled, runs in flight finish."""
        job = self.job()
        self.body()
        return self.answered(lambda: Answer(200, CancelledSerializer(cancel.cancel(self.actor, job)).data))

    @extend_schema(operation_id="post_retry", summary="Retry", responses={202: JobSerializer})
    @action(methods=["post"], detail=True, serializer_class=RetrySerializer)
    def retry(self, request: Request, pk: UUID) -> Response:
        """A new job on the runs that failed or were unreachable."""
        job, data = self.job(), self.body()
        return self.new_job(lambda: followup.retry(self.actor, job, **data))

    @extend_schema(operation_id="post_undo", summary="Undo", responses={202: JobSerializer})
    @action(methods=["post"], detail=True, serializer_class=UndoSerializer)
    def undo(self, request: Request, pk: UUID) -> Response:
        """A new job that puts back what this one changed."""
        job, data = self.job(), self.body()
        return self.new_job(lambda: followup.undo(self.actor, job, **data))
