"""Exim, 4.94 and later, as Debian packages it and as others configure it."""

from functools import partial
from typing import ClassVar

from fleet.mta.exim import (
    attempt,
    blocks,
    commands,
    discovery,
    driver,
    logs,
    parse,
    queue,
    routes,
)
from fleet.mta.queue.changes import change
from fleet.mta.queue.delivery import message_deliver
from fleet.mta.queue.in_quarantine import find
from fleet.mta.queue.listing import message_show
from fleet.mta.queue.quarantine import erase, restore
from fleet.mta.queue.readback import read_back


class Exim:
    """Satisfies fleet.mta.adapter.Adapter. What a method does is told where it is defined."""

    mta: ClassVar[str] = "exim"
    emulated: ClassVar[dict[str, str]] = {
        "queue.flush": "one message at a time (exim -qf ID ID): Exim's own -R takes any part of a recipient",
    }
    notes: ClassVar[dict[str, str]] = {
        "message.deliver": "with the SMTP dialogue; a frozen message is thawed by it",
        "queue.bounce": "the sender is always notified; a message from <> is dropped",
        "queue.hold": "frozen; Exim gives frozen messages up after timeout_frozen_after",
        "queue.purge": "quarantine is a named queue; the spool files move there and back unchanged",
        "queue.requeue": "Exim has no requeue: routing is done anew at every attempt, so message.deliver does it",
    }
    match_fields: ClassVar[frozenset[str]] = queue.MATCH_FIELDS

    discover = staticmethod(discovery.discover)
    queue_id_error = staticmethod(parse.queue_id_error)
    read_back = staticmethod(partial(read_back, driver.DRIVER, attempt.DELIVERY, blocks.read_back_block))
    sudoers = staticmethod(commands.sudoers)
    in_quarantine = staticmethod(partial(find, driver.LAYOUT))
    quarantine_mark = staticmethod(driver.LAYOUT.name_of)

    queue_list = staticmethod(queue.queue_list)
    queue_summary = staticmethod(queue.queue_summary)
    message_show = staticmethod(partial(message_show, queue.QUEUE))
    message_deliver = staticmethod(partial(message_deliver, attempt.DELIVERY))
    queue_hold = queue_release = queue_purge = queue_flush = queue_bounce = staticmethod(partial(change, driver.DRIVER))
    block_list = staticmethod(blocks.block_list)
    sender_block = staticmethod(blocks.sender_block)
    sender_unblock = staticmethod(blocks.sender_unblock)
    quarantine_restore = staticmethod(partial(restore, driver.DRIVER))
    quarantine_erase = staticmethod(partial(erase, driver.DRIVER))
    address_test = staticmethod(routes.address_test)
    smtp_probe = staticmethod(routes.smtp_probe)
    log_search = staticmethod(logs.log_search)
    message_trace = staticmethod(logs.message_trace)
