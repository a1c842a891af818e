"""Parts of the lab that need neither root nor a network."""

from __future__ import annotations

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab import images, lanes
from tests.lab.dns import MX, NXDOMAIN, Zone
from tests.lab.hosts import ALL
from tests.lab.images import mirrors
from tests.lab.inject import _stuffed, as_bytes
from tests.lab.processes import Process
from tests.lab.sink import Sink, _path


def query(name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0" + labels + b"\0" + struct.pack("!HH", kind, 1)


def test_dns_names_the_mail_host_of_a_domain_and_denies_the_rest_at_once() -> None:
    zone = Zone({"pf1.lab.test": "10.0.0.1"}, {"ok.test": "10.0.0.2"})
    answer = zone.answer(query("OK.test", MX))
    assert b"\x02mx\x02ok\x04test\0" in answer
    assert answer[7] == 1
    assert zone.answer(query("11.0.77.10.in-addr.arpa", 12))[3] & 15 == NXDOMAIN
    assert zone.answer(query("ok.test", 28))[3] & 15 == 0  # the name exists, only not with this type
    assert zone.answer(query("mx.ok.test", 1)).endswith(bytes([10, 0, 0, 2]))


@pytest.mark.parametrize("packet", [b"", b"x" * 11, query("ok.test", 1)[:20]])
def test_dns_does_not_answer_broken_packets(packet: bytes) -> None:
    with pytest.raises((ValueError, IndexError, struct.error)):
        Zone({}, {}).answer(packet)


@pytest.mark.parametrize(
    ("command", "address"),
    [
        ("FROM:<a@b.test> SIZE=3", "a@b.test"),
        ("FROM:<>", ""),
        ('TO:<"a>b"@c.test>', '"a>b"@c.test'),
        ('TO:<"a\\">b"@c.test> X', '"a\\">b"@c.test'),
    ],
)
def test_the_sink_reads_quoted_paths(command: str, address: str) -> None:
    assert _path(command) == address


def test_a_message_that_the_sink_still_writes_is_not_read_half(tmp_path: Path) -> None:
    sink = Sink(tmp_path)
    message = {"recipients": ["a@ok.test"], "data": "x" * 100_000}
    sink.record(message)
    written = (tmp_path / "sink.jsonl").read_text()
    for cut in (1, 50_000, len(written) - 1):
        (tmp_path / "sink.jsonl").write_text(written + written[:cut])
        assert sink.messages("a@ok.test") == [message]
    (tmp_path / "sink.jsonl").write_text(written * 2)
    assert sink.messages() == [message, message]


def test_the_injector_keeps_odd_bytes_and_numbers_messages() -> None:
    assert as_bytes(os.fsdecode(b"\xff{i}@x.test"), 7) == b"\xff7@x.test"
    assert as_bytes("ü{i}", 1) == "ü1".encode()


def test_the_injector_doubles_leading_dots() -> None:
    assert _stuffed(b".a\r\nb.\r\n.") == b"..a\r\nb.\r\n..\r\n"


def test_mirrors_come_from_the_machine_else_from_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MXFLEET_LAB_MIRROR", raising=False)
    assert mirrors("deb http://archive.ubuntu.com/ubuntu noble main") == (
        "http://deb.debian.org/debian",
        "http://deb.debian.org/debian-security",
    )
    assert mirrors("URIs: https://m.example/debian/\n", "deb http://s.example/debian-security x main") == (
        "https://m.example/debian",
        "http://s.example/debian-security",
    )


def test_a_pid_of_another_time_is_not_ours() -> None:
    mine = Process.of(os.getpid())
    assert mine.is_alive
    assert not Process(mine.pid, "1", mine.boot).is_alive
    assert not Process(mine.pid, mine.started, "another boot").is_alive


@pytest.mark.parametrize(
    ("test", "group"),
    [
        ("tests/lab/test_exim_queue.py::test_a_purge[ex1]", "test_exim_queue-ex1"),
        ("tests/lab/test_opensmtpd_queue.py::test_a_purge[os2-delete]", "test_opensmtpd_queue-os2"),
        ("tests/lab/test_lab.py::test_each_instance_has_its_own_queue", "test_lab"),
        ("tests/lab/test_qmail_blocks.py::test_it[pf1@x.example]", "test_qmail_blocks"),
        ("tests/lab/test_story.py::test_hold[pf2/postfix]", "test_story"),
        ("tests/lab/test_bad_input.py::test_a_pattern[pf1-more]", "product"),
        ("tests/lab/test_qmail_story.py::test_mail", "product"),
        ("tests/browser/test_login.py::test_a_line[pf1]", "tests/browser/test_login.py"),
    ],
)
def test_a_modules_tests_of_one_host_are_a_group_and_those_of_the_product_are_three(test: str, group: str) -> None:
    assert lanes.group_of(test, ALL) == group


def test_the_modules_that_come_first_exist() -> None:
    assert all((Path(lanes.__file__).parent / f"{module}.py").exists() for module in lanes.FIRST)


def test_lanes_have_networks_and_names_of_their_own() -> None:
    networks = [lanes.network_of("10.77.4", number) for number in range(9)]
    assert networks[:3] == ["10.77.4", "10.77.20", "10.77.36"]
    assert len(set(networks)) == len(networks)
    assert [lanes.name_of("mxl0", number) for number in (0, 1, 12)] == ["mxl0", "mxl0-1", "mxl0-12"]


def test_a_process_of_pytest_xdist_is_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MXFLEET_LAB_LANE", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    assert lanes.lane() == 0
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    assert lanes.lane() == 1
    monkeypatch.setenv("MXFLEET_LAB_LANE", "3")
    assert lanes.lane() == 3


def test_images_of_a_suite_are_made_of_one_base_and_each_tells_that_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []

    def bootstrap(building: Path, suite: str, options: list[str]) -> None:
        building.mkdir()
        made.append(options[0])

    monkeypatch.setenv("MXFLEET_LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(images, "bootstrap", bootstrap)
    wanted = [("postfix",), ("sendmail",), ("exim4",), ("opensmtpd",), ("mailfront",)]
    with ThreadPoolExecutor(5) as pool:
        roots = set(pool.map(lambda packages: images.ensure_image("bookworm", packages), [*wanted, *wanted]))
    assert len(roots) == 5
    assert sorted(made) == ["--variant=custom"] * 5 + ["--variant=minbase"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 6
    assert said[0].startswith("lab: image of bookworm, which the others are made of: ")
    assert {line.rpartition(":")[0] for line in said[1:]} == {f"lab: image of bookworm with {one[0]}" for one in wanted}
