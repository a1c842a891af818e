"""Sealed values: bound to their place, to be opened with the right key only, and never told in an error."""

import base64
from pathlib import Path
from types import SimpleNamespace

import pytest
from pytest_django import Settings

from fleet import secrets
from fleet.models import Credential
from fleet.secrets import SecretError, check_credentials, check_key, open_credential, open_sealed, seal, seal_credential

PLACE = {"customer": "1", "table": "fleet_credential", "row": "main", "field": "private_key"}
MARKER = b"-----BEGIN OPENSSH PRIVATE KEY----- marker"
ONE = "k1 " + base64.b64encode(b"1" * 32).decode()
TWO = "k2 " + base64.b64encode(b"2" * 32).decode()


@pytest.fixture
def key_file(tmp_path: Path, settings: Settings) -> Path:
    path = tmp_path / "keys"
    path.write_text(ONE + "\n")
    path.chmod(0o600)
    settings.ENV = SimpleNamespace(key_file=path)
    return path


@pytest.mark.usefixtures("key_file")
def test_what_was_sealed_opens_in_its_place_and_shows_nothing_of_itself() -> None:
    text = seal(MARKER, **PLACE)
    assert open_sealed(text, **PLACE) == MARKER
    assert MARKER not in base64.b64decode(text.rpartition(".")[2])
    assert text.startswith("v1.k1.")


@pytest.mark.usefixtures("key_file")
def test_the_same_value_is_sealed_differently_each_time() -> None:
    assert seal(MARKER, **PLACE) != seal(MARKER, **PLACE)


@pytest.mark.parametrize("part", sorted(PLACE))
@pytest.mark.usefixtures("key_file")
def test_a_sealed_value_that_was_copied_to_another_place_does_not_open(part: str) -> None:
    text = seal(MARKER, **PLACE)
    with pytest.raises(SecretError, match="another row") as caught:
        open_sealed(text, **{**PLACE, part: "other"})
    assert "k1" in str(caught.value)
    assert "marker" not in str(caught.value)


@pytest.mark.usefixtures("key_file")
def test_places_that_only_look_alike_when_joined_are_different() -> None:
    text = seal(MARKER, customer="1", table="t", row="a|b", field="c")
    with pytest.raises(SecretError):
        open_sealed(text, customer="1", table="t", row="a", field="b|c")


@pytest.mark.usefixtures("key_file")
def test_a_value_with_any_part_changed_does_not_open() -> None:
    text = seal(MARKER, **PLACE)
    for number in range(4):
        parts = text.split(".")
        parts[number] = parts[number][:-2] + ("A" if parts[number][-2] != "A" else "B") + parts[number][-1]
        with pytest.raises(SecretError):
            open_sealed(".".join(parts), **PLACE)


@pytest.mark.parametrize("text", ["", "plain", "v1.k1", "v1.k1.!!.!!", "v1.k1..", "v1.k1.é.é"])
@pytest.mark.usefixtures("key_file")
def test_what_is_not_sealed_is_refused_and_never_taken_as_plain_text(text: str) -> None:
    with pytest.raises(SecretError):
        open_sealed(text, **PLACE)


def test_after_a_new_first_key_old_values_still_open_and_new_ones_use_it(key_file: Path) -> None:
    old = seal(MARKER, **PLACE)
    key_file.write_text(f"# rotated\n{TWO}\n\n{ONE}\n")
    assert open_sealed(old, **PLACE) == MARKER
    assert seal(MARKER, **PLACE).startswith("v1.k2.")


def test_a_missing_key_is_named(key_file: Path) -> None:
    old = seal(MARKER, **PLACE)
    key_file.write_text(TWO)
    with pytest.raises(SecretError, match="'k1', which is not in"):
        open_sealed(old, **PLACE)


def test_a_wrong_key_under_the_right_name_is_named(key_file: Path) -> None:
    credential = Credential(customer_id=1, name="main")
    seal_credential(credential, MARKER)
    assert open_credential(credential) == MARKER
    assert check_credentials([credential]) == 1
    key_file.write_text("k1 " + TWO.split()[1])
    with pytest.raises(SecretError, match="key k1: wrong key"):
        check_credentials([credential])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "has no key"),
        ("# nothing\n", "has no key"),
        ("k1\n", "line 1: a line must be KEYID BASE64"),
        (f"{ONE}\nk 2 x\n", "line 2: a line must be"),
        ("k.1 " + ONE.split()[1], "a line must be"),
        ("k1 not!base64", "key k1 is not base64"),
        ("k1 c2hvcnQ=", "key k1 has 5 bytes instead of 32"),
        (f"{ONE}\n{ONE}\n", "line 2: key id k1 is there twice"),
        ("k1 ключ", "cannot be read"),
    ],
)
def test_a_key_file_that_is_no_key_file_stops_the_start(key_file: Path, content: str, complaint: str) -> None:
    key_file.write_text(content)
    with pytest.raises(SecretError, match=complaint):
        check_key()


def test_a_missing_key_file_stops_the_start(key_file: Path) -> None:
    key_file.unlink()
    with pytest.raises(SecretError, match="cannot be read: FileNotFoundError"):
        check_key()


def test_a_key_file_that_everybody_may_read_stops_the_start(key_file: Path) -> None:
    check_key()
    key_file.chmod(0o604)
    with pytest.raises(SecretError, match="chmod o="):
        check_key()


def test_an_error_about_the_key_file_never_shows_a_key(key_file: Path) -> None:
    key_file.write_text(f"{ONE} trailing\n")
    with pytest.raises(SecretError) as caught:
        check_key()
    assert ONE.split()[1] not in str(caught.value)


def test_a_derived_key_differs_by_purpose_and_from_its_origin() -> None:
    key = b"1" * 32
    assert len({key, secrets.derive(key, "one"), secrets.derive(key, "two")}) == 3
