"""Recorded sessions instead of SSH."""

from pathlib import Path

import pytest

from fleet.mta.steps import Command, Completed, Dialogue, Transcript
from fleet.ssh.replay import Recording, ReplayMismatch, ReplayTransport, parse, typed

TEXT = """# one; report goes to stderr
ops@pf1$ sudo -n postsuper -c /etc/postfix2 -d 3F5DD30C44F; echo rc=$?
--- exit 0   0.02 s
--- stdout
rc=0
--- stderr
postsuper: 3F5DD30C44F: removed
postsuper: Deleted: 1 message

# again: absent id
ops@pf1$ sudo -n postsuper -c /etc/postfix2 -d 3F5DD30C44F; echo rc=$?
--- exit 0   0.05 s
--- stdout
rc=1
--- stderr
postsuper: Deleted: 0 messages

ctl$ inject pf1 --n 6
--- exit 0   0.22 s
--- stdout
{"accepted": 6}
--- stderr

## a list on stdin
root(ns)@pf1$ /usr/sbin/postsuper -d -
--- stdin
1657F30C4E1
147D730C4DF

--- exit 3   0.03 s
--- stdout
first

--- not a marker
--- stderr

ops@pf1$ cat 'a b'
--- exit None   30.00 s
--- stdout
--- stderr
"""


def test_a_transcript_is_read_with_status_stdin_and_both_streams() -> None:
    first, again, listed, cut = parse(TEXT)
    assert first.line == "sudo -n postsuper -c /etc/postfix2 -d 3F5DD30C44F"
    assert first.comment == "one; report goes to stderr"
    assert first.completed == Completed(
        0, b"", b"postsuper: 3F5DD30C44F: removed\npostsuper: Deleted: 1 message\n", None, 0.02
    )
    assert again.completed.exit_status == 1
    assert (listed.user, listed.host, listed.stdin) == ("root", "pf1", b"1657F30C4E1\n147D730C4DF\n")
    assert listed.completed == Completed(3, b"first\n\n--- not a marker\n", b"", None, 0.03)
    assert cut.completed.exit_status == -1


@pytest.mark.parametrize("text", ["ops@pf1$ true\n", "ops@pf1$ true\n--- exit 0   0.1 s\nout\n"])
def test_a_broken_transcript_is_named_with_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(ValueError, match=r"bad\.txt"):
        Recording.load(tmp_path / "bad.txt")


def recording(tmp_path: Path) -> Recording:
    (tmp_path / "a.txt").write_text(TEXT)
    return Recording.load(tmp_path / "a.txt")


async def test_a_recording_answers_the_same_line_in_the_recorded_order(tmp_path: Path) -> None:
    transport = ReplayTransport(recording(tmp_path))
    command = Command(("/usr/sbin/postsuper", "-c", "/etc/postfix2", "-d", "3F5DD30C44F"), become=True)
    assert (await transport.run(command)).exit_status == 0
    assert (await transport.run(command)).exit_status == 1
    with pytest.raises(ReplayMismatch, match="postsuper -c /etc/postfix2 -d 3F5DD30C44F"):
        await transport.run(command)
    assert transport.unused == 2
    assert len(transport.sent) == 3


async def test_roots_prompt_stands_for_become_and_stdin_must_agree(tmp_path: Path) -> None:
    transport = ReplayTransport(recording(tmp_path))
    for other in (
        Command(("postsuper", "-d", "-"), stdin=b"1657F30C4E1\n147D730C4DF\n"),
        Command(("postsuper", "-d", "-"), stdin=b"OTHER\n", become=True),
    ):
        with pytest.raises(ReplayMismatch):
            await transport.run(other)
    right = Command(("postsuper", "-d", "-"), stdin=b"1657F30C4E1\n147D730C4DF\n", become=True)
    assert (await transport.run(right)).exit_status == 3


def test_a_line_is_looked_up_as_typed(tmp_path: Path) -> None:
    found = recording(tmp_path)
    line = "sudo -n postsuper -c /etc/postfix2 -d 3F5DD30C44F"
    assert [done.exit_status for done in found.all(line)] == [0, 1]
    assert found.one(line + "; echo rc=$?", 1).exit_status == 1
    with pytest.raises(ReplayMismatch, match="nothing such"):
        found.one("nothing such")


class Lines:
    def __init__(self) -> None:
        self.text = b""

    def feed(self, data: bytes) -> None:
        self.text += data

    def close(self) -> list[bytes]:
        return self.text.splitlines()


async def test_a_script_answers_argv_and_predicates_and_feeds_the_sink() -> None:
    transport = ReplayTransport(
        [
            (("mailq",), Completed(0, b"a\nb\n")),
            (lambda command: command.script == "edit.sh", Completed(4)),
        ],
        [Transcript((("", "220 x"),))],
    )
    assert (await transport.run(Command(("x",), script="edit.sh"))).exit_status == 4
    assert (await transport.run(Command(("mailq",), sink=Lines()))).result == [b"a", b"b"]
    assert (await transport.talk(Dialogue("127.0.0.1", 25, ()))).exchanges == (("", "220 x"),)
    with pytest.raises(ReplayMismatch, match=r"127\.0\.0\.1 port 25"):
        await transport.talk(Dialogue("127.0.0.1", 25, ()))
    with pytest.raises(ReplayMismatch, match=r"sudo -n edit\.sh 'a b'"):
        await transport.run(Command(("a b",), script="edit.sh", become=True))


def test_a_command_is_typed_as_a_person_would() -> None:
    assert typed(Command(("postsuper", "-d", "-"), become=True)) == "sudo -n postsuper -d -"
    assert typed(Command(("a b",), script="edit.sh")) == "edit.sh 'a b'"
