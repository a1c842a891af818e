"""Scripts that change lists and configurations as root: who else may write in the directory neither gains nor loses."""

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fleet.mta.steps import Completed
from fleet.ssh.quoting import script_text
from tests.unit import real_scripts
from tests.unit.root_scripts import EDITED, OTHER, Edited, digest_of, edited

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to lose here")

ALL_STEPS = "MXFLEET_FAULT_ALL_STEPS" in os.environ
"""Every step of a script is tried then, which takes minutes; else those at which most can happen."""
SOME = tuple(kind for kind in EDITED if kind != "exim")
OF_EACH_SCRIPT = ("sendmail", "postfix", "postfix_wiring", "opensmtpd_wiring")
ENOUGH = 0, 76  # done, changed meanwhile


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_scripts, "RUN", str(tmp_path))


@cache
def telling(kind: str, without: tuple[str, ...] = ()) -> tuple[int, ...]:
    """Numbers of the steps to try: behind the making of our directory and the last two renames, or all of them."""
    with edited(kind, without) as made:
        assert made.run().exit_status == 0
        names = made.steps()
    if ALL_STEPS:
        return tuple(range(1, len(names) + 1))
    renaming = [at for at, name in enumerate(names, 1) if name in ("mv", "perl", "python3", "exch")]
    return (names.index("mktemp") + 2, *renaming[-2:])


def steps(made: Edited, *given: Any) -> Iterator[int]:
    """Numbers of `telling` steps. Before each the directory is as at first."""
    for when in telling(*given):
        made.reset()
        yield when


def said(made: Edited, when: int, done: Completed) -> str:
    return f"step {when}: {done} {(made.tools / 'hooked').read_text()}"


@pytest.mark.parametrize("kind", EDITED)
def test_what_a_file_is_besides_its_bytes_is_kept_and_the_old_one_lies_beside_it(kind: str) -> None:
    # acl(5) as xattr: version 2, then tag, permissions, ID of user::rw-, user:7:r--, group::r--, mask::r--, other::---
    entries = ((1, 6, 0xFFFFFFFF), (2, 4, 7), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)
    with edited(kind) as made:
        for path in made.files:
            os.setxattr(path, "user.note", b"mine")
            os.setxattr(path, "system.posix_acl_access", acl)
        before = {path: path.stat() for path in made.files}
        assert made.run().exit_status == 0
        assert made.backups() == {made.old}
        assert made.leftovers() == []
        if not made.new:
            assert not made.list.exists()
            return
        assert made.list.read_text() == made.new
        for path, old in before.items():
            now = path.stat()
            assert (now.st_mode, now.st_uid, now.st_gid, now.st_nlink) == (old.st_mode, old.st_uid, old.st_gid, 1)
            assert os.getxattr(path, "user.note") == b"mine"
            assert os.getxattr(path, "system.posix_acl_access") == acl


HIS = "from:late@x.test\tREJECT"
APPENDS = "echo '{his}' >>{name}"
RENAMES = "{{ cat {name}; echo '{his}'; }} >{name}.swp; chown --reference={name} {name}.swp; mv {name}.swp {name}"
EDITS = {"in place": APPENDS, "by a rename": RENAMES}


@pytest.mark.parametrize("how", EDITS)
@pytest.mark.parametrize("kind", SOME)
def test_an_administrators_edit_between_any_two_steps_is_never_lost(kind: str, how: str) -> None:
    with edited(kind) as made:
        for when in steps(made, kind):
            hook = EDITS[how].format(name=made.list.name, his=HIS)
            if made.has_map:
                hook += f"\ncp {made.list.name} tmp; {made.tools}/real/makemap hash x <tmp; mv tmp {made.map.name}.new"
                hook += f"; cat x.db >{made.map.name}; rm x.db {made.map.name}.new"
            done = made.run(when, hook)
            assert done.exit_status in ENOUGH, said(made, when, done)
            assert HIS in made.list.read_text().splitlines(), said(made, when, done)
            assert not made.has_map or HIS in made.map.read_text().splitlines(), said(made, when, done)
            if done.exit_status == 76:
                assert made.list.read_text() == f"{made.old}{HIS}\n", said(made, when, done)
            assert made.leftovers() == [], said(made, when, done)


@pytest.mark.parametrize("kind", SOME)
def test_a_change_that_is_cut_off_anywhere_leaves_a_whole_file_and_the_next_one_tidies_up(kind: str) -> None:
    with edited(kind) as made:
        for when in steps(made, kind):
            done = made.run(when, "kill -s KILL -- -$(cut -d ' ' -f 5 /proc/$$/stat)")
            there = made.list.read_text() if made.list.exists() else ""
            assert there in (made.old, made.new), said(made, when, done)
            assert not made.has_map or made.map.read_text() in (made.old, made.new), said(made, when, done)
            again = made.run(digest=digest_of(there))
            assert again.exit_status in (0, 65, 66), said(made, when, again)  # 65, 66: it is wired already
            assert made.leftovers() == [], said(made, when, again)
            assert there == made.old or made.old in made.backups(), said(made, when, again)


SWAP_WORK = """for work in *.mxfleet-work*; do
    if [ -d $work ] && [ ! -L $work ]; then mv $work taken.$$; ln -s ../victim $work; fi
done"""
EXCHANGES_WORK = """for work in *.mxfleet-work*; do
    if [ -d $work ]; then mv $work taken.$$; mv private $work; fi
done
[ ! -d private ] || mv private {first}.mxfleet-work.x"""
ATTACKS = {
    "links to a file": "for each in {names}; do mv $each was.$each; ln -s ../victim/file $each; done",
    "links to a directory": "for each in {names}; do mv $each was.$each; ln -s ../victim $each; done",
    "pipes": "for each in {names}; do rm -f $each; mkfifo $each; done",
    "directories": "for each in {names}; do rm -f $each; mkdir $each; ln -s ../../victim/file $each/x; done",
    "links in the place of our directory": SWAP_WORK,
    "root's own directory in the place of ours": EXCHANGES_WORK,
    "second names of a file": "for each in {names}; do rm -f $each; ln ../victim/file $each; done",
}
AS_OTHER = f"setpriv --reuid={OTHER} --regid={OTHER} --clear-groups sh -s <<'END'\n{{}}\nEND\n"


def tree(top: Path) -> list[tuple[str, int, int, bytes]]:
    """All that can be told of what is there, but times."""
    found = sorted((top, *top.rglob("*")))
    return [(str(at), at.stat().st_mode, at.stat().st_uid, at.read_bytes() if at.is_file() else b"") for at in found]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("kind", OF_EACH_SCRIPT)
def test_who_owns_the_directory_has_root_write_and_tell_nothing_elsewhere(kind: str, attack: str) -> None:
    with edited(kind) as made:
        victim = made.place.parent / "victim"
        victim.mkdir(mode=0o700)
        (victim / "file").write_text("secret\n")
        (victim / "file").chmod(0o600)
        before = tree(victim)
        hook = ATTACKS[attack].format(names=" ".join(path.name for path in made.files), first=made.list.name)
        if "second names" not in attack:  # where links are protected (fs.protected_hardlinks) only root can make them
            hook = AS_OTHER.format(hook)
        for when in steps(made, kind):
            (made.place / "private").mkdir(mode=0o700)
            (made.place / "private/own").touch()
            done = made.run(when, hook)
            assert tree(victim) == before, said(made, when, done)
            assert list(made.place.rglob("own")), said(made, when, done)
            assert b"secret" not in done.stdout + done.stderr, said(made, when, done)
            for path in made.place.rglob("*"):
                if path.is_file() and not path.is_symlink() and path.stat().st_ino != (victim / "file").stat().st_ino:
                    assert "secret" not in path.read_text(), said(made, when, done)


FOREIGN = {
    "owned by somebody else": "chown {other} {base}",
    "open to everybody": "chmod 757 {base}",
    "open to a group": "chmod 775 {base}",
    "reached by somebody else's link": """mkdir {base}/his; mv {base}/maps {base}/real; ln -s ../real {base}/his/maps
        chown {other} {base}/his; ln -s his/maps {base}/maps""",
    "in somebody else's part of an open one": "chmod 1777 {base}; chown {other} {base}/maps",
}


@pytest.mark.parametrize("how", FOREIGN)
@pytest.mark.parametrize("kind", OF_EACH_SCRIPT)
def test_nothing_is_written_below_a_directory_that_somebody_else_can_exchange(kind: str, how: str) -> None:
    with edited(kind) as made:
        base = made.place.parent
        subprocess.run(["/bin/sh", "-c", FOREIGN[how].format(base=base, other=OTHER)], check=True)
        before = tree(base / "maps")
        done = made.run()
        assert (done.exit_status, done.stdout) == (66, b""), done
        assert b"others than root may write in" in done.stderr
        assert tree(base / "maps") == before


@pytest.mark.parametrize("how", ["chown {other} {file}", "chmod 664 {file}", "chmod 646 {file}"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [("exim", "exim.conf"), ("sendmail", "sendmail.cf"), ("opensmtpd", "smtpd.conf")]
    + [("postfix", name) for name in (".", "main.cf", "master.cf")],
)
def test_no_list_is_edited_that_a_configuration_names_which_others_may_write(kind: str, name: str, how: str) -> None:
    with edited(kind) as made:
        file = made.place.parent / "etc" / name
        subprocess.run(["/bin/sh", "-c", how.format(other=OTHER, file=file)], check=True)
        for done in (made.ask("read"), made.run()):
            assert (done.exit_status, done.stdout) == (66, b""), done
        assert made.list.read_text() == made.old


@pytest.mark.parametrize("how", ["chown {other} {file}", "chmod 664 {file}", "chmod 646 {file}"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [("opensmtpd_wiring", "smtpd.conf")] + [("postfix_wiring", name) for name in (".", "main.cf", "master.cf")],
)
def test_no_configuration_is_changed_that_others_may_write(kind: str, name: str, how: str) -> None:
    with edited(kind) as made:
        subprocess.run(["/bin/sh", "-c", how.format(other=OTHER, file=made.place / name)], check=True)
        for done in (made.ask("read"), made.run()):
            assert (done.exit_status, done.stdout) == (66, b""), done
            assert b"root's own" in done.stderr
        assert made.list.read_text() == made.old


@pytest.mark.parametrize("kind", ["exim", "sendmail"])
def test_without_a_way_to_exchange_only_a_rename_in_one_moment_is_lost(kind: str) -> None:
    without = ("mv", "perl", "python3")
    with edited(kind, without) as made:
        for how in EDITS.values():
            lost = 0
            for when in steps(made, kind, without):
                done = made.run(when, how.format(name=made.list.name, his=HIS))
                assert done.exit_status in ENOUGH, said(made, when, done)
                lost += HIS not in made.list.read_text().splitlines()
                assert made.leftovers() == [], said(made, when, done)
            assert lost <= (how == RENAMES)


@pytest.mark.parametrize("kind", OF_EACH_SCRIPT)
def test_nobody_else_can_open_a_lock_and_hold_it(kind: str) -> None:
    with edited(kind) as made:
        assert made.run().exit_status == 0
    locks = Path(real_scripts.RUN) / "mxfleet-locks"
    assert [locks.stat().st_mode & 0o077, *(each.stat().st_mode & 0o077 for each in locks.iterdir())] == [0, 0]


BY_PYTHON = """exec /usr/bin/env -i python3 -c 'import ctypes, os, sys
a, b = map(os.fsencode, sys.argv[-2:])
sys.exit(ctypes.CDLL(None).renameat2(-100, a, -100, b, 2) != 0)' "$@"
"""
WAYS = {
    "mv": f'[ "$1" = --exchange ] || exec /usr/bin/mv "$@"\n{BY_PYTHON}',
    "exch": BY_PYTHON,
    "perl": 'exec /usr/bin/perl "$@"',
    "python3": f'exec {sys.executable} "$@"',
}
WITHOUT_WAY = {"mv": '[ "$1" != --exchange ] || exit 1\nexec /usr/bin/mv "$@"'}


@pytest.mark.parametrize("way", [*WAYS, "none"])
def test_two_names_are_exchanged_by_what_the_host_has_and_no_link_is_followed(way: str, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in WAYS.items():
        (tools / name).write_text("#!/bin/sh\n" + (text if name == way else WITHOUT_WAY.get(name, "exit 1")))
        (tools / name).chmod(0o755)
    (tmp_path / "file").write_text("one")
    (tmp_path / "link").symlink_to("tools")
    text = f"{script_text('exchange.sh')[0]}\nfind_exchange\nexchange file link\necho $exchange_by; ls"
    environment = {"PATH": f"{tools}:/usr/bin:/bin"}
    done = subprocess.run(["/bin/sh", "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [way, "file", "link", "tools"], done
    assert (os.readlink(tmp_path / "file"), (tmp_path / "link").read_text()) == ("tools", "one")
