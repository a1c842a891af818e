"""What all views share: strict queries, pages, ETags, preconditions, and POSTs that may be repeated."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

from django.db import transaction
from django.http import HttpResponse
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.encoders import JSONEncoder
from rest_framework.viewsets import GenericViewSet

from api.errors import Problem
from api.filters import Filter, Rows, StrictFilterBackend
from api.idempotency import Answer, Hold, check_key, fingerprint, once, once_outside
from api.pagination import PAGE_PARAMETERS, Ordering, SignedCursorPagination
from api.schema import ApiSchema
from jobs.actor import Actor
from jobs.errors import NotFound

FIELDS = "fields"


class ApiViewSet(GenericViewSet[Any]):
    """Base. `scopes`: each method to the scope that it needs; one that is not named is refused. `paged`: the actions
    whose query asks for a page, `filtered`: those whose query has `filters`, `trimmed`: those whose query has `fields`.
    """

    schema = ApiSchema()
    scopes: ClassVar[dict[str, str]] = {}
    filter_backends = [StrictFilterBackend]
    filters: ClassVar[dict[str, Filter]] = {}
    filtered: ClassVar[frozenset[str]] = frozenset({"list"})
    pagination_class = SignedCursorPagination
    orderings: ClassVar[Mapping[str, Ordering]] = {}
    paged: ClassVar[frozenset[str]] = frozenset({"list"})
    trimmed: ClassVar[frozenset[str]] = frozenset({"list", "retrieve"})

    @property
    def actor(self) -> Actor:
        """Who asks."""
        actor: Actor = self.request.auth  # type: ignore[assignment]  # set by BearerAuthentication
        return actor

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        known = [*(self.filters if self.action in self.filtered else ())]
        known += [*(PAGE_PARAMETERS if self.action in self.paged else ())]
        known += [FIELDS] if self.action in self.trimmed else []
        for name in request.query_params:
            if name not in known:
                words = ", ".join(sorted(known)) or "none"
                raise Problem(400, "unknown_parameter", f"{name[:100]!r} is no parameter here; known: {words}")
            if len(request.query_params.getlist(name)) > 1:
                raise Problem(400, "unknown_parameter", f"{name} is given twice")

    def get_queryset(self) -> Rows:
        """What the actor may see."""
        raise NotImplementedError

    def get_object(self) -> Any:
        """The one that the address names among those that the actor may see."""
        return found(self.get_queryset(), **{self.lookup_field: self.kwargs[self.lookup_field]})

    @property
    def wanted(self) -> str | None:
        """The fields that the query asks for; None: all."""
        return self.request.query_params.get(FIELDS) if self.action in self.trimmed and self.request else None

    def get_serializer(self, *args: Any, **kwargs: Any) -> Any:
        """With only the fields that are wanted, of an answer or of each row of a list."""
        serializer = super().get_serializer(*args, **kwargs)
        if self.wanted is not None:
            trim(getattr(serializer, "child", serializer), self.wanted)
        return serializer

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "url": self.url}

    def url(self, path: str | None = None) -> str:
        """The absolute address of a path, or of this request without its query."""
        return str(self.request.build_absolute_uri(path or self.request.path))

    def page(self, rows: Rows) -> Response:
        """The page of these rows that the query asks for."""
        window = self.paginate_queryset(self.filter_queryset(rows))
        return self.get_paginated_response(self.get_serializer(window, many=True).data)

    def body(self) -> dict[str, Any]:
        """The request's body, checked by the action's serializer. Raises Problem, ValidationError."""
        serializer = self.get_serializer(data=self.request.data)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def answered(self, work: Callable[[], Answer], *, hold: Hold | None = None, is_long: bool = False) -> Response:
        """Do a POST's work, once for each Idempotency-Key; call when the body has been checked.

        `hold` keeps the answer back (Prefer: wait). `is_long`: the work asks a host and writes nothing here, so it must
        not run inside a transaction.
        """
        key = self.request.headers.get("Idempotency-Key")
        if key is None:
            answer = work()
        else:
            check_key(key)
            digest = fingerprint(
                self.actor.token, self.request.method or "", self.request.get_full_path(), self.request.data
            )
            do = once_outside if is_long else partial(once, is_held=hold is not None)
            answer = do(self.actor, key, digest, work)
        if hold:
            hold(answer)
        return Response(answer.body, status=answer.status, headers=answer.headers)

    def tagged(self, content: Mapping[str, Any]) -> Response:
        """The answer to GET of one object, with its ETag; 304 when the caller has it."""
        tag = etag(content)
        if tag in _tags(self.request.headers.get("If-None-Match", "")):
            return Response(status=304, headers={"ETag": tag})
        return Response(content, headers={"ETag": tag})

    def tagged_file(self, content: bytes, media: str, name: str) -> HttpResponse:
        """The answer to GET of a file of that name, with its ETag; 304 when the caller has it."""
        tag = _etag(content)
        headers = {"ETag": tag, "Content-Disposition": f'attachment; filename="{name}"'}
        if tag in _tags(self.request.headers.get("If-None-Match", "")):
            return HttpResponse(status=304, headers={"ETag": tag})
        return HttpResponse(content, content_type=media, headers=headers)

    def check_match(self, content: Mapping[str, Any]) -> None:
        """Raise Problem 412 unless If-Match, where given, names what is there now."""
        wanted = _tags(self.request.headers.get("If-Match", ""))
        if wanted and "*" not in wanted and etag(content) not in wanted:
            raise Problem(412, "precondition_failed", "it has changed since you read it; read it again")


class ReadViewSet(ListModelMixin, ApiViewSet):
    """GET of a page, and of one object."""

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.tagged(self.get_serializer(self.get_object()).data)


class CreateMixin(ApiViewSet):
    """POST of a new object."""

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)

        def work() -> Answer:
            self.perform_create(serializer)
            return Answer(201, serializer.data, {"Location": self.location(serializer.instance)})

        return self.answered(work)

    def perform_create(self, serializer: Any) -> None:
        """Make it, and set the serializer's `instance` to it."""
        raise NotImplementedError

    def location(self, row: Any) -> str:
        """Where the new object is."""
        return f"{self.url()}{getattr(row, self.lookup_field)}/"


class DestroyMixin(ApiViewSet):
    """DELETE, with If-Match honoured."""

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        with transaction.atomic():
            row = kept(self.get_object)
            self.check_match(self.get_serializer(row).data)
            self.perform_destroy(row)
        return Response(status=204)

    def perform_destroy(self, row: Any) -> None:
        """Delete it."""
        raise NotImplementedError


class UpdateMixin(ApiViewSet):
    """PATCH, with If-Match honoured: find, keep, compare, change in one transaction."""

    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        found_first = self.get_object()  # a name may change by this: what follows goes by the key
        serializer = self.get_serializer(found_first, data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        rows = self.get_queryset()
        with transaction.atomic():
            serializer.instance = kept(lambda: found(rows, pk=found_first.pk))
            self.check_match(self.get_serializer(serializer.instance).data)
            self.perform_update(serializer)
            content = self.get_serializer(found(rows, pk=found_first.pk)).data
        return Response(content, headers={"ETag": etag(content)})

    def perform_update(self, serializer: Any) -> None:
        """Change the serializer's `instance` to its `validated_data`."""
        raise NotImplementedError


class ObjectViewSet(CreateMixin, UpdateMixin, DestroyMixin, ReadViewSet):
    """All of them."""


def trim(serializer: Any, wanted: str) -> None:
    """Leave the serializer only these fields, which commas separate. Raises Problem 400 for one it does not have."""
    known = [name for name, each in serializer.fields.items() if not each.write_only]
    names = wanted.split(",")
    for name in names:
        if name not in known:
            raise Problem(400, "unknown_field", f"{name[:100]!r} is no field here; known: {', '.join(known)}")
    for name in set(known).difference(names):
        del serializer.fields[name]


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


def etag(content: Mapping[str, Any]) -> str:
    """A strong validator of a representation (RFC 9110 8.8.3)."""
    return _etag(json.dumps(content, sort_keys=True, cls=JSONEncoder).encode())


def _etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def _tags(header: str) -> set[str]:
    return {part.strip().removeprefix("W/") for part in header.split(",") if part.strip()}
