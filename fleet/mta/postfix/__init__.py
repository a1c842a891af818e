"""Postfix, 3.1 and later, with any number of instances on a host."""

from typing import ClassVar

from fleet.mta.postfix import changes, commands, instances, listing, parse, quarantine


class Postfix:
    """Satisfies fleet.mta.base.Adapter. Every method names the module that explains it."""

    mta: ClassVar[str] = "postfix"
    emulated: ClassVar[dict[str, str]] = {}
    notes: ClassVar[dict[str, str]] = {}
    match_fields: ClassVar[frozenset[str]] = listing.MATCH_FIELDS

    discover = staticmethod(instances.discover)
    queue_id_error = staticmethod(parse.queue_id_error)
    sudoers = staticmethod(commands.sudoers)

    queue_list = staticmethod(listing.queue_list)
    queue_hold = staticmethod(changes.queue_hold)
    queue_release = staticmethod(changes.queue_release)
    queue_purge = staticmethod(changes.queue_purge)
    quarantine_restore = staticmethod(quarantine.quarantine_restore)
    quarantine_erase = staticmethod(quarantine.quarantine_erase)
