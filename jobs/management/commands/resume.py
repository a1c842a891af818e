"""`manage.py resume --reason TEXT`: let a service that has paused itself go on."""

import getpass
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from jobs.errors import ServiceError
from jobs.lifecycle import resume
from jobs.restore import pause


class Command(BaseCommand):
    """Without --reason it only says whether the service is paused, why, and what was found."""

    help = "Let the paused service begin jobs again. Without --reason: say why it is paused and what there is."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reason", help="why it may go on, such as: compared with the hosts, all read back")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["reason"] is None:
            self._report()
            return
        try:
            found = resume.end(None, options["reason"], by=getpass.getuser())
        except ServiceError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"goes on with: {json.dumps(found)}")

    def _report(self) -> None:
        self.stdout.write(pause.status() or "not paused")
        for line in pause.details():
            self.stdout.write(line)
