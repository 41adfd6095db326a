import asyncio
from collections.abc import Iterator

import pytest

from afresh.primitives.clock import use_clock
from afresh.primitives.result import Result
from afresh.states.ui_actions import UIAction, UIActionResult, UIActionTracker
from afresh.states.ui_failures import UIFailures
from afresh.testing import FakeClock


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with use_clock(FakeClock()) as clock:
        yield clock


@pytest.fixture
def tracker(clock) -> UIActionTracker:
    return UIActionTracker()


@pytest.fixture
def failures(tracker) -> UIFailures:
    return UIFailures(tracker)


def failure(error: BaseException) -> UIActionResult[None]:
    action: UIAction[None] = UIAction("act")
    return action.complete(Result.err(error))


def messages(failures: UIFailures) -> list[str]:
    return [str(failure.error) for failure in failures]


async def test_failed_actions_are_listed_in_order_and_others_are_not(tracker, failures):
    def fail(message: str) -> None:
        raise ValueError(message)

    await tracker.run(lambda: fail("one"))
    await tracker.run(lambda: None)
    with pytest.raises(ValueError):
        await tracker.call(lambda: fail("two"))
    assert messages(failures) == ["one", "two"]
    assert len(failures) == 2
    assert failures[-1] is tracker.last_result
    assert failures[:1] == [failures[0]]
    assert "one" in repr(failures)


async def test_a_cancelled_action_is_no_failure(tracker, failures):
    task = asyncio.ensure_future(tracker.run(asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert len(failures) == 0


async def test_a_repetition_within_a_second_is_dropped(clock, failures):
    assert failures.add(failure(ValueError("same")))
    await clock.advance(0.5)
    assert not failures.add(failure(ValueError("same")))
    await clock.advance(0.5)
    assert not failures.add(failure(ValueError("same")))
    await clock.advance(0.001)
    assert failures.add(failure(ValueError("same")))
    assert messages(failures) == ["same", "same"]


async def test_another_message_or_another_type_is_no_repetition(failures):
    class Special(ValueError):
        pass

    assert failures.add(failure(ValueError("same")))
    assert failures.add(failure(ValueError("other")))
    assert failures.add(failure(Special("same")))
    assert not failures.add(failure(Special("same")))


async def test_the_repeat_period_can_be_chosen_and_zero_keeps_repeats(clock):
    everything = UIFailures(repeat_period=0)
    long = UIFailures(repeat_period=10)
    for _ in range(3):
        everything.add(failure(ValueError("same")))
        long.add(failure(ValueError("same")))
        await clock.advance(5)
    assert (len(everything), len(long)) == (3, 1)


async def test_a_dismissed_failure_may_come_again(failures):
    failures.add(failure(ValueError("same")))
    failures.dismiss(failures[0])
    assert failures.add(failure(ValueError("same")))


async def test_a_hundred_failures_are_kept_and_the_oldest_go_first(failures):
    for number in range(105):
        failures.add(failure(ValueError(str(number))))
    assert len(failures) == 100
    assert (messages(failures)[0], messages(failures)[-1]) == ("5", "104")


async def test_every_change_is_told_and_nothing_else(failures):
    told: list[int] = []
    leave = failures.on_change(lambda changed: told.append(len(changed)))
    failures.add(failure(ValueError("one")))
    failures.add(failure(ValueError("one")))
    failures.add(failure(ValueError("two")))
    first = failures[0]
    failures.dismiss(first)
    failures.dismiss(first)
    failures.clear()
    failures.clear()
    assert told == [1, 2, 1, 0]
    leave()
    failures.add(failure(ValueError("three")))
    assert told == [1, 2, 1, 0]


async def test_all_can_be_dismissed_one_by_one_while_going_through_them(failures):
    for number in range(4):
        failures.add(failure(ValueError(str(number))))
    for each in failures:
        failures.dismiss(each)
    assert len(failures) == 0


async def test_a_closed_list_stays_as_it_is(tracker, failures):
    await tracker.run(lambda: 1 / 0)
    failures.close()
    failures.close()
    await tracker.run(lambda: int("x"))
    assert len(failures) == 1


@pytest.mark.parametrize("options", [{"repeat_period": -1}, {"capacity": 0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="or more"):
        UIFailures(**options)
