"""The service's pause: what it found, and how an administrator lets it go on."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from api.fields import Flag, Instant, JsonObject, StrictSerializer, Text, Texts
from api.idempotency import Answer
from api.viewsets import ApiViewSet
from jobs.lifecycle import resume
from jobs.models import Pause as PauseRow
from jobs.restore import pause


class PauseSerializer(StrictSerializer):
    """Whether it is paused; what it found, what there is now and what is missing only to who administers everything."""

    paused = Flag()
    since = Instant(allow_null=True)
    reason = Text(allow_blank=True)
    found = JsonObject(allow_null=True)
    now = JsonObject(allow_null=True)
    not_acknowledged = Texts(allow_null=True)


class PauseEndSerializer(StrictSerializer):
    """Why the service may go on."""

    reason = Text(max_length=2000)


class EndedSerializer(StrictSerializer):
    """What there is, now that it goes on."""

    now = JsonObject()


class Pause(ApiViewSet):
    """Whether the service is paused: nothing new is begun, what was sent is read back."""

    scopes = {"GET": "jobs:read", "POST": "admin"}
    serializer_class = PauseSerializer

    @extend_schema(operation_id="get_pause", summary="Show the pause", tags=["service"])
    def retrieve(self, request: Request) -> Response:
        row = PauseRow.objects.first()
        content: dict[str, Any] = {
            "paused": row is not None,
            "since": row.since if row else None,
            "reason": row.reason if row else "",
            "found": None,
            "now": None,
            "not_acknowledged": None,
        }
        if self.actor.may_everywhere("administer"):
            missing = [str(each) for each in pause.unacknowledged()]
            content |= {"found": row.found if row else None, "now": pause.census(), "not_acknowledged": missing}
        return Response(self.get_serializer(content).data)

    @extend_schema(operation_id="post_pause_end", summary="End the pause", tags=["service"], responses=EndedSerializer)
    def end(self, request: Request) -> Response:
        """Let the service go on. A gap in the audit trail is acknowledged before, on the server's machine."""
        reason = self.body()["reason"]
        return self.answered(lambda: Answer(200, EndedSerializer({"now": resume.end(self.actor, reason)}).data))
