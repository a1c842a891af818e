"""A worker is ended only when messages wait, it has free threads, and it took nothing for a minute."""

from deploy.watchdog import MISSES, Watch


def looks(watch: Watch, waiting: int, count: int = MISSES) -> list[bool]:
    return [watch.is_stuck(waiting) for _ in range(count)]


def test_messages_that_nobody_takes_mean_a_stuck_worker_after_four_looks() -> None:
    assert looks(Watch(16), 1) == [False, False, False, True]


def test_an_idle_worker_is_not_stuck() -> None:
    assert not any(looks(Watch(16), 0, 100))


def test_a_worker_without_a_free_thread_is_busy_and_not_stuck() -> None:
    watch = Watch(2)
    watch.began()
    watch.began()
    assert not any(looks(watch, 5, 100))


def test_a_long_task_does_not_hide_that_nothing_else_is_taken() -> None:
    watch = Watch(2)
    watch.began()
    watch.is_stuck(0)
    assert looks(watch, 1)[-1]


def test_a_task_that_begins_starts_the_count_anew() -> None:
    watch = Watch(16)
    looks(watch, 1, MISSES - 1)
    watch.began()
    watch.ended()
    assert looks(watch, 1) == [False, False, False, False]
    assert watch.is_stuck(1)


def test_a_worker_that_takes_nothing_says_so_at_the_second_look_and_not_when_it_is_ended() -> None:
    watch = Watch(16)
    assert [(watch.is_stuck(1), watch.takes()) for _ in range(2)] == [(False, True), (False, False)]
    watch.began()
    watch.ended()
    assert (watch.is_stuck(1), watch.takes()) == (False, True)
