"""The one instance of a host, found without any rights."""

import re

from fleet.mta.host.commands import error_of
from fleet.mta.records import HostFacts, InstanceFacts
from fleet.mta.steps import Command, Steps, run

VERSION = re.compile(r"toyd (\S+), queue (/\S+)\n")


def discover(host: HostFacts, name: str) -> Steps[tuple[InstanceFacts, ...]]:
    """What the daemon says of itself; where there is none the shell has no such program."""
    done = yield from run(Command(("toyd", "-V")))
    if done.exit_status == 127:
        return ()
    match = VERSION.fullmatch(done.stdout.decode("utf-8", "backslashreplace"))
    if done.exit_status or not match:
        raise error_of(done, "toyd")
    options = {"own_domains": [], "listen": [["127.0.0.1", 25]], "log_source": "none"}
    return (InstanceFacts(name, "toy", "toy", match[1], "/etc/toy", (match[2],), options=options),)
