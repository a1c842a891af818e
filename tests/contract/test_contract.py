"""What every adapter must do with every operation of the catalogue, the same cases for all. A missing case fails."""

import inspect
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fleet.match import from_json, parse, unsupported_fields
from fleet.mta import REGISTRY, operations
from fleet.mta.adapter import adapter_for
from fleet.mta.adapter import method_for as method_of
from fleet.mta.errors import FleetError, MessageNotFound, Overtaken, SudoDenied
from fleet.mta.host.commands import CHANGE_SECONDS, script_argv, sudoers_line, sudoers_section
from fleet.mta.operations import Quarantined, Selection
from fleet.mta.params.catalogue import CATALOGUE, OF_HOSTS
from fleet.mta.records import Context, Ended, Fingerprint, Result
from fleet.mta.steps import Command, Completed, Plan
from fleet.ssh.quoting import SCRIPTS, is_fenced
from tests.contract.document import check_told
from tests.contract.play import KINDS, Host, Ran, Wire, carry, senders_of
from tests.unit import real_scripts

NOW = 1_795_290_000.0
OPERATIONS = tuple(name for name in CATALOGUE if name not in OF_HOSTS)
QUARANTINE = ("quarantine.restore", "quarantine.erase")
MOVING = ("queue.hold", "queue.release", "queue.purge", "queue.flush", "queue.bounce", "queue.requeue")
OF_MESSAGES = (*MOVING, *QUARANTINE)
OF_ONE = ("message.show", "message.deliver")
CHANGES = tuple(name for name in OPERATIONS if CATALOGUE[name].changes)
ALL = parse("ALL")
FIELDS = frozenset(
    {
        *("from", "to", "from-domain", "to-domain", "reason", "id", "state", "size", "age", "attempts"),
        *("subject", "header", "body", "msgid"),
    }
)
BAD_IDS = ["-d", "--help", "-", "ALL", "all", "../../etc/passwd", "*", "3F5A*", "a b", "a\nb", "$(id)", "", "\u0663"]
GARBAGE = b"\x00\xff<html>\r\n\x1b[2J no such thing \xe2\x28\n" * 20


FENCE = 1_764_470_000_000_000

OPENED: list[Host] = []


@pytest.fixture(autouse=True)
def _closed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hosts leave nothing behind outside their directories."""
    monkeypatch.setattr(real_scripts, "RUN", str(tmp_path_factory.mktemp("run")))
    yield
    while OPENED:
        OPENED.pop().close()


def module_of(mta: str) -> ModuleType:
    """The MTA's own cases. Its absence is a failure, never a skip."""
    return import_module(f"tests.contract.{mta}")


def supported(names: tuple[str, ...]) -> list[Any]:
    """(mta, operation) that is not absent; `test_every_operation...` sees to the others."""
    return [
        pytest.param(mta, name, id=f"{mta}-{name}")
        for mta in REGISTRY
        for name in names
        if method_of(adapter_for(mta), name)
    ]


def played(mta: str, directory: Path, senders: list[bytes] | None = None) -> Host:
    module = module_of(mta)
    if senders is None:
        senders = [module.SENDERS["plain"][0]] * 3
    directory.mkdir(parents=True, exist_ok=True)
    host: Host = module.host(directory, senders)
    OPENED.append(host)
    return host


def do(host: Host, operation: operations.Operation, wire: Wire | None = None, **fields: Any) -> Ran:
    method = method_of(host.adapter, operation.name)
    assert method is not None
    until_plan = fields.pop("until_plan", False)
    context = Context(**{"now": NOW, "job": "job-1", **fields})
    ran = carry(wire or Wire(host), method(host.instance, operation, context), until_plan=until_plan)
    check_told(operation.name, ran.value)
    return ran


def prepared(host: Host, name: str) -> operations.Operation:
    """The operation as it is asked for in these cases, on a host that has been brought to where it applies."""
    every = Selection(ALL)
    if name == "queue.release" and host.queued():
        assert do(host, operations.QueueHold(every)).error is None
    if name in QUARANTINE:
        kind = operations.QuarantineRestore if name == "quarantine.restore" else operations.QuarantineErase
        return kind(quarantined(host))
    if name == "sender.unblock":
        assert do(host, operations.SenderBlock("spam@bad.test"), wiring_approved=True).error is None
    first = next(iter(host.queued()), module_of(host.adapter.mta).ABSENT_ID)
    made: dict[str, Callable[[], operations.Operation]] = {
        "queue.list": lambda: operations.QueueList(ALL),
        "queue.summary": lambda: operations.QueueSummary(ALL),
        "message.show": lambda: operations.MessageShow(first),
        "message.deliver": lambda: operations.MessageDeliver(first),
        "log.search": lambda: operations.LogSearch(contains="x"),
        "message.trace": lambda: operations.MessageTrace(sender="a@b.test"),
        "address.test": lambda: operations.AddressTest("-r@ok.test"),
        "smtp.probe": lambda: operations.SmtpProbe("<>", "-r@ok.test"),
        "block.list": operations.BlockList,
        "queue.purge": lambda: operations.QueuePurge(every),
        "queue.hold": lambda: operations.QueueHold(every),
        "queue.release": lambda: operations.QueueRelease(Selection(parse("state:hold"))),
        "queue.flush": lambda: operations.QueueFlush(every),
        "queue.bounce": lambda: operations.QueueBounce(every),
        "queue.requeue": lambda: operations.QueueRequeue(every),
        "sender.block": lambda: operations.SenderBlock("spam@bad.test"),
        "sender.unblock": lambda: operations.SenderUnblock("spam@bad.test"),
    }
    return made[name]()


def quarantined(host: Host) -> tuple[Quarantined, ...]:
    if not host.queued():
        return ()
    purge = operations.QueuePurge(Selection(ALL))
    selected = {each.queue_id: each for each in do(host, purge, until_plan=True).value.selected}
    places = do(host, purge).value.data["places"]
    return tuple(
        Quarantined("x", name, places[name], each.arrival_time, each.sender, each.size, each.state)
        for name, each in selected.items()
    )


def check_command(host: Host, command: Command) -> None:
    """argv and stdin only, in time, and nothing that sudo would not be asked to allow."""
    assert not command.mutates or command.timeout <= CHANGE_SECONDS
    assert command.script is None or command.script in SCRIPTS
    assert command.script is None or not command.mutates or (is_fenced(command.script) and command.fence == FENCE)
    if command.script is None:
        assert command.argv[0].rpartition("/")[2] not in ("sh", "bash", "dash", "env", "sudo", "eval")
    assert not any("\n" in word or "\0" in word for word in command.argv)
    if command.become:
        argv = command.argv if command.script is None else script_argv(command.script, *command.argv)
        line = sudoers_line("fleetops", command.timeout, argv)
        assert line in host.adapter.sudoers(host.instance, "fleetops"), line


@pytest.mark.parametrize("mta", REGISTRY)
def test_sudo_takes_the_rules_with_an_environment_of_their_own(mta: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    lines = host.adapter.sudoers(host.instance, "fleet-ops")
    text = sudoers_section("fleet-ops", 1, lines) + sudoers_section("fleet-ops", 2, lines)
    (tmp_path / "sudoers").write_text(f"Defaults env_keep += PATH, requiretty\n{text}")
    done = subprocess.run(["visudo", "-c", "-f", tmp_path / "sudoers"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("env_reset", "!env_keep", "!setenv", "secure_path=", "!requiretty"):
        assert re.search(rf"^Defaults!MXFLEET_FLEET_OPS_2 .*{word}", text, re.MULTILINE), word
    assert text.count("/usr/bin/timeout -k 5 ") == 2 * len(lines)


@pytest.mark.parametrize("mta", REGISTRY)
def test_every_operation_is_a_method_of_the_right_form_or_absent_with_a_sentence(mta: str) -> None:
    adapter = adapter_for(mta)
    assert adapter.mta == mta
    for name in OPERATIONS:
        method = method_of(adapter, name)
        if method is None:
            assert len(adapter.notes[name].split()) > 3, f"{mta} says nothing of {name}"
            assert name not in adapter.emulated
            continue
        signature = inspect.signature(method)
        assert list(signature.parameters) == ["instance", "operation", "context"]
    assert set(adapter.emulated) <= set(OPERATIONS)
    assert set(adapter.notes) <= set(OPERATIONS)
    assert all(len(sentence.split()) > 3 for sentence in (*adapter.emulated.values(), *adapter.notes.values()))
    assert adapter.match_fields <= FIELDS


@pytest.mark.parametrize("mta", REGISTRY)
def test_every_mta_has_its_cases(mta: str) -> None:
    module = module_of(mta)
    assert set(module.SENDERS) == KINDS
    assert all(len(each.split()) > 3 for each in module.SENDERS.values() if isinstance(each, str))
    assert not isinstance(module.SENDERS["plain"], str)
    assert adapter_for(mta).queue_id_error(module.ABSENT_ID) is None


@pytest.mark.parametrize("mta", REGISTRY)
@pytest.mark.parametrize("queue_id", BAD_IDS)
def test_what_looks_like_an_option_or_a_path_is_no_queue_id(mta: str, queue_id: str) -> None:
    assert adapter_for(mta).queue_id_error(queue_id)


@pytest.mark.parametrize(("mta", "name"), supported(OPERATIONS))
def test_success(mta: str, name: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    operation = prepared(host, name)
    before = host.queued()
    ran = do(host, operation, wiring_approved=True, fence=FENCE)
    assert ran.error is None
    result: Result = ran.value
    assert result.error is None
    assert result.ended is Ended.SUCCEEDED
    for command in ran.commands:
        check_command(host, command)
    if name in OF_MESSAGES:
        counts = result.data
        assert (counts["asked"], counts["done"]) == (3, 3)
    if not CATALOGUE[name].changes:
        assert not ran.mutated
        assert host.queued() == before


@pytest.mark.parametrize(("mta", "name"), supported(CHANGES))
def test_one_plan_before_the_first_change_and_a_dry_run_changes_nothing(mta: str, name: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    operation = prepared(host, name)
    before = host.queued()
    dry = do(host, operation, until_plan=True, wiring_approved=True)
    assert isinstance(dry.value, Plan)
    assert (dry.mutated, host.queued()) == (False, before)
    ran = do(host, operation, wiring_approved=True)
    assert len(ran.plans) == 1
    first = next((at for at, command in enumerate(ran.commands) if command.mutates), len(ran.commands))
    assert ran.plans[0][1] <= first
    assert len(dry.value.selected) == (0 if name.startswith("sender") else 1 if name == "message.deliver" else 3)
    if name in MOVING:
        assert dry.value.queue_total == 3, "of which share of the queue it is depends who must agree"


@pytest.mark.parametrize(("mta", "name"), supported(OPERATIONS))
def test_an_empty_queue_is_nothing_to_do(mta: str, name: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path, [])
    ran = do(host, prepared(host, name), wiring_approved=True)
    if name in OF_ONE:
        assert isinstance(ran.error, MessageNotFound)
        assert not ran.mutated
        return
    assert ran.error is None
    if name in OF_MESSAGES:
        assert ran.value.ended is Ended.UNCHANGED
        assert not ran.mutated
        assert len(ran.plans) == 1
    elif name == "queue.list":
        assert (ran.value.data["entries"], ran.value.data["total"]) == ([], 0)


@pytest.mark.parametrize(("mta", "name"), supported(OPERATIONS))
def test_a_refusal_of_sudo_changes_nothing(mta: str, name: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    operation = prepared(host, name)
    before = host.queued()
    ran = do(host, operation, Wire(host, refuses_root=True), wiring_approved=True)
    if any(command.become for command in ran.commands):
        assert isinstance(ran.error, SudoDenied)
    assert host.queued() == before


@pytest.mark.parametrize(
    ("mta", "name"), [each for each in supported((*OF_MESSAGES, "message.deliver")) if each.values[0] != "postfix"]
)
def test_a_worker_that_was_overtaken_changes_nothing(mta: str, name: str, tmp_path: Path) -> None:
    """Where our scripts run here; Postfix's own commands come first on it."""
    host = played(mta, tmp_path)
    operation = prepared(host, name)
    before = host.queued()
    (Path(real_scripts.RUN) / "mxfleet-fence").write_text(f"{FENCE + 1}\n")
    ran = do(host, operation, fence=FENCE)
    assert isinstance(ran.error, Overtaken)
    assert not ran.mutated
    assert host.queued() == before


@pytest.mark.parametrize(("mta", "name"), supported(OPERATIONS))
def test_garbage_is_an_error_and_changes_nothing(mta: str, name: str, tmp_path: Path) -> None:
    def garbage(number: int, command: Command, done: Completed) -> Completed:
        return replace(done, stdout=GARBAGE, result=None)

    host = played(mta, tmp_path)
    operation = prepared(host, name)
    before = host.queued()
    if operation.name in QUARANTINE:
        return _garbage_in_quarantine(host, operation)
    ran = do(host, operation, Wire(host, garbage), wiring_approved=True)
    if ran.error is None and ran.value.ended is not Ended.FAILED:
        assert ran.value.data["notes"], "garbage was passed over without a word"
        assert not ran.value.messages
    assert not ran.mutated
    assert host.queued() == before
    return None


def _garbage_in_quarantine(host: Host, operation: operations.Operation) -> None:
    """The first command may be the change itself: then nothing is claimed."""
    ran = do(host, operation, Wire(host, lambda number, command, done: replace(done, stdout=GARBAGE, result=None)))
    assert ran.error is not None or ran.value.ended is Ended.FAILED


@pytest.mark.parametrize(("mta", "name"), supported(OPERATIONS))
def test_a_cut_off_answer_is_never_taken_for_a_short_one(mta: str, name: str, tmp_path: Path) -> None:
    """Each command in turn loses its last bytes: an error, or the same result as if nothing had been lost."""
    whole = played(mta, tmp_path / "whole")
    good = do(whole, prepared(whole, name), wiring_approved=True)
    for at in range(len(good.commands)):

        def cut(number: int, command: Command, done: Completed, at: int = at) -> Completed:
            return replace(done, stdout=done.stdout[:-3]) if number == at else done

        host = played(mta, tmp_path / str(at))
        ran = do(host, prepared(host, name), Wire(host, cut), wiring_approved=True)
        same = ran.error is None and _told(ran.value, host) == _told(good.value, whole)
        is_failed = ran.error is not None or ran.value.ended is Ended.FAILED
        assert same or is_failed, good.commands[at]


def _told(result: Result, host: Host) -> str:
    """The result's data without what differs between two hosts: directories and times."""
    text = repr((result.ended, result.data, result.messages)).replace(str(host.directory), "DIR")
    return re.sub(r"\d{10}|'(?:taken_at|place|modified)': '[^']*'", "", text)


@pytest.mark.parametrize("mta", REGISTRY)
def test_what_somebody_else_held_after_our_listing_is_never_ours(mta: str, tmp_path: Path) -> None:
    """Or a release, or an undo, of ours would free it."""
    host = played(mta, tmp_path)
    operation = prepared(host, "queue.hold")

    def meanwhile(number: int, command: Command, done: Completed) -> Completed:
        if number == 0:
            with ThreadPoolExecutor(1) as somebody:  # with an event loop of his own
                somebody.submit(do, host, operation, job="job-2").result()
        return done

    ran = do(host, operation, Wire(host, meanwhile))
    assert (ran.error, ran.value.messages, ran.value.data["already"]) == (None, (), 3)


@pytest.mark.parametrize("is_ours", [False, True])
@pytest.mark.parametrize("mode", ["quarantine", "delete"])
@pytest.mark.parametrize("mta", REGISTRY)
def test_a_purge_leaves_what_somebody_else_held_since_its_plan(
    mta: str, mode: str, is_ours: bool, tmp_path: Path
) -> None:
    host = played(mta, tmp_path)
    purge = operations.QueuePurge(Selection(ALL), mode=mode)
    frozen: tuple[Fingerprint, ...] = do(host, purge, until_plan=True).value.selected
    held, *others = frozen
    do(host, operations.QueueHold(Selection(queue_ids=(held.queue_id,))), job="job-2")
    ran = do(host, purge, frozen=frozen, ours=frozenset({held}) if is_ours else frozenset())
    outcomes = {each.queue_id: each.outcome for each in ran.value.messages}
    assert outcomes == {held.queue_id: "done" if is_ours else "left", **{each.queue_id: "done" for each in others}}
    assert any(held.queue_id in note for note in ran.value.data["notes"]) is not is_ours
    entries = do(host, operations.QueueList(ALL)).value.data["entries"]
    left = {entry["queue_id"]: entry["state"] for entry in entries}
    assert left == ({} if is_ours else {held.queue_id: "hold"})


@pytest.mark.parametrize("mta", REGISTRY)
def test_every_sender_is_shown_as_it_is(mta: str, tmp_path: Path) -> None:
    senders = senders_of(module_of(mta).SENDERS)
    host = played(mta, tmp_path, [raw for raw, _ in senders])
    entries = do(host, operations.QueueList(ALL)).value.data["entries"]
    assert sorted(entry["sender"] for entry in entries) == sorted(shown for _, shown in senders)


BACKSLASH = {"qmail": [b"back\\slash@bulk.example"], "opensmtpd": []}
"""As the MTA keeps it: qmail without quotes; OpenSMTPD takes no quoted local parts."""


@pytest.mark.parametrize("mta", REGISTRY)
def test_a_sender_that_a_listing_tells_selects_exactly_that_message(mta: str, tmp_path: Path) -> None:
    odd = BACKSLASH.get(mta, [b'"back\\\\slash"@bulk.example'])
    raw = [b"backslash@bulk.example", b"b*sh@bulk.example", b"b?ckslash@bulk.example", *odd]
    host = played(mta, tmp_path, raw)
    entries = do(host, operations.QueueList(ALL)).value.data["entries"]
    assert len({entry["sender"] for entry in entries}) == len(raw)
    for entry in entries:
        match = from_json({"field": "from", "op": "is", "value": entry["sender"]})
        found = do(host, operations.QueueList(match)).value.data["entries"]
        assert [each["queue_id"] for each in found] == [entry["queue_id"]], entry["sender"]


@pytest.mark.parametrize(("mta", "name"), supported(OF_MESSAGES))
def test_every_sender_is_handled_and_none_is_an_argument(mta: str, name: str, tmp_path: Path) -> None:
    senders = senders_of(module_of(mta).SENDERS)
    host = played(mta, tmp_path, [raw for raw, _ in senders])
    ran = do(host, prepared(host, name))
    assert ran.error is None
    assert ran.value.data["done"] == len(senders), ran.value.data
    words = [word for command in ran.commands for word in command.argv]
    assert not any("bulk.example" in word for word in words)


@pytest.mark.parametrize(("mta", "name"), supported(MOVING))
def test_with_a_frozen_plan_nothing_else_is_touched(mta: str, name: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    operation = prepared(host, name)
    before = host.queued()
    plan = do(host, operation, until_plan=True).value
    frozen: tuple[Fingerprint, ...] = plan.selected[:1]
    ran = do(host, operation, frozen=frozen)
    assert [each.queue_id for each in ran.value.messages] == [frozen[0].queue_id]
    others = {queue_id: state for queue_id, state in before.items() if queue_id != frozen[0].queue_id}
    assert {queue_id: host.queued().get(queue_id) for queue_id in others} == others


@pytest.mark.parametrize(("mta", "name"), supported(MOVING))
def test_another_message_under_a_planned_id_is_left_alone(mta: str, name: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    operation = prepared(host, name)
    before = host.queued()
    plan = do(host, operation, until_plan=True).value
    frozen = tuple(replace(each, arrival_time=each.arrival_time - 60) for each in plan.selected)
    ran = do(host, operation, frozen=frozen)
    assert isinstance(ran.error, FleetError)
    assert ran.error.code == "plan_stale"
    assert host.queued() == before


@pytest.mark.parametrize("mta", REGISTRY)
def test_a_field_that_the_mta_does_not_keep_is_refused_and_never_ignored(mta: str, tmp_path: Path) -> None:
    expression = parse("attempts>3")
    host = played(mta, tmp_path)
    ran = do(host, operations.QueueHold(Selection(expression)))
    if unsupported_fields(expression, host.adapter.match_fields):
        assert ran.error is not None
        assert ran.error.code == "unsupported"
        assert ran.commands == []
    else:
        assert ran.error is None
