"""What the service's own role may do in PostgreSQL: everything with rows but change what is recorded; nothing else.

deploy/postgres/roles.sh makes the role; the owner of the tables grants, whenever he has migrated.
"""

from typing import Any

from django.db import transaction

from jobs.triggers import APPEND_ONLY

APP_ROLE = "mxfleet_app"
OWNS = """
SELECT true FROM pg_roles app, pg_tables
WHERE app.rolname = %s AND schemaname = 'public' AND tablename = %s AND tableowner = current_user
"""
"""Whether that role is there, and the table belongs to us."""


def statements() -> list[str]:
    """In the order in which they are to be executed, in one transaction."""
    recorded = ", ".join(APPEND_ONLY)
    return [
        f"GRANT USAGE ON SCHEMA public TO {APP_ROLE}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {APP_ROLE}",
        f"REVOKE UPDATE, DELETE ON {recorded} FROM {APP_ROLE}",
        f"REVOKE INSERT, UPDATE, DELETE ON django_migrations FROM {APP_ROLE}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {APP_ROLE}",
    ]


def grant(connection: Any) -> None:
    """Grant, where that role is there and this one owns the tables; else nothing."""
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor, transaction.atomic():
        cursor.execute(OWNS, [APP_ROLE, APPEND_ONLY[0]])
        if cursor.fetchone():
            for statement in statements():
                cursor.execute(statement)
