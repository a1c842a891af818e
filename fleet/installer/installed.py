"""Whether the scripts on a host are those of this release."""

from collections.abc import Iterable
from enum import StrEnum

from fleet.ssh.quoting import SCRIPTS, script_text


class Scripts(StrEnum):
    """Of the scripts that the installer puts there."""

    CURRENT = "current"
    OUTDATED = "outdated"
    ABSENT = "absent"


def scripts_there(helpers: Iterable[Iterable[str]]) -> Scripts:
    """`helpers`: (name, sha256 hex) of the files that are there; those that are not ours do not count."""
    there = {name: digest for name, digest in helpers if name in SCRIPTS}
    if not there:
        return Scripts.ABSENT
    is_ours = all(there.get(name) == script_text(name)[1] for name in SCRIPTS)
    return Scripts.CURRENT if is_ours else Scripts.OUTDATED
