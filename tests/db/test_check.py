"""What a check of a host leaves here: its result, and our scripts as they lie there."""

import pytest

from fleet.models import Host
from fleet.mta.records import Ended, Result
from jobs.errors import Invalid
from jobs.worker import runner
from tests.db.fleet import Cast, ask, work

SEEN = [["fence.sh", "0" * 64]]


def test_what_was_seen_of_our_scripts_is_kept_beside_what_discovery_found(people: Cast) -> None:
    Host.objects.filter(name="mx1").update(facts={"os": "Debian", "helpers": []})
    people.engine.results["mx1"] = Result(Ended.SUCCEEDED, {"ok": False, "checks": [], "helpers": SEEN})
    job = work(ask(people.alice, "host.check", {"hosts": ["mx1"]}))
    assert job.state == "succeeded"
    assert job.runs.get().result == {"ok": False, "checks": [], "helpers": SEEN}
    host = Host.objects.get(name="mx1")
    assert host.facts == {"os": "Debian", "helpers": SEEN}
    assert runner.endpoint_for(host).helpers == frozenset({("fence.sh", "0" * 64)})


def test_a_check_works_on_hosts_whether_mtas_are_known_there_or_not(people: Cast) -> None:
    Host.objects.get(name="mx1").instances.all().delete()
    job = ask(people.alice, "host.check", {"hosts": ["mx1"]})
    assert [(str(run.host), run.instance) for run in job.runs.all()] == [("mx1", None)]
    with pytest.raises(Invalid, match="works on hosts"):
        ask(people.alice, "host.check", {"mta": ["postfix"]})
