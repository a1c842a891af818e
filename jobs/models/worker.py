"""Which workers are alive."""

from django.db import models


class WorkerLiveness(models.Model):
    """A worker process, its queue, and when it last reported itself alive (each 10 s; after 30 s it counts as gone)."""

    name = models.CharField(max_length=200, unique=True)
    queue = models.CharField(max_length=80, blank=True, default="")
    at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.name
