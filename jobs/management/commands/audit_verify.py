"""`manage.py audit_verify`: follow the audit chains to the first entry that is not as it was written."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from jobs.audit.marks import MarksError
from jobs.audit.trail import public_key, verify
from jobs.restore import watch


class Command(BaseCommand):
    """Exits with 1 when an entry was changed, moved, cut or added, or is not there that this machine remembers."""

    help = "Verify the audit trail: every entry, the heads of the chains, and the signed checkpoints."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("chains", nargs="*", metavar="CUSTOMER", help="only the chains of these customers")
        parser.add_argument(
            "--public-key", action="store_true", help="write the public keys for the offline verifier instead"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["public_key"]:
            self.stdout.write(public_key(), ending="")
            return
        verdict = verify(options["chains"] or None)
        for gap in verdict.gaps:
            self.stdout.write(
                f"gap acknowledged in chain {gap.chain or '(installation)'}: entries {gap.first} to {gap.last} are not "
                f"those that were there, the last known hash is {gap.last_known_hash}; {gap.at}, entry {gap.seq}: "
                f"{gap.reason}"
            )
        if bad := verdict.first_bad:
            raise CommandError(f"chain {bad.chain or '(installation)'}, entry {bad.seq}: {bad.reason}")
        self._check_marks()
        self.stdout.write(f"{verdict.checked} entries are as they were written, {verdict.unsigned} not yet signed")

    def _check_marks(self) -> None:
        """What was cut off at the end of a chain leaves a whole one: only who has seen more can tell."""
        try:
            lost = watch.lost()
        except MarksError as error:
            raise CommandError(f"whether entries are missing cannot be told: {error}") from error
        if lost:
            raise CommandError(
                f"{'; '.join(map(str, lost))}: acknowledge the gap (audit_acknowledge_gap) or restore them"
            )
