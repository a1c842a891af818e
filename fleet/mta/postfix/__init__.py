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
    quarantine,
    queue,
    readback,
    routes,
)
from fleet.mta.queue.changes import change


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
    read_back = staticmethod(readback.read_back)
    sudoers = staticmethod(commands.sudoers)
    in_quarantine = staticmethod(quarantine.in_quarantine)
    quarantine_mark = staticmethod(str)

    queue_list = staticmethod(queue.queue_list)
    queue_summary = staticmethod(queue.queue_summary)
    message_show = staticmethod(attempt.message_show)
    message_deliver = staticmethod(attempt.message_deliver)
    queue_hold = queue_release = queue_purge = queue_flush = queue_bounce = queue_requeue = staticmethod(
        partial(change, driver.DRIVER)
    )
    address_test = staticmethod(routes.address_test)
    smtp_probe = staticmethod(routes.smtp_probe)
    block_list = staticmethod(blocks.block_list)
    sender_block = staticmethod(blocks.sender_block)
    sender_unblock = staticmethod(blocks.sender_unblock)
    quarantine_restore = staticmethod(quarantine.quarantine_restore)
    quarantine_erase = staticmethod(quarantine.quarantine_erase)
    log_search = staticmethod(logs.log_search)
    message_trace = staticmethod(logs.message_trace)
