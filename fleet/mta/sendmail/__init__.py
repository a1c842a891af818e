"""Sendmail, 8.12 and later, one instance for each configuration file with a queue."""

from functools import partial
from typing import ClassVar

from fleet.mta.queue.changes import change
from fleet.mta.queue.delivery import message_deliver
from fleet.mta.queue.in_quarantine import find
from fleet.mta.queue.listing import message_show
from fleet.mta.queue.quarantine import erase, restore
from fleet.mta.queue.readback import read_back
from fleet.mta.sendmail import (
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


class Sendmail:
    """Satisfies fleet.mta.adapter.Adapter. What a method does is told where it is defined."""

    mta: ClassVar[str] = "sendmail"
    emulated: ClassVar[dict[str, str]] = {
        "queue.hold": "the queue file gets a q line and becomes hf, as sendmail -Q does it, but by whole queue IDs",
        "queue.release": "the q line goes and the file becomes qf again, as sendmail -qQ -Q does it",
        "queue.purge": "queue and data file are removed, or moved, under the lock that Sendmail takes on them",
        "queue.flush": "one by one by whole queue IDs, because -qS, -qR and -qI match parts of words",
        "queue.bounce": "a queue run of these messages with Timeout.queuereturn=now",
    }
    notes: ClassVar[dict[str, str]] = {
        "message.deliver": "with the SMTP dialogue; a message of the client queue is handed to the daemon",
        "queue.requeue": "Sendmail routes a message anew at every attempt and keeps its queue ID: queue.flush does it",
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
    quarantine_restore = staticmethod(partial(restore, driver.DRIVER))
    quarantine_erase = staticmethod(partial(erase, driver.DRIVER))
    block_list = staticmethod(blocks.block_list)
    sender_block = staticmethod(blocks.sender_block)
    sender_unblock = staticmethod(blocks.sender_unblock)
    log_search = staticmethod(logs.log_search)
    message_trace = staticmethod(logs.message_trace)
    address_test = staticmethod(routes.address_test)
    smtp_probe = staticmethod(routes.smtp_probe)
