"""The installer of a host, for what discovery found there by now."""

from fleet.installer.script import Installation, script_for
from fleet.models import Become, Host
from jobs.sudoers import sudoers_file


def installer_of(host: Host) -> bytes:
    """The script; before the host's discovery it has no rules for sudo yet."""
    known = tuple(host.instances.filter(enabled=True).values_list("mta", flat=True))
    no_rules = ""
    if host.become != Become.SUDO:
        no_rules = "mxfleet does not use it here (become)"
    elif not known:
        no_rules = f"discover {host.name}, then run its installer of that time"
    return script_for(
        Installation(
            host=host.name,
            account=host.username,
            public_key=host.credential.public_key,
            next_key=host.next_credential.public_key if host.next_credential else "",
            host_key=host.host_key,
            known=known,
            sudoers="" if no_rules else sudoers_file(host),
            no_rules=no_rules,
        )
    )
