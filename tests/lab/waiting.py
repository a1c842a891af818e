"""Waiting for what another program does. Standard library only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

PATIENCE = 4
"""A limit in a test is what an idle machine needs; lanes, and whatever else runs, share the processors."""


def await_true(is_so: Any, seconds: float, otherwise: Any = "it did not happen", pause: float = 0.2) -> Any:
    """Ask until the answer is true; the answer. Fails after `seconds` with the text (or what `otherwise()` says)."""
    for _ in tries(seconds, pause):
        if answer := is_so():
            return answer
    raise AssertionError(otherwise() if callable(otherwise) else otherwise)


def tries(seconds: float, pause: float = 0.2) -> Iterator[None]:
    """Once and then, with a pause between, until `seconds` have passed: for a loop that ends when it is so."""
    until = time.monotonic() + seconds * PATIENCE
    yield
    while time.monotonic() < until:
        time.sleep(pause)
        yield
