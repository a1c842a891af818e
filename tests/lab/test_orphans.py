"""Messages in a real Postfix' quarantine of which the service has no record: ours come back, others are left alone."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.lab.lab import Lab
from tests.lab.service import Json, People, Queue, Service, await_true, fresh

pytestmark = pytest.mark.lab
INSTANCE = "pf1/postfixEXT"
LOOK_NOW = """
from fleet.models import Instance
from jobs.lifecycle import orphans
orphans.inspect_soon(Instance.objects.get(host__name="pf1", name="postfixEXT"))
"""
FORGET = """
from django.db import connection
connection.cursor().execute("DELETE FROM jobs_quarantineitem")
"""


@pytest.fixture
def queue(lab: Lab, people: People) -> Queue:
    return fresh(lab, INSTANCE)


def look(people: People, service: Service) -> Json:
    """What the instance tells after a look of the running workers."""
    before = (people.admin.get(f"instances/{INSTANCE}/")["orphans"] or {}).get("seen_at")
    service.manage("shell", "-c", LOOK_NOW)

    def seen() -> Json:
        told = people.admin.get(f"instances/{INSTANCE}/")["orphans"]
        return told if told and told["seen_at"] != before else None

    return await_true(seen, 60, "nobody looked")


def kept(queue: Queue) -> dict[str, str]:
    """Queue ID -> SHA-256, of what lies in quarantine on the host."""
    rows = queue.host.sh(
        f"cd {queue.spool} && find mxfleet-quarantine -type f ! -name '*.restored' -exec sha256sum {{}} +"
    ).splitlines()
    return {path.rpartition("/")[2]: digest for digest, path in (row.split("  ", 1) for row in rows)}


def audited(people: People, action: str) -> list[Json]:
    return [row for row in people.admin.all(f"audit/?action={action}") if row["object"] == INSTANCE]


def test_what_somebody_put_there_is_reported_and_stays(people: People, service: Service, queue: Queue) -> None:
    rows = people.alice.all(f"quarantine/?instance={INSTANCE}&state=kept")  # other tests left some
    job = uuid4()
    directory = f"{queue.spool}/mxfleet-quarantine/{job}"
    queue.host.sh(f"mkdir -p {directory} && echo hand-made >{directory}/ABCDEF0123 && touch '{directory}/$(id) ;'")
    put = kept(queue)
    told = look(people, service)
    assert (told["count"], told["odd"], told["sample"], told["error"]) == (1, 1, [f"{job}/ABCDEF0123"], "")
    assert look(people, service)["count"] == 1
    (event,) = audited(people, "quarantine.orphaned")
    assert event["data"] == {"count": 1, "more": 0, "odd": 1, "named": [f"{job}/ABCDEF0123"]}
    assert kept(queue) == put
    assert people.alice.all(f"quarantine/?instance={INSTANCE}&state=kept") == rows


def test_a_message_whose_row_is_gone_is_found_and_comes_back(people: People, service: Service, queue: Queue) -> None:
    queue.inject(3, sender="news@bulk.example")
    before = {name: digest for name, (_, digest) in queue.files().items()}
    job = people.alice.ended(people.changed("queue.purge", INSTANCE, match="from:news@bulk.example"))
    assert kept(queue) == before
    service.manage("shell", "-c", FORGET)
    assert people.alice.all(f"quarantine/?job={job['id']}") == []
    assert people.alice.ask("POST", f"jobs/{job['id']}/undo/", {"reason": "lab test"}).status_code == 409
    told = look(people, service)
    assert (told["count"], told["sample"]) == (0, [])
    rows = people.alice.all(f"quarantine/?job={job['id']}")
    assert {row["queue_id"]: row["state"] for row in rows} == dict.fromkeys(before, "kept")
    (event,) = audited(people, "quarantine.found")
    assert (event["job"], event["data"]["count"]) == (job["id"], 3)
    people.alice.ended(people.alice.undo(job))
    assert {name: digest for name, (_, digest) in queue.files().items()} == before
    assert kept(queue) == {}
