"""The service's pause: what it found, and how an administrator lets it go on."""

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from api.fields import Flag, Instant, JsonObject, StrictSerializer, Text, Texts
from api.idempotency import Answer
from api.v1 import render
from api.view import ApiView, Method
from jobs.lifecycle import resume
from jobs.models import Pause as PauseRow
from jobs.restore import pause


class PauseShape(StrictSerializer):
    """Whether it is paused; what it found, what there is now and what is missing only to who administers everything."""

    paused = Flag()
    since = Instant(allow_null=True)
    reason = Text(allow_blank=True)
    found = JsonObject(allow_null=True)
    now = JsonObject(allow_null=True)
    not_acknowledged = Texts(allow_null=True)


class EndRequest(StrictSerializer):
    """Why the service may go on."""

    reason = Text(max_length=2000)


class EndedShape(StrictSerializer):
    """What there is, now that it goes on."""

    now = JsonObject()


class Pause(ApiView):
    """Whether the service is paused: nothing new is begun, what was sent is read back."""

    tag = "service"
    scopes = {"GET": "jobs:read"}
    methods = {"GET": Method("Show the pause", PauseShape)}

    def get(self, request: Request) -> Response:
        row = PauseRow.objects.first()
        content: dict[str, Any] = {
            "paused": row is not None,
            "since": render.instant(row.since) if row else None,
            "reason": row.reason if row else "",
            "found": None,
            "now": None,
            "not_acknowledged": None,
        }
        if self.actor.may_everywhere("administer"):
            missing = [str(each) for each in pause.unacknowledged()]
            content |= {"found": row.found if row else None, "now": pause.census(), "not_acknowledged": missing}
        return Response(content)


class PauseEnd(ApiView):
    """Let the service go on. A gap in the audit trail is acknowledged before, on the server's machine."""

    tag = "service"
    scopes = {"POST": "admin"}
    methods = {"POST": Method("End the pause", EndedShape, EndRequest)}

    def post(self, request: Request) -> Response:
        data = self.read(EndRequest)
        return self.answered(lambda: Answer(200, {"now": resume.end(self.actor, data["reason"])}))
