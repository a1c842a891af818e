"""OpenSMTPD, 6.8 and later (the portable version); a host has one instance."""

from fleet.mta.declared import DeclaredAdapter, Parts
from fleet.mta.opensmtpd import attempt, blocks, commands, discovery, driver, logs, routes


class OpenSmtpd(DeclaredAdapter):
    mta = "opensmtpd"
    emulated = {
        "address.test": routes.EMULATED,
        "queue.flush": "one by one (smtpctl schedule): `schedule all` would deliver paused messages too",
        "queue.purge": "the files are moved out of the queue, and the message is removed once nothing can deliver it; "
        "quarantine keeps them, and they come back unchanged under the same ID (smtpctl discover)",
    }
    notes = {
        "message.trace": "OpenSMTPD logs no Message-ID, and no sender of recipients that it refused",
        "message.deliver": "the log lines of the attempt; smtpd cannot show the SMTP dialogue",
        "queue.bounce": "smtpctl cannot return a message: it returns what is older than `queue ttl`, by itself",
        "queue.hold": driver.FORGETS,
        "queue.requeue": "smtpctl cannot pass a queued message through its rules again",
        "sender.block": "code and text of the answer cannot be chosen: 550 Invalid recipient",
    }
    parts = Parts(discovery.discover, driver.DRIVER, attempt.DELIVERY, blocks.sites, logs.LOG, routes.find_routes)
    sudo = (commands.sudo_commands, blocks.sudo_commands)
