"""Addresses below /api/v1/. Names of hosts and the like are matched as they may be written, so nothing else gets in."""

from django.urls import path, register_converter
from drf_spectacular.views import SpectacularAPIView, SpectacularJSONAPIView, SpectacularSwaggerView
from rest_framework.routers import Route, SimpleRouter

from api.v1 import audit, events, fleet, jobs, pause, people, records, root, runs


class NameConverter:
    """A name as `api.fields.Name` takes it; also a customer's slug."""

    regex = "[A-Za-z0-9][A-Za-z0-9._-]{0,62}"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(NameConverter, "name")


class Router(SimpleRouter):
    """The framework's, and PATCH of a list, where a viewset has `bulk_update`."""

    routes = [
        Route(
            "{prefix}{trailing_slash}",
            mapping={"get": "list", "post": "create", "patch": "bulk_update"},
            name="{basename}-list",
            detail=False,
            initkwargs={"suffix": "List"},
        ),
        *SimpleRouter.routes[1:],
    ]


router = Router(use_regex_path=False)
router.register("customers", people.Customers, "customer")
router.register("users", people.Users, "user")
router.register("service-accounts", people.ServiceAccounts, "service-account")
router.register("tokens", people.Tokens, "token")
router.register("credentials", fleet.Credentials, "credential")
router.register("hosts", fleet.Hosts, "host")
router.register("instances", fleet.Instances, "instance")
router.register("operations", fleet.Operations, "operation")
router.register("jobs", jobs.Jobs, "job")
router.register("runs", runs.Runs, "run")
router.register("blocks", records.Blocks, "block")
router.register("quarantine", records.Quarantine, "quarantine")
router.register("audit", audit.Audit, "audit")

urlpatterns = [
    path("", root.Root.as_view({"get": "retrieve"})),
    path("whoami/", people.Whoami.as_view({"get": "retrieve"})),
    path("pause/", pause.Pause.as_view({"get": "retrieve"})),
    path("pause/end/", pause.Pause.as_view({"post": "end"}, serializer_class=pause.PauseEndSerializer)),
    path("jobs/<uuid:pk>/events/", events.events),
    *router.urls,
    path("schema/json/", SpectacularJSONAPIView.as_view()),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
]
