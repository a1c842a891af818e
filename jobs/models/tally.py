"""How often things happened since the service was set up: what counters count when the rows themselves may go."""

from django.db import models


class TallyKind(models.TextChoices):
    JOB = "job"
    RUN_ERROR = "run_error"
    QUARANTINE = "quarantine"


class Tally(models.Model):
    """`count` events of a kind. Several rows may tell of the same: what counts is their sum.

    `end`: a job's last state, a run's error code, or what became of a message that was in quarantine. `operation` and
    `within` are of jobs: the least of the bounds (jobs.lifecycle.tally.BOUNDS) that its work did not exceed, empty when
    it was never begun. `seconds`: of work, in all.
    """

    kind = models.CharField(max_length=12, choices=TallyKind.choices)
    operation = models.CharField(max_length=32, blank=True, default="")
    end = models.CharField(max_length=32)
    within = models.CharField(max_length=8, blank=True, default="")
    count = models.PositiveBigIntegerField(default=1)
    seconds = models.FloatField(default=0.0)

    def __str__(self) -> str:
        return f"{self.count} x {self.kind} {self.operation} {self.end}"
