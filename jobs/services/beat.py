"""Workers say that they live, so that readiness and metrics can tell."""

from jobs.clock import db_now
from jobs.models import WorkerBeat
from jobs.services import watch

SECONDS = 10
"""How often a worker should call `beat`."""


def beat(name: str) -> None:
    """The worker process of that name lives now. Looks first whether the database is the one that it knows."""
    watch.look()
    WorkerBeat.objects.update_or_create(name=name, defaults={"at": db_now()})
