"""The sudoers file that lets mxfleet do on a host what discovery found there, and nothing else."""

from fleet.inventory import instance_facts
from fleet.models import Host
from fleet.mta.base import adapter_for

HEAD = """# mxfleet on {host}: install as /etc/sudoers.d/mxfleet with mode 0440, after visudo -c -f.
# Made for what discovery found; make it anew when instances come or go.
"""


def sudoers_file(host: Host) -> str:
    """The file's text for the enabled instances; only comments when there are none (sudoers(5))."""
    parts = [HEAD.format(host=host.name)]
    for instance in host.instances.filter(enabled=True).select_related("host"):
        lines = adapter_for(instance.mta).sudoers(instance_facts(instance), host.username)
        parts.append(f"\n# {instance}\n" + "".join(f"{line}\n" for line in lines))
    return "".join(parts)
