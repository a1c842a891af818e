"""Sendmail, 8.12 and later, one instance for each configuration file with a queue."""

from functools import partial
from typing import ClassVar

from fleet.mta.queue.changes import change
from fleet.mta.sendmail import (
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
    read_back = staticmethod(readback.read_back)
    sudoers = staticmethod(commands.sudoers)
    in_quarantine = staticmethod(quarantine.in_quarantine)
    quarantine_mark = staticmethod(str)

    queue_list = staticmethod(queue.queue_list)
    queue_summary = staticmethod(queue.queue_summary)
    message_show = staticmethod(attempt.message_show)
    message_deliver = staticmethod(attempt.message_deliver)
    queue_hold = queue_release = queue_purge = queue_flush = queue_bounce = staticmethod(partial(change, driver.DRIVER))
    quarantine_restore = staticmethod(quarantine.quarantine_restore)
    quarantine_erase = staticmethod(quarantine.quarantine_erase)
    block_list = staticmethod(blocks.block_list)
    sender_block = staticmethod(blocks.sender_block)
    sender_unblock = staticmethod(blocks.sender_unblock)
    log_search = staticmethod(logs.log_search)
    message_trace = staticmethod(logs.message_trace)
    address_test = staticmethod(routes.address_test)
    smtp_probe = staticmethod(routes.smtp_probe)
