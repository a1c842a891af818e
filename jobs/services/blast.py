"""How far a job's plan reaches: what the policy judges."""

from collections.abc import Sequence

from fleet.mta.operations import ChangesMessages, QueuePurge, SenderBlock
from jobs import asked
from jobs.models import Job, Run
from jobs.policy import Blast


def blast_of(job: Job, runs: Sequence[Run]) -> Blast:
    """The blast radius of the planned `runs`; each has its plan."""
    raise AssertionError(ChangesMessages, QueuePurge, SenderBlock, asked, Blast)
