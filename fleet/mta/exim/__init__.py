"""Exim, 4.94 and later."""

from typing import ClassVar

from fleet.mta.exim import instances, listing, parse


class Exim:
    """Satisfies fleet.mta.base.Adapter. What a method does is told where it is defined."""

    mta: ClassVar[str] = "exim"
    match_fields: ClassVar[frozenset[str]] = listing.MATCH_FIELDS

    discover = staticmethod(instances.discover)
    queue_id_error = staticmethod(parse.queue_id_error)
    queue_list = staticmethod(listing.queue_list)
    queue_summary = staticmethod(listing.queue_summary)
