"""A toy MTA: a message is the file `ID` of its queue directory, `ID.held` on hold, `ID.busy` while its daemon sends it.

The first line of a file is the sender, the second has the recipients, the message follows. IDs never come again.
tests/contract/test_sixth.py tries it: it shows that docs/adding-an-mta.md is all that one needs to know.
"""

from functools import partial
from typing import ClassVar

from fleet.mta.queue.changes import change
from fleet.mta.queue.in_quarantine import find
from fleet.mta.queue.quarantine import erase, restore
from fleet.mta.queue.readback import read_back
from tests.toy import commands, discovery, driver, parse, queue

ABSENT = {
    "its daemon attempts all that is free every minute by itself": ("message.deliver", "queue.flush", "queue.requeue"),
    "it keeps no list of senders that it refuses": ("block.list", "sender.block", "sender.unblock"),
    "it writes no log of what it does": ("log.search", "message.trace"),
    "it hands all mail to one program and knows no routes": ("address.test", "smtp.probe"),
    "it sends no notices, and shows nothing but envelopes": ("queue.bounce", "message.show"),
}


class Toy:
    """Satisfies fleet.mta.adapter.Adapter. What a method does is told where it is defined."""

    mta: ClassVar[str] = "toy"
    emulated: ClassVar[dict[str, str]] = {"queue.hold": "a rename that its daemon passes over"}
    notes: ClassVar[dict[str, str]] = {name: note for note, names in ABSENT.items() for name in names}
    match_fields: ClassVar[frozenset[str]] = queue.QUEUE.match_fields

    discover = staticmethod(discovery.discover)
    queue_id_error = staticmethod(parse.queue_id_error)
    read_back = staticmethod(partial(read_back, driver.DRIVER, None, None))
    sudoers = staticmethod(commands.sudoers)
    in_quarantine = staticmethod(partial(find, driver.LAYOUT))
    quarantine_mark = staticmethod(driver.LAYOUT.name_of)

    queue_list = staticmethod(queue.queue_list)
    queue_summary = staticmethod(queue.queue_summary)
    queue_hold = queue_release = queue_purge = staticmethod(partial(change, driver.DRIVER))
    quarantine_restore = staticmethod(partial(restore, driver.DRIVER))
    quarantine_erase = staticmethod(partial(erase, driver.DRIVER))
