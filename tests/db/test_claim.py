"""Workers of several shards take the runs of one job."""

from jobs.models import Job
from jobs.services.claim import claim
from tests.db.fleet import Cast, ask


def test_the_shard_that_comes_second_to_the_start_takes_its_runs_too(people: Cast) -> None:
    job = ask(people.alice, "queue.list", {"instances": ["mx1/postfix", "mx2/postfix"]})
    job.runs.filter(host__name="mx1").update(slot=0)
    job.runs.filter(host__name="mx2").update(slot=1)
    first, second = Job.objects.get(pk=job.pk), Job.objects.get(pk=job.pk)  # both were read before either started it
    assert [str(run.instance) for run in claim(first, "ssh.0")] == ["mx1/postfix"]
    assert [str(run.instance) for run in claim(second, "ssh.1")] == ["mx2/postfix"]
