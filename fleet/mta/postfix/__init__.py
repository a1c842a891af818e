"""Postfix, 3.1 and later, with any number of instances on a host."""

from fleet.mta.declared import DeclaredAdapter, Parts
from fleet.mta.postfix import attempt, blocks, commands, discovery, driver, logs, routes


class Postfix(DeclaredAdapter):
    mta = "postfix"
    emulated = {
        "queue.flush": "ALL and domains of fast_flush_domains at once; other selections one by one (postqueue -i)",
    }
    notes = {
        "address.test": "the routing tables; aliases(5) and smtpd's checks of recipients are not applied",
        "message.deliver": "the log lines of the attempt; Postfix cannot show the SMTP dialogue",
        "queue.bounce": "needs Postfix 3.5; the sender is always notified",
        "queue.purge": "quarantine moves the queue file out of the queue and back, unchanged",
        "queue.requeue": "every message gets a new queue ID",
    }
    parts = Parts(discovery.discover, driver.DRIVER, attempt.DELIVERY, blocks.sites, logs.LOG, routes.find_routes)
    sudo = (commands.sudo_commands, blocks.sudo_commands)

    block_list = staticmethod(blocks.block_list)
