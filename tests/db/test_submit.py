"""Taking jobs in: who may ask for what, on what, and what is refused before anything is begun."""

from typing import Any

import pytest

from jobs import queues
from jobs.errors import Forbidden, Invalid
from jobs.models import AuditEvent, Job
from tests.db.fleet import Cast, ask, person


def refused(people: Cast, operation: str, target: dict[str, Any] | None = None, **fields: Any) -> Invalid:
    """The error of a job that must be refused, with nothing stored."""
    with pytest.raises(Invalid) as caught:
        ask(people.alice, operation, target, **fields)
    assert not Job.objects.exists()
    return caught.value


def test_a_reading_job_is_queued_with_one_run_for_each_instance(people: Cast) -> None:
    job = ask(people.alice, "queue.list", {"customers": ["acme"]})
    assert job.state == "queued"
    assert sorted(str(run.instance) for run in job.runs.all()) == ["mx1/postfix", "mx1/postfixEXT", "mx2/postfix"]


def test_a_changing_job_is_planned_first(people: Cast) -> None:
    job = ask(people.alice, "queue.hold", params={"match": "from:a@b.example"})
    assert job.state == "planning"
    assert all(run.is_planning for run in job.runs.all())


def test_the_bell_rings_after_the_commit_only(
    people: Cast, wakeups: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        job = ask(people.alice, "queue.list", {"hosts": ["mx2"]})
        assert wakeups == []
    assert wakeups == [(queues.queue_of(job.runs.get()), "read")]


def test_submission_is_audited_in_the_chain_of_the_customer(people: Cast) -> None:
    job = ask(people.alice, "queue.list", {"hosts": ["mx2"]})
    event = AuditEvent.objects.get(job=job.pk)
    assert (event.chain, event.action, event.actor) == ("acme", "job.submitted", "alice")


@pytest.mark.parametrize(
    ("target", "field", "code"),
    [
        ({}, "target", "required"),
        ([], "target", "wrong_type"),
        ({"host": ["mx1"]}, "target.host", "unknown_field"),
        ({"hosts": "mx1"}, "target.hosts", "wrong_type"),
        ({"hosts": []}, "target.hosts", "wrong_type"),
        ({"hosts": ["mx1", "mx7"]}, "target.hosts[1]", "unknown_target"),
        ({"hosts": ["mx9"]}, "target.hosts[0]", "unknown_target"),
        ({"customers": ["other"]}, "target.customers[0]", "unknown_target"),
        ({"instances": ["mx1/postfixes"]}, "target.instances[0]", "unknown_target"),
        ({"mta": ["exchange"]}, "target.mta[0]", "unknown_target"),
        ({"labels": {"role": ["mx"]}}, "target.labels.role[0]", "unknown_target"),
        ({"labels": {"role": "*"}}, "target.labels.role", "wrong_type"),
        ({"all": "yes"}, "target.all", "wrong_type"),
        ({"hosts": ["mx2"], "instances": ["mx1/postfix"]}, "target.instances[0]", "unknown_target"),
    ],
)
def test_a_target_that_is_not_exactly_known_is_refused(people: Cast, target: Any, field: str, code: str) -> None:
    error = refused(people, "queue.list", target)
    assert (error.errors[0].field, error.errors[0].code) == (field, code)


@pytest.mark.parametrize(
    ("target", "right"),
    [
        ({"mta": ["exchange"]}, "expected one of exim, opensmtpd, postfix, qmail, sendmail"),
        ({"instances": ["mx1"]}, "expected HOST/NAME as instances/ lists them"),
    ],
)
def test_a_name_that_can_be_no_target_is_refused_with_what_would_be_right(
    people: Cast, target: Any, right: str
) -> None:
    assert refused(people, "queue.list", target).detail.endswith(f"is not there, or not in this target; {right}")


def test_a_disabled_host_that_is_named_is_refused_and_an_unnamed_one_is_left_out(people: Cast) -> None:
    people.acme.hosts.filter(name="mx2").update(enabled=False)
    assert refused(people, "queue.list", {"hosts": ["mx2"]}).code == "disabled"
    job = ask(people.alice, "queue.list", {"customers": ["acme"]})
    assert {run.host.name for run in job.runs.all()} == {"mx1"}


def test_all_means_all_that_the_caller_may_operate_on(people: Cast) -> None:
    job = ask(people.alice, "queue.list", {"all": True})
    assert {run.host.name for run in job.runs.all()} == {"mx1", "mx2"}


def test_a_viewer_may_read_queues_but_not_messages_and_change_nothing(people: Cast) -> None:
    viewer = person("vera", "viewer", people.acme)
    ask(viewer, "queue.list")
    with pytest.raises(Forbidden):
        ask(viewer, "message.show", params={"queue_id": "3F5DD30C44F"})
    with pytest.raises(Forbidden):
        ask(viewer, "queue.hold", params={"match": "ALL"})


def test_a_changing_job_needs_a_reason(people: Cast) -> None:
    assert refused(people, "queue.hold", params={"match": "ALL"}, reason=" ").errors[0].code == "required"


def test_every_wrong_parameter_is_named_with_its_place(people: Cast) -> None:
    error = refused(people, "queue.purge", params={"match": "from:(", "mode": "burn", "colour": 1})
    assert {e.field for e in error.errors} == {"params.match", "params.mode", "params.colour"}


@pytest.mark.parametrize("queue_id", ["ALL", "-", "-d", "../../etc/passwd", "3F5A*", "1rAbCd-000123-Xy", "٣"])
def test_a_queue_id_of_a_wrong_grammar_is_refused(people: Cast, queue_id: str) -> None:
    assert refused(people, "message.show", params={"queue_id": queue_id}).code == "bad_queue_id"


def test_a_match_that_is_always_true_must_say_all(people: Cast) -> None:
    assert refused(people, "queue.purge", params={"match": "size>=0"}).code == "matches_all"


def test_queue_ids_name_exactly_one_instance(people: Cast) -> None:
    error = refused(people, "queue.hold", {"hosts": ["mx1"]}, params={"queue_ids": ["3F5DD30C44F"]})
    assert error.errors[0].field == "target"
    assert "expected one as target.instances" in error.errors[0].detail


def test_a_field_that_no_targeted_mta_keeps_is_unsupported(people: Cast) -> None:
    error = refused(people, "queue.hold", params={"match": "attempts>3"})
    assert (error.code, error.errors[0].field) == ("unsupported", "params.match")


def test_a_job_that_cannot_be_audited_is_not_begun(people: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.audit import trail
    from jobs.errors import Unavailable

    def full(*entries: Any) -> None:
        raise Unavailable("audit_unavailable", "the audit table is read only")

    monkeypatch.setattr(trail, "append", full)
    with pytest.raises(Unavailable):
        ask(people.alice, "queue.list")
    assert not Job.objects.exists()


def test_an_instance_that_is_named_on_a_disabled_host_is_disabled_and_not_unknown(people: Cast) -> None:
    people.acme.hosts.filter(name="mx2").update(enabled=False)
    assert refused(people, "queue.list", {"instances": ["mx2/postfix"]}).code == "disabled"
