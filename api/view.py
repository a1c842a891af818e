"""What all views share: strict queries, pages, ETags, preconditions, and POSTs that may be repeated."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from django.db import transaction
from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.utils.encoders import JSONEncoder
from rest_framework.views import APIView

from api import body
from api.errors import Problem
from api.fields import StrictSerializer
from api.idempotency import Answer, Hold, check_key, fingerprint, once, once_outside
from api.pagination import Ordering, paginate
from api.schema import ApiSchema
from jobs.actor import Actor
from jobs.errors import FieldError, NotFound

Rows = QuerySet[Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """A query parameter. `read` turns its text into a value or raises ValueError; `apply` narrows the rows by that."""

    description: str
    apply: Callable[[Rows, Any], Rows]
    read: Callable[[str], Any] = str
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True)
class Method:
    """What the OpenAPI document says of a method."""

    summary: str
    answer: type[Serializer[Any]] | None = None
    request: type[StrictSerializer] | None = None
    status: int = 200
    media: str = "application/json"
    is_page: bool = False
    makes_job: bool = False


class ApiView(APIView):
    """Base. `scopes`: method to the scope that it needs; `filters`: the query parameters of the
    methods in `queried`."""

    schema = ApiSchema()
    scopes: ClassVar[dict[str, str]] = {}
    methods: ClassVar[dict[str, Method]] = {}
    filters: ClassVar[dict[str, Filter]] = {}
    orderings: ClassVar[Mapping[str, Ordering]] = {}
    queried: ClassVar[frozenset[str]] = frozenset({"GET"})
    tag: ClassVar[str] = ""
    payload: Any = None

    @property
    def actor(self) -> Actor:
        actor: Actor = self.request.auth  # type: ignore[assignment]  # set by BearerAuthentication
        return actor

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        allowed = {*self.filters, *(("limit", "cursor", "ordering") if self.orderings else ())}
        for name in request.query_params:
            if request.method not in self.queried or name not in allowed:
                known = ", ".join(sorted(allowed)) if request.method in self.queried else ""
                raise Problem(
                    400, "unknown_parameter", f"{name[:100]!r} is no parameter here; known: {known or 'none'}"
                )
            if len(request.query_params.getlist(name)) > 1:
                raise Problem(400, "unknown_parameter", f"{name} is given twice")

    def params(self) -> dict[str, str]:
        """The query parameters."""
        return {name: str(value) for name, value in self.request.query_params.items()}

    def url(self, path: str | None = None) -> str:
        """The absolute address of a path, or of this request without its query."""
        return str(self.request.build_absolute_uri(path or self.request.path))

    def page(self, rows: Rows, render: Callable[[list[Any]], list[Any]]) -> dict[str, Any]:
        """The page of the filtered rows that the query asks for."""
        return paginate(self.filtered(rows), self.params(), self.url(), self.orderings).of(render)

    def filtered(self, rows: Rows) -> Rows:
        """The rows that the query's filters leave; a costly filter is declared last and sees what the others left."""
        given = self.params()
        for name, parameter in self.filters.items():
            if name in given:
                rows = parameter.apply(rows, read(name, parameter, given[name]))
        return rows

    def read(self, shape: type[StrictSerializer], *, partial: bool = False) -> dict[str, Any]:
        """The body, checked against its shape. Raises Problem, ValidationError."""
        self.payload = body.read_json(self.request._request)
        serializer = shape(data=self.payload, partial=partial)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def detail_response(self, content: Mapping[str, Any]) -> Response:
        """The answer to GET of one object, with its ETag; 304 when the caller has it."""
        tag = etag(content)
        if tag in _tags(self.request.headers.get("If-None-Match", "")):
            return Response(status=304, headers={"ETag": tag})
        return Response(content, headers={"ETag": tag})

    def check_match(self, content: Mapping[str, Any]) -> None:
        """Raise Problem 412 unless If-Match, where given, names what is there now."""
        wanted = _tags(self.request.headers.get("If-Match", ""))
        if wanted and "*" not in wanted and etag(content) not in wanted:
            raise Problem(412, "precondition_failed", "it has changed since you read it; read it again")

    def answered(self, work: Callable[[], Answer], *, hold: Hold | None = None, is_long: bool = False) -> Response:
        """Do a POST's work, once for each Idempotency-Key; call after `read`.

        `hold` keeps the answer back (Prefer: wait). `is_long`: the work asks a host and writes nothing here, so it must
        not run inside a transaction.
        """
        key = self.request.headers.get("Idempotency-Key")
        if key is None:
            answer = work()
        else:
            check_key(key)
            digest = fingerprint(self.actor.token, self.request.method or "", self.request.path, self.payload)
            do = once_outside if is_long else partial(once, is_held=hold is not None)
            answer = do(self.actor, key, digest, work)
        if hold:
            hold(answer)
        return Response(answer.body, status=answer.status, headers=answer.headers)


class ListView(ApiView):
    """GET: a page; POST: a new object."""

    serializer: ClassVar[type[StrictSerializer]]

    def rows(self) -> Rows:
        """What the actor may see."""
        raise NotImplementedError

    def get(self, request: Request) -> Response:
        return Response(self.page(self.rows(), self.render))

    def render(self, rows: list[Any]) -> list[Any]:
        """The rows as JSON."""
        return [dict(self.serializer(row).data) for row in rows]


class ObjectView(ApiView):
    """One object, found by its name among those that the actor may see."""

    serializer: ClassVar[type[StrictSerializer]]

    def render(self, row: Any) -> dict[str, Any]:
        """The row as JSON."""
        return dict(self.serializer(row).data)

    def change(self, row_of: Callable[[], Any], update: Callable[[Any, dict[str, Any]], Any]) -> Response:
        """PATCH: in one transaction find and keep, compare with If-Match, update."""
        values = self.read(self.serializer, partial=True)
        with transaction.atomic():
            row = kept(row_of)
            self.check_match(self.render(row))
            update(row, values)
            content = self.render(row_of())
        return Response(content, headers={"ETag": etag(content)})

    def remove(self, row_of: Callable[[], Any], delete: Callable[[Any], None]) -> Response:
        """DELETE, with If-Match honoured."""
        with transaction.atomic():
            row = kept(row_of)
            self.check_match(self.render(row))
            delete(row)
        return Response(status=204)


def found(rows: Rows, **names: Any) -> Any:
    """The one row of these names. Raises NotFound: the same whether it is not there or not the actor's to see."""
    row = rows.filter(**names).first()
    if row is None:
        raise NotFound("not_found", "it is not there, or not yours to see")
    return row


def kept(row_of: Callable[[], Any]) -> Any:
    """The row as it is when no other request is changing it, and until the commit none does.

    Else two that read it at the same moment would both find what If-Match names, and the later one would put back
    what the earlier one changed. Raises what `row_of` raises, also when the row is gone by then.
    """
    row = row_of()
    type(row)._default_manager.select_for_update(no_key=True).filter(pk=row.pk).first()
    return row_of()


def read(name: str, wanted: Filter, text: str) -> Any:
    """The value of a filter. Raises Problem 422."""
    try:
        if "\x00" in text:
            raise ValueError("a NUL character")
        return wanted.read(text)
    except ValueError as error:
        problem = FieldError(name, "invalid", f"{text[:100]!r} is not taken here: {error}")
        raise Problem(422, "invalid", f"{name}: {problem.detail}", errors=(problem,)) from None


def etag(content: Mapping[str, Any]) -> str:
    """A strong validator of a representation (RFC 9110 8.8.3)."""
    text = json.dumps(content, sort_keys=True, cls=JSONEncoder)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def _tags(header: str) -> set[str]:
    return {part.strip().removeprefix("W/") for part in header.split(",") if part.strip()}
