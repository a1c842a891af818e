"""`manage.py first_token USER --token-file PATH`: a person's first token that counts as made by themselves."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from api.management.secret_file import add_token_file, write_token
from api.tokens import first_token
from jobs.errors import Invalid


class Command(BaseCommand):
    """Writes the token into a file, to be handed to that person; prints only the file's path."""

    help = "Write a person's first own token to a file. With a token that somebody else made nobody can decide."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        add_token_file(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with transaction.atomic():
                write_token(options["token_file"], first_token(options["username"]))
        except Invalid as error:
            raise CommandError(error.detail) from error
        self.stdout.write(str(options["token_file"]))
