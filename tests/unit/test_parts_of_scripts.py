"""A part of a script that is ended by a signal, as by a kernel out of memory, ends the script: half is never told."""

import os
from pathlib import Path

import pytest

from fleet.mta.steps import Command, Completed
from tests.unit import real_scripts, smtpd_spool
from tests.unit.real_scripts import run_script
from tests.unit.root_scripts import Edited, edited
from tests.unit.sendmail_host import ARRIVAL, SendmailHost

ID = "AAAAAA1"


def killed(directory: Path, program: str) -> Path:
    """Programs with one among them that is ended as soon as it begins."""
    tools = directory / "tools"
    tools.mkdir()
    (tools / program).write_text("#!/bin/sh\nkill -KILL $$\n")
    (tools / program).chmod(0o755)
    return tools


def is_refused(done: Completed) -> bool:
    return done.exit_status in (70, 74) and b"end\n" not in done.stdout


@pytest.mark.parametrize(
    ("action", "program"),
    [
        ("out", "mv"),
        *(("back", program) for program in ("mv", "date", "find", "awk", "cat")),
        ("erase", "rm"),
        ("look", "find"),
    ],
)
def test_of_postfix(tmp_path: Path, action: str, program: str) -> None:
    there = tmp_path / "queue/mxfleet-quarantine/job-1"
    there.mkdir(parents=True)
    (tmp_path / "queue/hold").mkdir()
    for directory in (there.parent, there):
        directory.chmod(0o700)
    ((tmp_path / "queue/hold" if action == "out" else there) / ID).write_text("x")
    words = (action, str(tmp_path / "queue"))
    stdin = f"job-1\n{ID}\n".encode()
    command = Command(words, script="postfix_quarantine.sh", stdin=stdin, mutates=action != "look")
    assert is_refused(run_script(command, killed(tmp_path, program)))
    whole = run_script(command)
    told = {"out": f"{ID}\n", "look": f"{ID}\n", "back": f"ours {ID}\n", "erase": ""}[action]
    assert (whole.exit_status, whole.stdout.decode()) == (0, f"{told}end\n")


@pytest.mark.parametrize(
    ("action", "program"), [("out", "find"), ("out", "sort"), ("out", "mv"), ("back", "cut"), ("back", "mv")]
)
def test_of_sendmail(tmp_path: Path, action: str, program: str) -> None:
    host = SendmailHost(tmp_path / "host")
    name = host.add("6AKAxcId000281")
    words = (action, "none", f"{host.root}/mqueue/q1")
    stdin = f"job-1\n{name} {ARRIVAL} news@bulk.example\n".encode()
    command = Command(words, script="sendmail_change.sh", stdin=stdin, mutates=True)
    if action == "back":
        assert (
            run_script(Command(("out", *words[1:]), script="sendmail_change.sh", stdin=stdin, mutates=True)).exit_status
            == 0
        )
    assert is_refused(run_script(command, killed(tmp_path, program)))
    assert run_script(command).exit_status == 0


@pytest.mark.parametrize(("program", "status"), [("xargs", 74), ("grep", 64), ("nothing", 0)])
def test_of_exim(tmp_path: Path, program: str, status: int) -> None:
    exim = tmp_path / "exim"
    exim.write_text("#!/bin/sh\nexit 1\n")
    exim.chmod(0o755)
    command = Command(
        ("out", str(exim), str(tmp_path)), script="exim_quarantine.sh", stdin=b"job-1\n1xUMSQ-00005F-0r\n", mutates=True
    )
    done = run_script(command, killed(tmp_path, program))
    assert (done.exit_status, b"end\n" in done.stdout) == (status, status == 0), done


@pytest.mark.parametrize(("fake", "status"), [("kill -KILL $$", 70), ("exit 1", 0)])
def test_of_sendmails_delete_which_keeps_the_data_of_a_queue_file_that_stays(
    tmp_path: Path, fake: str, status: int
) -> None:
    host = SendmailHost(tmp_path / "host")
    name = host.add("6AKAxcId000281")
    before = host.files()
    tools = killed(tmp_path, "rm")
    (tools / "rm").write_text(f'#!/bin/sh\ncase $* in *[qd]f6AK*) {fake} ;; esac\nexec /bin/rm "$@"\n')
    stdin = f"job-1\n{name} {ARRIVAL} news@bulk.example\n".encode()
    words = ("delete", "none", f"{host.root}/mqueue/q1")
    done = run_script(Command(words, script="sendmail_change.sh", stdin=stdin, mutates=True), tools)
    assert done.exit_status == status, done
    assert host.files() == before
    assert f"{name} done".encode() not in done.stdout


ENVELOPE = "17e3a5b1"


def smtpd_tools(directory: Path, program: str, text: str) -> tuple[Path, Path]:
    """A spool with a message, and the programs, among them one of ours."""
    spool, tools = directory / "spool", directory / "tools"
    tools.mkdir()
    smtpd_spool.add(spool, ENVELOPE)
    for name, content in (("smtpctl", smtpd_spool.SMTPCTL.format(spool=spool)), (program, text)):
        (tools / name).write_text(content)
        (tools / name).chmod(0o755)
    return spool, tools


def quarantine(spool: Path, tools: Path | None, action: str, word: str) -> Completed:
    words = (str(spool.parent / "tools/smtpctl"), str(spool), action)
    stdin = f"job-1\n{ENVELOPE} {word}\n".encode()
    return run_script(Command(words, script="opensmtpd_quarantine.sh", stdin=stdin, mutates=True), tools)


@pytest.mark.parametrize("action", ["erase", "delete"])
def test_of_opensmtpd_of_which_a_copy_could_not_be_removed(tmp_path: Path, action: str) -> None:
    rm = f'#!/bin/sh\ncase $* in */{ENVELOPE}) exit 1 ;; esac\nexec /bin/rm "$@"\n'
    spool, tools = smtpd_tools(tmp_path, "rm", rm)
    if action == "erase":
        assert quarantine(spool, None, "out", "1795172609").stdout == f"{ENVELOPE}\nend\n".encode()
    done = quarantine(spool, tools, action, "-" if action == "erase" else "1795172609")
    assert done.stdout == f"{ENVELOPE}\nend\n".encode()
    assert list(spool.glob(f"mxfleet-quarantine/*/{ENVELOPE}/message"))
    assert quarantine(spool, None, "erase", "-").stdout == b"end\n"
    assert not list(spool.glob("mxfleet-quarantine/**/message"))


def test_of_opensmtpd_that_was_cut_off_before_it_moved_anything_leaves_no_empty_copy(tmp_path: Path) -> None:
    spool, _ = smtpd_tools(tmp_path, "rm", '#!/bin/sh\nexec /bin/rm "$@"\n')
    assert quarantine(spool, None, "out", "1795172609").stdout == f"{ENVELOPE}\nend\n".encode()
    (spool / "mxfleet-quarantine/job-0/0badcafe").mkdir(parents=True)
    assert quarantine(spool, None, "out", "1795172609").stdout == f"{ENVELOPE}\nend\n".encode()
    assert [each.name for each in spool.glob("mxfleet-quarantine/*/????????")] == [ENVELOPE]


def test_of_opensmtpd_whose_owner_could_not_be_given_back(tmp_path: Path) -> None:
    spool, tools = smtpd_tools(tmp_path, "chown", "#!/bin/sh\nexit 1\n")
    assert quarantine(spool, None, "out", "1795172609").exit_status == 0
    assert quarantine(spool, tools, "back", "wait").stdout == f"{ENVELOPE}\nend\n".encode()
    assert quarantine(spool, None, "back", "wait").stdout == b"end\n"
    assert (spool / "queue/17" / ENVELOPE / "message").exists()


def listed(directory: Path, find: str) -> Completed:
    """What quarantine_find.sh says of a quarantine, with that for find(1)."""
    (directory / "queue/mxfleet-quarantine/job-1").mkdir(parents=True)
    (directory / "queue/mxfleet-quarantine/job-1" / ID).touch()
    tools = directory / "tools"
    tools.mkdir()
    (tools / "find").write_text(f'#!/bin/sh\n/usr/bin/find "$@"\n{find}\n')
    (tools / "find").chmod(0o755)
    return run_script(Command(("postfix", str(directory / "queue")), script="quarantine_find.sh"), tools)


@pytest.mark.parametrize(
    ("find", "is_whole"),
    [
        ("echo \"find: './x': No such file or directory\" >&2; exit 1", True),
        ("echo \"find: './x': Permission denied\" >&2; exit 1", False),
        ("echo \"find: './x': Input/output error\" >&2; exit 1", False),
        ("exit 1", False),
        ("kill -KILL $$", False),
    ],
)
def test_what_vanished_while_we_looked_is_no_failure_and_all_else_is(tmp_path: Path, find: str, is_whole: bool) -> None:
    done = listed(tmp_path, find)
    told = f"in {tmp_path}/queue\n./mxfleet-quarantine/job-1/{ID}\nend 1 0 0\n".encode()
    assert done.exit_status == (0 if is_whole else 74)
    assert done.stdout == told or not is_whole


POSTCAT = """#!/bin/sh
echo "$4 of it"
case $4 in {part}) kill -KILL $$ ;; esac
"""


@pytest.mark.parametrize(("part", "is_whole"), [("-b", False), ("-h", False), ("none", True)])
def test_of_postfixs_contents(tmp_path: Path, part: str, is_whole: bool) -> None:
    (tmp_path / "postcat").write_text(POSTCAT.format(part=part).replace("$4", "$3"))
    (tmp_path / "postcat").chmod(0o755)
    stdin = f"100000 10 10 10\n{ID}\n".encode()
    done = run_script(Command((str(tmp_path), "/etc/postfix"), script="postfix_content.sh", stdin=stdin))
    assert (done.exit_status, done.stdout.endswith(b"end\n")) == ((0, True) if is_whole else (74, False)), done


def kill(made: Edited, program: str) -> None:
    """Have that program be ended as soon as it begins, and leave a sign."""
    tool = made.tools / ("real" if (made.tools / "real" / program).exists() else ".") / program
    tool.write_text(f"#!/bin/sh\n: >{made.tools}/killed\nkill -KILL $$\n")
    tool.chmod(0o755)


PARTS_OF_CHANGES = [
    ("exim", "awk"),
    ("exim", "sha256sum"),
    ("sendmail", "awk"),
    ("sendmail", "namei"),
    ("sendmail", "wc"),
    ("postfix", "dd"),
    ("postfix", "postconf"),
    ("postfix", "postmap"),
    ("postfix_removal", "grep"),
    ("postfix_removal", "postconf"),
    ("postfix_wiring", "postconf"),
    ("postfix_wiring", "tr"),
    ("opensmtpd_wiring", "awk"),
    ("opensmtpd_wiring", "ps"),
    ("opensmtpd_wiring", "smtpctl"),
]


@pytest.fixture
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_scripts, "RUN", str(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="the scripts edit only what root's own configuration names")
@pytest.mark.usefixtures("_own_locks")
@pytest.mark.parametrize(("kind", "program"), PARTS_OF_CHANGES)
def test_of_a_change_of_a_list_which_is_not_made_then(kind: str, program: str) -> None:
    with edited(kind) as made:
        kill(made, program)
        done = made.run()
        assert (made.tools / "killed").exists()
        assert done.exit_status != 0, done
        assert [path.read_text() for path in made.files] == [made.old] * len(made.files), done
        assert b"is back" not in done.stderr


ANSWERING = [
    *(("exim", action, program) for action in ("read", "query") for program in ("awk", "dd", "namei")),
    ("exim", "read", "sha256sum"),
    ("exim", "read", "hostname"),
    ("exim", "query", "cat"),
    ("sendmail", "query", "makemap"),
    ("postfix", "read", "postconf"),
    ("postfix", "query", "postmap"),
    ("postfix_wiring", "read", "dd"),
    ("opensmtpd_wiring", "read", "sha256sum"),
]


@pytest.mark.skipif(os.geteuid() != 0, reason="the scripts edit only what root's own configuration names")
@pytest.mark.usefixtures("_own_locks")
@pytest.mark.parametrize(("kind", "action", "program"), ANSWERING)
def test_of_an_answer_about_a_list_which_is_none_then(kind: str, action: str, program: str) -> None:
    with edited(kind) as made:
        assert made.ask(action, "his@x.test\n").exit_status == 0
        kill(made, program)
        done = made.ask(action, "his@x.test\n")
        assert (made.tools / "killed").exists()
        is_cut = action == "query" and not done.stdout.endswith(b"end\n")
        assert done.exit_status not in (0, 66) or is_cut, done
