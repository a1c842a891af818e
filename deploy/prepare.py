"""Bring the database up to date and make the first administrator: what must be done once before a start."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deploy.settings")

import django
from django.core.management import call_command


def main() -> None:
    django.setup()
    from django.conf import settings

    call_command("migrate", interactive=False, verbosity=0)
    token_file = settings.ENV.data / "admin-token"
    if not token_file.exists():
        call_command("first_admin", token_file=str(token_file))


if __name__ == "__main__":
    main()
