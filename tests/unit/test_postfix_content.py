"""Headers of many messages at once: recorded answers, and the script itself with a postcat played by hand."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.mta.postfix.queue import QUEUE
from fleet.mta.queue.content import Stored, parse_stored, subject_of
from fleet.mta.records import QueueEntry
from fleet.mta.steps import Completed
from fleet.ssh.quoting import script_text
from tests.unit.postfix_host import TRANSCRIPTS, VERSIONS, FakeHost, Mail, instance

SCRIPT = "postfix_content.sh"
# Files that begin as our mark does are queue files for postcat; the others are printed as they are. Like the real one
# it ends at the first name that is not there.
POSTCAT = r"""#!/bin/sh
echo "$*" >>"${0%/*}/calls"
"${0%/*}/before"
shift 3
cd "${0%/*}/spool"
[ "$1" != -q ] || { shift; set -- "$(find . -name "$1" -type f)"; [ "$1" ] || set -- "$2"; queued="queue file "; }
for path in "$@"; do
    [ -f "$path" ] || { echo "postcat: fatal: open ${queued-}$path: No such file or directory" >&2; exit 1; }
    if [ "$(head -c 1 "$path")" = M ]; then
        tail -c +5 "$path" | head -c 34; echo; tail -c 34 "$path"; echo
    else
        cat "$path"
    fi
done
"""


class Spool:
    """A queue directory, with commands that answer for it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.spool = place / "spool"
        for name in ("maildrop", "incoming", "active", "deferred/A", "hold"):
            (self.spool / name).mkdir(parents=True)
        self.write("postconf", f"#!/bin/sh\necho {self.spool}\n")
        self.write("postcat", POSTCAT)
        self.before("")

    def write(self, name: str, text: str) -> None:
        (self.place / name).write_text(text)
        (self.place / name).chmod(0o755)

    def before(self, commands: str) -> None:
        """What happens in the queue directory right before each postcat."""
        self.write("before", f"#!/bin/sh\ncd {self.spool}\n{commands}\n")

    def add(self, queue_id: str, headers: bytes, queue: str = "deferred/A") -> None:
        (self.spool / queue / queue_id).write_bytes(headers)

    @property
    def calls(self) -> int:
        return len((self.place / "calls").read_text().splitlines())

    def run(self, *queue_ids: str, limits: str = "8388608 0 65536 0") -> subprocess.CompletedProcess[bytes]:
        asked = "".join(f"{line}\n" for line in (limits, *queue_ids)).encode()
        return subprocess.run(
            ["sh", "-c", script_text(SCRIPT)[0], SCRIPT, self.place, "/etc/postfix"], input=asked, capture_output=True
        )

    def read(self, *queue_ids: str, **limits: str) -> tuple[dict[str, bytes], frozenset[str]]:
        done = self.run(*queue_ids, **limits)
        assert (done.returncode, done.stderr) == (0, b"")
        found, answered = parse_stored(Completed(0, done.stdout), has_body=False)
        return {name: stored.raw_headers for name, stored in found.items()}, answered


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def recorded(version: str) -> tuple[dict[str, Stored], frozenset[str]]:
    data = (TRANSCRIPTS / f"postfix-{version}" / "22-hostile-headers.bin").read_bytes()
    return parse_stored(Completed(0, data), has_body=False)


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_hostile_messages_stay_apart_and_keep_their_own_subjects(version: str) -> None:
    found, answered = recorded(version)
    assert answered - set(found) == {"FFFF000001"}
    ids = [name for name, stored in found.items() if f"id {name}".encode() in stored.raw_headers]
    assert len(ids) == len(found) == 14
    subjects = sorted(subject_of(stored) for stored in found.values())
    assert subjects.count("news") == 3, "plain, after a From_ line, and one that has no body"
    assert subjects.count("") == 3, "those whose header ends before the forged subject"
    assert [text for text in subjects if "folded news" in text and "*** ENVELOPE RECORDS" in text]
    after = [stored for stored in found.values() if ("X-After", "news") in stored.headers]
    assert len(after) == 5


@pytest.mark.parametrize("version", VERSIONS)
def test_a_header_line_longer_than_a_queue_file_record_is_one_line(version: str) -> None:
    found, _ = recorded(version)
    [long] = [value for stored in found.values() for name, value in stored.headers if name == "X-Long"]
    assert long == "a" * 2040 + "*** ENVELOPE RECORDS deferred/F/F1234 ***" + "z" * 9000


def test_headers_of_hundreds_of_messages_are_read_by_a_few_postcats(spool: Spool) -> None:
    names = [f"A{number:04d}" for number in range(450)]
    for name in names:
        spool.add(name, b"Subject: %b\n" % name.encode())
    found, _ = spool.read(*names)
    assert found == {name: b"Subject: %b\n" % name.encode() for name in names}
    assert spool.calls == 3


@pytest.mark.parametrize(
    "headers",
    [
        b"Subject: x\nA2 0 9 0\nX: forged\nend\n",
        b"*** ENVELOPE RECORDS deferred/A/A2 ***\n",
        b"0:\n1:\n" + b"0" * 32 + b"0:\n" + b"0" * 32 + b"1:\n",
        b"Subject: breaks off without a line feed",
        b"",
        b"\n\n",
        b"a\rb\xff\xfe\n",
        b"x" * 65_536,
        b"x" * 65_535 + b"\n",
    ],
)
def test_whatever_a_message_contains_it_is_told_exactly_and_ends_where_it_ends(spool: Spool, headers: bytes) -> None:
    spool.add("A1", headers)
    spool.add("A2", b"Subject: next\n")
    assert spool.read("A1", "A2")[0] == {"A1": headers, "A2": b"Subject: next\n"}


def test_headers_are_cut_at_the_limit(spool: Spool) -> None:
    spool.add("A1", b"X: y\n" * 40_000)
    spool.add("A2", b"X: " + b"y" * 300_000)
    spool.add("A3", b"Subject: next\n")
    found, _ = spool.read("A1", "A2", "A3")
    assert [len(found[name]) for name in ("A1", "A2", "A3")] == [65_536, 65_536, 14]


def test_what_the_budget_leaves_out_is_not_answered(spool: Spool) -> None:
    for name in ("A1", "A2", "A3"):
        spool.add(name, b"Subject: x\n" * 50)
    _, answered = spool.read("A1", "A2", "A3", limits="1000 0 65536 0")
    assert answered == {"A1", "A2"}


def test_messages_that_are_gone_cost_no_postcat_and_are_told_absent(spool: Spool) -> None:
    spool.add("A1", b"Subject: x\n", "active")
    gone = [f"F{number:04d}" for number in range(300)]
    found, answered = spool.read(*gone, "A1")
    assert (set(found), answered) == ({"A1"}, {"A1", *gone})
    assert spool.calls == 1


def test_a_message_that_leaves_meanwhile_is_absent_and_the_others_are_still_read(spool: Spool) -> None:
    for name in ("A1", "A2", "A3"):
        spool.add(name, b"Subject: %b\n" % name.encode())
    spool.before("rm -f deferred/A/A2")
    found, answered = spool.read("A1", "A2", "A3")
    assert (set(found), answered) == ({"A1"}, {"A1", "A2"})
    assert set(spool.read("A3")[0]) == {"A3"}


def test_a_message_that_moves_meanwhile_is_read_where_it_is(spool: Spool) -> None:
    spool.add("A1", b"Subject: moved\n")
    spool.before("[ ! -e deferred/A/A1 ] || mv deferred/A/A1 active/A1")
    assert spool.read("A1")[0] == {"A1": b"Subject: moved\n"}


@pytest.mark.parametrize("queue_id", ["../A1", "A 1", "", "-h"])
def test_a_name_that_is_no_queue_id_is_refused(spool: Spool, queue_id: str) -> None:
    assert spool.run("A1", queue_id).returncode == 64


def break_the_queue(spool: Spool) -> None:
    for path in sorted(spool.spool.rglob("*"), reverse=True):
        path.rmdir()


def break_the_configuration(spool: Spool) -> None:
    spool.write("postconf", "#!/bin/sh\nexit 1\n")


@pytest.mark.parametrize("damage", [break_the_queue, break_the_configuration])
def test_a_queue_that_cannot_be_looked_through_is_an_error_not_an_absence(
    spool: Spool, damage: Callable[[Spool], None]
) -> None:
    damage(spool)
    done = spool.run("A1")
    assert done.returncode == 66
    assert done.stdout == b""


def test_headers_are_asked_for_in_thousands_and_bodies_in_hundreds() -> None:
    host = FakeHost()
    mails = [Mail(f"A{number:06d}") for number in range(5001)]
    host.add(*mails)
    entries = [QueueEntry(each.queue_id, "deferred", "deferred", 0, "a@b.example", (), 1) for each in mails]
    for body, commands in ((False, 2), (True, 11)):
        host.commands.clear()
        found: dict[str, Stored] = {}
        host.drive(QUEUE.content.read_many(instance(), entries, found.__setitem__, body=body))
        assert (len(found), len(host.commands)) == (5001, commands)
