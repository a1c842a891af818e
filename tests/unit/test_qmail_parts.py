"""qmail: whichever part of a script is ended by a signal, what is told is so, and what is there is not told as absent.

`MXFLEET_FAULT_ROUNDS`: how many parts of each change and each look, of 40 to 140. `MXFLEET_FAULT_SEED`: the same again.
"""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet import match
from fleet.mta.errors import FleetError, RemoteError
from fleet.mta.operations import MessageShow, Quarantined, QuarantineErase, QueueList
from fleet.mta.qmail import Qmail, discovery, routes
from fleet.mta.qmail.attempt import watch
from fleet.mta.qmail.commands import Answer, change
from fleet.mta.qmail.driver import lying
from fleet.mta.queue.driver import Reported
from fleet.mta.queue.outcome import Verb
from fleet.mta.records import HostFacts, QueueEntry
from fleet.mta.steps import Command
from tests.unit.qmail_host import QmailHost, context, wait
from tests.unit.victims import Tools, Victim

QMAIL = Qmail()
ROUNDS = int(os.environ.get("MXFLEET_FAULT_ROUNDS", "1"))
SEED = os.environ.get("MXFLEET_FAULT_SEED") or str(random.SystemRandom().randrange(10**6))
QUARANTINE, HOLD = "mxfleet-quarantine/job-1", "mxfleet-hold"
NOWHERE = "nowhere"
CHANGES = {
    "quarantine": ("quarantine", "", QUARANTINE),
    "quarantine what is on hold": ("quarantine", HOLD, QUARANTINE),
    "restore": ("restore", QUARANTINE, ""),
    "restore to hold": ("restore-held", QUARANTINE, HOLD),
    "hold": ("hold", "", HOLD),
    "release": ("release", HOLD, ""),
    "erase": ("erase", QUARANTINE, NOWHERE),
    "delete": ("delete", "", NOWHERE),
}
"""What the script is told to do, and the area where the messages are before and after it."""


class Queue:
    """A host with some messages, all in the area where an action finds them, and programs that can be ended."""

    def __init__(self, directory: Path, area: str = "") -> None:
        self.host = QmailHost(directory)
        taken_in = [self.host.put(local=[b"Tl@qm1.test"]) for _ in range(3)]
        (self.host.queue / "bounce" / taken_in[0]).write_text("<x>:\nsorry\n")
        self.names = [*taken_in, self.host.put(is_new=True)]
        self.entries = list(self.host.entries().values())
        self.whole = {name: self.parts(name)[""] for name in self.names}
        if area:
            self.change("hold" if area == HOLD else "quarantine")
        self.tools = Tools(directory / "tools", [directory / "svc", directory / "svstat"])
        self.choose(None)

    def choose(self, victim: Victim | None) -> None:
        self.host.tools = self.tools.path
        self.tools.choose(victim)

    def change(self, action: str) -> Answer:
        found: Answer = self.host.carry(change(self.host.instance, action, "job-1", self.entries))
        return found

    def parts(self, name: str) -> dict[str, set[str]]:
        """The kinds of a message's files by the area where they lie, "" being the queue."""
        found: dict[str, set[str]] = {}
        for path in self.host.files():
            if path.rpartition("/")[2] == name:
                kinds = [part for part in path.split("/")[:-1] if not part.isdigit() and part != "job-1"]
                area = {HOLD: HOLD, "mxfleet-quarantine": QUARANTINE}.get(kinds[0], "")
                found.setdefault(area, set()).add(kinds[-1])
        return found

    def is_in(self, name: str, area: str) -> bool:
        return self.parts(name) == ({} if area == NOWHERE else {area: self.whole[name]})

    def settle(self) -> None:
        """Waits until the guardian has done its work."""
        if self.host.state.exists():
            self.host.wait_up()
        wait(lambda: not self.host.guardians(), "the guardian goes away")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.mta.qmail.commands.STOP_SECONDS", 3)


@pytest.fixture
def _closing() -> Iterator[list[Queue]]:
    made: list[Queue] = []
    yield made
    for each in made:
        each.host.remove_state()


@pytest.fixture
def queue_in(tmp_path: Path, _closing: list[Queue]) -> Callable[[str], Queue]:
    def make(area: str) -> Queue:
        _closing.append(Queue(tmp_path / str(len(_closing)), area))
        return _closing[-1]

    return make


def some(victims: list[Victim], what: str) -> list[Victim]:
    return random.Random(f"{SEED} {what}").sample(victims, min(ROUNDS, len(victims)))


def said_of(queue: Queue, action: str) -> dict[str, str]:
    """The verdicts; none when the script did not end well."""
    try:
        return queue.change(action).verdicts
    except FleetError:
        return {}


@pytest.mark.parametrize("which", CHANGES)
@pytest.mark.timeout(60 + 5 * ROUNDS)
def test_a_change_of_which_a_part_is_ended_tells_what_is_so_and_the_next_one_finishes_it(
    which: str, queue_in: Callable[[str], Queue]
) -> None:
    action, source, target = CHANGES[which]
    first = queue_in(source)
    assert set(first.change(action).verdicts.values()) == {"done"}
    first.settle()
    for victim in some(first.tools.victims(), which):
        queue = queue_in(source)
        queue.choose(victim)
        said = said_of(queue, action)
        queue.settle()
        what = f"MXFLEET_FAULT_SEED={SEED}, {which}, {victim}: {said}"
        for name in queue.names:
            word, parts = said.get(name, ""), queue.parts(name)
            here, there = queue.is_in(name, source), queue.is_in(name, target)
            assert word in ("", "done") or word.startswith("left "), what
            assert there if word == "done" else here if word else True, f"{what}: {name} in {parts}"
            is_half_erased = action == "erase" and "mess" in parts.get(source, ())
            assert here or there or is_half_erased, f"{what}: {name} in {parts}"
        queue.host.tools = None
        rest = queue.change(action)
        for name in queue.names:
            assert queue.is_in(name, target), f"{what}: then {rest.verdicts}, {queue.parts(name)}"
        assert queue.host.is_up, what


@pytest.mark.parametrize("when", [1, 2, 3, 4])
def test_no_message_moves_without_its_envelope(when: int, queue_in: Callable[[str], Queue]) -> None:
    queue = queue_in("")
    before = queue.host.files()
    queue.choose(Victim("mv", when))
    with pytest.raises(RemoteError, match="ended with 70"):
        queue.change("quarantine")
    assert (queue.host.files(), queue.host.is_up, queue.host.state.read_text()) == (before, True, "")


def test_a_message_of_which_a_part_cannot_move_stays_whole(queue_in: Callable[[str], Queue]) -> None:
    queue = queue_in("")
    stays = queue.names[0]
    there = queue.host.queue / QUARANTINE / "info" / stays
    there.parent.mkdir(parents=True)
    there.write_text("of another time")
    said = queue.change("quarantine").verdicts
    assert said == dict.fromkeys(queue.names[1:], "done") | {stays: "left it could not be moved"}
    there.unlink()
    assert queue.is_in(stays, "")


def test_a_message_that_cannot_come_back_whole_is_not_activated(queue_in: Callable[[str], Queue]) -> None:
    queue = queue_in(QUARANTINE)
    mv = queue.tools.path / "mv"
    wrapped = mv.read_text()
    mv.write_text('#!/bin/sh\ncase $3 in remote*) exit 1 ;; esac\nexec /bin/mv "$@"\n')  # as where no room is left
    said = queue.change("restore").verdicts
    new = queue.names[-1]
    assert said == dict.fromkeys(queue.names[:-1], "left it could not be moved back") | {new: "done"}
    assert all(queue.is_in(name, "" if name == new else QUARANTINE) for name in queue.names)
    mv.write_text(wrapped)
    assert queue.change("restore").verdicts == dict.fromkeys(queue.names[:-1], "done") | {new: "gone"}


def test_an_erase_that_was_cut_off_is_finished_by_the_next_one(queue_in: Callable[[str], Queue]) -> None:
    queue = queue_in(QUARANTINE)
    queue.choose(Victim("rm", 1, "after"))
    place = queue.host.queue / QUARANTINE
    items = tuple(
        Quarantined("q", one.queue_id, f"{place}/{one.queue_id}", one.arrival_time, one.sender, one.size, one.state)
        for one in queue.entries
    )
    with pytest.raises(RemoteError, match="ended with 70"):
        queue.host.carry(QMAIL.quarantine_erase(queue.host.instance, QuarantineErase(items), context()))
    assert all(queue.parts(name) == {QUARANTINE: {"mess"}} for name in queue.names)
    queue.choose(None)
    erased = queue.host.carry(QMAIL.quarantine_erase(queue.host.instance, QuarantineErase(items), context()))
    assert (erased.data["done"], queue.host.files()) == (len(items), {})


@pytest.fixture
def half_held(queue_in: Callable[[str], Queue]) -> tuple[Queue, str]:
    """A quarantine of which one message was on its way to hold when everything was ended, the host too."""
    queue = queue_in(QUARANTINE)
    name = queue.names[1]
    for kind in queue.whole[name] - {"mess"}:
        (queue.host.queue / HOLD / kind).mkdir(parents=True)
        (queue.host.queue / QUARANTINE / kind / name).rename(queue.host.queue / HOLD / kind / name)
    return queue, name


def test_a_cut_off_restore_to_hold_is_put_right_and_finished_by_the_next_one(half_held: tuple[Queue, str]) -> None:
    queue, name = half_held
    assert queue.change("hold").verdicts[name] == "gone"
    assert queue.is_in(name, QUARANTINE)
    assert queue.change("restore-held").verdicts[name] == "done"
    assert queue.is_in(name, HOLD)


def test_what_a_cut_off_restore_to_hold_has_taken_already_keeps_the_rest_from_being_erased(
    half_held: tuple[Queue, str],
) -> None:
    queue, name = half_held
    said = queue.change("erase").verdicts
    assert said == dict.fromkeys(queue.names, "done") | {name: "left it could not be removed"}
    assert queue.parts(name) == {HOLD: queue.whole[name] - {"mess"}, QUARANTINE: {"mess"}}


def test_qmail_send_is_started_though_nothing_can_be_put_right(queue_in: Callable[[str], Queue]) -> None:
    queue = queue_in("")
    for name, text in (("find", "kill -KILL $$"), ("sleep", "exec /bin/sleep 0.05")):
        (queue.tools.path / name).write_text(f"#!/bin/sh\n{text}\n")
    (queue.host.queue / HOLD).mkdir()
    before = queue.host.files()
    with pytest.raises(RemoteError, match="ended with 70"):
        queue.change("quarantine")
    queue.settle()
    assert queue.host.files() == before


@pytest.mark.parametrize("number", [0, 1])
def test_a_queue_that_lacks_one_of_its_directories_is_not_touched(
    number: int, queue_in: Callable[[str], Queue]
) -> None:
    queue = queue_in("")
    (queue.host.queue / f"mess/{number}").rename(queue.host.queue / "aside")
    with pytest.raises(RemoteError, match="ended with 66"):
        queue.change("hold")
    with pytest.raises(RemoteError, match="ended with 66"):
        queue.host.entries()


def entries_of(queue: Queue) -> dict[str, QueueEntry]:
    return queue.host.entries()


def matching(text: str) -> Callable[[Queue], Any]:
    def listed(queue: Queue) -> Any:
        operation = QueueList(match.parse(text))
        data = queue.host.carry(QMAIL.queue_list(queue.host.instance, operation, context())).data
        return sorted(each["queue_id"] for each in data["entries"])

    return listed


def shown(queue: Queue) -> Any:
    operation = MessageShow(queue.names[0], parts=("headers", "body"))
    return queue.host.carry(QMAIL.message_show(queue.host.instance, operation, context())).data


def discovered(queue: Queue) -> Any:
    home = queue.host.root / "home"
    if not home.exists():
        (home / "control").mkdir(parents=True)
        (home / "queue").symlink_to(queue.host.queue)
        (home / "control/me").write_text("qm1.test\n")
        (home / "control/locals").write_text("a.test\nb.test\n")
    found = queue.host.carry(discovery.discover(HostFacts(is_root=True), "qm1"))
    return [each.options for each in found if each.options["home"] == str(home)]


def controlled(queue: Queue) -> Any:
    discovered(queue)
    command = Command((str(queue.host.root / "home/control"),), script=routes.CONTROL)
    return routes.parse_control(queue.host.run(command))


def watched(queue: Queue) -> Any:
    log = queue.host.root / "log"
    name = queue.names[0]
    log.write_text(f"old\nstarting delivery 1: msg {name} to remote r@x.test\ndelivery 1: deferral: no\n")
    status = log.stat()
    queue.host.instance.options["log_source"] = str(log)
    entry = next(each for each in queue.entries if each.queue_id == name)
    return queue.host.carry(watch(queue.host.instance, [entry], Answer({}, mark=(str(status.st_ino), "4"))))


def lies(queue: Queue) -> Reported:
    found: Reported = queue.host.carry(lying(queue.host.instance, "job-1", Verb.TAKE_OUT, {}))
    return found


LOOKS: dict[str, tuple[str, Callable[[Queue], Any]]] = {
    "list": ("", entries_of),
    "list of what is on hold": (HOLD, entries_of),
    "match on headers": ("", matching("subject~hi")),
    "match on bodies": ("", matching("body~body")),
    "show": ("", shown),
    "quarantine": (QUARANTINE, lambda queue: lies(queue).places),
    "discovery": ("", discovered),
    "control": ("", controlled),
    "log": ("", watched),
}


@pytest.mark.parametrize("what", LOOKS)
@pytest.mark.timeout(60 + 3 * ROUNDS)
def test_a_look_of_which_a_part_is_ended_tells_all_or_nothing(
    what: str, queue_in: Callable[[str], Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.mta.qmail.attempt.WAIT_SECONDS", 0)
    area, see = LOOKS[what]
    queue = queue_in(area)
    monkeypatch.setenv("QMAILHOME", str(queue.host.root / "home"))
    see(queue)
    queue.choose(None)
    whole = see(queue)
    assert whole
    for victim in some(queue.tools.victims(), what):
        queue.choose(victim)
        try:
            seen = see(queue)
        except FleetError:
            continue
        assert seen == whole, f"MXFLEET_FAULT_SEED={SEED}, {victim}"


@pytest.mark.parametrize("when", [1, 2, 3])
def test_a_listing_whose_look_into_todo_was_ended_is_refused(when: int, queue_in: Callable[[str], Queue]) -> None:
    queue = queue_in("")
    (queue.tools.path / "real/find").write_text(
        f"""#!/bin/sh
case $1 in todo*) [ "$(cat {queue.tools.path}/calls/find)" -lt {when} ] || kill -KILL $$ ;; esac
exec /usr/bin/find "$@"
"""
    )
    (queue.tools.path / "real/find").chmod(0o755)
    queue.choose(None)
    with pytest.raises(RemoteError, match="ended with 74"):
        queue.host.entries()
