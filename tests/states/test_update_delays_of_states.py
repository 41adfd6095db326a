"""How soon a state follows: its delayer, another in its place, and the user's own actions."""

import asyncio
import math

import pytest

from afresh import ComputedState, MutableState, UIActionTracker, UIDelayer
from afresh.states import NEXT_TICK, NO_DELAY, YIELD, FixedDelayer
from afresh.testing import FakeClock


class Watched:
    """A state that copies a variable, and the times at which it did."""

    def __init__(self, clock: FakeClock, **options: object) -> None:
        self.source = MutableState(0)
        self.times: list[float] = []

        async def copy() -> int:
            self.times.append(round(clock.now(), 3))
            return self.source.use()

        self.state = ComputedState(copy, **options)  # type: ignore[arg-type]

    def change(self) -> None:
        self.source.change(lambda value: value + 1)


@pytest.mark.parametrize(
    ("delay", "expected"),
    [
        (0.5, 0.5),
        (0, 0.032),
        (None, 1),
        (FixedDelayer.get(3), 3),
        (NEXT_TICK, 0.015),
        (YIELD, 0),
        (NO_DELAY, 0),
        (UIDelayer(None, 2), 2),
    ],
)
async def test_a_change_is_followed_after_the_delay(
    clock: FakeClock, delay: float, expected: float
) -> None:
    watched = Watched(clock, delay=delay)
    async with watched.state:
        await clock.settle()
        watched.change()
        await clock.advance(5)
        assert watched.times == [0, expected]


async def test_an_endless_delay_never_follows_but_still_computes_when_asked(
    clock: FakeClock,
) -> None:
    watched = Watched(clock, delay=math.inf)
    async with watched.state:
        await clock.settle()
        watched.change()
        await clock.advance(1e6)
        assert watched.state.value == 0
        assert await watched.state.use() == 1


async def test_changes_within_the_delay_are_followed_together(clock: FakeClock) -> None:
    watched = Watched(clock, delay=1)
    async with watched.state:
        await clock.settle()
        for _ in range(9):
            watched.change()
            await clock.advance(0.1)
        await clock.advance(0.2)
        assert watched.times == [0, 1]
        assert watched.state.value == 9


async def test_a_delayer_put_in_place_later_counts_from_the_next_delay_on(
    clock: FakeClock,
) -> None:
    watched = Watched(clock, delay=1)
    async with watched.state:
        await clock.settle()
        watched.change()
        await clock.advance(0.5)
        watched.state.delayer = 5
        await clock.advance(0.5)
        assert watched.times == [0, 1]
        watched.change()
        await clock.advance(10)
        assert watched.times == [0, 1, 6]
        watched.state.delayer = UIDelayer(None, 2)
        watched.change()
        await clock.advance(10)
        assert watched.times == [0, 1, 6, 13]


async def test_what_is_no_delay_is_refused(clock: FakeClock) -> None:
    watched = Watched(clock)
    async with watched.state as state:
        with pytest.raises(TypeError, match="no delay"):
            state.delayer = "soon"  # type: ignore[assignment]
        with pytest.raises(ValueError, match="-1"):
            state.delayer = -1
        assert isinstance(state.delayer, UIDelayer)


class TestUserActions:
    async def test_what_the_user_does_shows_at_once_what_others_do_a_moment_later(
        self, clock: FakeClock
    ) -> None:
        tracker = UIActionTracker()
        watched = Watched(clock, delay=UIDelayer(tracker, 1))

        async def act() -> None:
            await clock.sleep(0.1)
            watched.change()

        async with watched.state:
            await clock.advance(10)
            watched.change()
            await clock.advance(2)
            assert watched.times == [0, 11]
            acting = asyncio.ensure_future(tracker.call(act()))
            await clock.advance(1)
            await acting
            assert watched.times == [0, 11, 12.132]
            watched.change()
            await clock.advance(2)
            assert watched.times == [0, 11, 12.132, 14]

    async def test_an_action_cuts_a_delay_short(self, clock: FakeClock) -> None:
        tracker = UIActionTracker()
        watched = Watched(clock, delay=UIDelayer(tracker, 10))

        async def act() -> None:
            pass

        async with watched.state:
            await clock.advance(1)
            watched.change()
            await clock.advance(3)
            await tracker.call(act())
            await clock.settle()
            assert watched.times == [0, 4]
            assert watched.state.value == 1

    async def test_closing_the_state_stops_listening_to_the_user(self, clock: FakeClock) -> None:
        tracker = UIActionTracker()
        watched = Watched(clock, delay=UIDelayer(tracker, 10))
        async with watched.state:
            await clock.settle()
            watched.change()
            await clock.settle()
            assert len(tracker._started) == 1
        assert len(tracker._started) == 0
        assert clock.timers == 0
