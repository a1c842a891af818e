"""What Exim and our scripts say of its spool, from recorded sessions of 4.96 and 4.98 and from hostile inventions."""

import re
import subprocess
from pathlib import Path

import pytest

from fleet.mta.errors import MtaNotFound, SudoDenied, UnparsedOutput
from fleet.mta.exim.attempt import attempts_of, logged_lines, own_lines
from fleet.mta.exim.discovery import blacklist_file, listeners, log_source, parse_instances, split_list
from fleet.mta.exim.parse import QueueSink, StreamedEntry, ids_input, parse_verdicts, queue_id_error, recipient_of
from fleet.mta.records import HostFacts, InstanceFacts
from fleet.mta.steps import Completed
from fleet.ssh.quoting import script_text
from tests.recorded import Exchange, exchanges

VERSIONS = ("4.96", "4.98")


def recorded(version: str, name: str) -> list[Exchange]:
    return exchanges(f"exim-{version}/{name}")


def said(version: str, name: str, words: str) -> str:
    """All that Exim printed to commands with these words."""
    found = [each.completed.stdout for each in recorded(version, name) if words in each.line]
    assert found
    return b"".join(found).decode()


def listed(data: bytes, cut: int = 0) -> tuple[list[StreamedEntry], int]:
    """The messages and the number of refused ones; `cut` feeds it in pieces of so many bytes."""
    found: list[StreamedEntry] = []
    sink = QueueSink(found.append)
    for start in range(0, len(data), cut or len(data) or 1):
        sink.feed(data[start : start + (cut or len(data))])
    ended = sink.close()
    assert ended.total == len(found)
    return found, ended.refused


def one(*lines: bytes) -> bytes:
    head = b"M 1xUMSQ-00005F-0r 1795172826 269634 0 782 queued\n"
    return head + b"".join(line + b"\n" for line in lines) + b"end 1\n"


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_headers_in_a_listing_are_those_of_their_message_whatever_they_look_like(cut: int) -> None:
    data = one(b"F <a@x.test>", b"R b@x.test", b"HM 1xUMSQ-00005F-0r 1 2", b"HX-One: end 1", b"H\tHH", b"HX y")
    found: dict[str, bytes] = {}
    sink = QueueSink(lambda message, content: found.update({message.queue_id: content.raw_headers}))
    for start in range(0, len(data), cut or len(data)):
        sink.feed(data[start : start + (cut or len(data))])
    assert sink.close().total == 1
    assert found == {"1xUMSQ-00005F-0r": b"M 1xUMSQ-00005F-0r 1 2\nX-One: end 1\n\tHH\nX y\n"}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recorded_listing_is_read_whole_whatever_the_cuts(version: str) -> None:
    data = recorded(version, "list")[0].completed.stdout
    whole, refused = listed(data)
    assert (len(whole), refused) == (6, 0)
    assert {message.sender for message in whole} == {
        '"a b"@x.test',
        "\"'; rm -rf /;'\"@x.test",
        "-bd@x.test",
        "<>",
        "multi@bulk.example",
        "jörg@bulk.example",
    }
    multi = next(message for message in whole if message.sender.startswith("multi"))
    assert [(each.address, each.state) for each in multi.recipients] == [
        ("a@defer.test", "undelivered"),
        ("b@defer.test", "undelivered"),
        ("C@Other.Test", "delivered"),
    ]
    assert multi.recipients[1].reason.endswith("RCPT TO:<b@defer.test>: 451 4.7.1 sink: try later, defer.test")
    for cut in (1, 7, 64):
        pieces, _ = listed(data, cut)
        assert [message.entry() for message in pieces] == [message.entry() for message in whole]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_listing_that_is_cut_off_anywhere_is_an_error(version: str) -> None:
    data = recorded(version, "list")[0].completed.stdout
    for end in range(len(data)):
        with pytest.raises(UnparsedOutput):
            listed(data[:end])


def test_an_empty_queue_is_empty_only_when_that_is_said() -> None:
    assert listed(b"end 0\n") == ([], 0)
    for text in (b"", b"\n", b"end", b"end 1\n", b"exim: permission denied\nend 0\n"):
        with pytest.raises(UnparsedOutput):
            listed(text)


def test_a_spool_file_that_is_not_in_the_format_is_counted_and_not_guessed() -> None:
    record = one(b"F <a@b.test>", b"R r@x.test").removesuffix(b"end 1\n")
    found, refused = listed(b"X 1AAAAA-000000-00\n" + record + b"X 1AAAAB-000000-00\nM garbage\nend 4\n")
    assert (len(found), refused) == (1, 3)


def test_a_sender_that_is_no_utf8_is_shown_escaped_and_kept() -> None:
    [message], _ = listed(one(b"F <\xff\xfe@x.test>", b"R r@x.test"))
    assert message.sender == "\\xFF\\xFE@x.test"
    assert message.sender_raw == b"\xff\xfe@x.test"


@pytest.mark.parametrize(
    ("line", "address"),
    [
        (b"r@x.test", b"r@x.test"),
        (b'"a b #1"@x.test', b'"a b #1"@x.test'),
        (b'"a 1"@x.test', b'"a 1"@x.test'),
        (b"r@x.test 3", b"r@x.test"),
        (b"r@x.test 0,2,4", b"r@x.test"),
        (b"r@x.test errors@y.test 13,-1#1", b"r@x.test"),
        (b"r@x.test  0,-1#1", b"r@x.test"),
        (b"r@x.test rfc822;r@x.test 15,3  0,-1#3", b"r@x.test"),
        (b"r@x.test  0,3  0,-1#3", b"r@x.test"),
        (b'"a 1,2 b"@x.test  0,1#1', b'"a 1,2 b"@x.test'),
    ],
)
def test_data_behind_a_recipient_are_read_from_the_end(line: bytes, address: bytes) -> None:
    assert recipient_of(line) == address


@pytest.mark.parametrize("version", VERSIONS)
def test_what_exim_says_of_each_message_counts_and_not_its_exit_status(version: str) -> None:
    text = said(version, "05-delete", "-Mrm")
    verdicts = parse_verdicts(Completed(0, f"{text}\nend\n".encode()))
    assert verdicts.changed
    assert "1AAAAA-000000-00" not in verdicts.changed
    for name in verdicts.changed:
        assert f"Message {name} has been removed\n" in text
    frozen = parse_verdicts(Completed(0, said(version, "06-hold", "-Mf").encode() + b"\nend\n"))
    assert frozen.changed
    locked = parse_verdicts(Completed(0, said(version, "12-active", "-M").encode() + b"\nend\n"))
    assert locked.locked
    assert not locked.changed


def test_a_message_that_left_between_lock_and_header_was_not_removed_by_us() -> None:
    text = (
        "Spool read error for 1xUMSQ-00005F-0w-H: No such file or directory\nContinuing to ensure all files removed\n"
        "Message 1xUMSQ-00005F-0w has been removed\nMessage 1xUMSQ-00005F-0z has been removed\nend\n"
    )
    assert parse_verdicts(Completed(0, text.encode())).changed == {"1xUMSQ-00005F-0z"}


def test_an_answer_that_does_not_come_to_its_end_is_an_error_with_its_reason() -> None:
    with pytest.raises(UnparsedOutput):
        parse_verdicts(Completed(0, b"Message 1xUMSQ-00005F-0z has been removed\n"))
    with pytest.raises(SudoDenied):
        parse_verdicts(Completed(1, b"", b"sudo: a password is required\n"))
    with pytest.raises(MtaNotFound):
        parse_verdicts(Completed(127, b"", b""))


@pytest.mark.parametrize("name", ["1xUMSQ-00005F-0r", "1xUMRh-0000000005H-4BUk"])
def test_short_and_long_message_ids_are_known(name: str) -> None:
    assert queue_id_error(name) is None
    assert ids_input([name]) == f"{name}\n".encode()


@pytest.mark.parametrize(
    "name", ["", "ALL", "1xUMSQ-00005F-0r-H", "-bd", "1xUMSQ-00005F-0r\n", "../../etc/sh-adow00-aa", "1xUMSQ_00005F_0r"]
)
def test_what_is_no_message_id_never_reaches_a_command(name: str) -> None:
    assert queue_id_error(name)
    with pytest.raises(ValueError, match=re.escape(queue_id_error(name) or "")):
        ids_input([name])


def discovered(version: str) -> InstanceFacts:
    done = recorded(version, "discover")[0].completed
    [found] = parse_instances(done, HostFacts(), "ex")
    return found


@pytest.mark.parametrize(("version", "is_split"), [("4.96", True), ("4.98", False)])
def test_an_instance_is_described_by_its_own_configuration(version: str, is_split: bool) -> None:
    found = discovered(version)
    assert found.version.startswith(version)
    assert found.id == "ex/exim", "whatever its program is called"
    assert found.queue_dirs == ("/var/spool/exim4",)
    options = found.options
    assert options["split_spool"] is is_split
    assert options["listen"] == [["0.0.0.0", 25]]
    assert options["log_source"] == "/var/log/exim4/mainlog"
    assert options["blacklist_file"] == "/etc/exim4/local_sender_blacklist"
    assert "defer.test" in options["relay_domains"]
    assert all(domain.endswith("lab.test") for domain in options["own_domains"])


def test_a_host_without_exim_has_no_instance_and_a_cut_off_answer_is_an_error() -> None:
    assert parse_instances(Completed(0, b"absent\n"), HostFacts(), "ex") == ()
    data = recorded("4.96", "discover")[0].completed.stdout
    with pytest.raises(UnparsedOutput):
        parse_instances(Completed(0, data.removesuffix(b"end\n")), HostFacts(), "ex")


def test_a_blacklist_counts_only_where_an_acl_of_smtp_denies_by_it() -> None:
    item = "senders = ${if exists{/etc/exim4/local_sender_blacklist}{/etc/exim4/local_sender_blacklist}{}}"
    settings = {"acl_smtp_rcpt": "check"}
    assert blacklist_file(settings, ["check:", "  deny", f"    {item}"]) == "/etc/exim4/local_sender_blacklist"
    assert blacklist_file(settings, ["check:", f"  deny {item}"]) == "/etc/exim4/local_sender_blacklist"
    assert blacklist_file(settings, ["other:", "  deny", f"    {item}"]) == ""
    assert blacklist_file(settings, ["check:", "  accept", f"    {item}"]) == ""
    assert blacklist_file(settings, ["check:", "  deny", f"    {item.replace('blacklist', 'callout')}"]) == ""


def test_lists_and_places_are_read_as_exim_writes_them() -> None:
    assert split_list("<; ::0 ; 0.0.0.0") == ["::0", "0.0.0.0"]
    assert split_list("a::b : c") == ["a:b", "c"]
    assert log_source({"log_file_path": "syslog : /var/log/exim/%slog", "spool_directory": "/s"}, "journald") == (
        "/var/log/exim/mainlog"
    )
    assert log_source({"log_file_path": "syslog", "spool_directory": "/s"}, "journald") == "journald"
    assert log_source({"log_file_path": "/var/log/exim/%slog-%D", "spool_directory": "/s"}, "journald") == "none"
    places = {
        "local_interfaces": "<; [192.0.2.1]:2525 ; 192.0.2.2.26 ; ::1 ; 192.0.2.3",
        "daemon_smtp_ports": "smtp : 465",
        "tls_on_connect_ports": "465",
        "disable_ipv6": "yes",
    }
    plain = [place[:2] for place in listeners(places) if place[3] != "tls"]
    assert plain == [["192.0.2.1", 2525], ["192.0.2.2", 26], ["192.0.2.3", 25]]


def test_only_exims_own_log_lines_about_the_message_say_what_became_of_it() -> None:
    lines = [
        "delivering 1xUMSQ-00005F-0r",
        '  SMTP<< 250-  => forged@x.test R=r T=t H=evil C="250 ok"',
        "LOG: MAIN",
        "  ** a@reject.test R=dns T=smtp H=mx [192.0.2.1]: SMTP error from remote mail server after RCPT "
        "TO:<a@reject.test>: 550 5.1.1 no",
        "LOG: MAIN",
        '  => "b c"@ok.test R=dns T=smtp H=mx [192.0.2.2] C="250 2.0.0 ok"',
        "delivering 1xUMSQ-00005F-0z",
        "LOG: MAIN",
        '  => sender@x.test R=dns T=smtp H=mx [192.0.2.3] C="250 bounce taken"',
    ]
    found = attempts_of(logged_lines(own_lines(lines, "1xUMSQ-00005F-0r")))
    assert {each.address: (each.outcome, each.reply) for each in found} == {
        "a@reject.test": ("bounced", "550 5.1.1 no"),
        '"b c"@ok.test': ("sent", "250 2.0.0 ok"),
    }


def content(spool: Path, stdin: str) -> bytes:
    script = "exim_content.sh"
    return subprocess.run(
        ["sh", "-c", script_text(script)[0], script, spool], input=stdin.encode(), capture_output=True, check=True
    ).stdout


@pytest.mark.parametrize("place", ["", "5"])
def test_headers_and_bodies_are_read_and_a_planted_link_is_not(tmp_path: Path, place: str) -> None:
    """What lies under a message's name and is no file of its own is never read with root's rights."""
    at = tmp_path / "input" / place
    at.mkdir(parents=True)
    name, linked, headless = "1xUMS5-00005F-0r", "1xUMS5-00005F-0s", "1xUMS5-00005F-0t"
    head = "{0}-H\nexim 100 102\n<a@b.test>\n1795172826 0\n-received_time_usec .1\nXX\n1\nr@x.test\n\n009  Subj: x\n"
    (tmp_path / "secret").write_text(f"{linked}-D\nroot:x:0:0\n")
    for each in (name, linked):
        (at / f"{each}-H").write_text(head.format(each))
    (at / f"{name}-D").write_text(f"{name}-D\none\ntwo\n")
    (at / f"{linked}-D").symlink_to(tmp_path / "secret")
    (at / f"{headless}-H").symlink_to(at / f"{name}-H")
    told = content(tmp_path, f"1000000 1000 6\n{name}\n{linked}\n{headless}\n1xUMS5-00005F-0u\n")
    assert (
        told
        == (
            f"{name} 0 8 6\nSubj: x\none\ntw{linked} 0 8 0\nSubj: x\n{headless} absent\n1xUMS5-00005F-0u absent\nend\n"
        ).encode()
    )
