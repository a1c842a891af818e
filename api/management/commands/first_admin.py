"""`manage.py first_admin --token-file PATH`: the first administrator, and the only way in when every token is lost."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from api.management.secret_file import add_token_file, write_token
from api.tokens import issue_on_server
from jobs.administration.accounts import first_admin


class Command(BaseCommand):
    """Writes a new token of the first administrator into a file; prints only the file's path."""

    help = "Make the first administrator (a person for all customers), and write a token of theirs to a file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_token_file(parser)
        parser.add_argument("--username", default="admin", help="of a new administrator (default: admin)")

    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic():
            token = issue_on_server(first_admin(options["username"]), {"name": "first administrator"})
            write_token(options["token_file"], token)
        self.stdout.write(str(options["token_file"]))
