"""The sudoers file that lets mxfleet do on a host what discovery found there, and nothing else."""

from fleet.inventory import instance_facts
from fleet.models import Host
from fleet.mta.base import adapter_for

HEAD = """# mxfleet on {host}, made for what discovery found there; make it anew when instances come or go.
#
# 1. Install the scripts of this release, owned by root:
#      install -d -o root -g root -m 0755 /usr/local/libexec/mxfleet
#      install -o root -g root -m 0755 fleet/mta/scripts/*.sh /usr/local/libexec/mxfleet/
# 2. Check this file with visudo -c -f, and install it as /etc/sudoers.d/mxfleet with mode 0440.
# 3. Discover the host again, so that the scripts there are known and called.
"""


def sudoers_file(host: Host) -> str:
    """The file's text for the enabled instances; only comments when there are none (sudoers(5))."""
    parts = [HEAD.format(host=host.name)]
    for instance in host.instances.filter(enabled=True).select_related("host"):
        lines = adapter_for(instance.mta).sudoers(instance_facts(instance), host.username)
        parts.append(f"\n# {instance}\n" + "".join(f"{line}\n" for line in lines))
    return "".join(parts)
