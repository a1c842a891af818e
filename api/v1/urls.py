"""Addresses below /api/v1/. Names of hosts and the like are matched as they may be written, so nothing else gets in."""

from django.urls import path, register_converter
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from api.v1 import events, fleet, jobs, pause, people, records, root


class NameConverter:
    """A name as `api.fields.Name` takes it; also a customer's slug."""

    regex = "[A-Za-z0-9][A-Za-z0-9._-]{0,62}"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(NameConverter, "name")

urlpatterns = [
    path("", root.Root.as_view()),
    path("customers/", people.Customers.as_view()),
    path("customers/<name:slug>/", people.Customer.as_view()),
    path("users/", people.Users.as_view()),
    path("users/<name:username>/", people.User.as_view()),
    path("service-accounts/", people.ServiceAccounts.as_view()),
    path("service-accounts/<name:username>/", people.ServiceAccount.as_view()),
    path("tokens/", people.Tokens.as_view()),
    path("tokens/<uuid:pk>/", people.TokenView.as_view()),
    path("whoami/", people.Whoami.as_view()),
    path("credentials/", fleet.Credentials.as_view()),
    path("credentials/<name:name>/", fleet.Credential.as_view()),
    path("hosts/", fleet.Hosts.as_view()),
    path("hosts/<name:name>/", fleet.Host.as_view()),
    path("hosts/<name:name>/scan-host-key/", fleet.ScanHostKey.as_view()),
    path("hosts/<name:name>/discover/", fleet.Discover.as_view()),
    path("hosts/<name:name>/unlock/", fleet.Unlock.as_view()),
    path("hosts/<name:name>/sudoers/", fleet.Sudoers.as_view()),
    path("instances/", fleet.Instances.as_view()),
    path("instances/<name:host>/<name:name>/", fleet.Instance.as_view()),
    path("operations/", fleet.Operations.as_view()),
    path("jobs/", jobs.Jobs.as_view()),
    path("jobs/<uuid:pk>/", jobs.Job.as_view()),
    path("jobs/<uuid:pk>/runs/", jobs.Runs.as_view()),
    path("jobs/<uuid:pk>/runs/<uuid:run>/", jobs.Run.as_view()),
    path("jobs/<uuid:pk>/runs/<uuid:run>/messages/", jobs.RunMessages.as_view()),
    path("jobs/<uuid:pk>/plan/", jobs.Plan.as_view()),
    path("jobs/<uuid:pk>/approve/", jobs.Approve.as_view()),
    path("jobs/<uuid:pk>/reject/", jobs.Reject.as_view()),
    path("jobs/<uuid:pk>/cancel/", jobs.Cancel.as_view()),
    path("jobs/<uuid:pk>/retry/", jobs.Retry.as_view()),
    path("jobs/<uuid:pk>/undo/", jobs.Undo.as_view()),
    path("jobs/<uuid:pk>/events/", events.events),
    path("blocks/", records.Blocks.as_view()),
    path("blocks/<uuid:pk>/", records.Block.as_view()),
    path("quarantine/", records.Quarantine.as_view()),
    path("quarantine/<uuid:pk>/", records.QuarantineItem.as_view()),
    path("audit/", records.Audit.as_view()),
    path("audit/verify/", records.AuditVerify.as_view()),
    path("audit/export/", records.AuditExport.as_view()),
    path("audit/checkpoints/", records.AuditCheckpoints.as_view()),
    path("pause/", pause.Pause.as_view()),
    path("pause/end/", pause.PauseEnd.as_view()),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
]
