"""`manage.py rotate_keys`: seal every credential anew with the first key of the key file."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from fleet.models import Credential
from fleet.secrets import SecretError, open_credential, seal_credential


class Command(BaseCommand):
    """All or none: one credential that does not open leaves every one as it was."""

    help = (
        "Seal every credential anew with the first key of MXFLEET_KEY_FILE. First put a new line above the old one "
        '(echo "k2 $(openssl rand -base64 32)"), then run this, then take the old line out.'
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            count = reseal_all()
        except SecretError as error:
            raise CommandError(f"nothing was changed: {error}") from error
        self.stdout.write(f"{count} credentials sealed anew")


@transaction.atomic
def reseal_all() -> int:
    """How many credentials were sealed anew. Raises SecretError, and then none was."""
    count = 0
    for credential in Credential.objects.select_for_update().order_by("pk"):
        seal_credential(credential, open_credential(credential))
        credential.save(update_fields=["private_key"])
        count += 1
    return count
