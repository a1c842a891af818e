"""Postfix, 3.1 and later, with any number of instances on a host."""

from functools import partial
from typing import ClassVar

from fleet.mta.postfix import (
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


class Postfix:
    """Satisfies fleet.mta.adapter.Adapter. What a method does is told where it is defined."""

    mta: ClassVar[str] = "postfix"
    emulated: ClassVar[dict[str, str]] = {
        "queue.flush": "ALL and domains of fast_flush_domains at once; other selections one by one (postqueue -i)",
    }
    notes: ClassVar[dict[str, str]] = {
        "address.test": "the routing tables; aliases(5) and smtpd's checks of recipients are not applied",
        "message.deliver": "the log lines of the attempt; Postfix cannot show the SMTP dialogue",
        "queue.bounce": "needs Postfix 3.5; the sender is always notified",
        "queue.purge": "quarantine moves the queue file out of the queue and back, unchanged",
        "queue.requeue": "every message gets a new queue ID",
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
    queue_hold = queue_release = queue_purge = queue_flush = queue_bounce = queue_requeue = staticmethod(
        partial(change, driver.DRIVER)
    )
    address_test = staticmethod(routes.address_test)
    smtp_probe = staticmethod(routes.smtp_probe)
    block_list = staticmethod(blocks.block_list)
    sender_block = staticmethod(blocks.sender_block)
    sender_unblock = staticmethod(blocks.sender_unblock)
    quarantine_restore = staticmethod(partial(restore, driver.DRIVER))
    quarantine_erase = staticmethod(partial(erase, driver.DRIVER))
    log_search = staticmethod(logs.log_search)
    message_trace = staticmethod(logs.message_trace)
