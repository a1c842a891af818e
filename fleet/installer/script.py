"""The installer of a host: one POSIX script with all in it that is to be there. The same bytes for the same content."""

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fleet.mta import REGISTRY
from fleet.mta.adapter import adapter_for
from fleet.mta.records import HostFacts
from fleet.mta.steps import Command
from fleet.ssh.quoting import SCRIPTS

BODY = Path(__file__).with_name("install.sh")


@dataclass(frozen=True, slots=True)
class Installation:
    """What a host is to have. `known`: its MTAs as discovered. `host_key`: "" or the one that is trusted.
    `next_key`: the public key that is to take the place of `public_key`, which is good until then; "": none.

    `sudoers`: the rules; "" where there are none, and then `no_rules` says why.
    """

    host: str
    account: str
    public_key: str
    next_key: str = ""
    host_key: str = ""
    known: tuple[str, ...] = ()
    sudoers: str = ""
    no_rules: str = ""


def script_for(wanted: Installation) -> bytes:
    """The script. Its last line begins it, so that one which was cut off does nothing."""
    facts = {
        "host": wanted.host,
        "account": wanted.account,
        "public_key": wanted.public_key,
        "next_key": wanted.next_key,
        "host_key": wanted.host_key,
        "known": " ".join(sorted(set(wanted.known))),
        "no_rules": wanted.no_rules,
    }
    files = {f"scripts/{name}": SCRIPTS[name].read_text("ascii") for name in sorted(SCRIPTS)}
    if wanted.sudoers:
        files["sudoers"] = wanted.sudoers
    return "\n".join(
        (
            "#!/bin/sh",
            f"# Installs what mxfleet needs on {wanted.host}; run it there as root. With uninstall it takes that away.",
            *(f"{name}={shlex.quote(value)}" for name, value in facts.items()),
            "",
            BODY.read_text("ascii"),
            "unpack() {",
            *(_written(name, text) for name, text in files.items()),
            "}",
            "",
            "probe() {",
            *(f"    {line}" for line in _probes()),
            "}",
            "",
            'main "$@"',
            "",
        )
    ).encode()


def _written(name: str, text: str) -> str:
    """The command that writes a file below $work, or fails. No text has the word that ends it."""
    end = f"end-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return f"cat >\"$work/{name}\" <<'{end}' || return\n{text}{end}"


def _probes() -> Iterator[str]:
    """For each MTA the question with which its discovery begins."""
    for mta in sorted(REGISTRY):
        first = next(adapter_for(mta).discover(HostFacts(), "host"))
        if not isinstance(first, Command) or first.script is None:
            raise TypeError(f"the discovery of {mta} does not begin with a script")
        yield shlex.join(("has", mta, first.script, *first.argv))
