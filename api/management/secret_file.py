"""A token in a file that only its owner reads."""

import os
from argparse import ArgumentParser
from pathlib import Path

from django.core.management.base import CommandError


def add_token_file(parser: ArgumentParser) -> None:
    """The option that says where."""
    parser.add_argument("--token-file", required=True, type=Path, help="is made with mode 0600, and must not exist")


def write_token(path: Path, token: str) -> None:
    """Make the file with mode 0600. Raises CommandError: it is there already, or cannot be made."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    with os.fdopen(handle, "w") as file:
        file.write(f"{token}\n")
