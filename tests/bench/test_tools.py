"""The benchmarks' own tools measure what they say. No timing is asserted here."""

import json

from tests.bench.farm import line
from tests.bench.measure import Contender, side_by_side, table, verdict
from tests.bench.stream import blocks, judge


def test_the_made_listing_has_as_many_different_messages_as_it_says() -> None:
    lines = b"".join(blocks(20_000)).splitlines()
    assert len({json.loads(each)["queue_id"] for each in lines}) == 20_000


def test_a_made_line_is_as_long_as_those_that_the_goals_are_about() -> None:
    assert 300 <= sum(len(line(number)) for number in range(1000)) / 1000 <= 360


def test_the_judge_of_the_benchmark_finds_what_a_plain_loop_finds() -> None:
    messages = [json.loads(line(number)) for number in range(10_000)]
    wanted = sum(message["sender"].startswith("news-1@") for message in messages)
    assert wanted > 0
    found = judge("from:news-1@*", 20_000)
    assert (found["total"], found["matched"]) == (20_000, 2 * wanted)


def test_contenders_run_in_turn_and_the_slow_ones_less_often() -> None:
    ran: list[str] = []
    quick = Contender("quick", lambda: (ran.append("quick"), (3.0, 1.0))[1])
    slow = Contender("slow", lambda: (ran.append("slow"), (5.0, 2.0))[1], rounds=1)
    found = side_by_side([quick, slow], 2)
    assert ran == ["quick", "slow", "quick"]
    assert (found["quick"].wall, found["slow"].cpu) == (3.0, 2.0)


def test_a_goal_is_met_on_its_own_side_only() -> None:
    assert verdict(20.0, 20, at_least=True) == "met (>= 20)"
    assert verdict(15.1, 15, at_least=False) == "MISSED (<= 15)"
    assert table(("a",), [["1"]]) == "| a |\n| --- |\n| 1 |"
