import asyncio
import contextlib
import math
from collections.abc import Awaitable, Iterator

import pytest

from afresh.primitives.clock import use_clock
from afresh.primitives.delays import RetryDelays
from afresh.states.delayers import (
    NEXT_TICK,
    NO_DELAY,
    YIELD,
    FixedDelayer,
    NextTickDelayer,
    NoDelayer,
    UIDelayer,
    UpdateDelayer,
    YieldDelayer,
    as_delayer,
    delayer_defaults,
)
from afresh.states.ui_actions import UIActionTracker
from afresh.testing import FakeClock

RETRIES = RetryDelays.exponential(1, 60, spread=0)
WITH_RETRIES = [
    FixedDelayer(0.5, retry_delays=RETRIES),
    NoDelayer(retry_delays=RETRIES),
    YieldDelayer(retry_delays=RETRIES),
    NextTickDelayer(retry_delays=RETRIES),
    UIDelayer(None, 0.5, retry_delays=RETRIES),
    UIDelayer(UIActionTracker(), 0.5, retry_delays=RETRIES),
]


def kind(delayer: object) -> str:
    tracker = getattr(delayer, "tracker", None)
    return type(delayer).__name__ + (" with tracker" if tracker else "")


# All but the one that does not wait.
WAITS = [
    pytest.param(delayer, retry_count, id=f"{kind(delayer)}, {retry_count} retries")
    for delayer in WITH_RETRIES
    for retry_count in (0, 1)
    if retry_count or not isinstance(delayer, NoDelayer)
]


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with use_clock(FakeClock()) as clock:
        yield clock


@pytest.fixture
def defaults():
    """Hands out the defaults, and restores them."""
    before = (
        delayer_defaults.min_delay,
        delayer_defaults.update_delay,
        delayer_defaults.retry_delays,
    )
    yield delayer_defaults
    (
        delayer_defaults.min_delay,
        delayer_defaults.update_delay,
        delayer_defaults.retry_delays,
    ) = before


async def duration(clock: FakeClock, waiting: Awaitable[None], limit: float = 100.0) -> float:
    """How much time of the fake clock something takes, to the millisecond."""
    task = asyncio.ensure_future(waiting)
    start = clock.now()
    await clock.settle()
    while not task.done():
        assert clock.now() - start < limit, "it takes too long"
        await clock.advance(0.001)
    await task
    return round(clock.now() - start, 3)


# -- what all have in common


@pytest.mark.parametrize("delayer", WITH_RETRIES, ids=kind)
async def test_every_delayer_waits_for_the_retry_delay_after_errors(clock, delayer):
    assert [await duration(clock, delayer.delay(n)) for n in (1, 2, 3)] == [1.0, 1.415, 2.0]
    assert clock.timers == 0


@pytest.mark.parametrize(
    "delayer",
    [FixedDelayer(0.5, retry_delays=RETRIES), UIDelayer(None, 0.5, retry_delays=RETRIES)],
    ids=kind,
)
async def test_the_delays_for_no_one_and_two_retries_are_500_1000_and_1414_ms(clock, delayer):
    exact = []
    for retry_count in (0, 1, 2):
        task = asyncio.ensure_future(delayer.delay(retry_count))
        await clock.settle()
        exact.append(clock._timers.next_due() - clock.now())
        task.cancel()
        await clock.settle()
    assert exact == pytest.approx([0.5, 1.0, 1.4142], abs=1e-4)


@pytest.mark.parametrize(("delayer", "retry_count"), WAITS)
async def test_cancelling_the_wait_leaves_nothing_behind(clock, delayer, retry_count):
    task = asyncio.ensure_future(delayer.delay(retry_count))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.timers == 0
    assert len(asyncio.all_tasks()) == 1
    tracker = getattr(delayer, "tracker", None)
    assert tracker is None or len(tracker._started) == 0


@pytest.mark.parametrize(("delayer", "retry_count"), WAITS)
async def test_a_delayer_raises_in_a_task_that_is_cancelled_already(clock, delayer, retry_count):
    passed = False

    async def cancel_self_and_wait() -> None:
        nonlocal passed
        asyncio.current_task().cancel()
        await delayer.delay(retry_count)
        passed = True

    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(cancel_self_and_wait())
    assert not passed
    assert clock.timers == 0


@pytest.mark.parametrize("delayer", WITH_RETRIES, ids=kind)
def test_every_delayer_is_an_update_delayer(delayer):
    assert isinstance(delayer, UpdateDelayer)
    assert delayer.retry_delays is RETRIES


# -- fixed


async def test_a_fixed_delayer_waits_for_its_time(clock):
    assert await duration(clock, FixedDelayer.get(0.25).delay(0)) == 0.25


@pytest.mark.parametrize("seconds", [0, 0.01, 0.032])
async def test_a_fixed_delayer_waits_for_32_ms_at_least(clock, seconds):
    delayer = FixedDelayer.get(seconds)
    assert delayer.seconds == 0.032
    assert await duration(clock, delayer.delay(0)) == 0.032


def test_fixed_delayers_are_shared_by_duration():
    assert FixedDelayer.get(1) is FixedDelayer.get(1.0)
    assert FixedDelayer.get(1) is not FixedDelayer.get(2)
    assert repr(FixedDelayer.get(0.5)) == "FixedDelayer(0.5)"


async def test_an_infinite_delay_never_ends_but_can_be_cancelled(clock):
    task = asyncio.ensure_future(FixedDelayer.get(math.inf).delay(0))
    await clock.advance(1e9)
    assert not task.done()
    task.cancel()
    await clock.settle()
    assert clock.timers == 0


@pytest.mark.parametrize("seconds", [-0.1, math.nan, -math.inf])
def test_a_negative_delay_is_refused(seconds):
    for make in (FixedDelayer, FixedDelayer.get, as_delayer, lambda s: UIDelayer(None, s)):
        with pytest.raises(ValueError, match="0 or more"):
            make(seconds)


# -- defaults


def test_the_defaults_are_those_of_the_reference():
    assert delayer_defaults.min_delay == 0.032
    assert delayer_defaults.update_delay == 1.0
    assert delayer_defaults.retry_delays == RetryDelays(1, 60, math.sqrt(2), 0.1)


async def test_a_changed_default_reaches_delayers_that_are_there_already(clock, defaults):
    fixed, ui = FixedDelayer.get(0), UIDelayer(UIActionTracker())
    defaults.min_delay = 0.1
    defaults.update_delay = 2
    defaults.retry_delays = RetryDelays.fixed(5, spread=0)
    assert await duration(clock, fixed.delay(0)) == 0.1
    assert await duration(clock, ui.delay(0)) == 2.0
    assert [await duration(clock, delayer.delay(1)) for delayer in (fixed, ui)] == [5.0, 5.0]


def test_the_shortest_delay_can_be_none(defaults):
    defaults.min_delay = 0
    assert FixedDelayer.get(0).seconds == 0.0


@pytest.mark.parametrize("name", ["min_delay", "update_delay"])
def test_a_negative_default_is_refused(defaults, name):
    before = getattr(defaults, name)
    with pytest.raises(ValueError, match="0 or more"):
        setattr(defaults, name, -0.001)
    assert getattr(defaults, name) == before


# -- the ones without a delay of their own


async def test_no_delay_returns_without_giving_way(clock):
    ran: list[str] = []
    task = asyncio.ensure_future(asyncio.sleep(0, ran.append("never mind")))
    ran.clear()
    asyncio.get_running_loop().call_soon(ran.append, "other")
    await NO_DELAY.delay(0)
    assert ran == []
    assert clock.timers == 0
    await task


async def test_yield_lets_others_run_and_takes_no_time(clock):
    ran: list[str] = []
    asyncio.get_running_loop().call_soon(ran.append, "other")
    await YIELD.delay(0)
    assert ran == ["other"]
    assert (clock.now(), clock.timers) == (0.0, 0)


async def test_waits_for_the_next_tick_end_together(clock):
    ends: list[float] = []

    async def wait() -> None:
        await NEXT_TICK.delay(0)
        ends.append(round(clock.now(), 6))

    tasks = []
    for _ in range(5):
        tasks.append(asyncio.ensure_future(wait()))
        await clock.advance(0.002)
    assert ends == []
    await clock.advance(0.005)
    assert ends == [0.015] * 5
    await asyncio.gather(*tasks)


async def test_ticks_are_15_ms_apart_however_time_rounds():
    for start in (0.0, 0.1, 12345.678, 1e7):
        with use_clock(FakeClock(start)) as clock:
            gaps: list[float] = []

            async def follow(clock: FakeClock = clock, gaps: list[float] = gaps) -> None:
                while True:
                    before = clock.now()
                    await NEXT_TICK.delay(0)
                    gaps.append(clock.now() - before)

            task = asyncio.ensure_future(follow())
            await clock.advance(3)
            task.cancel()
            await clock.settle()
            assert 198 <= len(gaps) <= 201
            assert gaps[1:] == pytest.approx([0.015] * (len(gaps) - 1), abs=1e-5)


# -- UI-aware


async def test_without_a_tracker_a_ui_delayer_waits_for_one_second(clock):
    assert await duration(clock, UIDelayer().delay(0)) == 1.0


async def test_without_user_actions_the_full_delay_passes(clock):
    tracker = UIActionTracker()
    assert await duration(clock, UIDelayer(tracker, 0.5).delay(0)) == 0.5
    assert clock.timers == 0
    assert len(tracker._started) == 0


@pytest.mark.parametrize("tracker", [None, UIActionTracker()])
async def test_a_ui_delayer_waits_for_32_ms_at_least(clock, tracker):
    assert await duration(clock, UIDelayer(tracker, 0).delay(0)) == 0.032


async def test_inside_the_instant_window_the_wait_is_32_ms_and_outside_the_full_delay(clock):
    tracker = UIActionTracker()
    delayer = UIDelayer(tracker, 0.5)
    await tracker.run(asyncio.sleep(0))
    assert await duration(clock, delayer.delay(0)) == 0.032
    await clock.advance(0.268 - 0.032 + 0.031)
    assert tracker.instant_updates_enabled
    assert await duration(clock, delayer.delay(0)) == 0.032
    await clock.advance(0.01)
    assert not tracker.instant_updates_enabled
    assert await duration(clock, delayer.delay(0)) == 0.5


async def test_a_running_action_still_leaves_a_wait_of_32_ms(clock):
    tracker = UIActionTracker()
    action = asyncio.ensure_future(tracker.run(clock.sleep(60)))
    await clock.advance(10)
    for _ in range(3):
        assert await duration(clock, UIDelayer(tracker, 0.5).delay(0)) == 0.032
    action.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await action


@pytest.mark.parametrize(("acts_at", "ends_at"), [(0.01, 0.032), (0.02, 0.032), (0.4, 0.4)])
async def test_an_action_ends_the_wait_but_not_before_32_ms(clock, acts_at, ends_at):
    tracker = UIActionTracker()

    async def act() -> None:
        await clock.sleep(acts_at)
        await tracker.run(asyncio.sleep(0))

    task = asyncio.ensure_future(act())
    assert await duration(clock, UIDelayer(tracker, 1).delay(0)) == ends_at
    assert clock.timers == 0
    assert len(tracker._started) == 0
    await task


async def test_after_errors_an_action_shortens_the_wait_to_the_first_retry_delay(clock):
    tracker = UIActionTracker()
    delayer = UIDelayer(tracker, 0.1, retry_delays=RETRIES)
    await tracker.run(asyncio.sleep(0))
    assert await duration(clock, delayer.delay(9)) == 1.0
    assert await duration(clock, delayer.delay(9)) == 16.0


async def test_a_retry_delay_that_strays_below_the_first_one_is_raised_to_it(clock):
    low = RetryDelays.exponential(1, 60, spread=0.1, random_source=lambda: 0.0)
    assert low[1] == pytest.approx(0.9)
    assert await duration(clock, UIDelayer(None, 0.1, retry_delays=low).delay(1)) == 1.0


async def test_a_stopped_tracker_leaves_the_full_delay(clock):
    tracker = UIActionTracker()
    task = asyncio.ensure_future(duration(clock, UIDelayer(tracker, 0.5).delay(0)))
    await asyncio.sleep(0)
    tracker.stop()
    assert await task == 0.5


async def test_without_any_shortest_delay_an_instant_update_takes_no_time(clock, defaults):
    defaults.min_delay = 0
    tracker = UIActionTracker()
    await tracker.run(asyncio.sleep(0))
    assert await duration(clock, UIDelayer(tracker, 1).delay(0)) == 0.0
    assert await duration(clock, UIDelayer(None, 0).delay(0)) == 0.0


# -- what users pass


def test_seconds_become_a_shared_fixed_delayer():
    assert as_delayer(0.5) is FixedDelayer.get(0.5)
    assert as_delayer(2) is FixedDelayer.get(2)


def test_a_delayer_stays_what_it_is():
    class Mine:
        async def delay(self, retry_count: int) -> None:
            await asyncio.sleep(0)

    mine = Mine()
    assert as_delayer(mine) is mine
    assert as_delayer(NO_DELAY) is NO_DELAY


async def test_nothing_becomes_a_delay_of_one_second(clock):
    delayer = as_delayer(None)
    assert isinstance(delayer, UIDelayer)
    assert delayer.tracker is None
    assert await duration(clock, delayer.delay(0)) == 1.0


@pytest.mark.parametrize("value", ["0.5", [], UIDelayer, lambda: None])
def test_what_is_no_delay_is_refused(value):
    with pytest.raises(TypeError, match="pass seconds, a delayer"):
        as_delayer(value)
