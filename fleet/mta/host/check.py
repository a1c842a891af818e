"""`host.check`: whether all is there that we need of a host, and what to do about what is not. Changes nothing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from fleet.mta.adapter import adapter_for, method_for
from fleet.mta.errors import FleetError, SudoDenied
from fleet.mta.host.commands import allowed_words, lines_of
from fleet.mta.host.discovery import look_at_host
from fleet.mta.operations import LogSearch
from fleet.mta.records import Context, Ended, HostFacts, InstanceFacts, Result
from fleet.mta.results.host import HostChecked, HostCheckResult
from fleet.mta.steps import Command, Steps, T, run

SCRIPT = "host_check.sh"
MOST_SKEW = 60.0
"""Seconds that the clocks may differ. Ages are reckoned by the host's own; what people compare with logs is not."""
PROGRAMS = (
    "awk", "cat", "chmod", "chown", "cmp", "cp", "cut", "date", "dd", "find", "flock", "grep", "head", "id", "ln", "ls",
    "mkdir", "mktemp", "mv", "od", "ps", "readlink", "rm", "rmdir", "sed", "setsid", "sha256sum", "sleep", "sort",
    "stat", "sync", "tail", "timeout", "touch", "tr", "wc", "xargs",
)  # fmt: skip
"""What the scripts of all MTAs call of a Unix-like system."""
ANYTHING = ("/usr/bin/timeout", "-k", "5", "60", "/bin/sh", "-c", ":")
"""What sudo allows where scripts need not be there: they travel with the command."""
INSTALL = "run the host's installer (hosts/NAME/installer/) there as root, then discover the host again"

DISCOVER = "discover the host, then run its installer (hosts/NAME/installer/), which has its rules then, there as root"


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is known of the host: how its account becomes root, its instances, and our scripts as seen last.

    `scripts`: how those that are seen now compare with this release.
    """

    username: str
    become: str
    instances: tuple[InstanceFacts, ...]
    helpers: frozenset[tuple[str, str]]
    scripts: Callable[[Sequence[tuple[str, str]]], str]


def checked(name: str, ok: bool | None, detail: str, hint: str = "", instance: str = "") -> HostChecked:
    """One of the checks, as the result tells it."""
    return {"name": name, "ok": ok, "detail": detail, "hint": hint, "instance": instance}


def check_host(known: Inventory, clock: Callable[[], float]) -> Steps[Result]:
    """Each check once, however it came out. Raises LoginShell, UnparsedOutput, RemoteError: nothing could be asked."""
    facts = yield from look_at_host(clock)
    state = known.scripts(facts.helpers)
    checks = [checked("login", True, f"as {known.username}"), checked("shell", True, facts.login_shell)]
    checks += [*(yield from _asked(known, facts, state)), _clock(facts.clock_skew)]
    for instance in known.instances:
        checks.append((yield from _as_root(instance)))
        checks.append((yield from _log(instance, clock() + (facts.clock_skew or 0.0))))
    data: HostCheckResult = {
        "ok": all(check["ok"] for check in checks),
        "checks": checks,
        "scripts": state,
        "notes": facts.notes,
        "helpers": [list(each) for each in facts.helpers],
    }
    return Result(Ended.SUCCEEDED, data)


def _asked(known: Inventory, facts: HostFacts, state: str) -> Steps[list[HostChecked]]:
    """Programs, scripts and sudo: what host_check.sh says."""
    rules = [rule for each in known.instances for rule in _rules(each)]
    asked = [*rules, *([] if state == "current" else [ANYTHING])] if known.become == "sudo" and facts.has_sudo else []
    stdin = "".join("\n".join((*rule, "", "")) for rule in asked).encode()
    done = yield from run(Command(PROGRAMS, script=SCRIPT, stdin=stdin, timeout=60))
    told = [line.partition(" ") for line in lines_of(done, SCRIPT)]
    missing = [value for word, _, value in told if word == "missing"]
    denied = {int(value) for word, _, value in told if word == "denied"}
    travels = known.become != "sudo" or (ANYTHING in asked and len(asked) not in denied)
    hint = "" if state == "current" or travels else INSTALL
    if state == "current" and known.helpers != frozenset(facts.helpers):
        hint = "check again: they were not known yet when the rest was asked"
    scripts = checked("scripts", state == "current" or travels, state, hint)
    return [_programs(missing), scripts, _sudo(known, facts, len(rules), len(denied - {len(rules) + 1}))]


def _rules(instance: InstanceFacts) -> Iterator[tuple[str, ...]]:
    """The command lines of the instance's sudo rules; one with a word that no line can carry is left out."""
    for seconds, argv in adapter_for(instance.mta).allowed(instance):
        if all(word and "\n" not in word for word in argv):
            yield allowed_words(seconds, argv)


def _programs(missing: list[str]) -> HostChecked:
    if not missing:
        return checked("programs", True, "all are there")
    hint = "install coreutils, findutils, util-linux and procps, or what has these there"
    return checked("programs", False, f"not there: {', '.join(missing)}", hint)


def _clock(skew: float | None) -> HostChecked:
    if skew is None:
        return checked("clock", None, "the host told no time")
    detail = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the service's"
    return checked("clock", abs(skew) <= MOST_SKEW, detail, "" if abs(skew) <= MOST_SKEW else "let NTP set both clocks")


def _sudo(known: Inventory, facts: HostFacts, rules: int, denied: int) -> HostChecked:
    if known.become != "sudo":
        hint = "" if facts.is_root else "set become to sudo, and run the host's installer"
        return checked("sudo", facts.is_root, "not used (become is none)", hint)
    if not facts.has_sudo:
        return checked(
            "sudo", False, "sudo is not there, or allows nothing without a password", INSTALL if rules else DISCOVER
        )
    if not rules:
        return checked("sudo", None, "no MTA is known here, so nothing is asked of it", "discover the host")
    return checked(
        "sudo", not denied, f"{rules - denied} of {rules} command lines are allowed", INSTALL if denied else ""
    )


def _as_root(instance: InstanceFacts) -> Steps[HostChecked]:
    """Whether a command of the rules runs as root without a password: the look into the quarantine, which reads."""
    came = yield from _tried(adapter_for(instance.mta).in_quarantine(instance))
    if isinstance(came, FleetError):
        return _failed("root", came, instance)
    return checked("root", True, "a command of the rules ran", instance=instance.id)


def _log(instance: InstanceFacts, now: float) -> Steps[HostChecked]:
    """Whether its log can be read, by the command that reads it for everything else."""
    search = method_for(adapter_for(instance.mta), LogSearch.name)
    if search is None:
        return checked("log", None, f"{instance.mta} has no log that is read", instance=instance.id)
    wanted = LogSearch(contains="mxfleet", since=timedelta(minutes=1), limit=1)
    came = yield from _tried(search(instance, wanted, Context(now)))
    if isinstance(came, FleetError):
        return _failed("log", came, instance)
    files, notes = came.data["files"], came.data["notes"]
    hint = "" if files else "let the MTA log to a file that rsyslog writes, or to the journal; then discover the host"
    return checked("log", bool(files), "; ".join([*files, *notes]), hint, instance.id)


def _failed(name: str, error: FleetError, instance: InstanceFacts) -> HostChecked:
    hint = INSTALL if isinstance(error, SudoDenied) else error.hint
    return checked(name, False, f"{error.code}: {error.detail}", hint, instance.id)


def _tried(steps: Steps[T]) -> Steps[T | FleetError]:
    """What the steps come to, or the error that an answer of the host made them raise; sudo's refusal is one."""
    answer: Any = None
    try:
        while True:
            step = steps.send(answer)
            answer = yield replace(step, may_be_denied=True) if isinstance(step, Command) else step
    except StopIteration as end:
        came: T = end.value
        return came
    except FleetError as error:
        return error
    finally:
        steps.close()
