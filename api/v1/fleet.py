"""Credentials, hosts, instances, and the catalogue of operations."""

from functools import cache
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from api import prefer
from api.errors import Problem
from api.filters import equals, flag, label
from api.idempotency import Answer
from api.throttle import ScanBucket, TokenBucket
from api.v1.answers import job_answer, made
from api.v1.render import instant
from api.v1.shapes_fleet import (
    CredentialShape,
    EmptyShape,
    HostKeyShape,
    HostShape,
    InstanceShape,
    OperationShape,
    UnlockedShape,
    UnlockRequest,
)
from api.v1.shapes_jobs import JobShape
from api.view import ApiView, ListView, Method, ObjectView, Rows, found
from fleet.inventory import called
from fleet.models import Host as HostRow
from fleet.models import Instance as InstanceRow
from fleet.mta import REGISTRY
from fleet.mta.adapter import adapter_for, capability
from fleet.mta.errors import FleetError
from fleet.mta.params.catalogue import CATALOGUE
from jobs import selectors
from jobs.administration import inventory
from jobs.errors import Clash
from jobs.lifecycle.submit import Request as JobRequest
from jobs.lifecycle.submit import submit
from jobs.lifecycle.unlock import unlock

FLEET = {"GET": "fleet:read", "POST": "fleet:write", "PATCH": "fleet:write", "DELETE": "fleet:write"}
CUSTOMER = equals("customer__slug", "Only those of this customer.")


class Credentials(ListView):
    """SSH keys. The private key is never returned."""

    tag = "fleet"
    scopes = FLEET
    serializer = CredentialShape
    orderings = {"name": ("name", "id")}
    filters = {"customer": CUSTOMER}
    methods = {
        "GET": Method("List credentials", CredentialShape, is_page=True),
        "POST": Method("Add a credential", CredentialShape, CredentialShape, 201),
    }

    def rows(self) -> Rows:
        return selectors.visible_credentials(self.actor)

    def post(self, request: Request) -> Response:
        values = self.read(CredentialShape)

        def work() -> Answer:
            row = inventory.create_credential(self.actor, values)
            location = self.url(f"/api/v1/credentials/{row.name}/?customer={row.customer.slug}")
            return Answer(201, dict(CredentialShape(row).data), {"Location": location})

        return self.answered(work)


class Credential(ObjectView):
    """One credential. Names are unique per customer: `?customer=` says whose, where the caller sees several."""

    tag = "fleet"
    scopes = FLEET
    serializer = CredentialShape
    filters = {"customer": CUSTOMER}
    queried = frozenset({"GET", "PATCH", "DELETE"})
    methods = {
        "GET": Method("Show a credential", CredentialShape),
        "PATCH": Method("Change a credential", CredentialShape, CredentialShape),
        "DELETE": Method("Delete a credential", status=204),
    }

    def _row(self, name: str) -> Any:
        rows = self.filtered(selectors.visible_credentials(self.actor)).filter(name=name)
        if len(rows[:2]) == 2:
            raise Clash("ambiguous", f"several customers have a credential {name}; say ?customer=")
        return found(rows)

    def get(self, request: Request, name: str) -> Response:
        return self.detail_response(self.render(self._row(name)))

    def patch(self, request: Request, name: str) -> Response:
        pk = self._row(name).pk
        rows = selectors.visible_credentials(self.actor)
        return self.change(
            lambda: found(rows, pk=pk), lambda row, new: inventory.update_credential(self.actor, row, new)
        )

    def delete(self, request: Request, name: str) -> Response:
        return self.remove(lambda: self._row(name), lambda row: inventory.delete_credential(self.actor, row))


class Hosts(ListView):
    """MX hosts."""

    tag = "fleet"
    scopes = FLEET
    serializer = HostShape
    orderings = {"name": ("name",), "last_added": ("-id",)}
    filters = {
        "customer": CUSTOMER,
        "site": equals("site", "Only those of this site."),
        "enabled": flag("enabled", "Only the enabled, or the disabled ones."),
        "label": label("Only those with this label, as key=value."),
    }
    methods = {
        "GET": Method("List hosts", HostShape, is_page=True),
        "POST": Method("Add a host", HostShape, HostShape, 201),
    }

    def rows(self) -> Rows:
        return selectors.visible_hosts(self.actor)

    def post(self, request: Request) -> Response:
        values = self.read(HostShape)

        def work() -> Answer:
            row = inventory.create_host(self.actor, values)
            return Answer(201, dict(HostShape(row).data), {"Location": self.url(f"/api/v1/hosts/{row.name}/")})

        return self.answered(work)


class Host(ObjectView):
    """One host."""

    tag = "fleet"
    scopes = FLEET
    serializer = HostShape
    methods = {
        "GET": Method("Show a host", HostShape),
        "PATCH": Method("Change a host", HostShape, HostShape),
        "DELETE": Method("Delete a host", status=204),
    }

    def get(self, request: Request, name: str) -> Response:
        return self.detail_response(self.render(self._row(name)))

    def _row(self, name: str) -> HostRow:
        row: HostRow = found(selectors.visible_hosts(self.actor), name=name)
        return row

    def patch(self, request: Request, name: str) -> Response:
        pk = self._row(name).pk
        rows = selectors.visible_hosts(self.actor)
        return self.change(lambda: found(rows, pk=pk), lambda row, new: inventory.update_host(self.actor, row, new))

    def delete(self, request: Request, name: str) -> Response:
        return self.remove(lambda: self._row(name), lambda row: inventory.delete_host(self.actor, row))


class ScanHostKey(ApiView):
    """Ask a host for its key. Nothing is trusted by that."""

    tag = "fleet"
    scopes = FLEET
    throttle_classes = [TokenBucket, ScanBucket]
    methods = {"POST": Method("Show the key that the host has", HostKeyShape, EmptyShape)}

    def post(self, request: Request, name: str) -> Response:
        row = found(selectors.visible_hosts(self.actor), name=name)
        inventory.must_administer(self.actor, row.customer)
        self.read(EmptyShape)
        return self.answered(lambda: _scan(row), is_long=True)


def _scan(row: HostRow) -> Answer:
    from jobs.worker.runner import scan_host_key  # the runner brings asyncssh, which no other request needs

    try:
        key = scan_host_key(row)
    except FleetError as error:
        problem = Problem(502, error.code, error.detail)
        problem.extra = {"error": error.as_dict()}
        raise problem from error
    return Answer(200, {"host_key": key.host_key, "fingerprint": key.fingerprint, "algorithm": key.algorithm})


class Discover(ApiView):
    """Find the host's MTA instances."""

    tag = "fleet"
    scopes = {"POST": "jobs:request"}
    methods = {"POST": Method("Make a host.discover job", JobShape, EmptyShape, 202, makes_job=True)}

    def post(self, request: Request, name: str) -> Response:
        row = found(selectors.visible_hosts(self.actor), name=name)
        self.read(EmptyShape)
        requested = JobRequest(operation="host.discover", target={"hosts": [row.name]})
        hold = prefer.holder(request, job_answer)
        return self.answered(lambda: made(self.url, submit(self.actor, requested)), hold=hold)


class Unlock(ApiView):
    """Free a host from the job that has it, when that does not let go by itself."""

    tag = "fleet"
    scopes = FLEET
    methods = {"POST": Method("Free a host by hand", UnlockedShape, UnlockRequest)}

    def post(self, request: Request, name: str) -> Response:
        row = found(selectors.visible_hosts(self.actor), name=name)
        inventory.must_administer(self.actor, row.customer)
        data = self.read(UnlockRequest)

        def work() -> Answer:
            job = unlock(self.actor, row, data["reason"])
            return Answer(200, {"host": row.name, "job": str(job.pk), "state": job.state})

        return self.answered(work)


class Sudoers(ApiView):
    """The least-privilege sudoers file for what discovery found."""

    tag = "fleet"
    scopes = FLEET
    methods = {"GET": Method("Show the sudoers file", media="text/plain")}

    def get(self, request: Request, name: str) -> HttpResponse:
        from jobs.sudoers import sudoers_file

        row = found(selectors.visible_hosts(self.actor), name=name)
        return HttpResponse(sudoers_file(row), content_type="text/plain; charset=utf-8")


class Instances(ListView):
    """MTA instances, as discovery found them."""

    tag = "fleet"
    scopes = FLEET
    serializer = InstanceShape
    orderings = {"id": ("host__name", "name")}
    filters = {
        "host": equals("host__name", "Only those on this host."),
        "customer": equals("host__customer__slug", "Only those of this customer."),
        "mta": equals("mta", "Only those of this MTA."),
    }
    methods = {"GET": Method("List instances", InstanceShape, is_page=True)}

    def rows(self) -> Rows:
        return selectors.visible_instances(self.actor)

    def render(self, rows: list[Any]) -> list[Any]:
        return [render_instance(row) for row in rows]


class Instance(ApiView):
    """One MTA instance."""

    tag = "fleet"
    scopes = FLEET
    methods = {"GET": Method("Show an instance", InstanceShape)}

    def get(self, request: Request, host: str, name: str) -> Response:
        rows = selectors.visible_instances(self.actor).filter(called(name))
        return self.detail_response(render_instance(found(rows, host__name=host)))


def render_instance(row: InstanceRow) -> dict[str, Any]:
    """The row as JSON."""
    same = ("mta", "version", "config_dir", "queue_dirs", "front_ends", "options", "enabled")
    return {
        "id": str(row),
        "host": row.host.name,
        "customer": row.host.customer.slug,
        **{name: getattr(row, name) for name in same},
        "orphans": _orphans(row),
        "capabilities": _capabilities(row.mta),
    }


def _orphans(row: InstanceRow) -> dict[str, Any] | None:
    look = getattr(row, "quarantine_look", None)
    if look is None or not (look.looked_at or look.error):
        return None
    same = ("more", "odd", "sample", "error")
    return {"count": look.orphans, **{name: getattr(look, name) for name in same}, "seen_at": instant(look.looked_at)}


@cache
def _capabilities(mta: str) -> dict[str, dict[str, str]]:
    adapter = adapter_for(mta)
    able = {name: capability(adapter, name) for name in CATALOGUE if name != "host.discover"}
    return {name: {"support": str(each.support), "note": each.note} for name, each in able.items()}


class Operations(ApiView):
    """The catalogue: every operation, its params, and which MTA can do it."""

    tag = "fleet"
    methods = {"GET": Method("List operations", OperationShape, is_page=True)}

    def get(self, request: Request) -> Response:
        return Response({"next": None, "previous": None, "results": catalogue()})


@cache
def catalogue() -> list[dict[str, Any]]:
    """The operations as JSON."""
    return [
        {
            "name": spec.name,
            "description": spec.description,
            "changes": spec.changes,
            "deadline": spec.deadline,
            "params": spec.schema,
            "mtas": {mta: _capabilities(mta)[spec.name] for mta in REGISTRY if spec.name != "host.discover"},
        }
        for spec in CATALOGUE.values()
    ]
