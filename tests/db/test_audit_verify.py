"""Every way to tamper with the audit trail is found, in the database and offline."""

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from jobs.audit import trail
from jobs.audit import verify as audit_verify
from jobs.audit.trail import Entry, append, checkpoint, export, public_key, verify
from jobs.audit.verify import event_hash, verify_lines
from jobs.models import AuditChain, AuditCheckpoint, AuditEvent
from jobs.triggers import drop_sql
from tests.db.triggers import run

pytestmark = pytest.mark.django_db


@pytest.fixture
def tampered() -> None:
    """The database of someone who may do everything: without triggers."""
    run(connection, drop_sql(connection.vendor))


def write(count: int = 5, chain: str = "acme") -> None:
    """Entries, a checkpoint after all but the last two, then those."""
    for number in range(count):
        append(Entry(chain, "job.submitted", None, object=f"job {number}", job=uuid4(), data={"number": number}))
        if number == count - 3:
            checkpoint()


FLIPS: dict[str, Callable[[AuditEvent], Any]] = {
    "chain": lambda row: "globex",
    "seq": lambda row: row.seq + 1000,
    "at": lambda row: row.at + timedelta(microseconds=1),
    "actor": lambda row: "mallory",
    "on_behalf_of": lambda row: "mallory",
    "channel": lambda row: "web",
    "source": lambda row: "192.0.2.99",
    "action": lambda row: "job.approved",
    "object": lambda row: row.object + "x",
    "job": lambda row: uuid4(),
    "data": lambda row: {**row.data, "number": 99},
    "prev_hash": lambda row: "0" * 64,
    "hash": lambda row: "0" * 64,
}


def test_every_field_of_an_entry_is_among_the_flipped_ones() -> None:
    assert set(FLIPS) == {column.name for column in AuditEvent._meta.fields} - {"id"}


@pytest.mark.usefixtures("tampered")
@pytest.mark.parametrize("seq", [1, 3, 5])
@pytest.mark.parametrize("name", sorted(FLIPS))
def test_a_flip_of_any_field_of_any_entry_is_found_where_it_is(name: str, seq: int) -> None:
    write()
    assert verify().ok
    row = AuditEvent.objects.get(chain="acme", seq=seq)
    AuditEvent.objects.filter(pk=row.pk).update(**{name: FLIPS[name](row)})
    bad = verify(["acme"]).first_bad
    assert bad is not None
    assert bad.chain == "acme"
    # What is missing in the middle shows at the next entry, at the end by the head.
    assert bad.seq in ({seq, seq + 1, seq + 1000, 5} if name in ("chain", "seq") else {seq})
    assert not verify().ok


@pytest.mark.usefixtures("tampered")
@pytest.mark.parametrize("seq", [1, 2, 3, 4, 5])
def test_a_deleted_entry_is_found(seq: int) -> None:
    write()
    AuditEvent.objects.filter(seq=seq).delete()
    bad = verify().first_bad
    assert bad is not None
    assert f"entry {seq}" in bad.reason


@pytest.mark.usefixtures("tampered")
@pytest.mark.parametrize("first", [1, 2, 3, 4])
def test_two_swapped_entries_are_found(first: int) -> None:
    write()
    one, two = AuditEvent.objects.get(seq=first), AuditEvent.objects.get(seq=first + 1)
    AuditEvent.objects.filter(pk=one.pk).update(seq=1000)
    AuditEvent.objects.filter(pk=two.pk).update(seq=first)
    AuditEvent.objects.filter(pk=one.pk).update(seq=first + 1)
    bad = verify().first_bad
    assert bad is not None
    assert bad.seq == first


@pytest.mark.usefixtures("tampered")
def test_a_cut_tail_is_found_by_the_head() -> None:
    write()
    AuditEvent.objects.filter(seq__gt=4).delete()
    bad = verify().first_bad
    assert bad is not None
    assert "the head names entry 5, the last is 4" in bad.reason


@pytest.mark.usefixtures("tampered")
def test_a_tail_that_was_cut_together_with_the_head_is_found_by_the_checkpoint() -> None:
    write()
    AuditEvent.objects.filter(seq__gt=2).delete()
    AuditChain.objects.update(seq=2, hash=AuditEvent.objects.get(seq=2).hash)
    bad = verify().first_bad
    assert bad is not None
    assert bad.seq == 3
    assert "checkpoint" in bad.reason


@pytest.mark.usefixtures("tampered")
def test_a_chain_whose_head_is_gone_is_still_looked_at() -> None:
    write()
    AuditChain.objects.all().delete()
    bad = verify().first_bad
    assert bad is not None
    assert "head is missing" in bad.reason


@pytest.mark.usefixtures("tampered")
def test_an_entry_that_was_put_behind_the_head_is_found() -> None:
    write()
    last = AuditEvent.objects.get(seq=5)
    last.pk, last.seq, last.prev_hash = None, 6, last.hash
    last.hash = event_hash(last.prev_hash, trail.event_line(last))
    last.save(force_insert=True)
    bad = verify().first_bad
    assert bad is not None
    assert "the head names entry 5, the last is 6" in bad.reason


def rewrite() -> None:
    """What someone with all rights on the database and without the key would do: a whole, fitting chain."""
    previous = ""
    for row in AuditEvent.objects.order_by("seq"):
        row.actor, row.prev_hash = "mallory", previous
        row.hash = previous = event_hash(previous, trail.event_line(row))
        row.save()
    AuditChain.objects.update(hash=previous)


@pytest.mark.usefixtures("tampered")
def test_a_full_rewrite_is_found_by_the_checkpoint() -> None:
    write()
    rewrite()
    bad = verify().first_bad
    assert bad is not None
    assert (bad.seq, "checkpoint" in bad.reason) == (3, True)


@pytest.mark.usefixtures("tampered")
def test_a_full_rewrite_with_a_forged_checkpoint_is_found_by_its_signature() -> None:
    write()
    rewrite()
    AuditCheckpoint.objects.update(hash=AuditEvent.objects.get(seq=3).hash)
    bad = verify().first_bad
    assert bad is not None
    assert "signature" in bad.reason


@pytest.mark.usefixtures("tampered")
@pytest.mark.parametrize("signature", ["", "k:", "nokey:AAAA", "é:é"])
def test_a_signature_that_is_none_is_a_bad_one(signature: str) -> None:
    write()
    AuditCheckpoint.objects.update(signature=signature)
    assert not verify().ok


@pytest.mark.usefixtures("tampered")
def test_a_full_rewrite_without_any_checkpoint_is_all_unsigned_and_found_with_kept_ones() -> None:
    write()
    kept = [trail.checkpoint_line(row) for row in AuditCheckpoint.objects.all()]
    rewrite()
    AuditCheckpoint.objects.all().delete()
    assert (verify().ok, verify().unsigned) == (True, 5)
    bad = verify_lines(map(json.loads, export()), trail.public_keys(), kept).first_bad
    assert bad is not None
    assert (bad.seq, "kept elsewhere" in bad.reason) == (3, True)


@pytest.mark.usefixtures("tampered")
def test_a_chain_that_was_deleted_altogether_is_found_with_kept_checkpoints() -> None:
    write()
    kept = [trail.checkpoint_line(row) for row in AuditCheckpoint.objects.all()]
    for model in (AuditEvent, AuditCheckpoint, AuditChain):
        model.objects.all().delete()
    assert verify().ok
    assert not verify_lines(map(json.loads, export()), trail.public_keys(), kept).ok


def test_a_checkpoint_is_made_only_for_chains_that_moved() -> None:
    append(Entry("a", "x.done", None), Entry("b", "x.done", None))
    assert sorted((row.chain, row.seq) for row in checkpoint()) == [("a", 1), ("b", 1)]
    assert checkpoint() == []
    append(Entry("b", "x.done", None))
    assert [(row.chain, row.seq) for row in checkpoint()] == [("b", 2)]
    assert (verify().checked, verify().unsigned) == (3, 0)


def test_the_command_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    write()
    call_command("audit_verify")
    assert capsys.readouterr().out == "5 entries are as they were written, 2 not yet signed\n"
    call_command("audit_verify", "--public-key")
    assert capsys.readouterr().out == public_key()


@pytest.mark.usefixtures("tampered")
def test_the_command_fails_and_names_the_entry() -> None:
    write()
    AuditEvent.objects.filter(seq=2).update(actor="mallory")
    with pytest.raises(CommandError, match="chain acme, entry 2: the hash does not fit the content"):
        call_command("audit_verify")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    write()
    write(chain="")
    (tmp_path / "export").write_text("".join(export()), encoding="utf-8")
    (tmp_path / "keys").write_text(public_key())
    return tmp_path / "export", tmp_path / "keys"


def test_an_export_verifies_offline(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert audit_verify.main([str(files[0]), "--pub", str(files[1])]) == 0
    verdict = {"ok": True, "checked": 10, "unsigned": 2, "first_bad": None, "gaps": []}
    assert json.loads(capsys.readouterr().out) == verdict


def test_no_line_of_an_export_can_be_changed_or_left_out(files: tuple[Path, Path]) -> None:
    lines = files[0].read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines):
        is_checkpoint = '"checkpoint"' in line
        for changed in [line.replace("-", "+", 1).replace('"seq": ', '"seq": 7')] + ([] if is_checkpoint else [""]):
            files[0].write_text("".join([*lines[:number], changed, *lines[number + 1 :]]), encoding="utf-8")
            assert audit_verify.main([str(files[0]), "--pub", str(files[1])]) == 1, line


@pytest.mark.parametrize("content", ["not json\n", "[]\n", "{}\n", '{"chain": "a", "type": "other"}\n', "\xff"])
def test_a_file_that_is_no_export_is_called_so(files: tuple[Path, Path], content: str) -> None:
    files[0].write_text(content, encoding="latin-1")
    with pytest.raises(SystemExit) as caught:
        audit_verify.main([str(files[0]), "--pub", str(files[1])])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("wrong", "told"),
    [("export", "export line 6: "), ("keys", "keys line 2: expected KEYID BASE64"), ("kept", "kept line 2: ")],
)
def test_a_line_that_cannot_be_read_is_told_with_its_file(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], wrong: str, told: str
) -> None:
    kept = files[0].with_name("kept")
    kept.write_text("")
    lines = {"export": files[0].read_text().splitlines()[:5], "keys": [files[1].read_text().strip()], "kept": []}
    lines["kept"] = [line for line in lines["export"] if '"checkpoint"' in line]
    files[0].with_name(wrong).write_text("\n".join([*lines[wrong], "nonsense"]))
    with pytest.raises(SystemExit):
        audit_verify.main([str(files[0]), "--pub", str(files[1]), "--checkpoints", str(kept)])
    assert told in capsys.readouterr().err


def test_the_offline_verifier_needs_neither_django_nor_a_database() -> None:
    source = Path(audit_verify.__file__).read_text(encoding="utf-8")
    imported = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imported - set(sys.stdlib_module_names) == {"cryptography"}
    assert len(source.splitlines()) < 260
