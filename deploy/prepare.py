"""Bring the database up to date and make the first administrator: what must be done once before a start."""

import io
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deploy.settings")

import django
from django.core.management import call_command
from django.db import OperationalError

EX_UNAVAILABLE = 69


def main() -> int:
    """0, or 69 with one line that says why the database cannot be worked with."""
    django.setup()
    try:
        _prepare()
    except OperationalError as error:
        print(f"mxfleet: MXFLEET_DATABASE_URL: {' '.join(str(error).split())}", file=sys.stderr)
        return EX_UNAVAILABLE
    return 0


def _prepare() -> None:
    from django.conf import settings

    from jobs.models import Role, RoleName

    call_command("migrate", interactive=False, verbosity=0)
    # Not "where the file is missing": who deletes the file after use wants no new token at the next start.
    if not Role.objects.filter(role=RoleName.ADMIN, customer=None).exists():
        call_command("first_admin", token_file=settings.ENV.data / "admin-token", stdout=io.StringIO())


if __name__ == "__main__":
    sys.exit(main())
