"""OpenSMTPD, 6.8 and later (the portable version); a host has one instance."""

from functools import partial
from typing import ClassVar

from fleet.mta.opensmtpd import (
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


class OpenSmtpd:
    """Satisfies fleet.mta.adapter.Adapter. What a method does is told where it is defined."""

    mta: ClassVar[str] = "opensmtpd"
    emulated: ClassVar[dict[str, str]] = {
        "address.test": routes.EMULATED,
        "queue.flush": "one by one (smtpctl schedule): `schedule all` would deliver paused messages too",
        "queue.purge": "the files are moved out of the queue, and the message is removed once nothing can deliver it; "
        "quarantine keeps them, and they come back unchanged under the same ID (smtpctl discover)",
    }
    notes: ClassVar[dict[str, str]] = {
        "message.trace": "OpenSMTPD logs no Message-ID, and no sender of recipients that it refused",
        "message.deliver": "the log lines of the attempt; smtpd cannot show the SMTP dialogue",
        "queue.bounce": "smtpctl cannot return a message: it returns what is older than `queue ttl`, by itself",
        "queue.hold": driver.FORGETS,
        "queue.requeue": "smtpctl cannot pass a queued message through its rules again",
        "sender.block": "code and text of the answer cannot be chosen: 550 Invalid recipient",
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
    queue_hold = queue_release = queue_purge = queue_flush = staticmethod(partial(change, driver.DRIVER))
    block_list = staticmethod(blocks.block_list)
    sender_block = staticmethod(blocks.sender_block)
    sender_unblock = staticmethod(blocks.sender_unblock)
    quarantine_restore = staticmethod(partial(restore, driver.DRIVER))
    quarantine_erase = staticmethod(partial(erase, driver.DRIVER))
    log_search = staticmethod(logs.log_search)
    message_trace = staticmethod(logs.message_trace)
    address_test = staticmethod(routes.address_test)
    smtp_probe = staticmethod(routes.smtp_probe)
