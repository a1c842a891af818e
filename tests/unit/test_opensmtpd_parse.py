"""What smtpctl prints, from recorded sessions of 6.8 and 7.6 and from hostile inventions; and smtpd.conf."""

from typing import Any

import pytest

from fleet.mta.errors import MtaNotRunning, RemoteError, SudoDenied, UnparsedOutput
from fleet.mta.opensmtpd import conf
from fleet.mta.opensmtpd.discovery import parse_instance
from fleet.mta.opensmtpd.parse import QueueSink, error_of, queue_id_error
from fleet.mta.records import HostFacts, QueueEntry
from fleet.mta.steps import Completed
from tests.recorded import exchanges

VERSIONS = ("6.8", "7.6")
NOW = 1795172610


def recorded(version: str, name: str) -> list[str]:
    """The lines of envelopes in a recorded session."""
    printed = (each.completed.stdout.decode() for each in exchanges(f"opensmtpd-{version}/{name}"))
    return [line for text in printed for line in text.splitlines() if line.count("|") >= 13 and "evpid" not in line]


def script_output(lines: list[str], size: int = 340, end: str = "~listed\nend\n") -> bytes:
    """What opensmtpd_list.sh makes of these lines."""
    sizes = {f"{line[:8]} {size}" for line in lines}
    return ("\n".join(sorted([f"!{NOW}", *sizes, *lines])) + "\n" + end).encode("utf-8", "surrogateescape")


def listed(data: bytes, cut: int = 0) -> tuple[list[QueueEntry], int]:
    """The messages and the number of refused lines; `cut` feeds it in pieces of so many bytes."""
    found: list[QueueEntry] = []
    sink = QueueSink(lambda message: found.append(message.entry()))
    for start in range(0, len(data), cut or len(data) or 1):
        sink.feed(data[start : start + (cut or len(data))])
    ended = sink.close()
    assert ended.total == len(found)
    return found, ended.refused


def envelope(
    sender: str = "a@x.test", *, name: str = "00000001aaaaaaaa", flags: str = "", state: str = "pending|9"
) -> str:
    return f"{name}|inet4|mta|{flags}|{sender}|r@y.test|r@y.test|1795172609|1795172609|0|1|{state}|451 later"


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_envelopes_are_grouped_to_messages_whatever_the_cuts(version: str) -> None:
    lines = recorded(version, "03-list")
    whole, refused = listed(script_output(lines))
    assert refused == 0
    assert {entry.queue_id for entry in whole} == {line[:8] for line in lines}
    assert sum(len(entry.recipients) for entry in whole) == len(lines) == 12
    by_sender = {entry.sender: entry for entry in whole}
    assert {"<>", "a%b!c=d+e@x.test", "-bd@x.test", "CaSe@Bulk.Example"} < by_sender.keys()
    assert {each.address for each in by_sender["multi@bulk.example"].recipients} == {"a@defer.test", "b@defer.test"}
    assert by_sender["CaSe@Bulk.Example"].state == "active"
    assert by_sender["<>"].recipients[0].reason == "451 4.7.1 sink: try later, defer.test"
    for cut in (1, 7, 64):
        assert listed(script_output(lines), cut)[0] == whole


@pytest.mark.parametrize("version", VERSIONS)
def test_a_stopped_smtpd_lists_what_lies_there_as_offline(version: str) -> None:
    lines = [line for line in recorded(version, "15-down") if "|offline||" in line]
    found, refused = listed(script_output(lines))
    assert (len(found), refused) == (3, 0)
    assert {(entry.state, entry.native_state, entry.next_attempt) for entry in found} == {("deferred", "offline", None)}


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_paused_in_flight_is_active_and_no_hold(version: str) -> None:
    [paused] = [line for line in recorded(version, "12-active") if "|suspend|" in line]
    [entry], _ = listed(script_output([paused]))
    assert (entry.state, entry.native_state) == ("active", "inflight")


def test_a_message_is_held_when_every_envelope_is_paused() -> None:
    one = envelope(name="00000001aaaaaaaa", flags="suspend", state="pending|-9")
    two = envelope(name="00000001bbbbbbbb", flags="auth,suspend", state="pending|5")
    free = envelope(name="00000001bbbbbbbb", flags="hold", state="pending|5")
    [held], _ = listed(script_output([one, two]))
    assert (held.state, held.native_state, held.next_attempt) == ("hold", "paused", None)
    [partly], _ = listed(script_output([one, free]))
    assert (partly.state, partly.native_state, partly.next_attempt) == ("deferred", "pending", NOW + 5)


@pytest.mark.parametrize(
    "sender", ["p|i|pe@x.test", "x|1|2|3|4|pending|5|@x.test", "|@x.test", "#!$%&'*+/=?^_`{|}~-@x.test"]
)
def test_bars_in_a_sender_and_in_an_answer_are_no_separators(sender: str) -> None:
    line = envelope(sender) + "|1|2|3|4|inflight|5|spoof"
    [entry], refused = listed(script_output([line]))
    assert refused == 0
    assert (entry.sender, entry.state, entry.arrival_time) == (sender, "deferred", 1795172609.0)
    assert entry.recipients[0].reason == "451 later|1|2|3|4|inflight|5|spoof"


def test_an_empty_queue_needs_its_end_and_a_cut_listing_is_an_error() -> None:
    assert listed(f"!{NOW}\n~listed\nend\n".encode()) == ([], 0)
    whole = script_output([envelope()])
    for cut in range(len(whole)):
        with pytest.raises(UnparsedOutput, match="cut off"):
            listed(whole[:cut])


def test_garbage_is_counted_and_a_message_without_a_file_has_just_left() -> None:
    found, refused = listed(script_output([envelope()]).replace(b"~listed", b"total nonsense\n~listed"))
    assert (len(found), refused) == (1, 1)
    gone = f"!{NOW}\n{envelope()}\n~listed\nend\n".encode()
    assert listed(gone) == ([], 0)


def test_bytes_that_are_no_utf8_are_shown_escaped() -> None:
    [entry], _ = listed(script_output([envelope()]).replace(b"451 later", b"451 \xff"))
    assert entry.recipients[0].reason == "451 \\xFF"


def test_queue_ids_are_message_ids() -> None:
    assert queue_id_error("00ab12cd") is None
    for wrong in ("", "00ab12c", "00AB12CD", "00ab12cd00000000", "-delete1", "00ab12cd\n", "all"):
        assert queue_id_error(wrong)


def test_failures_have_names() -> None:
    down = Completed(1, stderr=b"smtpctl: smtpd doesn't seem to be running\n")
    assert isinstance(error_of(down, "smtpctl"), MtaNotRunning)
    assert isinstance(error_of(Completed(1, stderr=b"smtpctl: need root privileges\n"), "smtpctl"), SudoDenied)
    assert isinstance(error_of(Completed(1, stderr=b"sudo: a password is required\n"), "smtpctl"), SudoDenied)
    assert isinstance(error_of(Completed(255, stderr=b"possibilities are:\n"), "smtpctl"), RemoteError)


CONF = """\
# a comment with "quotes
own = "{ a.test, b.test }"
table aliases file:/etc/aliases
table bad file:/etc/smtpd/bad # named
table doms { "x.test", y.test }
listen on eth0 port submission tls
listen on 10.0.0.1
listen on socket
action "local" mbox alias <aliases>
action out relay
match for any \\
  mail-from <bad> from any reject
match from any for domain { A.test, "b.test",
   sub.c.test } action local
match from any for domain "d.test" action out
match from any for domain regex "e.test$" action local
"""


def test_the_configuration_is_read_as_smtpd_reads_it() -> None:
    found = conf.statements(CONF.splitlines())
    assert conf.tables(found) == {"aliases": "file:/etc/aliases", "bad": "file:/etc/smtpd/bad", "doms": ""}
    assert conf.listeners(found, {"eth0": ["192.0.2.1", "fe80::1"]}) == [
        ["192.0.2.1", 587, "listen on eth0", ""],
        ["fe80::1", 587, "listen on eth0", ""],
        ["10.0.0.1", 25, "listen on 10.0.0.1", ""],
    ]
    assert conf.own_domains(found, ["mx.test"]) == ["a.test", "b.test", "mx.test", "sub.c.test"]
    assert conf.open_domains(found) == ["a.test", "b.test", "d.test", "sub.c.test"]
    rule = conf.sender_rule(found)
    assert rule == conf.SenderRule("bad", "/etc/smtpd/bad", 10)
    assert conf.first_match(found) == 10


@pytest.mark.parametrize(
    "rule",
    [
        "match mail-from <bad> for any reject",  # from local only
        "match from any mail-from <bad> reject",  # for local only
        "match from any mail-from <bad> for any action out",
        "match ! from any mail-from <bad> for any reject",
        "match from any ! mail-from <bad> for any reject",
        "match !from any mail-from <bad> for any reject",
        "match from any !mail-from <bad> for any reject",
        "match from any mail-from <bad> !for any reject",
        "match from any auth mail-from <bad> for any reject",
        'match from any mail-from "a@b.test" for any reject',
        "match from any mail-from <doms> for any reject",  # no file
        "match from local for any action out\nmatch from any mail-from <bad> for any reject",
    ],
)
def test_a_rule_that_lets_some_pass_is_no_sender_check(rule: str) -> None:
    text = f"table bad file:/etc/bad\ntable doms {{ x.test }}\n{rule}\n"
    assert conf.sender_rule(conf.statements(text.splitlines())) is None


@pytest.mark.parametrize("negation", ["!", "! ", "!  "])
def test_a_negation_is_one_with_and_without_a_blank(negation: str) -> None:
    rules = f"""action "local" mbox
match from any {negation}for domain {{ "a.test", b.test }} action "local"
match {negation}from any for domain c.test action "local"
match from any {negation}for domain "d.test" action "local"
match from any for domain "!e.test" action "local"
"""
    found = conf.statements(rules.splitlines())
    assert conf.own_domains(found, []) == ["c.test"]
    assert conf.open_domains(found) == []
    assert found[-1].words[5] == "!e.test"


def test_discovery_needs_its_end_and_a_host_without_smtpd_has_no_instance() -> None:
    said = b"smtpctl /usr/sbin/smtpctl\nsmtpd /usr/sbin/smtpd\nversion 6.8.0p2\nconfig /etc/smtpd.conf\nend\n"
    [found] = parse_instance(Completed(0, said), HostFacts(log_source="/var/log/mail.log"), "mx1")
    assert (found.id, found.version, found.config_dir) == ("mx1/opensmtpd", "6.8.0p2", "/etc")
    assert found.options["log_source"] == "/var/log/mail.log"
    assert parse_instance(Completed(0, b"absent\n"), HostFacts(), "mx1") == ()
    for cut in range(len(said)):
        with pytest.raises(UnparsedOutput):
            parse_instance(Completed(0, said[:cut]), HostFacts(), "mx1")


def test_a_bounce_that_smtpd_makes_does_not_change_the_age_of_a_message() -> None:
    """queue.c, queue_bounce(): one more envelope under the same message ID, created later; envelope IDs are by lot."""
    bounce = "9eeb58460000000a|inet4|bounce||a@x.test|b@y.test|b@y.test|1700009999|1700009999|0|0|inflight|1|550 no"
    mail = "9eeb58460000000b|inet4|mta||a@x.test|c@y.test|c@y.test|1700000000|1700000000|0|1|pending|9|451 later"
    taken: list[Any] = []
    sink = QueueSink(taken.append)
    sink.feed(f"!1700010000\n9eeb5846 300\n{bounce}\n{mail}\n~listed\nend\n".encode())
    sink.close()
    assert [(each.queue_id, each.arrival_time, each.state) for each in taken] == [("9eeb5846", 1700000000.0, "active")]
