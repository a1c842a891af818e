"""Changes of lists that are cut off, or cannot go on: map and file belong together, nothing of others is lost, and what
is said is so."""

import os
import re
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

import pytest

from tests.unit import real_scripts
from tests.unit.root_scripts import MAPS, Edited, digest_of, edited

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can exchange files of others")

ALL_STEPS = "MXFLEET_FAULT_ALL_STEPS" in os.environ
"""Every step of a change is tried then, which takes minutes; else those beside the trades."""
CUT = "kill -s {:d} -- -$(cut -d ' ' -f 5 /proc/$$/stat)"
CREATIONS = ("sendmail_creation", "postfix_creation")


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_scripts, "RUN", str(tmp_path))


def steps(made: Edited, *beside: int) -> tuple[int, ...]:
    """Numbers of the steps so far from where both files are traded, or of all. Two programs trade one file."""
    assert made.run().exit_status == 0
    names = made.steps()
    traded = len(names) - names[::-1].index("sync")
    return tuple(range(names.index("mktemp") + 2, len(names) + 1)) if ALL_STEPS else tuple(traded + at for at in beside)


def pair(made: Edited) -> tuple[str, ...]:
    """What stands in the file and in its map; the stand-in builds one of the same text."""
    return tuple(path.read_text() if path.exists() else "" for path in made.files)


def is_together(made: Edited) -> bool:
    return pair(made) in ((made.old,) * len(made.files), (made.new,) * len(made.files))


@pytest.mark.parametrize("signal", [SIGKILL, SIGTERM])
@pytest.mark.parametrize("kind", MAPS)
def test_after_a_cut_the_next_reading_finds_file_and_map_that_belong_together(kind: str, signal: Signals) -> None:
    with edited(kind) as made:
        for when in steps(made, *((-3, -1) if signal is SIGKILL else (-2,))):
            made.reset()
            cut = made.run(when, CUT.format(signal))
            assert cut.exit_status == (-SIGKILL if signal is SIGKILL else 0) or ALL_STEPS, (when, cut)
            assert signal is SIGKILL or is_together(made), (when, cut)
            # Sendmail opens no map that has a second name.
            assert all(path.stat().st_nlink == 1 for path in made.files if path.exists()), (when, cut)
            seen = made.ask("read")
            assert is_together(made), (when, cut, seen)
            told = f"{digest_of(made.list.read_text())} fits" if made.list.exists() else "- absent"
            assert (seen.exit_status, seen.stdout.split(b"\n")[0].decode()) == (0, told), (when, seen)
            assert made.leftovers() == [], (when, seen)
            assert made.old in ("", *pair(made), *made.backups()), when


@pytest.mark.parametrize("kind", CREATIONS)
def test_a_creation_that_was_cut_between_map_and_file_is_made_by_the_next_change(kind: str) -> None:
    with edited(kind) as made:
        for when in steps(made, -3):
            made.reset()
            made.run(when, CUT.format(SIGKILL))
            again = made.run(digest=digest_of(made.list.read_text() if made.list.exists() else ""))
            assert (again.exit_status, pair(made)) == (0, (made.new,) * 2), (when, again)


def test_smtpd_is_told_of_a_table_whose_change_was_cut_before_that() -> None:
    with edited("opensmtpd") as made:
        made.run()
        when = made.steps().index("smtpctl") + 1
        made.reset()
        made.run(when, CUT.format(SIGKILL))
        seen = made.ask("read")
        assert (seen.exit_status, made.list.read_text(), made.leftovers()) == (0, made.new, [])
        assert made.steps()[when:].count("smtpctl") == 1


def test_what_came_to_hand_and_is_no_file_is_moved_beside_and_never_deleted() -> None:
    with edited("exim_removal") as made:
        made.run()
        when = made.steps().index("sync") - 1
        made.reset()
        (made.tools / "next").write_text(CUT.format(SIGKILL))
        then = f"echo {when + 1} {when} >{made.tools}/when; cp {made.tools}/next {made.tools}/hook"
        made.run(when, f"rm list; mkdir list; echo his >list/own; {then}")
        assert not made.list.exists()
        made.list.write_text(made.old)
        assert made.ask("read").exit_status == 0
        assert made.list.read_text() == made.old
        [kept] = made.place.glob("*/own")
        assert (kept.read_text(), made.leftovers()) == ("his\n", [])


def test_a_map_never_has_a_second_name_with_which_sendmail_would_not_open_it() -> None:
    with edited("sendmail") as made:
        made.run()
        for when in [at for at, name in enumerate(made.steps(), 1) if name == "cp"]:
            made.reset()
            assert made.run(when, "stat -c %h list list.db >../links").exit_status == 0
            assert (made.place.parent / "links").read_text() == "1\n1\n", when


@pytest.mark.parametrize("kind", ["exim", "sendmail"])
def test_what_a_program_still_writes_into_the_old_file_is_in_the_backup(kind: str) -> None:
    with edited(kind) as made:
        made.run()
        when = len(made.steps()) - made.steps()[::-1].index("sync")
        made.reset()
        done = made.run(when, "echo late | tee -a list.mxfleet-work.*/hand")
        assert (done.exit_status, pair(made)) == (0, (made.new,) * len(made.files)), done
        assert made.backups() == {f"{made.old}late\n"}


def test_two_backups_of_one_second_are_both_kept() -> None:
    with edited("exim") as made:
        (made.tools / "date").write_text("#!/bin/sh\necho 20261130000000\n")
        (made.tools / "date").chmod(0o755)
        [when] = steps(made, 0)[-1:]
        made.reset()
        made.run(when, CUT.format(SIGKILL))
        assert made.run(digest=digest_of(made.new)).exit_status == 0
        assert made.backups() == {made.old, made.new}


def test_a_backup_that_cannot_be_made_stays_in_the_work_directory_which_is_told() -> None:
    with edited("exim") as made:
        mv = made.tools / "real/mv"
        mv.write_text('#!/bin/sh\ncase "$*" in -nT*) exit 1 ;; esac\nexec /bin/mv "$@"\n')
        mv.chmod(0o755)
        done = made.run()
        [work] = made.leftovers()
        assert (done.exit_status, (made.place / work / "hand").read_text()) == (0, made.old)
        assert f"it is in ./{work}, beside it" in done.stderr.decode()
        mv.unlink()
        assert made.ask("read").exit_status == 0
        assert (made.backups(), made.leftovers()) == ({made.old}, [])


def test_an_exchange_in_two_steps_that_was_cut_between_them_loses_nothing() -> None:
    with edited("exim", ("mv", "perl", "python3")) as made:
        [when] = steps(made, -2)[-1:]
        made.reset()
        made.run(when, CUT.format(SIGKILL))
        assert made.list.read_text() == made.new
        assert made.ask("read").exit_status == 0
        assert (made.backups(), made.leftovers()) == ({made.old}, [])


FULL = """#!/bin/sh
case "$*" in *hand*../*) echo "cannot: No space left on device" >&2; exit 1 ;; esac
exec /usr/bin/{} "$@"
"""


@pytest.mark.parametrize(("kind", "program"), [("sendmail", "perl"), ("sendmail_creation", "mv")])
def test_what_the_system_refuses_is_not_told_as_somebodys_edit(kind: str, program: str) -> None:
    with edited(kind, ("mv", "python3")) as made:
        (made.tools / "real" / program).write_text(FULL.format(program))
        (made.tools / "real" / program).chmod(0o755)
        done = made.run()
        assert (done.exit_status, pair(made)) == (73, (made.old,) * 2), done
        assert b"No space left" in done.stderr
        assert b"meanwhile" not in done.stderr
        assert made.leftovers() == []


REFUSING = {
    "opensmtpd": {"real/smtpctl": "#!/bin/sh\n{}; exit 1\n"},
    "postfix_wiring": {"postfix": "#!/bin/sh\n[ $3 != check ] || {{ {}; exit 1; }}\n"},
    "opensmtpd_wiring": {
        "real/systemctl": "#!/bin/sh\n[ $1 != status ] || exec echo '* smtpd.service'\n{}; touch {tools}/down\n",
        "real/smtpctl": "#!/bin/sh\n[ ! -e {tools}/down ]\n",
    },
}


@pytest.mark.parametrize("his", ["", "# late\n"])
@pytest.mark.parametrize("kind", REFUSING)
def test_the_old_one_is_back_is_said_only_when_it_is(kind: str, his: str) -> None:
    with edited(kind) as made:
        for name, text in REFUSING[kind].items():
            edit = f"echo '{his.strip()}' >>{made.list}" if his else ":"
            (made.tools / name).write_text(text.format(edit, tools=made.tools))
            (made.tools / name).chmod(0o755)
        done = made.run()
        assert (done.exit_status, made.leftovers()) == (65, []), done
        assert re.search(rb"the old one is (not )?back", done.stderr), done
        assert (b"the old one is back" in done.stderr) == (not his)
        assert made.list.read_text().startswith(made.new if his else made.old)
        assert his in made.list.read_text()


@pytest.mark.parametrize("where", ["main.cf", "master.cf"])
def test_a_map_that_the_configuration_names_in_any_way_is_not_removed(where: str) -> None:
    with edited("postfix_removal") as made:
        (made.place / where).write_text("x = check_sender_access hash:${config_directory}/mxfleet_senders\n")
        done = made.run()
        assert (done.exit_status, pair(made)) == (69, (made.old,) * 2), done
        (made.place / where).write_text("")
        assert (made.run().exit_status, pair(made)) == (0, ("", ""))
