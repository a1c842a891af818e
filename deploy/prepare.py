"""Bring the database up to date and make the first administrator: what must be done once before a start."""

import io
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deploy.settings")

import django
from django.core.management import call_command
from django.db import DatabaseError, OperationalError
from django.db.migrations.exceptions import MigrationSchemaMissing

from deploy.usage import Parser

EX_UNAVAILABLE = 69
INSUFFICIENT_PRIVILEGE = "42501"
"""PostgreSQL's SQLSTATE (its manual, appendix A)."""


def main() -> int:
    """0, or 69 with one line that says why the database cannot be worked with."""
    django.setup()
    try:
        _prepare()
    except DatabaseError as error:
        if not (reason := explained(error)):
            raise
        print(f"mxfleet: MXFLEET_DATABASE_URL: {reason}", file=sys.stderr)
        return EX_UNAVAILABLE
    return 0


def explained(error: DatabaseError) -> str:
    """In one line, what an administrator can mend; empty for what is a fault of ours."""
    message = " ".join(str(error).split())
    is_denied = getattr(error.__cause__, "sqlstate", None) == INSUFFICIENT_PRIVILEGE
    if is_denied or isinstance(error, MigrationSchemaMissing):
        return f"this role may not do it, migrate as the owner of the tables (docs/operating.md): {message}"
    return message if isinstance(error, OperationalError) else ""


def _prepare() -> None:
    from django.conf import settings
    from django.db import connection

    from deploy.grants import grant
    from jobs.administration.names import reserved_in_use
    from jobs.models import Role, RoleName

    call_command("migrate", interactive=False, verbosity=0)
    grant(connection)
    for name in reserved_in_use():
        print(f"mxfleet: {name} is called by a word of the API's addresses (CHANGELOG.md, Upgrading)", file=sys.stderr)
    # Not "where the file is missing": who deletes the file after use wants no new token at the next start.
    if not Role.objects.filter(role=RoleName.ADMIN, customer=None).exists():
        call_command("first_admin", token_file=settings.ENV.data / "admin-token", stdout=io.StringIO())


if __name__ == "__main__":
    Parser("deploy.prepare", __doc__).parse_args()
    sys.exit(main())
