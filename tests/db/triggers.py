"""Lets Django's flush, which empties all tables after a transactional test, past the triggers that refuse just that."""

from typing import Any

import pytest
from django.db import transaction
from django.db.backends.base.operations import BaseDatabaseOperations

from jobs.triggers import create_sql, drop_sql


def let_flush_pass(patch: pytest.MonkeyPatch) -> None:
    """Take the triggers away for each flush, and put them back in the same transaction."""
    plain_flush = BaseDatabaseOperations.execute_sql_flush

    def flush(self: Any, sql_list: list[str]) -> None:
        connection = self.connection
        with transaction.atomic(using=connection.alias):
            run(connection, drop_sql(connection.vendor))
            plain_flush(self, sql_list)
            run(connection, create_sql(connection.vendor))

    patch.setattr(BaseDatabaseOperations, "execute_sql_flush", flush)


def run(connection: Any, statements: list[str]) -> None:
    """Execute them as they are: without parameters a % is a %."""
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
