"""The sudoers file that lets mxfleet do on a host what discovery found there, and nothing else."""

from fleet.inventory import instance_facts
from fleet.models import Host
from fleet.mta.adapter import adapter_for
from fleet.mta.host.commands import sudoers_section

HEAD = """# mxfleet on {host}, made for what discovery found there; make it anew when instances come or go.
#
# hosts/{host}/installer/ installs it with the scripts that it names. By hand: the files of fleet/mta/scripts/ and
# fleet/mta/*/scripts/ into /usr/local/libexec/mxfleet/, owned by root, mode 0755; this one, checked with visudo -c -f,
# as /etc/sudoers.d/mxfleet, mode 0440. Then discover the host again, so that the scripts there are known and called.
#
# What stands behind Defaults! is for these commands only, whatever the host's own defaults are: nothing of the caller's
# environment decides which programs root runs, and no terminal is needed.
"""


def sudoers_file(host: Host) -> str:
    """The file's text for the enabled instances; only comments when there are none (sudoers(5))."""
    parts = [HEAD.format(host=host.name)]
    instances = host.instances.filter(enabled=True).select_related("host")
    for number, instance in enumerate(instances, 1):
        lines = adapter_for(instance.mta).sudoers(instance_facts(instance), host.username)
        parts.append(f"\n# {instance}\n{sudoers_section(host.username, number, lines)}")
    return "".join(parts)
