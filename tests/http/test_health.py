"""Which queue lacks a worker, and what the metrics tell."""

import pytest
from django.utils import timezone

from fleet.models import Host, Instance, QuarantineLook
from jobs.models import WorkerBeat
from jobs.services import beat
from tests.http.cast import Caller, World
from tests.http.test_errors import JOB, refused

QUEUES = ("control", "scheduler", "ssh.0", "ssh.1")


def live(*queues: str) -> None:
    """Each of these queues has a worker that lives."""
    for queue in queues:
        beat.beat(f"{queue.replace('.', '-')}@here", queue)


@pytest.mark.parametrize("silent", QUEUES)
def test_readyz_names_the_queue_whose_workers_are_silent_however_well_the_others_are(
    db: None, redis_url: str, silent: str
) -> None:
    live(*QUEUES)
    WorkerBeat.objects.filter(queue=silent).update(at=timezone.now() - timezone.timedelta(seconds=31))
    body = refused(Caller("").get("/readyz"), 503, "not_ready")
    assert body["parts"] | {"worker": ""} == dict.fromkeys(body["parts"], "ok") | {"worker": ""}
    assert body["detail"] == f"worker: no worker has said for 30 seconds that it lives: {silent}"


def test_the_queues_of_a_site_are_expected_from_its_first_enabled_host_on(world: World, redis_url: str) -> None:
    live(*QUEUES)
    Host.objects.filter(name="mx1").update(site="fra1")
    detail = refused(Caller("").get("/readyz"), 503, "not_ready")["detail"]
    assert detail.endswith("that it lives: ssh.fra1.0, ssh.fra1.1")
    Host.objects.filter(name="mx1").update(enabled=False)
    assert Caller("").get("/readyz").status_code == 200


def test_metrics_come_from_the_database(world: World) -> None:
    world.alice.post("jobs/", JOB)
    live("ssh.0", "control")
    for instance in Instance.objects.all()[:2]:
        QuarantineLook.objects.create(instance=instance, due_at=timezone.now(), orphans=3)
    text = Caller("").get("/metrics").content.decode()
    assert "mxfleet_quarantine_orphans 6.0" in text
    assert 'mxfleet_jobs{operation="queue.list",state="queued"} 1.0' in text
    assert 'mxfleet_runs{state="pending"} 1.0' in text
    assert 'mxfleet_hosts{status="new"} 2.0' in text
    assert "mxfleet_runs_unknown 0.0" in text
    assert {line for line in text.splitlines() if line.startswith("mxfleet_workers")} == {
        'mxfleet_workers{queue="control"} 1.0',
        'mxfleet_workers{queue="scheduler"} 0.0',
        'mxfleet_workers{queue="ssh.0"} 1.0',
        'mxfleet_workers{queue="ssh.1"} 0.0',
    }
    assert "mxfleet_oldest_waiting_job_seconds" in text
