"""What the database itself refuses, in SQL for SQLite and PostgreSQL.

- changing or deleting what is recorded (events, checkpoints, decisions);
- a decision that names another requester, or another plan, than the job has;
- a job's transition that `jobs.rules.state.JOB_TRANSITIONS` does not know.

Migration 0002 puts these in place. A later migration must call `drop_sql` and `create_sql` again when it changes
`JOB_TRANSITIONS`, or alters one of the tables: on SQLite Django rebuilds an altered table, and its triggers are lost.
"""

from dataclasses import dataclass

from jobs.rules.state import JOB_TRANSITIONS

APPEND_ONLY = ("jobs_auditevent", "jobs_auditcheckpoint", "jobs_approval")


@dataclass(frozen=True, slots=True)
class Trigger:
    """Refuses `event` on `table` (UPDATE, INSERT...) when the condition holds (empty: always), saying `message`."""

    name: str
    table: str
    event: str
    message: str
    condition: str = ""

    def sqlite(self) -> str:
        # RAISE(ABORT) takes back the statement, not the transaction: https://www.sqlite.org/lang_createtrigger.html
        when = f"WHEN {self.condition} " if self.condition else ""
        return (
            f"CREATE TRIGGER {self.name} BEFORE {self.event} ON {self.table} FOR EACH ROW {when}"
            f"BEGIN SELECT RAISE(ABORT, '{self.message}'); END"
        )

    def postgresql(self) -> str:
        # A trigger's own WHEN may hold no sub-select, so the condition is in the function.
        each = "STATEMENT" if self.event == "TRUNCATE" else "ROW"
        return (
            f"CREATE FUNCTION {self.name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF {self.condition or 'true'} THEN "
            f"RAISE EXCEPTION '{self.message}' USING ERRCODE = 'integrity_constraint_violation'; END IF; "
            "RETURN NEW; END $$; "
            f"CREATE TRIGGER {self.name} BEFORE {self.event} ON {self.table} "
            f"FOR EACH {each} EXECUTE FUNCTION {self.name}()"
        )


def create_sql(vendor: str) -> list[str]:
    """The statements that make all triggers; `vendor` as Django names it."""
    if vendor == "sqlite":
        return [trigger.sqlite() for trigger in triggers(vendor)]
    return [trigger.postgresql() for trigger in triggers(vendor)]


def drop_sql(vendor: str) -> list[str]:
    """The statements that remove them, each harmless when its trigger is not there."""
    if vendor == "sqlite":
        return [f"DROP TRIGGER IF EXISTS {trigger.name}" for trigger in triggers(vendor)]
    return [f"DROP FUNCTION IF EXISTS {trigger.name}() CASCADE" for trigger in triggers(vendor)]


def triggers(vendor: str) -> list[Trigger]:
    """All of them; only PostgreSQL has TRUNCATE."""
    acts = ("UPDATE", "DELETE") if vendor == "sqlite" else ("UPDATE", "DELETE", "TRUNCATE")
    refusals = [
        Trigger(f"{table}_no_{act.lower()}", table, act, f"{table} is append only")
        for table in APPEND_ONLY
        for act in acts
    ]
    decision = Trigger(
        "jobs_approval_fits_job",
        "jobs_approval",
        "INSERT",
        "a decision must name the requester and the plan of its job",
        "NOT EXISTS (SELECT 1 FROM jobs_job WHERE id = NEW.job_id AND requested_by_id = NEW.requested_by_id "
        "AND digest = NEW.digest)",
    )
    transitions = Trigger(
        "jobs_job_moves", "jobs_job", "UPDATE OF state", "a job may not make this move", _illegal_transition()
    )
    return [*refusals, decision, transitions]


def _illegal_transition() -> str:
    """SQL for: OLD.state may not become NEW.state. Staying is no transition."""
    allowed = [
        f"(OLD.state = '{old}' AND NEW.state IN ({', '.join(repr(str(new)) for new in sorted(following))}))"
        for old, following in JOB_TRANSITIONS.items()
        if following
    ]
    return f"OLD.state <> NEW.state AND NOT ({' OR '.join(allowed)})"
