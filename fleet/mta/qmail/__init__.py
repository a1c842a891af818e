"""qmail: netqmail 1.06 and notqmail, under daemontools, with smtpfront-qmail or qmail-smtpd in front."""

from functools import partial
from typing import ClassVar

from fleet.mta.qmail import (
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

STOPPED = "while qmail-send is stopped for it, usually for a few seconds; mail is accepted meanwhile"


class Qmail:
    """Satisfies fleet.mta.adapter.Adapter. What a method does is told where it is defined."""

    mta: ClassVar[str] = "qmail"
    emulated: ClassVar[dict[str, str]] = {
        "queue.hold": f"the message's files are moved to mxfleet-hold/, unseen by qmail's own tools, {STOPPED}",
        "queue.release": f"the message's files are moved back, {STOPPED}; queuelifetime went on meanwhile",
        "queue.purge": f"the message's files are removed, or moved to mxfleet-quarantine/ and back, {STOPPED}",
        "queue.bounce": f"made older than queuelifetime, so that the next attempt is the last, {STOPPED}",
        "message.deliver": f"made due at once, {STOPPED}; the log lines of the attempt, no dialogue",
        "quarantine.restore": f"the message's files are moved back and made due, {STOPPED}",
    }
    notes: ClassVar[dict[str, str]] = {
        "queue.list": "attempts and reasons are in qmail-send's log only; what is in delivery is shown as deferred",
        "message.trace": "qmail logs no Message-ID, and writes odd characters of addresses as _",
        "queue.flush": "qmail-send knows no flush of a selection: ALRM makes it try every message",
        "queue.requeue": "qmail cannot take a queued message in again",
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
    queue_hold = queue_release = queue_purge = queue_bounce = staticmethod(partial(change, driver.DRIVER))
    block_list = staticmethod(blocks.block_list)
    sender_block = staticmethod(blocks.sender_block)
    sender_unblock = staticmethod(blocks.sender_unblock)
    quarantine_restore = staticmethod(partial(restore, driver.DRIVER))
    quarantine_erase = staticmethod(partial(erase, driver.DRIVER))
    log_search = staticmethod(logs.log_search)
    message_trace = staticmethod(logs.message_trace)
    smtp_probe = staticmethod(routes.smtp_probe)
    address_test = staticmethod(routes.address_test)
