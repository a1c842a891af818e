"""Exim, 4.94 and later, as Debian packages it and as others configure it."""

from fleet.mta.declared import DeclaredAdapter, Parts
from fleet.mta.exim import attempt, blocks, commands, discovery, driver, logs, routes


class Exim(DeclaredAdapter):
    mta = "exim"
    emulated = {
        "queue.flush": "one message at a time (exim -qf ID ID): Exim's own -R takes any part of a recipient",
    }
    notes = {
        "message.deliver": "with the SMTP dialogue; a frozen message is thawed by it",
        "queue.bounce": "the sender is always notified; a message from <> is dropped",
        "queue.hold": "frozen; Exim gives frozen messages up after timeout_frozen_after",
        "queue.purge": "quarantine is a named queue; the spool files move there and back unchanged",
        "queue.requeue": "Exim has no requeue: routing is done anew at every attempt, so message.deliver does it",
    }
    parts = Parts(discovery.discover, driver.DRIVER, attempt.DELIVERY, blocks.SITES, logs.LOG, routes.find_routes)
    sudo = (commands.sudo_commands, blocks.sudo_commands, routes.sudo_commands)
