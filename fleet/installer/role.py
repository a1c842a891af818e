"""The installer as an Ansible role in a tar: its tasks run the script, so that there is one way in which it is done.

The roles of several hosts fit over one another: each has the script of its host.
"""

import io
import tarfile

DIRECTORY = "mxfleet"

TASKS = """---
- name: Know what to do
  ansible.builtin.assert:
    that: mxfleet_state in ['present', 'absent']
    fail_msg: mxfleet_state is present or absent

- name: Let mxfleet in, or take away what did
  ansible.builtin.script:
    cmd: "{{ mxfleet_host }}.sh {{ 'install' if mxfleet_state == 'present' else 'uninstall' }}"
  become: true
  register: mxfleet_installer
  changed_when: "'mxfleet: nothing changed' not in mxfleet_installer.stdout_lines"
"""

DEFAULTS = """---
# The host's name in mxfleet.
mxfleet_host: "{{ inventory_hostname }}"
# Or: absent.
mxfleet_state: present
"""

README = """# mxfleet

Lets mxfleet in: the account with its public key, the scripts, and the rules for sudo; all of it in the script of the
host, `files/HOST.sh`. Unpack the role of each host in the same place (`roles/`): they differ in that file only.

    - hosts: mx
      roles: [mxfleet]

`mxfleet_host` is the host's name in mxfleet, without it `inventory_hostname`. `mxfleet_state: absent` takes all away.
Fetch the role again when the host was discovered, when MTAs come or go, and with each release of mxfleet.
"""


def role_of(host: str, script: bytes) -> bytes:
    """The tar. `script`: the host's installer."""
    files = {
        "README.md": README.encode(),
        "defaults/main.yml": DEFAULTS.encode(),
        f"files/{host}.sh": script,
        "tasks/main.yml": TASKS.encode(),
    }
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(f"{DIRECTORY}/{name}")
            member.size, member.mode = len(content), 0o755 if name.endswith(".sh") else 0o644
            tar.addfile(member, io.BytesIO(content))
    return written.getvalue()
