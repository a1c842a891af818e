"""Our own list goes with its last block, but never while the MTA's configuration names it in some other way too."""

import os
from pathlib import Path

import pytest

from fleet.mta.operations import SenderBlock, SenderUnblock
from fleet.mta.records import Context, Ended
from tests.unit import real_scripts
from tests.unit.list_kinds import KINDS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the scripts edit only what root's own configuration names")

CONTEXT = Context(now=0, job="job-1", wiring_approved=True, undo=True)
OWN = {
    "postfix, own map": ("main.cf", "also = hash:{}\n"),
    "opensmtpd, own table": ("smtpd.conf", "table also file:{}\n"),
}


@pytest.mark.parametrize("is_named", [False, True])
@pytest.mark.parametrize("kind", OWN)
def test_our_own_list_goes_with_its_last_block_and_stays_without_it_where_it_is_named(
    kind: str, is_named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_scripts, "RUN", str(tmp_path))
    (tmp_path / "host").mkdir()
    host = KINDS[kind](tmp_path / "host")
    assert (
        host.drive(host.adapter.sender_block(host.instance, SenderBlock("bulk.test"), CONTEXT)).ended is Ended.SUCCEEDED
    )
    if is_named:
        name, line = OWN[kind]
        with (host.root / name).open("a") as file:
            file.write(line.format(host.path))
    freed = host.drive(host.adapter.sender_unblock(host.instance, SenderUnblock("bulk.test"), CONTEXT))
    assert freed.ended is Ended.SUCCEEDED
    assert host.content() == (host.head if is_named else None)
    assert not host.has_map or host.map.exists() is is_named
