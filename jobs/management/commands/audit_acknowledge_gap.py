"""`manage.py audit_acknowledge_gap --reason TEXT`: what is missing in the audit trail is known, and how it was lost."""

import getpass
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from fleet.secrets import SecretError
from jobs.audit.marks import MarksError
from jobs.errors import ServiceError
from jobs.restore.gaps import acknowledge


class Command(BaseCommand):
    """Needs the key file, so it runs on the server's machine only."""

    help = (
        "Acknowledge that the audit trail lacks entries which the service knew, as after a restore from a backup. "
        "Writes a signed entry for each chain, of which audit_verify tells from then on."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reason", required=True, help="how they were lost, such as: restored from last night")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            losses = acknowledge(options["reason"], by=getpass.getuser())
        except (ServiceError, MarksError, SecretError) as error:
            raise CommandError(str(error)) from error
        for each in losses:
            self.stdout.write(f"acknowledged: {each}")
