"""Duties that have nothing to do with each other: what fails in one must not keep the next from being done."""

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, connection

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


def apart(act: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | None:
    """What `act` returns; None when it raised, which the log tells. The next round tries again."""
    try:
        return act(*arguments, **named)
    except (OperationalError, InterfaceError) as error:  # the database's trouble, and not this place's
        log.warning("%s failed: %s", act.__qualname__, error)
    except Exception:
        log.exception("%s failed", act.__qualname__)
    if not connection.in_atomic_block:
        connection.close()
    return None
