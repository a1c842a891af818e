"""The reader of recorded sessions."""

import pytest

from fleet.mta.steps import Completed
from tests.recorded import TRANSCRIPTS, exchange, exchanges, parse

TEXT = b"""# one; report goes to stderr
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

ops@pf1$ cat 'a
b'
--- exit None   30.00 s
--- stdout
--- stderr
"""


def test_a_transcript_is_read_with_status_and_both_streams_of_what_was_typed_on_the_host() -> None:
    first, again, listed, cut = parse(TEXT)
    assert first.line == "sudo -n postsuper -c /etc/postfix2 -d 3F5DD30C44F"
    removed = b"postsuper: 3F5DD30C44F: removed\npostsuper: Deleted: 1 message\n"
    assert first.completed == Completed(0, b"", removed, None, 0.02)
    assert again.completed.exit_status == 1
    assert listed.completed == Completed(3, b"first\n\n--- not a marker\n", b"", None, 0.03)
    assert (cut.line, cut.completed.exit_status) == ("cat 'a\nb'", -1)


@pytest.mark.parametrize("text", [b"", b"ops@pf1$ true\n", b"ops@pf1$ true\n--- exit 0   0.1 s\nout\n"])
def test_what_is_no_transcript_is_an_error_and_no_empty_session(text: bytes) -> None:
    with pytest.raises(ValueError, match="--- exit"):
        parse(text)


def test_every_session_that_was_recorded_is_read_whole() -> None:
    files = sorted(TRANSCRIPTS.rglob("*.txt"))
    assert len(files) > 40
    assert [path for path in files if not exchanges(str(path.relative_to(TRANSCRIPTS).with_suffix("")))] == []


def test_an_answer_is_found_by_parts_of_its_command() -> None:
    assert b"Deleted: " in exchange("postfix-3.7/05-delete", "postsuper", "-d -").stderr
