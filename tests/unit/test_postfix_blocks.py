"""The pure half of blocking on Postfix: restrictions, main.cf, access maps, keys, and what a dialogue proves."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from fleet.mta.address import parse_block_pattern
from fleet.mta.blocks.edit import ChangedMeanwhile, StillNamed, edit_error
from fleet.mta.blocks.listeners import Listener
from fleet.mta.blocks.listfile import Block, BlockFile, checks, parse_file, render, with_block
from fleet.mta.blocks.proof import Probe, ProbeResult, read_proof
from fleet.mta.errors import Conflict, DiskFull, RemoteError, SudoDenied, UnparsedOutput, Unsupported
from fleet.mta.operations import SenderBlock
from fleet.mta.postfix.access import ACCESS, OWN_HEAD, KeyRules, is_ours, keys_of, value_of, wider_keys
from fleet.mta.postfix.access_facts import differences, listeners, parse_facts, probes
from fleet.mta.postfix.main_cf import unwire, wire
from fleet.mta.postfix.restrictions import AccessMap, own_map, wired_map
from fleet.mta.postfix.services import address_of, services_of
from fleet.mta.steps import Completed, Transcript

RULES = KeyRules(has_subdomains=True, null_key="<>", has_utf8=True)
OWN = AccessMap("hash", "/etc/postfix/mxfleet_senders")
BLOCK = Block("a@b.test", "job-1", "550 5.7.1 no")


def keys(pattern: str) -> tuple[str, ...]:
    return keys_of(parse_block_pattern(pattern), RULES)


def parse_access(text: str) -> BlockFile:
    return parse_file(text, "/m", ACCESS, keys)


def render_access(file: BlockFile, blocks: tuple[Block, ...]) -> str:
    return render(file, blocks, ACCESS, keys) or ""


@pytest.mark.parametrize(
    ("restrictions", "found"),
    [
        ("check_sender_access hash:/etc/postfix/x, permit_mynetworks", AccessMap("hash", "/etc/postfix/x")),
        ("reject_non_fqdn_sender\n check_sender_access lmdb:/x", AccessMap("lmdb", "/x")),
        ("permit_mynetworks, check_sender_access hash:/x", None),
        ("check_policy_service unix:private/p, check_sender_access hash:/x", None),
        ("warn_if_reject check_sender_access hash:/x", None),
        ("check_sender_access pcre:/x, check_sender_access hash:/y", None),
        ("check_sender_access proxy:hash:/x", None),
        ("check_sender_access", None),
        ("", None),
    ],
)
def test_only_a_map_that_nothing_can_let_pass_before_counts_as_wired(
    restrictions: str, found: AccessMap | None
) -> None:
    assert wired_map(restrictions) == found


@pytest.mark.parametrize(
    "main_cf",
    [
        "",
        "myhostname = x\n",
        "myhostname = x",
        "smtpd_sender_restrictions = permit_mynetworks, reject\nx = y\n",
        "smtpd_sender_restrictions=permit_mynetworks",
        "smtpd_sender_restrictions =\nx = y\n",
        "smtpd_sender_restrictions =\n    permit_mynetworks,\n# comment\n    reject\n",
        "#smtpd_sender_restrictions = a\nsmtpd_sender_restrictions = b\nsmtpd_sender_restrictions = c\n",
    ],
)
def test_wiring_is_first_and_unwiring_gives_the_same_bytes_back(main_cf: str) -> None:
    wired = wire(main_cf, OWN)
    last = wired[wired.rindex("smtpd_sender_restrictions") :]
    assert wired_map(last.partition("=")[2]) == OWN
    assert unwire(wired, OWN) == main_cf


def test_unwiring_keeps_what_others_added() -> None:
    wired = wire("smtpd_sender_restrictions = a\n", OWN).replace(" a\n", " a, reject_x\n") + "y = z\n"
    assert unwire(wired, OWN) == "smtpd_sender_restrictions = a, reject_x\ny = z\n"
    assert unwire("smtpd_sender_restrictions = a\n", OWN) is None


@pytest.mark.parametrize(
    ("edit", "left"),
    [
        (lambda text: f"{text}y = z\n", "a = b\nx = y\ny = z\n"),
        (lambda text: text.replace("x = y\n", "x = y\ny = z\n"), "a = b\nx = y\ny = z\n"),
        (lambda text: text.replace("x = y\n", ""), "a = b\n"),
        (lambda text: re.sub(r" \(\w+\)", "", text), "a = b\nx = y\n"),
        (lambda text: f"{text}# c\n  continues = ours\n", None),
    ],
)
def test_unwiring_joins_no_lines_of_others(edit: Callable[[str], str], left: str | None) -> None:
    assert unwire(edit(wire("a = b\nx = y", OWN)), OWN) == left


def test_our_map_has_the_default_type_where_it_can_be_built() -> None:
    assert own_map("/e", "lmdb", frozenset({"hash", "lmdb"})).name == "lmdb:/e/mxfleet_senders"
    assert own_map("/e", "hash", frozenset({"lmdb", "pcre"})).type == "lmdb"
    with pytest.raises(Unsupported):
        own_map("/e", "hash", frozenset({"pcre", "texthash"}))


@pytest.mark.parametrize("source", ["", "# c\nx@y.test REJECT\n", "x@y.test REJECT", OWN_HEAD, "\n\n"])
def test_without_blocks_of_ours_a_source_is_what_it_was(source: str) -> None:
    file = parse_access(source)
    blocked = render_access(file, with_block(file, BLOCK, keys, "/m"))
    again = parse_access(blocked)
    assert blocked.startswith(source)
    assert "# mxfleet:job-1 a@b.test\na@b.test\t550 5.7.1 no\n" in blocked
    assert again.blocks == (BLOCK,)
    assert render_access(again, ()) == source


def test_two_patterns_under_one_key_keep_it_until_both_are_gone() -> None:
    file = parse_access("")
    both = (Block("b.test", "1", "550 5.7.1 no"), Block(".b.test", "2", "550 5.7.1 no"))
    text = render_access(file, both)
    assert text.count("b.test\t550") == 1
    again = parse_access(text)
    assert again.blocks == both
    assert "\nb.test\t550 5.7.1 no\n" in render_access(again, both[1:])
    with pytest.raises(Conflict, match="another answer"):
        with_block(again, Block("b.test", "3", "DISCARD x"), keys, "/m")


def test_an_administrators_line_is_a_conflict_that_names_the_place() -> None:
    file = parse_access("# c\n\nA@B.test   OK\n")
    with pytest.raises(Conflict, match="/m line 3") as caught:
        with_block(file, BLOCK, keys, "/m")
    assert caught.value.data == {"file": "/m", "line": 3}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("# END mxfleet\n", ""),
        lambda text: text.replace("a@b.test\t550", "a@b.test 550"),
        lambda text: text.replace("# mxfleet:job-1 a@b.test", "# mxfleet:job-1 *@*"),
        lambda text: text + text,
        lambda text: text + "\n  continues our line\n",
        lambda text: text.replace("550 5.7.1 no", "OK"),
        lambda text: text.replace("# END", "his@b.test\tOK\n# END"),
    ],
)
def test_a_region_that_was_edited_by_hand_is_a_conflict(damage: object) -> None:
    assert callable(damage)
    file = parse_access("")
    with pytest.raises(Conflict):
        parse_access(damage(render_access(file, (BLOCK,))))


def test_the_new_map_is_checked_for_ours_the_removed_and_three_others() -> None:
    others = "".join(f"o{n}@x.test OK\n" for n in range(5))
    file = parse_access(render_access(parse_access(others), (BLOCK,)))
    staying = tuple((f"o{n}@x.test", "OK") for n in range(3))
    assert checks(file, (), keys) == (("a@b.test", ""), *staying)
    assert checks(file, (BLOCK,), keys) == (("a@b.test", "550 5.7.1 no"), *staying)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("User@B.test", ("user@b.test",)),
        ('"q b"@x.test', ('"q b"@x.test',)),
        ("<>", ("<>",)),
        ("b.test", ("b.test",)),
        (".b.test", ("b.test",)),
        ("u@exämple.test", ("u@xn--exmple-cua.test", "u@exämple.test")),
    ],
)
def test_keys_are_what_smtpd_looks_up(pattern: str, expected: tuple[str, ...]) -> None:
    assert keys(pattern) == expected


def test_keys_follow_the_instance() -> None:
    exact = KeyRules(has_subdomains=False, null_key="", has_utf8=False)
    assert keys_of(parse_block_pattern(".b.test"), exact) == ("b.test", ".b.test")
    assert keys_of(parse_block_pattern("b.test"), exact) == ("b.test",)
    for pattern in ("<>", "#x@y.test", "üser@b.test"):
        with pytest.raises(Unsupported):
            keys_of(parse_block_pattern(pattern), exact)


def test_values_are_those_of_access_5() -> None:
    assert value_of(SenderBlock("a@b.c")) == "550 5.7.1 Sender address blocked"
    assert value_of(SenderBlock("a@b.c", action="discard")) == "DISCARD Sender address blocked"


def test_a_reply_is_ours_by_its_codes_and_its_text() -> None:
    reply = "550 5.7.1 <a@b.c>: Sender address rejected: Sender address blocked"
    assert is_ours(reply, "550 5.7.1 Sender address blocked")
    assert not is_ours(reply, "550 5.7.1 address blocked")
    assert not is_ours(reply, "554 5.7.1 Sender address blocked")
    assert not is_ours(reply, "DISCARD Sender address blocked")


@pytest.mark.parametrize(
    ("pattern", "rules", "wider"),
    [
        ("n@bulk.b.test", RULES, ("n@", "bulk.b.test", "b.test", "test")),
        ("n@bulk.test", KeyRules(has_subdomains=False, null_key="", has_utf8=True), ("n@", "bulk.test", ".test")),
        (
            "n+x@b.test",
            KeyRules(has_subdomains=True, null_key="", has_utf8=True, delimiters="+-"),
            ("n@b.test", "n+x@", "n@", "b.test", "test"),
        ),
        ("bulk.b.test", RULES, ("b.test", "test")),
    ],
)
def test_wider_keys_are_those_that_smtpd_looks_up_next(pattern: str, rules: KeyRules, wider: tuple[str, ...]) -> None:
    assert wider_keys(parse_block_pattern(pattern), rules) == wider


MASTER = """smtp       inet  n       -       y       -       1       postscreen
smtpd      pass  -       -       y       -       -       smtpd
10.0.0.7:submission inet n -     y       -       -       smtpd
"""


def test_the_service_on_port_25_counts_with_its_own_parameters() -> None:
    service, _ = services_of(MASTER, "smtpd/pass/smtpd_sender_restrictions = reject\nsmtpd/pass/x = y = z\n", {})
    assert (service.address, service.port) == ("", 25)
    assert service.overrides == {"smtpd_sender_restrictions": "reject", "x": "y = z"}
    with pytest.raises(Unsupported):
        services_of("pickup unix n - y 60 1 pickup\n", "", {})


def test_loopback_is_asked_only_when_that_is_all() -> None:
    [service] = services_of("smtp inet n - y - - smtpd\n", "", {})
    asked = [("all", "127.0.0.1 fe80::1 10.0.0.7"), ("127.0.0.1, 10.0.0.8", "10.0.0.7"), ("loopback-only", "10.0.0.7")]
    found = [address_of(service, {"inet_interfaces": interfaces}, host) for interfaces, host in asked]
    assert found == ["10.0.0.7", "10.0.0.8", "127.0.0.1"]


FACTS = f"""== settings
smtpd_sender_restrictions =
mydestination = localhost, mx.b.test
myhostname = mx.b.test
relay_domains = hash:/r, c.test
inet_interfaces = all
== services
{MASTER}== overrides
== types
hash
== addresses
10.0.0.7
== end
"""


@pytest.mark.parametrize(
    "answer", [FACTS.partition("== types")[0], FACTS.partition("== end")[0], FACTS[:-1], f"{FACTS}== types\n"]
)
def test_facts_whose_last_line_is_not_their_end_are_refused(answer: str) -> None:
    with pytest.raises(UnparsedOutput):
        parse_facts("/etc/postfix", Completed(0, answer.encode()))


def test_the_bare_postmaster_is_never_asked_because_smtpd_lets_it_pass() -> None:
    facts = parse_facts("/etc/postfix", Completed(0, FACTS.encode()))
    [probe] = probes(facts, parse_block_pattern("b.test"), "job")
    assert probe.recipients == ("postmaster@mx.b.test", "postmaster@c.test")
    assert all(not control.endswith("@mx.b.test") for control in probe.controls)
    assert facts.wired is None


def test_the_notes_tell_who_else_is_caught_and_who_is_not() -> None:
    settings = "recipient_delimiter = +\nparent_domain_matches_subdomains = smtpd_access_maps\n"
    facts = parse_facts("/etc/postfix", Completed(0, FACTS.replace("== services", f"{settings}== services").encode()))
    held = " ".join(each.note for each in listeners(facts, facts.target))
    of_address = held + " ".join(differences(facts, parse_block_pattern("news@bulk.test")))
    for word in ("news+x@bulk.test", "mynetworks", "log in", "sendmail -f"):
        assert word in of_address
    assert "sub-domains" in " ".join(differences(facts, parse_block_pattern("bulk.test")))
    assert "sub-domains" not in of_address


PROBE = Probe(Listener("10.0.0.7", 25), "mx", ("c@x.test",), "bad@x.test", ("r1@x.test", "r2@x.test"))


def said(*replies: str) -> Transcript:
    lines = ("", *PROBE.dialogue().lines)
    return Transcript(tuple(zip(lines, replies, strict=False)))


def test_the_dialogue_sends_no_data() -> None:
    assert PROBE.dialogue().lines == (
        "EHLO mx",
        *("MAIL FROM:<c@x.test>", "RCPT TO:<r1@x.test>", "RCPT TO:<r2@x.test>", "RSET"),
        *("MAIL FROM:<bad@x.test>", "RCPT TO:<r1@x.test>", "RCPT TO:<r2@x.test>", "RSET"),
        "QUIT",
    )


def test_a_refusal_counts_only_beside_an_accepted_control() -> None:
    ok, no = "250 ok", "550 5.7.1 no"
    seen = read_proof(PROBE, said("220 mx", ok, ok, "550 unknown", ok, ok, ok, "550 unknown", no, ok, "221 bye"))
    assert (seen.control, seen.recipient, seen.reply, seen.reason) == ("c@x.test", "r2@x.test", no, "")
    alone = read_proof(PROBE, said("220 mx", ok, ok, no, no, ok, ok, no, no, ok, "221 bye"))
    assert not alone.is_provable
    assert "not_provable" in alone.as_json()
    at_mail = read_proof(PROBE, said("220 mx", ok, ok, ok, ok, ok, no, "503 no", "503 no", ok, "221 bye"))
    assert at_mail.reply == no
    hung_up = read_proof(PROBE, said("220 mx", ok, ok, "550 unknown", ok, ok, ok, "521 5.7.1 go"))
    assert hung_up.reply == "521 5.7.1 go"
    assert not read_proof(PROBE, Transcript((), "no connection")).is_provable
    assert not read_proof(PROBE, said("554 go away")).is_provable


@pytest.mark.parametrize(
    ("status", "stderr", "error"),
    [
        (73, b"cat: write error: No space left on device\nmxfleet: cannot write /m\n", DiskFull),
        (75, b"mxfleet: another change is running\n", Conflict),
        (76, b"mxfleet: /m was changed meanwhile\n", ChangedMeanwhile),
        (66, b"mxfleet: /m is a symbolic link\n", Unsupported),
        (69, b"mxfleet: main.cf still names /m\n", StillNamed),
        (74, b"cat: write error: No space left on device\nmxfleet: what was left cannot be put right\n", RemoteError),
        (65, b"mxfleet: the live map is not as it should be\n", RemoteError),
        (1, b"sudo: a password is required\n", SudoDenied),
    ],
)
def test_every_way_the_script_ends_has_its_error(status: int, stderr: bytes, error: type) -> None:
    assert type(edit_error(Completed(status, b"", stderr), "postfix_access.sh")) is error


def test_who_may_relay_is_no_stranger_to_a_list_that_does_not_count_for_him() -> None:
    """Exim's: its proof comes from an address of the host itself."""
    probe = replace(PROBE, elsewhere="p@elsewhere.invalid")
    ok, no, own = "250 ok", "550 5.7.1 no", "550 relay not permitted"

    def seen(control: str, reply: str) -> ProbeResult:
        replies = ("220 mx", ok, *(ok, ok, ok, control, ok), *(ok, reply, reply, control, ok), "221 bye")
        lines = ("", *probe.dialogue().lines)
        return read_proof(probe, Transcript(tuple(zip(lines, replies, strict=True))))

    assert (seen(own, no).is_refused, seen(own, ok).is_accepted) == (True, True)
    assert seen(ok, no).is_refused
    assert seen(ok, ok).reason == "this host's own address may relay, and such clients are not blocked: 250 ok"
