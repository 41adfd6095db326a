import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.primitives.timers import TimerQueue


def test_timers_run_in_order_of_their_due_time_and_then_in_the_order_they_were_added():
    queue = TimerQueue()
    ran: list[str] = []
    for name, due in [("b1", 2.0), ("a", 1.0), ("b2", 2.0), ("b3", 2.0), ("never", 3.0)]:
        queue.add(due, lambda name=name: ran.append(name))
    assert queue.run_due(2.0) == 4
    assert ran == ["a", "b1", "b2", "b3"]
    assert queue.next_due() == 3.0


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=200), st.integers(0, 20))
def test_exactly_the_due_and_uncancelled_timers_run_in_stable_order(timers, now):
    queue = TimerQueue()
    ran: list[int] = []
    added = [
        queue.add(due, lambda number=number: ran.append(number))
        for number, (due, _) in enumerate(timers)
    ]
    for timer, (_, cancelled) in zip(added, timers, strict=True):
        if cancelled:
            timer.cancel()
    queue.run_due(now)
    due = [(due, number) for number, (due, dead) in enumerate(timers) if not dead and due <= now]
    assert ran == [number for _, number in sorted(due)]
    assert len(queue) == sum(1 for due, dead in timers if not dead and due > now)


def test_a_hundred_thousand_cancelled_timers_leave_a_small_heap():
    queue = TimerQueue()
    kept = queue.add(1e9, lambda: None)
    largest = 0
    for number in range(100_000):
        queue.add(60.0 + number, lambda: None).cancel()
        largest = max(largest, queue.heap_size)
    assert largest < 200
    assert len(queue) == 1
    assert kept.is_active


def test_timers_cancelled_all_at_once_leave_a_small_heap_too():
    queue = TimerQueue()
    timers = [queue.add(float(number % 977), lambda: None) for number in range(100_000)]
    for timer in timers:
        timer.cancel()
    assert queue.heap_size < 200
    assert len(queue) == 0
    assert queue.next_due() == math.inf


def test_a_rebuild_keeps_the_order_of_those_that_stay():
    queue = TimerQueue()
    ran: list[int] = []
    timers = [queue.add(1.0, lambda number=number: ran.append(number)) for number in range(1000)]
    for number, timer in enumerate(timers):
        if number % 10:
            timer.cancel()
    queue.run_due(1.0)
    assert ran == list(range(0, 1000, 10))


def test_a_callback_can_cancel_timers_that_are_due_with_it_even_many_at_once():
    queue = TimerQueue()
    ran: list[str] = []
    victims = []

    def cancel_all() -> None:
        ran.append("first")
        for victim in victims:
            victim.cancel()

    queue.add(1.0, cancel_all)
    victims = [queue.add(1.0, lambda: ran.append("victim")) for _ in range(500)]
    queue.add(1.0, lambda: ran.append("last"))
    assert queue.run_due(1.0) == 2
    assert ran == ["first", "last"]
    assert len(queue) == 0


def test_cancelling_twice_or_after_the_callback_ran_counts_nothing_twice():
    queue = TimerQueue()
    done, cancelled = queue.add(1.0, lambda: None), queue.add(2.0, lambda: None)
    queue.add(3.0, lambda: None)
    queue.run_due(1.0)
    done.cancel()
    cancelled.cancel()
    cancelled.cancel()
    assert len(queue) == 1


def test_a_timer_tells_its_due_time_and_whether_it_is_active():
    queue = TimerQueue()
    timer = queue.add(1.0, lambda: None)
    assert timer.due == 1.0
    assert timer.is_active
    assert repr(timer) == "<Timer due=1.000 active>"
    queue.run_due(1.0)
    assert not timer.is_active
    assert repr(timer) == "<Timer due=1.000 inactive>"


def test_what_ends_the_program_passes_through_and_leaves_the_rest_for_later():
    queue = TimerQueue()
    ran: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    queue.add(1.0, interrupt)
    queue.add(1.0, lambda: ran.append("rest"))
    with pytest.raises(KeyboardInterrupt):
        queue.run_due(1.0)
    assert ran == []
    queue.run_due(1.0)
    assert ran == ["rest"]
