"""That the service is paused, and what it found."""

from django.db import models


class Pause(models.Model):
    """At most one row (id 1): nothing new is begun while it is there. It goes when an administrator lets go.

    `lost`: {machine: [[chain, number, hash]]}, each entry of the audit trail that a machine has missed meanwhile.
    `found`: counts.
    """

    since = models.DateTimeField()
    reason = models.TextField()
    lost = models.JSONField(default=dict)
    found = models.JSONField(default=dict)

    def __str__(self) -> str:
        return f"paused since {self.since}: {self.reason}"
