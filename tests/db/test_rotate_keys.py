"""`rotate_keys`: afterwards every credential opens with the new key alone, or nothing was changed."""

import base64
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from fleet.models import Credential, Customer
from fleet.secrets import SecretError, open_credential, seal_credential

pytestmark = pytest.mark.django_db
ONE = "k1 " + base64.b64encode(b"1" * 32).decode() + "\n"
TWO = "k2 " + base64.b64encode(b"2" * 32).decode() + "\n"


@pytest.fixture
def key_file(tmp_path: Path, settings: Settings) -> Path:
    path = tmp_path / "keys"
    path.write_text(ONE)
    settings.ENV = SimpleNamespace(key_file=path)
    customer = Customer.objects.create(slug="acme", name="Acme")
    for name in ("main", "spare"):
        credential = Credential(customer=customer, name=name, public_key="")
        seal_credential(credential, f"PEM of {name}".encode())
        credential.save()
    return path


def test_after_a_rotation_the_old_key_can_go(key_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key_file.write_text(TWO + ONE)
    call_command("rotate_keys")
    assert capsys.readouterr().out == "2 credentials sealed anew\n"
    key_file.write_text(TWO)
    assert [open_credential(row) for row in Credential.objects.all()] == [b"PEM of main", b"PEM of spare"]


def test_one_credential_that_does_not_open_leaves_all_as_they_were(key_file: Path) -> None:
    before = list(Credential.objects.values_list("private_key", flat=True))
    Credential.objects.filter(name="spare").update(private_key=before[0])
    key_file.write_text(TWO + ONE)
    with pytest.raises(CommandError, match=r"nothing was changed: private_key of fleet_credential spare .* key k1"):
        call_command("rotate_keys")
    assert set(Credential.objects.values_list("private_key", flat=True)) == {before[0]}


def test_a_private_key_copied_to_another_customer_s_row_does_not_open(key_file: Path) -> None:
    stolen = Credential.objects.get(name="main")
    stolen.customer = Customer.objects.create(slug="globex", name="Globex")
    with pytest.raises(SecretError, match="another row"):
        open_credential(stolen)
