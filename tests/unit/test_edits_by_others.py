"""Others edit a list between any two of our steps: none of their bytes is lost, joined or moved, whatever we answer.

Real files, our own scripts, the adapters' generators; see list_kinds.py and edits.py. `MXFLEET_FAULT_ROUNDS`: rounds of
each kind of list, `MXFLEET_FAULT_SEED`: the same choices again; both are in a failure's message.
"""

import os
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fleet.mta.errors import FleetError
from fleet.mta.operations import BlockList, Operation, SenderBlock, SenderUnblock
from fleet.mta.records import Context, Ended
from tests.unit import real_scripts
from tests.unit.edits import BEGIN, Others, is_clean, theirs
from tests.unit.list_kinds import HOOKED, KINDS, Listed, entry_of

ROUNDS = int(os.environ.get("MXFLEET_FAULT_ROUNDS", "1"))
SEED = os.environ.get("MXFLEET_FAULT_SEED") or str(random.SystemRandom().randrange(10**6))
MOST = 4
"""Operations of a round."""
INSIDE = ("flock", "cp", "ln", "mv", "perl", "dd", "sync")
"""Programs of our scripts right before which others edit too, beside the borders between our steps."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the scripts edit only what root's own configuration names")


@dataclass
class Round:
    """Some operations on one list while others edit it, and what must hold after each step of ours.

    `found`: their bytes when our region came behind a last line without an end.
    """

    host: Listed
    chance: random.Random
    others: Others = field(init=False)
    answers: Counter[str] = field(default_factory=Counter)
    found: bytes | None = None
    rate: float = 0.0

    def __post_init__(self) -> None:
        self.ours = {entry for entries in self.host.entries.values() for entry in entries}
        self.others = Others(self.chance, self.host.path, entry_of(self.host), self.then)
        self.host.between, self.host.changed = self.between, self.changed
        self.rate = self.chance.choice((0, 0, 0.05, 0.15, 0.4))

    def then(self) -> None:
        """They build the map, mostly."""
        if self.chance.random() < 0.8:
            self.host.build()

    def between(self) -> None:
        if self.chance.random() < self.rate:
            self.others.edit()
        if self.chance.random() < self.rate:
            self.hook(self.chance.choice(INSIDE))

    def hook(self, program: str) -> None:
        """An edit by a shell right before that program of the next script of ours that runs it."""
        file, beside = self.host.path, f"{self.host.root}/beside"
        line = self.others.line().strip(b"\n").decode("latin-1").replace("\0", "").replace("'", "")
        add = f"[ ! -s {file} ] || [ -z \"$(tail -c 1 {file})\" ] || echo; echo '{line}'"
        write = f"{{ cat {file}; {add}; }} 2>/dev/null >{beside}"
        ways = (f"{{ {add}; }} >>{file}", f"{write}; cat {beside} >{file}", f"{write}; mv {beside} {file}")
        self.host.tool(program, HOOKED)
        hook = self.host.root / f"hook-{program}"
        hook.write_text(f"{self.chance.choice(ways)}; cp {file} {self.host.root}/left\n", encoding="latin-1")

    def changed(self, before: bytes | None, after: bytes | None) -> None:
        """A command of ours has ended: what others have written is there as they left it."""
        left = self.host.root / "left"
        if left.exists():
            self.others.edits += 1
            before = left.read_bytes()
            left.unlink()
        if before == after:
            return
        assert is_clean(before or b"", self.ours), "we edited what we cannot tell ours in"
        was, now = theirs(before or b"", self.ours), theirs(after or b"", self.ours)
        if after is None:
            assert was in (b"", self.host.head), "we removed a file of theirs"
        elif before is None:
            assert now == self.host.head
        elif now == was + b"\n":
            assert any(map(BEGIN.match, after.split(b"\n"))), "a line end more, and no region of ours needs it"
            self.found = was
        elif was == now + b"\n":
            assert now == self.found, "the end of a line of theirs was taken"
        else:
            assert now == was, "their lines are not what they were"

    def do(self, operation: Operation, context: Context) -> None:
        name = {"sender.block": "sender_block", "sender.unblock": "sender_unblock", "block.list": "block_list"}
        method = getattr(self.host.adapter, name[operation.name])
        edits = self.others.edits
        try:
            if self.chance.random() < 0.4:
                self.host.drive(method(self.host.instance, operation, context), until_plan=True)
            result = self.host.drive(method(self.host.instance, operation, context))
        except FleetError as error:
            self.answers[error.code] += 1
            self.check_refusal(operation, error)
            return
        self.answers[result.ended.value] += 1
        if isinstance(operation, SenderBlock):
            if result.ended in (Ended.SUCCEEDED, Ended.UNCHANGED):
                assert self.host.is_blocked(operation.pattern), f"{result.ended}, and it is not in the list"
            elif edits == self.others.edits:
                raise AssertionError(f"{operation} failed although nobody interfered: {result.error}")
        elif isinstance(operation, SenderUnblock) and result.ended is Ended.SUCCEEDED:
            assert not self.host.is_blocked(operation.pattern), "unblocked, and it is in the list"

    def check_refusal(self, operation: Operation, error: FleetError) -> None:
        """Where nothing is done, the file is named and what to do about it."""
        told = f"{operation}: {error.as_dict()}"
        assert error.code == "conflict" or "could not be taken back" in error.detail, told
        assert str(self.host.path) in error.detail, told
        assert error.hint, told

    def run(self) -> None:
        patterns = list(self.host.entries)
        for _ in range(self.chance.randint(2, MOST)):
            pattern = self.chance.choice(patterns[: self.chance.choice((1, len(patterns)))])
            made = self.chance.choice((SenderBlock, SenderBlock, SenderUnblock, SenderUnblock, BlockList))
            context = Context(now=0, job="job-1", wiring_approved=True, undo=self.chance.random() < 0.5)
            self.do(made() if made is BlockList else made(pattern), context)
        self.rate = 0.0
        for pattern in patterns:
            self.do(SenderUnblock(pattern), Context(now=0, job="job-1", undo=True))


def first_content(chance: random.Random, host: Listed) -> bytes | None:
    """What stands in the list before we come: nothing, or some lines, the last one maybe without its end."""
    if chance.random() < 0.15 or host.head:
        return None
    entry = entry_of(host)
    text = b"".join(entry(chance) for _ in range(chance.choice((0, 1, 2, 5))))
    text = b"".join(line for line in text.splitlines(True) if b"news@" not in line and not line.startswith(b"!"))
    return text.rstrip(b"\n") if chance.random() < 0.4 else text


def one_round(root: Path, kind: str, seed: str) -> tuple[Counter[str], int]:
    root.mkdir()
    chance = random.Random(seed)
    host = KINDS[kind](root)
    start = first_content(chance, host)
    if start is not None:
        host.path.write_bytes(start)
        host.build()
    round_ = Round(host, chance)
    round_.run()
    if not round_.others.edits:
        # Our own file stays with its head where no undo took the last block out.
        assert (host.content() or b"") in (start or b"", host.head or start), "nobody wrote, and it is not as before"
    shutil.rmtree(root)
    return round_.answers, round_.others.edits


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_no_line_of_others_is_lost_joined_or_moved_whatever_we_answer(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_scripts, "RUN", str(tmp_path))
    answers: Counter[str] = Counter()
    edits = 0
    for number in range(ROUNDS):
        seed = f"{SEED} {kind} {number}"
        try:
            found, edited = one_round(tmp_path / f"round-{number}", kind, seed)
        except BaseException as error:
            error.add_note(f"MXFLEET_FAULT_SEED={SEED} MXFLEET_FAULT_ROUNDS={number + 1}, {kind}")
            raise
        answers += found
        edits += edited
    print(f"{kind}: {ROUNDS} rounds, {edits} edits by others, answers {dict(answers)}")
