"""The command lines of our programs: `--help` says what one does, and what it does not take starts nothing."""

import sys
from argparse import ArgumentParser
from typing import NoReturn

EX_USAGE = 64


class Parser(ArgumentParser):
    """The library's, with the exit status that our programs have for wrong usage. `module`: as `python -m` has it."""

    def __init__(self, module: str, about: str | None) -> None:
        super().__init__(prog=f"python -m {module}", description=about, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"mxfleet: {message}\n")
