"""`manage.py first_admin --token-file PATH`: the first administrator, and the only way in when every token is lost."""

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from api.tokens import issue_first
from jobs.services.accounts import first_admin


class Command(BaseCommand):
    """Writes a new token of the first administrator into a file; prints only the file's path."""

    help = "Make the first administrator (a person for all customers), and write a token of theirs to a file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--token-file", required=True, type=Path, help="is made with mode 0600, and must not exist")
        parser.add_argument("--username", default="admin", help="of a new administrator (default: admin)")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["token_file"]
        with transaction.atomic():
            token = issue_first(first_admin(options["username"]))
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except OSError as error:
                raise CommandError(f"{path}: {error.strerror}") from error
            with os.fdopen(handle, "w") as file:
                file.write(f"{token}\n")
        self.stdout.write(str(path))
