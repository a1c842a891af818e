"""Rows to JSON, by hand: a page of jobs costs a few statements, however long it is."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from api.pagination import Page
from fleet.models import Instance
from fleet.mta.records import MessageState
from jobs import selectors
from jobs.audit.verify import Gap
from jobs.jsonvalues import readable, rfc3339
from jobs.models import AuditCheckpoint, AuditEvent, Block, Job, Message, QuarantineItem, Run
from jobs.rules.state import JobState

FINAL = frozenset(state.value for state in JobState.final())
EMBEDDED = 100
"""Messages of a run that stand in its `result` at once; the others follow by the page's `next`."""

NOTHING_DONE = frozenset({JobState.FAILED, JobState.REJECTED, JobState.EXPIRED, JobState.CANCELLED})


def instant(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else None


def jobs(rows: Sequence[Job], url: Callable[[str], str]) -> list[dict[str, Any]]:
    """Jobs that came from `selectors.with_details`. `url`: absolute address of a path."""
    ids = [row.pk for row in rows]
    runs = selectors.runs_by_state(ids)
    whole = [row for row in rows if row.totals is None]
    gone = selectors.gone_messages([row.pk for row in whole if row.is_changing and row.state in FINAL])
    planned = selectors.planned_runs([row.pk for row in whole if row.frozen_at])
    for row in rows:
        if row.totals is not None:
            gone[row.pk], planned[row.pk] = Counter(row.totals), row.totals["instances"]
    return [
        {
            **_job(row, runs.get(row.pk, {}), gone.get(row.pk, Counter()), planned[row.pk], url),
            "undone_by": _undone_by(row),
            "approval": _approval(row),
        }
        for row in rows
    ]


def new_job(row: Job, url: Callable[[str], str]) -> dict[str, Any]:
    """A job that was made a moment ago: what it cannot have yet is not looked for, because POST must be cheap."""
    return _job(row, selectors.runs_by_state([row.pk]).get(row.pk, {}), Counter(), 0, url)


def _job(row: Job, runs: dict[str, int], gone: Counter[str], planned: int, url: Callable[[str], str]) -> dict[str, Any]:
    is_over = row.state in FINAL and row.state != JobState.PLANNED
    return {
        "id": str(row.pk),
        "operation": row.operation,
        "target": row.target,
        "params": row.params,
        "reason": row.reason,
        "ticket": row.ticket,
        "dry_run": row.dry_run,
        "state": row.state,
        "error": row.error,
        "requested_by": row.requested_by.username,
        "channel": row.channel,
        "created_at": instant(row.created_at),
        "started_at": instant(row.started_at),
        "finished_at": instant(row.finished_at),
        "expires_at": instant(row.expires_at),
        "customers": sorted(customer.slug for customer in row.customers.all()),
        "undo_of": _text(row.undo_of_id),
        "undone_by": None,
        "retry_of": _text(row.retry_of_id),
        "links": _links(row, url),
        "plan": _plan_summary(row, planned),
        "approval": None,
        "counts": {
            "runs": runs,
            "messages": gone[MessageState.DONE] if is_over else row.planned_messages,
            "left_queue": gone[MessageState.LEFT_QUEUE],
        },
    }


def _text(identity: UUID | None) -> str | None:
    return str(identity) if identity else None


def _undone_by(row: Job) -> str | None:
    undos = [undo.pk for undo in row.undos.all() if undo.state not in NOTHING_DONE]
    return _text(max(undos, default=None))


def _links(row: Job, url: Callable[[str], str]) -> dict[str, str]:
    base = url(f"/api/v1/jobs/{row.pk}/")
    links = {"self": base, "runs": f"{base}runs/", "events": f"{base}events/"}
    return {**links, "plan": f"{base}plan/"} if row.frozen_at and row.totals is None else links


def _plan_summary(row: Job, planned: int) -> dict[str, Any] | None:
    if row.frozen_at is None:
        return None
    return {
        "digest": row.digest,
        "messages": row.planned_messages,
        "instances": planned,
        "frozen_at": instant(row.frozen_at),
    }


def _approval(row: Job) -> dict[str, Any] | None:
    if not row.approvals_needed:
        return None
    decisions = list(row.approvals.all())
    return {
        "needed": row.approvals_needed,
        "given": sum(decision.decision == "approved" for decision in decisions),
        "deadline": instant(row.expires_at) if row.state == JobState.AWAITING_APPROVAL else None,
        "rule": row.rule,
        "why": row.why,
        "decisions": [
            {"person": d.person.username, "decision": d.decision, "comment": d.comment, "at": instant(d.at)}
            for d in decisions
        ],
    }


def runs(rows: Sequence[Run], first_page: Callable[[Run, list[Message]], Page]) -> list[dict[str, Any]]:
    """Runs with the first page of their messages, where their result counts messages."""
    counted = [row.pk for row in rows if isinstance(row.result, dict) and "asked" in row.result]
    found = selectors.first_messages(counted, EMBEDDED + 1) if counted else {}
    return [_run(row, first_page(row, found.get(row.pk, [])) if row.pk in counted else None) for row in rows]


def _run(row: Run, messages: Page | None) -> dict[str, Any]:
    result = row.result
    if messages is not None and isinstance(result, dict):
        result = {**result, "messages": messages.of(outcomes)}
    return {
        "id": str(row.pk),
        "instance": str(row.instance) if row.instance else None,
        "host": row.host.name,
        "state": row.state,
        "error": row.error,
        "result": result,
        "commands": row.commands,
        "evidence": {"before": row.before, "after": row.after},
        "started_at": instant(row.started_at),
        "finished_at": instant(row.finished_at),
    }


def outcomes(rows: Sequence[Message]) -> list[dict[str, Any]]:
    """What became of messages."""
    return [{"queue_id": row.queue_id, "outcome": row.outcome or None, "new_id": row.new_id or None} for row in rows]


def planned_messages(rows: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages that a plan names."""
    return [
        {
            "instance": row.run.planned_name,
            "queue_id": row.queue_id,
            "arrival_time": rfc3339(row.arrival_time),
            "sender": row.sender,
            "size": row.size,
        }
        for row in rows
    ]


def plan_instances(rows: Sequence[Run]) -> list[dict[str, Any]]:
    """The instances' parts of a plan."""
    return [_plan_instance(row.planned_name, row.plan) for row in rows if row.plan is not None]


def _plan_instance(name: str, summary: dict[str, Any]) -> dict[str, Any]:
    sample = readable(summary.get("sample", []))
    return {"instance": name, **summary, "sample": sample}


def block(row: Block) -> dict[str, Any]:
    """A wanted block, and how far each instance has got with it."""
    return {
        "id": str(row.pk),
        "pattern": row.pattern,
        "action": row.action,
        "reply": f"{row.code} {row.enhanced} {row.text}",
        "target": row.target,
        "reason": row.reason,
        "ticket": row.ticket,
        "owner": row.owner.username,
        "job": str(row.job_id),
        "wanted": row.is_wanted,
        "created_at": instant(row.created_at),
        "expires_at": instant(row.expires_at),
        "instances": [
            {"instance": str(part.instance), "state": part.state, "detail": part.detail} for part in row.instances.all()
        ],
    }


def quarantined(row: QuarantineItem) -> dict[str, Any]:
    """A message that was taken out of a queue."""
    return {
        "id": str(row.pk),
        "job": str(row.job_id),
        "instance": _instance(row.instance),
        "queue_id": row.queue_id,
        "sender": row.sender,
        "recipients": row.recipients,
        "subject": row.subject,
        "size": row.size,
        "state": row.state,
        "arrival_time": rfc3339(row.arrival_time),
        "created_at": instant(row.created_at),
        "expires_at": instant(row.expires_at),
    }


def _instance(row: Instance) -> str:
    return f"{row.host.name}/{row.name}"


def audit_event(row: AuditEvent) -> dict[str, Any]:
    """An entry of the audit trail."""
    same = ("seq", "actor", "on_behalf_of", "channel", "source", "action", "object", "data", "prev_hash", "hash")
    return {
        **{name: getattr(row, name) for name in same},
        "at": instant(row.at),
        "customer": row.chain or None,
        "job": _text(row.job),
    }


def gap(found: Gap) -> dict[str, Any]:
    """An acknowledged gap of the audit trail."""
    fields = found._asdict()
    return {"customer": fields.pop("chain") or None, **fields}


def checkpoint(row: AuditCheckpoint) -> dict[str, Any]:
    """A signed checkpoint."""
    return {
        "customer": row.chain or None,
        "seq": row.seq,
        "hash": row.hash,
        "at": instant(row.at),
        "previous": row.previous,
        "previous_hash": row.previous_hash,
        "signature": row.signature,
    }
