"""Whose job comes next."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from jobs.rules.turns import Waiting, caller_share, customer_share, in_turn

BEGIN = datetime(2026, 11, 30, tzinfo=UTC)


def waiting(job: int, customer: int, minutes: int = 0) -> Waiting:
    return Waiting(UUID(int=job), customer, BEGIN + timedelta(minutes=minutes))


def order(*jobs: Waiting, at_work: dict[int, int] | None = None, served: dict[int, int] | None = None) -> list[int]:
    return [job.int for job in in_turn(jobs, at_work or {}, served or {})]


def test_who_has_least_at_work_comes_first() -> None:
    assert order(waiting(1, 1), waiting(2, 2, 5), at_work={1: 2, 2: 1}) == [2, 1]


def test_among_equals_the_one_whose_turn_is_longest_ago() -> None:
    assert order(waiting(1, 1), waiting(2, 2, 5), waiting(3, 3, 9), served={1: 7, 2: 6}) == [3, 2, 1]


def test_among_those_who_wait_for_their_first_turn_the_one_who_waits_longest() -> None:
    assert order(waiting(1, 1, 5), waiting(2, 2)) == [2, 1]


def test_a_job_of_several_customers_is_tried_once_when_the_first_of_them_has_its_turn() -> None:
    assert order(waiting(1, 1), waiting(2, 2), waiting(1, 3), at_work={1: 3, 2: 1}) == [1, 2]


def test_nobody_has_a_whole_lane_but_everybody_has_a_place() -> None:
    assert [caller_share(width) for width in (1, 2, 12)] == [1, 1, 6]
    assert [customer_share(width) for width in (1, 2, 12)] == [1, 1, 9]
