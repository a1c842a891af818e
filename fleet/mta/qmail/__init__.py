"""qmail: netqmail 1.06 and notqmail, under daemontools, with smtpfront-qmail or qmail-smtpd in front."""

from fleet.mta.declared import DeclaredAdapter, Parts
from fleet.mta.qmail import attempt, blocks, commands, discovery, driver, logs, routes

STOPPED = "while qmail-send is stopped for it, usually for a few seconds; mail is accepted meanwhile"


class Qmail(DeclaredAdapter):
    mta = "qmail"
    emulated = {
        "queue.hold": f"the message's files are moved to mxfleet-hold/, unseen by qmail's own tools, {STOPPED}",
        "queue.release": f"the message's files are moved back, {STOPPED}; queuelifetime went on meanwhile",
        "queue.purge": f"the message's files are removed, or moved to mxfleet-quarantine/ and back, {STOPPED}",
        "queue.bounce": f"made older than queuelifetime, so that the next attempt is the last, {STOPPED}",
        "message.deliver": f"made due at once, {STOPPED}; the log lines of the attempt, no dialogue",
        "quarantine.restore": f"the message's files are moved back and made due, {STOPPED}",
    }
    notes = {
        "queue.list": "attempts and reasons are in qmail-send's log only; what is in delivery is shown as deferred",
        "message.trace": "qmail logs no Message-ID, and writes odd characters of addresses as _",
        "queue.flush": "qmail-send knows no flush of a selection: ALRM makes it try every message",
        "queue.requeue": "qmail cannot take a queued message in again",
    }
    parts = Parts(discovery.discover, driver.DRIVER, attempt.DELIVERY, blocks.SITES, logs.LOG, routes.find_routes)
    sudo = (commands.sudo_commands, blocks.sudo_commands)
