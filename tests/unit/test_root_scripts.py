"""Scripts that change lists and configurations as root: who else may write in the directory neither gains nor loses."""

import os
import struct
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from fleet.mta.types import Completed
from tests.unit import real_scripts
from tests.unit.root_scripts import EDITED, OTHER, Edited, edited

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to lose here")

EVERY = int(os.environ.get("MXFLEET_STEPS_EACH", "5"))
"""Every which step of a script is tried; 1 for all of them."""
ENOUGH = 0, 76  # done, changed meanwhile


def digest_of(text: str) -> str:
    return sha256(text.encode()).hexdigest() if text else "-"


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_scripts, "RUN", str(tmp_path))


def steps(made: Edited, first: int = 1) -> Iterator[int]:
    """Numbers of steps to try, of those that a whole run has. Before each the directory is as at first."""
    assert made.run().exit_status == 0
    for when in range(first, made.steps() + 1, EVERY):
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
@pytest.mark.parametrize("kind", EDITED)
def test_an_administrators_edit_between_any_two_steps_is_never_lost(kind: str, how: str) -> None:
    with edited(kind) as made:
        for when in steps(made):
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


@pytest.mark.parametrize("kind", EDITED)
def test_a_change_that_is_cut_off_anywhere_leaves_a_whole_file_and_the_next_one_tidies_up(kind: str) -> None:
    with edited(kind) as made:
        for when in steps(made, 2):
            done = made.run(when, "kill -9 -- -$(cut -d ' ' -f 5 /proc/$$/stat)")
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
ATTACKS = {
    "links to a file": "for each in {names}; do mv $each was.$each; ln -s ../victim/file $each; done",
    "links to a directory": "for each in {names}; do mv $each was.$each; ln -s ../victim $each; done",
    "pipes": "for each in {names}; do rm -f $each; mkfifo $each; done",
    "directories": "for each in {names}; do rm -f $each; mkdir $each; ln -s ../../victim/file $each/x; done",
    "links in the place of our directory": SWAP_WORK,
    "second names of a file": "for each in {names}; do rm -f $each; ln ../victim/file $each; done",
}
AS_OTHER = f"setpriv --reuid={OTHER} --regid={OTHER} --clear-groups sh -s <<'END'\n{{}}\nEND\n"


def tree(top: Path) -> list[tuple[str, int, int, bytes]]:
    """All that can be told of what is there, but times."""
    found = sorted((top, *top.rglob("*")))
    return [(str(at), at.stat().st_mode, at.stat().st_uid, at.read_bytes() if at.is_file() else b"") for at in found]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("kind", EDITED)
def test_who_owns_the_directory_has_root_write_and_tell_nothing_elsewhere(kind: str, attack: str) -> None:
    with edited(kind) as made:
        victim = made.place.parent / "victim"
        victim.mkdir(mode=0o700)
        (victim / "file").write_text("secret\n")
        (victim / "file").chmod(0o600)
        before = tree(victim)
        hook = ATTACKS[attack].format(names=" ".join(path.name for path in made.files))
        if "second names" not in attack:  # where links are protected (fs.protected_hardlinks) only root can make them
            hook = AS_OTHER.format(hook)
        for when in steps(made, 1 + list(ATTACKS).index(attack) % EVERY):
            done = made.run(when, hook)
            assert tree(victim) == before, said(made, when, done)
            assert b"secret" not in done.stdout + done.stderr, said(made, when, done)
            for path in made.place.rglob("*"):
                if path.is_file() and not path.is_symlink() and path.stat().st_ino != (victim / "file").stat().st_ino:
                    assert "secret" not in path.read_text(), said(made, when, done)
