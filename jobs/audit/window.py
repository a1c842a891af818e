"""A time of which an excerpt of the audit trail tells."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q


@dataclass(frozen=True, slots=True)
class Window:
    """When entries were made: from `since` on, and before `until`; None: no bound."""

    since: datetime | None = None
    until: datetime | None = None

    def __bool__(self) -> bool:
        return self.since is not None or self.until is not None

    def condition(self) -> Q:
        """That an entry lies in it."""
        begun = Q() if self.since is None else Q(at__gte=self.since)
        return begun if self.until is None else begun & Q(at__lt=self.until)


ALWAYS = Window()
