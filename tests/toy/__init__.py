"""A toy MTA: a message is the file `ID` of its queue directory, `ID.held` on hold, `ID.busy` while its daemon sends it.

The first line of a file is the sender, the second has the recipients, the message follows. IDs never come again.
tests/contract/test_sixth.py tries it: it shows that docs/adding-an-mta.md is all that one needs to know.
"""

from fleet.mta.declared import DeclaredAdapter, Parts
from tests.toy import commands, discovery, driver

ABSENT = {
    "its daemon attempts all that is free every minute by itself": ("message.deliver", "queue.flush", "queue.requeue"),
    "it keeps no list of senders that it refuses": ("block.list", "sender.block", "sender.unblock"),
    "it writes no log of what it does": ("log.search", "message.trace"),
    "it hands all mail to one program and knows no routes": ("address.test", "smtp.probe"),
    "it sends no notices, and shows nothing but envelopes": ("queue.bounce", "message.show"),
}


class Toy(DeclaredAdapter):
    mta = "toy"
    emulated = {"queue.hold": "a rename that its daemon passes over"}
    notes = {name: note for note, names in ABSENT.items() for name in names}
    parts = Parts(discovery.discover, driver.DRIVER)
    sudo = (commands.sudo_commands,)
