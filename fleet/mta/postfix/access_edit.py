"""Reading and replacing access maps and main.cf on the host, by postfix_access.sh and postfix_wire.sh."""

from collections.abc import Iterable

from fleet.mta.blocks.edit import Change, Source, check_digest, edit_error, edited, looked_up, until_whole
from fleet.mta.errors import UnparsedOutput
from fleet.mta.postfix.wiring import BUILT, AccessMap, own_map, wired_map
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Command, Steps, run
from fleet.mta.text import digest_of

ACCESS = "postfix_access.sh"
WIRE = "postfix_wire.sh"
EDIT_SECONDS = 60
READ = 30
LARGEST_SOURCE = 32 << 20


def access_argv(instance: InstanceFacts, action: str, access_map: AccessMap) -> tuple[str, ...]:
    return (action, instance.config_dir, access_map.type, access_map.path)


def wire_argv(instance: InstanceFacts, action: str, access_map: AccessMap) -> tuple[str, ...]:
    return (action, instance.config_dir, access_map.type)


def root_scripts(instance: InstanceFacts) -> list[tuple[int, str, tuple[str, ...]]]:
    """Seconds, script and arguments of all that needs root, for sudoers: our own map, and the one that is wired now."""
    options = instance.options
    own = own_map(instance.config_dir, str(options.get("default_database_type", "")), frozenset(BUILT))
    wired = wired_map(str(options.get("smtpd_sender_restrictions", "")))
    forms = [(EDIT_SECONDS, WIRE, wire_argv(instance, "apply", own)), (READ, WIRE, wire_argv(instance, "read", own))]
    for access_map in {own.name: own, **({wired.name: wired} if wired else {})}.values():
        for action, seconds in (("read", READ), ("query", READ), ("apply", EDIT_SECONDS), ("remove", EDIT_SECONDS)):
            forms.append((seconds, ACCESS, access_argv(instance, action, access_map)))
    return forms


def read_map(instance: InstanceFacts, access_map: AccessMap) -> Steps[Source]:
    """The source of a map. Raises Unsupported, UnparsedOutput, SudoDenied."""
    argv = access_argv(instance, "read", access_map)
    return (yield from until_whole(lambda: _read(ACCESS, argv, access_map.path)))


def read_main_cf(instance: InstanceFacts, access_map: AccessMap) -> Steps[Source]:
    argv = wire_argv(instance, "read", access_map)
    return (yield from until_whole(lambda: _read(WIRE, argv, f"{instance.config_dir}/main.cf")))


def look_up(instance: InstanceFacts, access_map: AccessMap, keys: Iterable[str]) -> Steps[dict[str, str]]:
    """What the live map gives for these keys; absent ones are left out."""
    stdin = "".join(f"{key}\n" for key in keys).encode("utf-8", "surrogateescape")
    argv = access_argv(instance, "query", access_map)
    done = yield from run(Command(argv, script=ACCESS, stdin=stdin, become=True, timeout=READ))
    if done.exit_status:
        raise edit_error(done, ACCESS)
    return looked_up(done)


def change_map(instance: InstanceFacts, access_map: AccessMap, source: Source, change: Change) -> Steps[None]:
    """Replace the source and its map, or remove both where nothing refers to them, as `edited` does."""
    yield from edited(
        source,
        lambda: read_map(instance, access_map),
        lambda found: _write_map(instance, access_map, found, change),
    )


def _write_map(instance: InstanceFacts, access_map: AccessMap, source: Source, change: Change) -> Steps[None]:
    text, checks = change(source)
    if text is not None:
        head = [source.digest, digest_of(text), str(len(checks)), *(f"{key}\t{value}" for key, value in checks)]
        yield from _changing(ACCESS, access_argv(instance, "apply", access_map), head, text)
    elif source.exists:
        yield from _changing(ACCESS, access_argv(instance, "remove", access_map), [source.digest], "")


def change_main_cf(instance: InstanceFacts, access_map: AccessMap, source: Source, text: str) -> Steps[None]:
    """Replace main.cf and reload. Raises Conflict, DiskFull, RemoteError; the old one stays or is put back."""
    yield from _changing(WIRE, wire_argv(instance, "apply", access_map), [source.digest, digest_of(text)], text)


def _read(script: str, argv: tuple[str, ...], path: str) -> Steps[Source]:
    done = yield from run(Command(argv, script=script, become=True, timeout=READ, max_output=LARGEST_SOURCE))
    if done.exit_status:
        raise edit_error(done, script)
    head, newline, text = done.stdout.decode("utf-8", "surrogateescape").partition("\n")
    digest, _, state = head.partition(" ")
    if not newline or state not in ("fits", "stale", "absent"):
        raise UnparsedOutput(f"{script} did not begin with a digest")
    check_digest(digest, text)
    return Source(path, text, digest, state == "stale")


def _changing(script: str, argv: tuple[str, ...], head: list[str], text: str) -> Steps[None]:
    stdin = "".join(f"{line}\n" for line in head).encode("utf-8", "surrogateescape")
    stdin += text.encode("utf-8", "surrogateescape")
    done = yield from run(Command(argv, script=script, stdin=stdin, become=True, mutates=True, timeout=EDIT_SECONDS))
    if done.exit_status:
        raise edit_error(done, script)
    if not done.stdout.startswith((b"applied ", b"removed")):
        raise UnparsedOutput(f"{script} did not say how it ended")
