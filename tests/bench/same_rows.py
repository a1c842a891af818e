"""The rows of a PostgreSQL in the SQLite of this process, as Django would write them there, without its objects."""

from typing import Any

import psycopg

FORMS = {
    "UUIDField": "replace({0}::text, '-', '')",
    "DateTimeField": "to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')",
    "JSONField": "{0}::text",
    "BooleanField": "{0}::int",
}
"""How a column is asked for, by the kind of its field; others as they are."""


def copy_from(url: str) -> None:
    """All rows of all models, beside those that migrations made."""
    from django.apps import apps
    from django.db import connection

    connection.ensure_connection()
    connection.disable_constraint_checking()
    with psycopg.connect(url) as filled:
        for model in apps.get_models(include_auto_created=True):
            _copy(model, filled, connection.connection)


def _copy(model: Any, filled: Any, into: Any) -> None:
    fields = model._meta.concrete_fields
    asked = ", ".join(_form(field).format(f'"{field.column}"') for field in fields)
    names = ", ".join(f'"{field.column}"' for field in fields)
    marks = ", ".join("?" for _ in fields)
    table = model._meta.db_table
    with filled.cursor(name="copied") as rows:
        rows.itersize = 10_000
        rows.execute(f"SELECT {asked} FROM {table}")
        into.execute("BEGIN")
        into.executemany(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", rows)
        into.execute("COMMIT")


def _form(field: Any) -> str:
    while field.is_relation:
        field = field.target_field
    return FORMS.get(field.get_internal_type(), "{0}")
