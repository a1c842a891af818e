"""Which jobs need how many people, at each boundary of the default rules and with rules of customers."""

import pytest

from jobs.rules.policy import DEFAULT_RULES, Blast, QueueShare, Rule, When, decide, effective


def selected(*pairs: tuple[int, int]) -> tuple[QueueShare, ...]:
    return tuple(QueueShare(chosen, total) for chosen, total in pairs)


FREE = [
    Blast("host.discover", hosts=500),
    Blast("queue.list", hosts=500, match_all=True),
    Blast("queue.summary", hosts=500, match_all=True),
    Blast("message.show"),
    Blast("block.list", hosts=500),
    Blast("message.deliver"),
    Blast("sender.block", hosts=10),
    Blast("sender.unblock", hosts=10),
    Blast("queue.hold", hosts=10, queues=selected(*[(1000, 5000)] * 10)),
    Blast("queue.release", hosts=10, queues=selected(*[(20, 20)] * 10)),
    Blast("queue.flush", hosts=10, queues=selected((0, 0), (20, 20), (1000, 5000))),
    Blast("quarantine.restore", hosts=10, queues=selected((5000, 5000))),
]
TAKING = ["queue.purge", "queue.bounce", "queue.requeue"]
SELECTING = [*TAKING, "queue.hold", "queue.release", "queue.flush"]


@pytest.mark.parametrize("blast", FREE, ids=lambda blast: blast.operation)
def test_reading_and_small_reversible_acts_need_nobody(blast: Blast) -> None:
    verdict = decide(blast, DEFAULT_RULES)
    assert (verdict.approvals, verdict.rule) == (0, "")
    assert blast.operation in verdict.why


@pytest.mark.parametrize("operation", TAKING)
@pytest.mark.parametrize(
    ("hosts", "queues", "rule"),
    [
        (5, selected((100, 1000)), ""),
        (5, selected((101, 1000)), "default-many-messages"),
        (2, selected((50, 1000), (50, 1000)), ""),
        (2, selected((50, 1000), (51, 1000)), "default-many-messages"),
        (6, selected((1, 1000)), "default-many-queues"),
        (1, selected((20, 20)), ""),
        (1, selected((21, 21)), "default-large-share"),
        (1, selected((40, 200)), ""),
        (1, selected((41, 200)), "default-large-share"),
        (2, selected((5, 5), (25, 1000)), ""),
        (2, selected((1, 1000), (30, 100)), "default-large-share"),
        (1, selected((0, 0)), ""),
    ],
)
def test_taking_messages_needs_one_person_beyond_each_limit(
    operation: str, hosts: int, queues: tuple[QueueShare, ...], rule: str
) -> None:
    verdict = decide(Blast(operation, hosts=hosts, queues=queues), DEFAULT_RULES)
    assert (verdict.approvals, verdict.rule) == (1 if rule else 0, rule)


@pytest.mark.parametrize("operation", SELECTING)
@pytest.mark.parametrize(
    ("queues", "rule"),
    [
        (selected((20, 20)), ""),
        (selected((20, 100)), ""),
        (selected((21, 21)), "default-large-share"),
        (selected((30, 150)), ""),
        (selected((31, 150)), "default-large-share"),
        (selected((0, 900), (5, 5), (31, 150)), "default-large-share"),
        (selected((21, 0)), "default-large-share"),
    ],
)
def test_more_than_a_fifth_of_one_queue_needs_one_person_whatever_selects_it(
    operation: str, queues: tuple[QueueShare, ...], rule: str
) -> None:
    verdict = decide(Blast(operation, hosts=2, queues=queues), DEFAULT_RULES)
    assert (verdict.approvals, verdict.rule) == (1 if rule else 0, rule)


def test_the_reason_names_the_queue_of_which_most_is_caught() -> None:
    queues = (QueueShare(30, 100, "mx1/postfix"), QueueShare(45, 60, "mx2/postfix"), QueueShare(5, 5, "mx3/postfix"))
    verdict = decide(Blast("queue.hold", hosts=3, queues=queues), DEFAULT_RULES)
    assert verdict.why == "queue.hold: 45 of the 60 messages of mx2/postfix, 75.0%"


@pytest.mark.parametrize(
    "operation",
    [
        *SELECTING,
        "quarantine.restore",
        "quarantine.erase",
        "sender.block",
        "sender.unblock",
    ],
)
def test_every_change_on_more_than_ten_hosts_needs_one_person(operation: str) -> None:
    assert decide(Blast(operation, hosts=11), DEFAULT_RULES).approvals == 1


@pytest.mark.parametrize(
    ("blast", "rule"),
    [
        (Blast("queue.purge", mode="delete", queues=selected((1, 1000))), "default-delete"),
        (Blast("quarantine.erase", queues=selected((1, 1))), "default-erase"),
        (Blast("queue.hold", match_all=True), "default-match-all"),
        (Blast("queue.flush", match_all=True), "default-match-all"),
        (Blast("sender.block", wiring=True), "default-wiring"),
        (Blast("sender.block", domain_wide=True), "default-domain-wide"),
    ],
)
def test_what_cannot_be_taken_back_or_reaches_far_needs_one_person(blast: Blast, rule: str) -> None:
    verdict = decide(blast, DEFAULT_RULES)
    assert (verdict.approvals, verdict.rule, verdict.role) == (1, rule, "approver")
    assert (verdict.approval_ttl, verdict.execution_ttl) == (3600, 1800)


def test_purge_into_quarantine_of_one_message_needs_nobody() -> None:
    assert decide(Blast("queue.purge", mode="quarantine", queues=selected((1, 1000))), DEFAULT_RULES).approvals == 0


def test_an_undo_needs_nobody_until_a_policy_names_it() -> None:
    undo = Blast("queue.purge", hosts=50, queues=selected((5000, 5000)), match_all=True, is_undo=True)
    assert decide(undo, effective([Rule("queues", ("queue.*",), approvals=2)])).approvals == 0
    assert decide(undo, effective([Rule("undos", ("undo.*",), approvals=2)])).rule == "undos"
    assert decide(undo, effective([Rule("everything", ("*",), approvals=2)])).rule == "everything"


def test_the_strictest_rule_counts_and_brings_its_role_and_times() -> None:
    two = Rule("two", ("queue.*",), When(min_messages=1), 2, role="admin", approval_ttl=600, execution_ttl=60)
    verdict = decide(Blast("queue.purge", queues=selected((200, 1000))), effective([two]))
    assert (verdict.approvals, verdict.rule, verdict.role) == (2, "two", "admin")
    assert (verdict.approval_ttl, verdict.execution_ttl) == (600, 60)
    assert verdict.why == "queue.purge: 200 messages (rule: 1 or more)"


def test_among_equally_strict_rules_the_first_by_name_counts() -> None:
    rules = [Rule("b", ("queue.hold",)), Rule("a", ("queue.hold",)), Rule("c", ("queue.hold",), approvals=0)]
    assert decide(Blast("queue.hold"), rules).rule == "a"


def test_a_stored_rule_cannot_ask_for_less_than_the_defaults() -> None:
    lax = Rule("a-lax", ("*",), approvals=0)
    assert decide(Blast("queue.purge", mode="delete"), effective([lax])).rule == "default-delete"


def test_a_rule_of_a_customer_counts_for_jobs_that_touch_him_and_no_others() -> None:
    rules = [Rule("acme-holds", ("queue.hold",), customers=("acme",))]
    assert decide(Blast("queue.hold", ("globex", "acme")), rules).approvals == 1
    assert decide(Blast("queue.hold", ("globex",)), rules).approvals == 0
    assert decide(Blast("queue.hold", ("globex",)), [Rule("nobody's", ("*",), customers=())]).approvals == 0


@pytest.mark.parametrize(
    ("when", "fitting", "other"),
    [
        (When(min_hosts=3), Blast("x", hosts=3), Blast("x", hosts=2)),
        (When(min_messages=3), Blast("x", queues=selected((3, 9))), Blast("x", queues=selected((2, 9)))),
        (When(min_fraction=1.0), Blast("x", queues=selected((3, 3))), Blast("x", queues=selected((2, 3)))),
        (When(min_fraction=0.0), Blast("x"), Blast("y")),
        (When(match_all=True), Blast("x", match_all=True), Blast("x")),
        (When(mode="delete"), Blast("x", mode="delete"), Blast("x", mode="quarantine")),
        (When(wiring=True), Blast("x", wiring=True), Blast("x")),
        (When(domain_wide=True), Blast("x", domain_wide=True), Blast("x")),
        (When(min_hosts=3, wiring=True), Blast("x", hosts=3, wiring=True), Blast("x", hosts=3)),
    ],
)
def test_each_condition_decides_whether_a_rule_fits(when: When, fitting: Blast, other: Blast) -> None:
    rules = [Rule("r", ("x",), when)]
    assert decide(fitting, rules).rule == "r"
    assert decide(other, rules).rule == ""


def test_changing_policies_needs_a_person_as_soon_as_one_policy_asks_for_any() -> None:
    change = Blast("policy.change", hosts=0)
    assert decide(change, effective([])).approvals == 0
    assert decide(change, effective([Rule("lax", ("queue.*",), approvals=0)])).approvals == 0
    assert decide(change, effective([Rule("strict", ("queue.*",), approvals=1)])).approvals == 1
