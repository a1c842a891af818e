"""A block on Postfix is proven wherever a stranger's mail comes in, and the plan says what holds elsewhere."""

import re

import pytest

from fleet.mta.address import parse_block_pattern
from fleet.mta.errors import Conflict
from fleet.mta.operations import SenderBlock
from fleet.mta.postfix import Postfix
from fleet.mta.postfix.access_facts import BlockFacts, differences, listeners, parse_facts, probes
from fleet.mta.records import Ended
from fleet.mta.steps import Completed
from tests.unit.list_host import CONTEXT, ListHost
from tests.unit.map_hosts import MAP, OWN, SENDER, Smtpd
from tests.unit.map_hosts import POSTFIX_INSTANCE as INSTANCE
from tests.unit.map_hosts import postfix_host as make_host
from tests.unit.test_postfix_block_flow import BARE, BLOCK, UNBLOCK

POSTFIX = Postfix()
HOST = "192.0.2.9 192.0.2.10 2001:db8::9"
SMTPD = "inet n - y - - smtpd"
WIRED = "check_sender_access hash:/m"
OUTER, LOOPBACK = f"192.0.2.11:25 {SMTPD}", f"127.0.0.2:25 {SMTPD}"


def facts_of(*services: str, overrides: str = "", main: str = "", **settings: str) -> BlockFacts:
    shown = {"smtpd_sender_restrictions": main, "inet_interfaces": "all", "default_database_type": "hash", **settings}
    sections = {
        "settings": "".join(f"{name} = {value}\n" for name, value in shown.items()),
        "written": f"smtpd_sender_restrictions = {settings.get('written', main)}\n",
        "services": "".join(f"{each}\n" for each in services),
        "overrides": overrides,
        "types": "hash\n",
        "addresses": f"{HOST}\n",
        "end": "",
    }
    text = "".join(f"== {name}\n{content}" for name, content in sections.items())
    return parse_facts("/etc/postfix", Completed(0, text.encode()))


def asked(facts: BlockFacts) -> list[str]:
    found = probes(facts, parse_block_pattern("a@b.test"), "job")
    return [f"{each.listener.address} {each.listener.port} {each.listener.service}" for each in found]


@pytest.mark.parametrize(
    ("services", "settings", "expected"),
    [
        ([f"smtp {SMTPD}"], {}, ["192.0.2.9 25 smtp/inet"]),
        ([f"25 {SMTPD}"], {"inet_interfaces": "127.0.0.1, 192.0.2.10"}, ["192.0.2.10 25 25/inet"]),
        ([f"smtp {SMTPD}"], {"inet_interfaces": "loopback-only"}, ["127.0.0.1 25 smtp/inet"]),
        ([f"smtp {SMTPD}"], {"inet_protocols": "ipv6"}, ["2001:db8::9 25 smtp/inet"]),
        ([f"[::]:25 {SMTPD}"], {"inet_interfaces": "loopback-only"}, ["2001:db8::9 25 [::]:25/inet"]),
        ([LOOPBACK, OUTER], {}, ["192.0.2.11 25 192.0.2.11:25/inet"]),
        ([LOOPBACK, f"192.0.2.11:2525 {SMTPD}", f"submission {SMTPD}"], {}, ["192.0.2.11 2525 192.0.2.11:2525/inet"]),
        ([LOOPBACK, f"submission {SMTPD}"], {}, ["127.0.0.2 25 127.0.0.2:25/inet"]),
        (
            [f"2525 {SMTPD}", f"192.0.2.11:2526 {SMTPD}"],
            {},
            ["192.0.2.9 2525 2525/inet", "192.0.2.11 2526 192.0.2.11:2526/inet"],
        ),
        (
            [LOOPBACK, f"smtp {SMTPD}"],
            {"inet_interfaces": "127.0.0.1"},
            ["127.0.0.2 25 127.0.0.2:25/inet", "127.0.0.1 25 smtp/inet"],
        ),
        (
            [f"192.0.2.9:smtp {SMTPD}", OUTER],
            {},
            ["192.0.2.9 25 192.0.2.9:smtp/inet", "192.0.2.11 25 192.0.2.11:25/inet"],
        ),
        ([f"mx.b.test:25 {SMTPD}", f"localhost:25 {SMTPD}"], {}, ["mx.b.test 25 mx.b.test:25/inet"]),
        ([f"smtp {SMTPD}", OUTER], {"master_service_disable": "smtp.inet"}, ["192.0.2.11 25 192.0.2.11:25/inet"]),
        ([f"smtp {SMTPD}", OUTER], {"master_service_disable": "!smtp/inet inet"}, ["192.0.2.9 25 smtp/inet"]),
        (
            ["smtp inet n - y - 1 postscreen", "smtpd pass - - y - - smtpd", OUTER],
            {},
            ["192.0.2.9 25 smtp/inet, behind it smtpd/pass", "192.0.2.11 25 192.0.2.11:25/inet"],
        ),
        (
            [f"smtp {SMTPD}", "192.0.2.12:25 inet n - n - - spawn"],
            {},
            ["192.0.2.9 25 smtp/inet", "192.0.2.12 25 192.0.2.12:25/inet"],
        ),
        ([f"smtp {SMTPD}", f"submission {SMTPD}", f"127.0.0.1:10025 {SMTPD}"], {}, ["192.0.2.9 25 smtp/inet"]),
        ([f"submission {SMTPD}"], {}, ["192.0.2.9 587 submission/inet"]),
    ],
)
def test_every_service_is_asked_by_which_strangers_come_in(
    services: list[str], settings: dict[str, str], expected: list[str]
) -> None:
    assert asked(facts_of(*services, **settings)) == expected


@pytest.mark.parametrize(
    ("services", "overrides", "main", "wired"),
    [
        ((LOOPBACK, OUTER), "", WIRED, True),
        ((LOOPBACK, OUTER), "127.0.0.2:25/inet/smtpd_sender_restrictions = permit\n", WIRED, True),
        ((LOOPBACK, OUTER), "192.0.2.11:25/inet/smtpd_sender_restrictions = permit_mynetworks\n", WIRED, False),
        ((LOOPBACK, OUTER), "192.0.2.11:25/inet/smtpd_sender_restrictions =\n", WIRED, False),
        ((LOOPBACK, OUTER), f"192.0.2.11:25/inet/smtpd_sender_restrictions = reject_x, {WIRED}\n", WIRED, True),
        ((f"smtp {SMTPD}", OUTER), "192.0.2.11:25/inet/smtpd_sender_restrictions = permit\n", WIRED, False),
        ((f"smtp {SMTPD}", OUTER), f"192.0.2.11:25/inet/smtpd_sender_restrictions = {WIRED}2\n", WIRED, False),
        (("smtp inet n - y - 1 postscreen",), "smtpd/pass/smtpd_sender_restrictions = permit\n", WIRED, False),
        (("smtp inet n - y - 1 postscreen",), "smtp/inet/smtpd_sender_restrictions = permit\n", WIRED, True),
        (
            ("smtp inet n - y - 1 postscreen",),
            "smtp/inet/smtpd_service_name = own\nown/pass/smtpd_sender_restrictions = permit\n",
            WIRED,
            False,
        ),
    ],
)
def test_a_map_counts_where_every_service_of_strangers_asks_it_first(
    services: tuple[str, ...], overrides: str, main: str, *, wired: bool
) -> None:
    assert (facts_of(*services, overrides=overrides, main=main).wired is not None) is wired


def test_a_parameter_that_main_cf_refers_to_and_a_service_sets_is_that_services_own() -> None:
    facts = facts_of(
        f"smtp {SMTPD}",
        OUTER,
        overrides="192.0.2.11:25/inet/my_check = permit\n",
        main=f"{WIRED}, reject",
        written="$my_check, ${other}",
    )
    inner, outer = facts.services
    assert facts.restrictions_of(inner) == f"{WIRED}, reject"
    assert facts.restrictions_of(outer) == "permit, ${other}"
    assert facts.wired is None


def held(facts: BlockFacts) -> str:
    return "\n".join(each.note for each in listeners(facts, facts.target) if each.unasked)


SUBMISSION = "reject_sender_login_mismatch,permit_sasl_authenticated,reject"


def test_what_holds_at_each_service_that_is_not_asked_is_read_and_told() -> None:
    facts = facts_of(
        f"smtp {SMTPD}",
        f"submission {SMTPD}",
        f"465 {SMTPD}",
        f"2525 {SMTPD}",
        f"127.0.0.1:10025 {SMTPD}",
        f"587 {SMTPD}",
        overrides=f"submission/inet/smtpd_sender_restrictions = {SUBMISSION}\n"
        "submission/inet/smtpd_sasl_type = dovecot\n"
        f"2525/inet/smtpd_sender_restrictions = permit_sasl_authenticated, {WIRED}\n"
        "127.0.0.1:10025/inet/smtpd_sender_restrictions =\n",
        main=WIRED,
    )
    own, holds, behind, inside, again = held(facts).split("\n")
    assert own.startswith("submission/inet (192.0.2.9 port 587): not asked; master.cf sets")
    assert SUBMISSION in own
    assert own.endswith("does not hold there, and those who log in still send, as does whoever else may send there")
    assert holds.startswith("465/inet (192.0.2.9 port 465)")
    assert "the block holds there, and those who log in are refused" in holds
    assert "behind others" in behind
    assert inside.endswith("does not hold there, and programs of this host still send")
    assert "the block holds there" in again
    notes = " ".join(differences(facts, parse_block_pattern("a@b.test")))
    assert "at smtp/inet clients of mynetworks, and those who log in there, are refused" in notes


def test_a_service_that_looks_at_main_cf_is_not_told_to_ask_what_only_master_cf_has_port_25_ask() -> None:
    overrides = f"smtp/inet/smtpd_sender_restrictions = {WIRED}\n"
    facts = facts_of(f"smtp {SMTPD}", f"submission {SMTPD}", overrides=overrides, main="permit_mynetworks")
    assert facts.wired is not None
    assert "it has smtpd_sender_restrictions for it (permit_mynetworks)" in held(facts)


TWO = f"== services\n{LOOPBACK}\n{OUTER}\n192.0.2.12:25 {SMTPD}\n"


def test_a_service_with_restrictions_of_its_own_is_a_conflict_that_names_it_before_any_change() -> None:
    for main_cf in (BARE, BARE.replace("permit", f"check_sender_access hash:{MAP}, permit")):
        host = make_host(main_cf)
        host.services = TWO
        host.overrides = "192.0.2.11:25/inet/smtpd_sender_restrictions = permit_mynetworks,reject_non_fqdn_sender\n"
        with pytest.raises(Conflict) as refused:
            host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
        assert "192.0.2.11:25/inet" in refused.value.detail
        assert "reject_non_fqdn_sender" in refused.value.detail
        assert "192.0.2.12:25/inet" not in refused.value.detail
        assert (OWN if main_cf == BARE else MAP) in refused.value.hint
        assert (host.changes, host.main_cf) == (0, main_cf)
        assert host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT)).ended is Ended.UNCHANGED


def test_a_service_of_which_only_the_answer_shows_that_it_does_not_ask_has_the_block_taken_back() -> None:
    host = make_host(BARE)
    host.services = TWO
    answer = host.judge
    host.judge = lambda found, sender: "" if found.address == "192.0.2.12" else answer(found, sender)
    result = host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert (result.ended, host.main_cf, host.own.text) == (Ended.FAILED, BARE, None)
    assert result.error is not None
    assert "192.0.2.12:25/inet (192.0.2.12 port 25)" in result.error.detail
    assert [each["reply"][:3] for each in result.after["listeners"] if "reply" in each] == ["550", "250"]


def test_the_evidence_names_each_listener_with_its_answer_or_why_it_was_not_asked() -> None:
    host = make_host(BARE)
    host.services = TWO + f"submission {SMTPD}\n"
    host.overrides = f"submission/inet/smtpd_sender_restrictions = {SUBMISSION}\n"
    result = host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert result.ended is Ended.SUCCEEDED
    first, second, inside, submission = result.after["listeners"]
    reply = f"550 5.7.1 <{SENDER}>: Sender address rejected: Sender address blocked"
    assert first == {"address": "192.0.2.11", "port": 25, "service": "192.0.2.11:25/inet", "reply": reply}
    assert second["address"] == "192.0.2.12"
    assert inside["service"] == "127.0.0.2:25/inet"
    assert SUBMISSION in submission["not_asked"]
    assert host.plan is not None
    assert any(note.startswith("submission/inet") and SUBMISSION in note for note in host.plan.notes)


def smtpd_says(host: ListHost, sender: str, code: str, behind: str) -> str:
    assert isinstance(host, Smtpd)
    text = "; ".join(value.partition(" 5.7.1 ")[2] for key, value in host.senders.map.items() if key == sender)
    return f"{code} <{sender}>: Sender address rejected: {text}{behind}" if text else ""


@pytest.mark.parametrize(
    ("settings", "code", "behind"),
    [
        ("soft_bounce = yes\n", "450 4.7.1", ""),
        ("", "550 5.7.1", ". For help call 555 quoting Nov 30 01:45:13"),
        ("", "550-5.7.1", "\n550-5.7.1 For help see\n550 5.7.1 https://help.test/"),
        ("soft_bounce = yes\n", "450-4.7.1", "\n450 4.7.1 For help call 555"),
    ],
)
def test_a_soft_answer_or_one_with_a_footer_is_ours_and_so_is_what_is_left_of_a_failed_unblock(
    settings: str, code: str, behind: str
) -> None:
    host = make_host()
    host.main_cf += settings
    host.judge = lambda found, sender: smtpd_says(found, sender, code, behind)
    result = host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    assert (result.ended, result.after["blocked"]["code"]) == (Ended.SUCCEEDED, code[:3])
    assert f"\n{code[:3]}" not in result.after["blocked"]["text"]
    assert host.plan is not None
    told = [note for note in host.plan.notes if "soft_bounce" in note]
    assert (len(told) == 1 and "smtp/inet" in told[0]) if settings else not told
    reply = smtpd_says(host, SENDER, code, behind)
    host.judge = lambda found, sender: reply if sender == SENDER else ""
    freed = host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert freed.ended is Ended.FAILED
    assert freed.error is not None
    assert re.search(r"still answered '[45]50 [45]\.7\.1 <", freed.error.detail)


@pytest.mark.parametrize(("value", "is_his"), [("REJECT no", True), ("550 no", True), ("DEFER no", False)])
def test_an_administrators_refusal_under_soft_bounce_is_as_good_as_ours(value: str, *, is_his: bool) -> None:
    host = make_host()
    host.senders.append(f"{SENDER}\t{value}")
    host.judge = lambda found, sender: "454 4.7.1 no" if sender == SENDER else ""
    if is_his:
        result = host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
        assert (result.ended, host.changes, len(result.data["notes"])) == (Ended.UNCHANGED, 0, 1)
    else:
        with pytest.raises(Conflict):
            host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))


@pytest.mark.parametrize("behind", ["", ". For help call 555", "\n550 5.7.1 For help call 555"])
@pytest.mark.parametrize("text", ["Sender address blocked", "Domain refused"])
def test_an_unblock_whose_sender_a_wider_block_refuses_names_it_whatever_the_answer_says(
    text: str, behind: str
) -> None:
    host = make_host()
    for operation in (SenderBlock("sillyplace.test", text=text), BLOCK):
        assert host.drive(POSTFIX.sender_block(INSTANCE, operation, CONTEXT)).ended is Ended.SUCCEEDED
    answer = host.judge
    dash = "-" if "\n" in behind else " "
    host.judge = lambda found, sender: answer(found, sender) and answer(found, sender).replace(" ", dash, 1) + behind
    result = host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert (result.ended, result.data["still_refused_by"]) == (Ended.SUCCEEDED, ["sillyplace.test"])
    [said, whose] = result.data["notes"]
    assert text in said
    assert "our block of sillyplace.test" in whose
    again = host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert (again.ended, again.data["still_refused_by"]) == (Ended.UNCHANGED, ["sillyplace.test"])
    read = host.drive(POSTFIX.read_back(INSTANCE, UNBLOCK, CONTEXT))
    assert read is not None
    assert (read.ended, read.data["still_refused_by"]) == (Ended.SUCCEEDED, ["sillyplace.test"])


def test_an_unblock_whose_sender_a_rule_refuses_that_is_in_no_list_says_not_ours_with_the_text() -> None:
    host = make_host()
    host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    host.judge = lambda found, sender: "554 5.7.1 no mail from here" if sender == SENDER else ""
    result = host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert (result.ended, result.data["still_refused_by"]) == (Ended.SUCCEEDED, ["not ours"])
    assert "no mail from here" in result.data["notes"][0]


def test_an_administrators_line_that_lets_pass_is_not_named_as_what_refuses() -> None:
    host = make_host()
    host.senders.append("sillyplace.test\tOK")
    host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    host.judge = lambda found, sender: "554 5.7.1 listed elsewhere" if sender == SENDER else ""
    assert host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT)).data["still_refused_by"] == ["not ours"]
    host.senders.append("silly\tREJECT")
    host.senders.text = str(host.senders.text).replace("sillyplace.test\tOK", "sillyplace.test\tREJECT go away")
    again = host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert (again.ended, again.data["still_refused_by"]) == (Ended.UNCHANGED, ["sillyplace.test"])
    assert any("go away" in note for note in again.data["notes"])


def test_a_wider_discard_still_throws_the_mail_away_and_is_told() -> None:
    host = make_host()
    for operation in (SenderBlock("sillyplace.test", action="discard"), BLOCK):
        assert host.drive(POSTFIX.sender_block(INSTANCE, operation, CONTEXT)).ended is Ended.SUCCEEDED
    result = host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert (result.after["blocked"]["code"], result.data["still_refused_by"]) == ("250", ["sillyplace.test"])


def test_a_refusal_at_one_of_two_listeners_is_told_though_the_other_accepts() -> None:
    host = make_host()
    host.services = TWO
    host.drive(POSTFIX.sender_block(INSTANCE, BLOCK, CONTEXT))
    host.judge = lambda found, sender: "554 5.7.1 no" if (found.address, sender) == ("192.0.2.12", SENDER) else ""
    result = host.drive(POSTFIX.sender_unblock(INSTANCE, UNBLOCK, CONTEXT))
    assert (result.ended, result.data["still_refused_by"]) == (Ended.SUCCEEDED, ["not ours"])
    assert "192.0.2.12:25/inet" in result.data["notes"][0]
