"""What the database itself refuses, in SQL for SQLite and PostgreSQL: a changed record, an illegal move of a job.

Migration 0002 puts these in place. A later migration must call `drop_sql` and `create_sql` again when it changes
`JOB_MOVES`, or alters one of the tables: on SQLite Django rebuilds an altered table, and its triggers are lost.
"""

from jobs.state import JOB_MOVES

APPEND_ONLY = ("jobs_auditevent", "jobs_auditcheckpoint", "jobs_approval")
MOVES_TRIGGER = "jobs_job_moves"


def create_sql(vendor: str) -> list[str]:
    """The statements that make all triggers; `vendor` as Django names it."""
    return _sqlite() if vendor == "sqlite" else _postgresql()


def drop_sql(vendor: str) -> list[str]:
    """The statements that remove them, each harmless when its trigger is not there."""
    if vendor == "sqlite":
        return [f"DROP TRIGGER IF EXISTS {name}" for name in names(vendor)]
    tables = {name: table for table in APPEND_ONLY for name in _names_of(table, vendor)} | {MOVES_TRIGGER: "jobs_job"}
    return [
        *(f"DROP TRIGGER IF EXISTS {name} ON {table}" for name, table in tables.items()),
        "DROP FUNCTION IF EXISTS jobs_refuse_change()",
        "DROP FUNCTION IF EXISTS jobs_refuse_move()",
    ]


def names(vendor: str) -> list[str]:
    """The names of all triggers."""
    return [name for table in APPEND_ONLY for name in _names_of(table, vendor)] + [MOVES_TRIGGER]


def _names_of(table: str, vendor: str) -> list[str]:
    acts = ("update", "delete") if vendor == "sqlite" else ("change", "truncate")
    return [f"{table}_no_{act}" for act in acts]


def _illegal_move() -> str:
    """SQL for: OLD.state may not become NEW.state. Staying is no move."""
    allowed = [
        f"(OLD.state = '{old}' AND NEW.state IN ({', '.join(repr(str(new)) for new in sorted(moves))}))"
        for old, moves in JOB_MOVES.items()
        if moves
    ]
    return f"OLD.state <> NEW.state AND NOT ({' OR '.join(allowed)})"


def _sqlite() -> list[str]:
    # https://www.sqlite.org/lang_createtrigger.html: RAISE(ABORT) takes back the statement, not the transaction.
    refusals = [
        f"CREATE TRIGGER {table}_no_{act} BEFORE {act.upper()} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append only'); END"
        for table in APPEND_ONLY
        for act in ("update", "delete")
    ]
    moves = (
        f"CREATE TRIGGER {MOVES_TRIGGER} BEFORE UPDATE OF state ON jobs_job WHEN {_illegal_move()} "
        "BEGIN SELECT RAISE(ABORT, 'a job may not make this move'); END"
    )
    return [*refusals, moves]


def _postgresql() -> list[str]:
    refuse = (
        "CREATE FUNCTION jobs_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION '% is append only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    refusals = [
        statement
        for table in APPEND_ONLY
        for statement in (
            f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION jobs_refuse_change()",
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION jobs_refuse_change()",
        )
    ]
    refuse_move = (
        "CREATE FUNCTION jobs_refuse_move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'a job may not go from % to %', OLD.state, NEW.state "
        "USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    moves = (
        f"CREATE TRIGGER {MOVES_TRIGGER} BEFORE UPDATE OF state ON jobs_job FOR EACH ROW WHEN ({_illegal_move()}) "
        "EXECUTE FUNCTION jobs_refuse_move()"
    )
    return [refuse, *refusals, refuse_move, moves]
