"""Our check of senders into main.cf and out of it again, by postfix_wire.sh."""

from functools import partial

from fleet.mta.blocks.edit import EDIT_SECONDS, READ_SECONDS, Source, check_digest, difference, edit_error, until_whole
from fleet.mta.blocks.site import Wiring
from fleet.mta.errors import Conflict, UnparsedOutput
from fleet.mta.host.commands import script_argv
from fleet.mta.postfix import wiring
from fleet.mta.postfix.access_facts import BlockFacts
from fleet.mta.postfix.wiring import AccessMap
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Command, Steps, run
from fleet.mta.text import digest_of

SCRIPT = "postfix_wire.sh"
MAIN_CF = 1 << 20


def argv(instance: InstanceFacts, action: str, access_map: AccessMap) -> tuple[str, ...]:
    return (action, instance.config_dir, access_map.type)


def find_wiring(instance: InstanceFacts, facts: BlockFacts, access_map: AccessMap) -> Steps[Wiring]:
    """Raises Conflict where master.cf has restrictions of its own, so that main.cf's would not count."""
    if wiring.RESTRICTIONS in facts.service.overrides:
        raise Conflict(
            "master.cf sets smtpd_sender_restrictions for this service, so a check in main.cf would not count",
            hint=f"put {wiring.element(access_map)} first in that line of master.cf",
        )
    main_cf = yield from _read_main_cf(instance, access_map)
    return _wiring(instance, access_map, main_cf, wiring.wire(main_cf.text, access_map))


def find_unwiring(instance: InstanceFacts, access_map: AccessMap, *, is_own: bool) -> Steps[Wiring | None]:
    """None when our check does not stand there as we wrote it."""
    if not is_own:
        return None
    main_cf = yield from _read_main_cf(instance, access_map)
    text = wiring.unwire(main_cf.text, access_map)
    return None if text is None else _wiring(instance, access_map, main_cf, text)


def _wiring(instance: InstanceFacts, access_map: AccessMap, main_cf: Source, text: str) -> Wiring:
    return Wiring(
        diff=difference(main_cf, text),
        command=script_argv(SCRIPT, *argv(instance, "apply", access_map)),
        apply=partial(_change_main_cf, instance, access_map, main_cf, text),
    )


def _read_main_cf(instance: InstanceFacts, access_map: AccessMap) -> Steps[Source]:
    return (yield from until_whole(lambda: _read_once(instance, access_map)))


def _read_once(instance: InstanceFacts, access_map: AccessMap) -> Steps[Source]:
    words = argv(instance, "read", access_map)
    done = yield from run(Command(words, script=SCRIPT, become=True, timeout=READ_SECONDS, max_output=MAIN_CF))
    if done.exit_status:
        raise edit_error(done, SCRIPT)
    head, newline, text = done.stdout.decode("utf-8", "surrogateescape").partition("\n")
    digest, _, state = head.partition(" ")
    if not newline or state != "fits":
        raise UnparsedOutput(f"{SCRIPT} did not begin with a digest")
    check_digest(digest, text)
    return Source(f"{instance.config_dir}/main.cf", text, digest)


def _change_main_cf(instance: InstanceFacts, access_map: AccessMap, source: Source, text: str) -> Steps[None]:
    """Replace main.cf and reload. Raises Conflict, DiskFull, RemoteError; the old one stays or is put back."""
    stdin = f"{source.digest}\n{digest_of(text)}\n{text}".encode("utf-8", "surrogateescape")
    words = argv(instance, "apply", access_map)
    done = yield from run(Command(words, script=SCRIPT, stdin=stdin, become=True, mutates=True, timeout=EDIT_SECONDS))
    if done.exit_status:
        raise edit_error(done, SCRIPT)
    if not done.stdout.startswith(b"applied "):
        raise UnparsedOutput(f"{SCRIPT} did not say how it ended")
