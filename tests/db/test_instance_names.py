"""Instances are called as their MTA is, once and for all; former names are understood, and kept where they stand."""

from importlib import import_module
from typing import Any

import pytest
from django.apps import apps

from fleet.models import Host, Instance
from fleet.mta.records import HostFacts, InstanceFacts
from fleet.mta.steps import Plan
from jobs.audit import trail
from jobs.errors import Invalid
from jobs.lifecycle.approval import approve
from jobs.lifecycle.followup import retry, undo
from jobs.lifecycle.frozen import plan_rows
from jobs.models import AuditEvent, Block, Job, QuarantineItem
from jobs.rules.plan import digest_of
from tests.db.fleet import APPLIED, PLANNED, Cast, ask, changed, frozen_before, message, work

MATCH = {"match": "from:*@bulk.example"}
OLD, NEW = {"instances": ["mx1/exim4"]}, {"instances": ["mx1/exim"]}


@pytest.fixture
def exim(people: Cast) -> Instance:
    """The Exim of mx1 as an older version called it."""
    return older(people, "exim4", "exim")


def older(people: Cast, name: str, mta: str, **fields: Any) -> Instance:
    """An instance of mx1."""
    fields = {"version": "4.96", "config_dir": f"/etc/{name}", "queue_dirs": [f"/var/spool/{name}"], **fields}
    return Instance.objects.create(host=people.acme.hosts.get(name="mx1"), name=name, mta=mta, **fields)


def upgrade() -> None:
    """The migrations, as on a database with rows."""
    import_module("fleet.migrations.0004_instance_names").name_by_mta(apps, None)
    import_module("jobs.migrations.0008_instance_names").rename(apps, None)


def downgrade() -> None:
    """And back."""
    import_module("jobs.migrations.0008_instance_names").rename_back(apps, None)
    import_module("fleet.migrations.0004_instance_names").name_by_program(apps, None)


def purge(people: Cast) -> Job:
    """One that waits for a second person, as the older version left it: its plan does not tell the instance's name."""
    messages = [message(n) for n in range(101)]
    people.engine.plans["mx1/exim4"] = Plan(selected=tuple(messages), queue_total=1000)
    places = {m.queue_id: f"/var/spool/exim4/q/{m.queue_id}" for m in messages}
    people.engine.results["mx1/exim"] = changed(messages, places=places)
    job = work(ask(people.alice, "queue.purge", OLD, params=MATCH))
    run = job.runs.get()
    del run.plan["instance"]
    run.save()
    assert job.state == "awaiting_approval"
    return frozen_before(job)


def test_a_job_that_waits_for_approval_across_the_upgrade_runs_on_the_same_instance(
    people: Cast, exim: Instance
) -> None:
    job = purge(people)
    before = list(AuditEvent.objects.order_by("pk").values())
    upgrade()
    assert digest_of(job.operation, job.params, plan_rows(job)) == job.digest
    approve(people.bob, job, job.digest, "seen")
    job = work(job)
    assert (job.state, job.target, job.runs.get().instance) == ("succeeded", NEW, exim)
    assert people.engine.asked == [("mx1/exim4", PLANNED), ("mx1/exim", APPLIED)]
    assert QuarantineItem.objects.filter(job=job, instance=exim, state="kept").count() == 101
    assert list(AuditEvent.objects.order_by("pk").values())[: len(before)] == before
    assert trail.verify().ok
    assert undo(people.alice, job, "it was wanted").target == NEW


def test_a_plan_keeps_the_name_that_it_was_made_with(people: Cast, exim: Instance) -> None:
    job = purge(people)
    upgrade()
    assert [row.instance for row in plan_rows(job)] == ["mx1/exim4"]
    people.engine.plans["mx1/exim"] = Plan(selected=(message(1),), queue_total=1000)
    fresh = work(ask(people.alice, "queue.hold", NEW, params=MATCH))
    assert [row.instance for row in plan_rows(fresh)] == ["mx1/exim"]
    Instance.objects.filter(pk=exim.pk).update(name="other")
    assert [row.instance for row in plan_rows(fresh)] == ["mx1/exim"]


def test_a_job_that_was_being_planned_is_frozen_under_the_names_of_its_plans(people: Cast, exim: Instance) -> None:
    people.engine.plans["mx1/exim"] = Plan(selected=(message(1),), queue_total=1000)
    job = ask(people.alice, "queue.hold", OLD, params=MATCH)
    upgrade()
    job = work(job)
    assert (job.state, [row.instance for row in plan_rows(job)]) == ("succeeded", ["mx1/exim"])


def test_stored_targets_and_blocks_are_migrated_and_nothing_else_is(people: Cast, exim: Instance) -> None:
    both = {"instances": ["mx1/exim4", "mx1/postfix"], "mta": ["exim", "postfix"]}
    work(ask(people.alice, "sender.block", both, params={"pattern": "a@bulk.example"}))
    other = ask(people.alice, "queue.list", {"hosts": ["mx1"]})
    upgrade()
    renamed = {"instances": ["mx1/exim", "mx1/postfix"], "mta": ["exim", "postfix"]}
    block = Block.objects.get()
    assert (block.target, block.job.target) == (renamed, renamed)
    other.refresh_from_db()
    assert other.target == {"hosts": ["mx1"]}
    # The same block by the old name is the same block, and not one more.
    again = ask(people.alice, "sender.block", both, params={"pattern": "a@bulk.example"})
    assert (again.target, work(again).state, Block.objects.count()) == (renamed, "succeeded", 1)


def test_the_old_name_is_still_found_and_answers_give_the_new_one(people: Cast, exim: Instance) -> None:
    upgrade()
    job = ask(people.alice, "queue.list", {"instances": ["mx1/exim4", "mx1/postfix"]})
    assert job.target == {"instances": ["mx1/exim", "mx1/postfix"]}
    assert sorted(str(run.instance) for run in job.runs.all()) == ["mx1/exim", "mx1/postfix"]
    submitted = AuditEvent.objects.get(job=job.pk, action="job.submitted")
    assert submitted.data["target"] == job.target
    assert ask(people.alice, "queue.list", {"instances": ["mx1/exim4", "mx1/exim"]}).runs.count() == 1
    with pytest.raises(Invalid, match="mx1/exim3"):
        ask(people.alice, "queue.list", {"instances": ["mx1/exim3"]})
    with pytest.raises(Invalid):
        ask(people.charlie, "queue.list", OLD)
    Instance.objects.filter(pk=exim.pk).update(enabled=False)
    with pytest.raises(Invalid) as caught:
        ask(people.alice, "queue.list", OLD)
    assert caught.value.code == "disabled"


def test_a_name_that_an_instance_has_now_never_means_one_that_had_it(people: Cast, exim: Instance) -> None:
    upgrade()
    older(people, "exim4", "postfix")
    assert ask(people.alice, "queue.list", OLD).runs.get().instance.mta == "postfix"


def test_a_job_that_failed_before_the_upgrade_is_retried_after_it(people: Cast, exim: Instance) -> None:
    job = ask(people.alice, "queue.list", OLD)
    job.runs.update(state="failed")
    Job.objects.filter(pk=job.pk).update(state="running")
    Job.objects.filter(pk=job.pk).update(state="failed", finished_at=job.created_at)
    upgrade()
    again = retry(people.alice, Job.objects.get(pk=job.pk))
    assert (again.target, again.runs.get().instance) == (NEW, exim)


def test_only_the_instance_in_use_is_renamed_where_two_would_have_the_name(people: Cast) -> None:
    old = older(people, "exim4", "exim", enabled=False)
    used = older(people, "exim-4.98", "exim")
    smtpd = older(people, "smtpd", "opensmtpd")
    upgrade()
    upgrade()
    names = {row.pk: (row.name, row.former_name) for row in Instance.objects.filter(pk__in=[old.pk, used.pk, smtpd.pk])}
    assert names == {old.pk: ("exim4", ""), used.pk: ("exim", "exim-4.98"), smtpd.pk: ("opensmtpd", "smtpd")}
    assert set(Instance.objects.filter(mta="postfix").values_list("name", "former_name")) == {
        ("postfix", ""),
        ("postfixEXT", ""),
    }


def test_the_migrations_can_be_taken_back(people: Cast, exim: Instance) -> None:
    job = purge(people)
    upgrade()
    downgrade()
    exim.refresh_from_db()
    job.refresh_from_db()
    assert (str(exim), exim.former_name, job.target) == ("mx1/exim4", "", OLD)
    assert digest_of(job.operation, job.params, plan_rows(job)) == job.digest


def discover(people: Cast, *found: InstanceFacts) -> dict[str, str]:
    """{name: configuration directory} of mx1's instances in use, after these were found."""
    people.engine.results["mx1"] = (HostFacts(os="Debian"), found)
    job = work(ask(people.alice, "host.discover", {"hosts": ["mx1"]}))
    assert job.state == "succeeded"
    told = {each["id"]: each["config_dir"] for each in job.runs.get().result["instances"]}
    rows = Host.objects.get(name="mx1").instances.filter(enabled=True)
    assert told == {str(row): row.config_dir for row in rows}
    return {row.name: row.config_dir for row in rows}


def found(mta: str, directory: str, name: str = "") -> InstanceFacts:
    """An instance as its adapter finds it."""
    last = directory.rpartition("/")[2]
    return InstanceFacts("mx1", name or last, mta, "1.0", directory, (f"/var/spool/{last}",))


def test_a_discovery_after_the_upgrade_finds_the_instance_that_was_renamed(people: Cast, exim: Instance) -> None:
    upgrade()
    assert discover(people, found("exim", "/etc/exim4", "exim")) == {"exim": "/etc/exim4"}
    exim.refresh_from_db()
    assert (exim.name, exim.former_name, exim.version) == ("exim", "exim4", "1.0")


def test_a_later_configuration_directory_renames_no_earlier_instance(people: Cast) -> None:
    Instance.objects.filter(host__name="mx1").delete()
    inbound, default = found("postfix", "/etc/mail-in"), found("postfix", "/etc/postfix")
    assert discover(people, inbound) == {"postfix": "/etc/mail-in"}
    first = Instance.objects.get(host__name="mx1").pk
    both = {"postfix": "/etc/mail-in", "postfix-2": "/etc/postfix"}
    assert discover(people, default, inbound) == both
    assert discover(people, default) == {"postfix-2": "/etc/postfix"}
    assert discover(people, inbound, default) == both
    assert Instance.objects.get(host__name="mx1", name="postfix").pk == first
