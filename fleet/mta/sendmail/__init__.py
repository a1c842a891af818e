"""Sendmail, 8.12 and later, one instance for each configuration file with a queue."""

from fleet.mta.declared import DeclaredAdapter, Parts
from fleet.mta.sendmail import attempt, blocks, commands, discovery, driver, logs, routes


class Sendmail(DeclaredAdapter):
    mta = "sendmail"
    emulated = {
        "queue.hold": "the queue file gets a q line and becomes hf, as sendmail -Q does it, but by whole queue IDs",
        "queue.release": "the q line goes and the file becomes qf again, as sendmail -qQ -Q does it",
        "queue.purge": "queue and data file are removed, or moved, under the lock that Sendmail takes on them",
        "queue.flush": "one by one by whole queue IDs, because -qS, -qR and -qI match parts of words",
        "queue.bounce": "a queue run of these messages with Timeout.queuereturn=now",
    }
    notes = {
        "message.deliver": "with the SMTP dialogue; a message of the client queue is handed to the daemon",
        "queue.requeue": "Sendmail routes a message anew at every attempt and keeps its queue ID: queue.flush does it",
    }
    parts = Parts(discovery.discover, driver.DRIVER, attempt.DELIVERY, blocks.SITES, logs.LOG, routes.find_routes)
    sudo = (commands.sudo_commands, blocks.sudo_commands, routes.sudo_commands)
