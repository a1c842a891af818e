"""Bring the database up to date and make the first administrator: what must be done once before a start."""

import io
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deploy.settings")

import django
from django.core.management import call_command


def main() -> None:
    django.setup()
    from django.conf import settings

    from jobs.models import Role, RoleName

    call_command("migrate", interactive=False, verbosity=0)
    # Not "where the file is missing": who deletes the file after use wants no new token at the next start.
    if not Role.objects.filter(role=RoleName.ADMIN, customer=None).exists():
        call_command("first_admin", token_file=settings.ENV.data / "admin-token", stdout=io.StringIO())


if __name__ == "__main__":
    main()
