"""What each operation is called: asked for, and done."""

from collections.abc import Mapping
from typing import Any

from jobs.words.amounts import cell

SAID = {
    "host.discover": ("discover", "discovered"),
    "host.check": ("check what is missing", "checked what is missing"),
    "queue.list": ("list the queue", "listed the queue"),
    "queue.summary": ("count the queue", "counted the queue"),
    "message.show": ("show a message", "showed a message"),
    "log.search": ("search the log", "searched the log"),
    "message.trace": ("trace messages", "traced messages"),
    "address.test": ("test an address", "tested an address"),
    "smtp.probe": ("ask the next hop", "asked the next hop"),
    "block.list": ("list blocks", "listed blocks"),
    "queue.purge": ("purge {} to quarantine", "purged {} to quarantine"),
    "queue.hold": ("hold {}", "held {}"),
    "queue.release": ("release {}", "released {}"),
    "message.deliver": ("deliver a message now", "tried to deliver a message"),
    "queue.flush": ("try delivery of {} now", "tried delivery of {}"),
    "queue.bounce": ("return {} to the sender", "returned {} to the sender"),
    "queue.requeue": ("requeue {}", "requeued {}"),
    "quarantine.restore": ("put {} back from quarantine", "put {} back from quarantine"),
    "quarantine.erase": ("erase {} from quarantine for good", "erased {} from quarantine for good"),
    "sender.block": ("block {}", "blocked {}"),
    "sender.unblock": ("unblock {}", "unblocked {}"),
}
"""What each operation is called: asked for, and done. {}: what it is about."""
DELETE = ("delete {} for good", "deleted {} for good")


def operation(name: str, params: Mapping[str, Any], about: str = "", *, is_done: bool = False) -> str:
    """purge 3 messages to quarantine; `is_done`: purged 3 messages to quarantine."""
    forms = DELETE if name == "queue.purge" and params.get("mode") == "delete" else SAID[name]
    if name.startswith("sender."):
        about = cell(str(params.get("pattern") or "the sender"))
    return forms[is_done].format(about or "messages")
