"""Hosts by the hundred: a file of them, and one whether it is there already or not."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from django.db import transaction
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from api.errors import Problem, as_problem, flatten
from api.filters import asked, switch, word
from api.idempotency import Answer
from api.row_parsers import CsvParser, JsonLinesParser, nothing
from api.row_parsers import Row as FileRow
from api.v1.serializers.fleet import HostSerializer
from api.v1.serializers.many_hosts import (
    BulkChangedSerializer,
    BulkChangeSerializer,
    ImportedSerializer,
    NewHostSerializer,
    PutHostSerializer,
)
from api.viewsets import ApiViewSet, etag, found, kept
from jobs.administration.host_fields import Row
from jobs.administration.hosts import Decision, put_host
from jobs.administration.many_hosts import CountDiffers, change_hosts, import_hosts
from jobs.errors import FieldError, Invalid, NotFound

SWITCHES = {
    "dry_run": switch("Only say what would be done."),
    "customer": word("Whose the hosts are that do not say it themselves."),
}
SELECTING = frozenset({"customer", "site", "enabled", "status", "label", "search"})
"""The filters of the list by which a change says which hosts it is for. What the list learns besides is none of them by
itself: a parameter that narrows nothing would mean the whole fleet."""
NAMES = ("name", "customer")
"""What is looked at of a row that is wrong: others may refer to it."""


class ManyHostsMixin(ApiViewSet):
    """What `hosts/` has for who brings many hosts, or does not know which are there already."""

    @extend_schema(
        operation_id="put_host",
        summary="Add a host, or change it",
        request=PutHostSerializer,
        responses={200: HostSerializer, 201: HostSerializer},
    )
    def update(self, request: Request, name: str) -> Response:
        """Add the host, or change what the body names of the one that is there."""
        serializer = PutHostSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        values = {"name": name, **serializer.validated_data}
        if values["name"] != name:
            raise Invalid.field("name", "invalid", f"the address says {name}; a host is renamed by PATCH")
        with transaction.atomic():
            self._check_preconditions(name)
            decision = put_host(self.actor, values)
            content = self.get_serializer(found(self.get_queryset(), pk=decision.host.pk)).data
        headers = {"ETag": etag(content), **({"Location": self.url()} if decision.is_new else {})}
        return Response(content, status=201 if decision.is_new else 200, headers=headers)

    def _check_preconditions(self, name: str) -> None:
        """Raise Problem 412 unless If-Match and If-None-Match, where given, fit to what is there."""
        try:
            row = kept(lambda: found(self.get_queryset(), name=name))
        except NotFound:
            if "If-Match" in self.request.headers:
                raise Problem(412, "precondition_failed", "there is no such host, or it is not yours to see") from None
            return
        if self.request.headers.get("If-None-Match", "").strip() == "*":
            raise Problem(412, "precondition_failed", "it is there already")
        self.check_match(self.get_serializer(row).data)

    @extend_schema(
        operation_id="patch_hosts",
        summary="Change many hosts",
        request=BulkChangeSerializer,
        responses={200: BulkChangedSerializer},
    )
    def bulk_update(self, request: Request) -> Response:
        """Change all hosts that the query selects, where they are as many as expected: all of them or none."""
        for name in request.query_params.keys() - SELECTING:
            raise Problem(400, "unknown_parameter", f"{name!r} does not say which hosts are meant")
        if not request.query_params:
            raise Problem(422, "invalid", "say by a filter which hosts are meant, such as ?customer=acme")
        if "If-Match" in request.headers:
            raise Problem(412, "precondition_failed", "a list has no version; `expected` says how many were seen")
        serializer = BulkChangeSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        body = serializer.validated_data
        try:
            decisions = change_hosts(
                self.actor, self.filter_queryset(self.get_queryset()), body["expected"], body["changes"]
            )
        except CountDiffers as error:
            problem = as_problem(error)
            problem.extra = {"found": error.found}
            raise problem from None
        changed = [each.host.name for each in decisions if each.changes]
        same = [each.host.name for each in decisions if not each.changes]
        content = {"found": len(decisions), "changed": changed, "same": same}
        return Response(BulkChangedSerializer(content).data)

    @extend_schema(
        operation_id="post_hosts_import",
        summary="Add and change hosts from a file",
        request={kind.media_type: OpenApiTypes.BINARY for kind in (CsvParser, JsonLinesParser)},
        responses=ImportedSerializer,
    )
    @action(
        methods=["post"],
        detail=False,
        url_path="import",
        url_name="import",
        serializer_class=ImportedSerializer,
        parser_classes=[CsvParser, JsonLinesParser],
        filters=SWITCHES,
        filtered=frozenset({"bring_in"}),
    )
    def bring_in(self, request: Request) -> Response:
        """Add the hosts that are not there, and change what the rows name of those that are: all of them or none."""
        switches = asked(request, SWITCHES)
        if not request.data:
            raise nothing()
        rows = list(_checked(cast(Sequence[FileRow], request.data), switches.get("customer")))
        dry_run = switches.get("dry_run", False)

        def work() -> Answer:
            decisions = import_hosts(self.actor, rows, dry_run=dry_run)
            return Answer(200, ImportedSerializer(_outcome(decisions, dry_run=dry_run)).data)

        return self.answered(work)


def _checked(rows: Sequence[FileRow], customer: str | None) -> Iterator[Row]:
    """The rows of a file as the services take them, each with what is wrong with it."""
    serializer = NewHostSerializer()
    given = {} if customer is None else {"customer": customer}
    for index, row in enumerate(rows):
        values, wrong = _judge(serializer, row, given)
        yield Row(values, f"rows[{index}]", f"line {row['line']}: ", tuple(wrong), adds_labels=True)


def _judge(serializer: NewHostSerializer, row: FileRow, given: Mapping[str, str]) -> tuple[Any, list[FieldError]]:
    wrong = [FieldError(*each) for each in row["wrong"]]
    if any(not each.field for each in wrong):
        return {}, wrong
    values = {**given, **row["values"]} if isinstance(row["values"], dict) else row["values"]
    try:
        checked = serializer.run_validation(values)
    except ValidationError as error:
        wrong += flatten(error.detail)
    if not wrong:
        return checked, []
    return {
        name: values[name] for name in NAMES if isinstance(values, dict) and isinstance(values.get(name), str)
    }, wrong


def _outcome(decisions: Sequence[Decision], *, dry_run: bool) -> dict[str, Any]:
    new = [each.host.name for each in decisions if each.is_new]
    changed = [
        {"name": each.host.name, "changes": each.changes} for each in decisions if each.changes and not each.is_new
    ]
    same = [each.host.name for each in decisions if not each.changes]
    counts = {"new": len(new), "changed": len(changed), "same": len(same)}
    return {"dry_run": dry_run, "counts": counts, "new": new, "changed": changed, "same": same}
