"""`host.discover`: what the host is, and which MTA instances it has. Changes nothing."""

from collections.abc import Callable
from dataclasses import replace

from fleet.mta import REGISTRY
from fleet.mta.adapter import REPLACES, adapter_for
from fleet.mta.bounds import instance_of, second_of
from fleet.mta.errors import LoginShell, RemoteError, UnparsedOutput
from fleet.mta.host.commands import HELPERS, whole_lines
from fleet.mta.records import HostFacts, InstanceFacts
from fleet.mta.steps import Command, Completed, Steps, run
from fleet.mta.text import text_of

# One line without newline, backslash or exclamation mark: any shell that knows single quotes passes it on unchanged, so
# a csh or fish does no harm before we know it.
PROBE = 'getent passwd "$(id -un)" || grep "^$(id -un):" /etc/passwd'

NOISE_KEPT = 1_000
"""Bytes of what a login prints."""

# Shells whose quoting is POSIX's (XCU 2.2). csh expands ! inside single quotes; fish and nushell have their own rules.
POSIX_SHELLS = frozenset(
    {"sh", "bash", "dash", "ash", "ksh", "ksh93", "mksh", "oksh", "pdksh", "lksh", "zsh", "yash", "busybox"}
)


def discover_host(
    name: str, clock: Callable[[], float] | None = None
) -> Steps[tuple[HostFacts, tuple[InstanceFacts, ...]]]:
    """The host's facts and its MTA instances, by every adapter in turn.

    `name`: the host's name in the inventory. `clock`: as in `look_at_host`, which says what it raises.
    """
    facts = yield from look_at_host(clock)
    instances: list[InstanceFacts] = []
    for mta in REGISTRY:
        discovered = yield from adapter_for(mta).discover(facts, name)
        instances.extend(_on_host(instance_of(each), facts) for each in discovered)
    return facts, tuple(instances)


def look_at_host(clock: Callable[[], float] | None = None) -> Steps[HostFacts]:
    """What the host is. `clock`: our time in epoch seconds; without it the skew stays unknown.

    Raises LoginShell, UnparsedOutput, RemoteError.
    """
    probed = yield from run(Command(("/bin/sh", "-c", PROBE)))
    shell = parse_shell(probed)
    began = clock() if clock else None
    done = yield from run(Command((HELPERS,), script="discover_host.sh"))
    ended = clock() if clock else None
    our_time = None if began is None or ended is None else (began + ended) / 2
    return replace(parse_facts(done, shell, our_time), login_noise=text_of(probed.noise[:NOISE_KEPT]))


def _on_host(instance: InstanceFacts, facts: HostFacts) -> InstanceFacts:
    """The instance with what its adapter need not ask for: see fleet.mta.adapter.REPLACES."""
    if facts.exchange != "none":
        return instance
    return replace(instance, options={**instance.options, REPLACES: True})


def parse_shell(done: Completed) -> str:
    """The account's login shell. Raises LoginShell when it is no POSIX shell, or when it did not understand us."""
    fields = done.stdout.decode("utf-8", "replace").strip().split("\n")[-1].split(":")
    if done.exit_status or len(fields) != 7:
        raise LoginShell(
            "the account's login shell did not run a quoted command",
            hint="give the account /bin/sh or bash as its login shell",
            stderr=done.stderr[:500].decode("utf-8", "backslashreplace"),
        )
    shell = fields[6].strip() or "/bin/sh"
    if shell.rpartition("/")[2] not in POSIX_SHELLS:
        raise LoginShell(f"{shell} is no POSIX shell", hint="give the account /bin/sh or bash as its login shell")
    return shell


def parse_facts(done: Completed, shell: str, our_time: float | None) -> HostFacts:
    """The answer of discover_host.sh. Raises RemoteError and UnparsedOutput."""
    if done.exit_status:
        raise RemoteError(
            "the host could not be examined", stderr=done.stderr[:500].decode("utf-8", "backslashreplace")
        )
    lines = whole_lines(done.stdout.decode("utf-8", "replace"))
    if lines is None:
        raise UnparsedOutput("the host's description was cut off")
    pairs = [(word, value.strip()) for word, _, value in (line.partition(" ") for line in lines)]
    fields = dict(reversed(pairs))
    if not fields.get("time", "").isdigit() or not fields.get("uid", "").isdigit():
        raise UnparsedOutput("the host's description has no time or no uid")
    return HostFacts(
        os=fields.get("os", ""),
        login_shell=shell,
        has_sudo=fields.get("sudo") == "yes",
        is_root=fields["uid"] == "0",
        # date +%s has cut off the part of the second: half of one is the best guess.
        clock_skew=None if our_time is None else second_of(fields["time"]) + 0.5 - our_time,
        service_manager=fields.get("service", ""),
        log_source=fields.get("log", ""),
        exchange=fields.get("exchange", ""),
        helpers=tuple(_pair(value) for word, value in pairs if word == "helper"),
    )


def _pair(value: str) -> tuple[str, str]:
    name, _, digest = value.rpartition(" ")
    return name, digest
