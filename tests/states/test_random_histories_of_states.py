"""Whatever happens to a state, and whenever: events in order, the right value, nothing left."""

import asyncio
import contextlib
import logging
import random
from typing import Any

import pytest

from afresh import ComputedOptions, ComputedState, MutableState, StateEvent, compute_function
from afresh.primitives.delays import RetryDelays
from afresh.primitives.tasks import background_tasks
from afresh.states import FixedDelayer, NoDelayer, UIActionTracker, UIDelayer, YieldDelayer
from afresh.testing import FakeClock
from tests.states.recording import note_events, update_number

RETRIES = RetryDelays.exponential(0.1, 1, spread=0)
TROUBLES: list[type[BaseException]] = [TimeoutError, LookupError, asyncio.CancelledError]


class History:
    """A state over a variable and a compute function, to which a seed makes things happen."""

    def __init__(self, clock: FakeClock, seed: int) -> None:
        self.clock = clock
        self.random = random.Random(seed)
        self.trouble: type[BaseException] | None = None
        self.is_meddling = True
        self.variable = MutableState(0)
        self.log: list[tuple[str, Any]] = []
        self.asking: list[asyncio.Future[Any]] = []
        tracker = UIActionTracker()
        self.state: ComputedState[int] = ComputedState(
            self._function(),
            delay=self.random.choice(
                [
                    NoDelayer(retry_delays=RETRIES),
                    YieldDelayer(retry_delays=RETRIES),
                    FixedDelayer(0.05, retry_delays=RETRIES),
                    UIDelayer(tracker, 0.1, retry_delays=RETRIES),
                ]
            ),
            options=ComputedOptions(
                invalidation_delay=self.random.choice([0, 0, 0.02]),
                auto_invalidate=self.random.choice([60, 60, 0.3]),
                transient_error_delay=0.05,
                error_delay=0.1,
            ),
            graceful_close=self.random.choice([0, 0.01, 10]),
            configure=note_events(self.log, update_number),
        )
        self.state.on(StateEvent.UPDATED, self._meddle)
        self.tracker = tracker

    def _function(self) -> Any:
        @compute_function(consolidate=self.random.choice([float("inf"), 0, 0.01]))
        async def tens() -> int:
            value = self.variable.use()
            await self._dawdle()
            return value // 10

        async def function() -> int:
            first = self.variable.use()
            await self._dawdle()
            if self.trouble is not None and self.random.random() < 0.5:
                raise self.trouble
            return first * 1000 + await tens()

        return function

    async def _dawdle(self) -> None:
        if self.random.random() < 0.5:
            await self.clock.sleep(self.random.random() / 20)

    def _meddle(self, state: ComputedState[int], _: StateEvent) -> None:
        if self.is_meddling and self.random.random() < 0.1:
            state.invalidate()
        if self.is_meddling and self.random.random() < 0.1:
            self.variable.change(lambda value: value + 1)

    async def step(self) -> None:
        match self.random.randrange(10):
            case 0 | 1 | 2:
                self.variable.change(lambda value: value + 1)
            case 3:
                self.state.invalidate(after=self.random.choice([0, 0.03]))
            case 4:
                self.asking.append(asyncio.ensure_future(self.state.recompute()))
            case 5:
                self.asking.append(asyncio.ensure_future(self.state.use()))
            case 6 if self.asking:
                self.random.choice(self.asking).cancel()
            case 7:
                self.trouble = self.random.choice([None, None, *TROUBLES])
            case 8:
                self.asking.append(
                    asyncio.ensure_future(self.tracker.run(lambda: self.clock.sleep(0.01)))
                )
        match self.random.randrange(3):
            case 0:
                await asyncio.sleep(0)
            case 1:
                await self.clock.advance(self.random.random() / 10)

    async def calm_down(self) -> None:
        """Let nothing new happen, and wait until the state had time to follow."""
        self.trouble = None
        self.is_meddling = False
        await self.finish()
        await self.clock.advance(5)

    async def finish(self) -> None:
        for asked in self.asking:
            asked.cancel()
        await self.clock.settle()
        for asked in self.asking:
            with contextlib.suppress(asyncio.CancelledError):
                asked.exception()

    def check_events(self) -> None:
        """INVALIDATED, UPDATING, UPDATED in turn, each once for each generation."""
        expected = []
        for number in range(len(self.log)):
            expected += [("invalidated", number), ("updating", number), ("updated", number + 1)]
        assert self.log == expected[: len(self.log)]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@pytest.mark.parametrize("seed", range(40))
async def test_a_state_gets_over_everything(clock: FakeClock, seed: int) -> None:
    history = History(clock, seed)
    state = history.state
    for _ in range(150):
        await history.step()
    await history.calm_down()
    asking = asyncio.ensure_future(state.use())
    await clock.advance(1)
    value = history.variable.value
    assert asking.result() == value * 1000 + value // 10
    assert state.value == asking.result()
    await close(state, clock)
    history.check_events()
    assert background_tasks() == frozenset()


@pytest.mark.parametrize("seed", range(40))
async def test_a_state_can_be_closed_at_any_moment(clock: FakeClock, seed: int) -> None:
    history = History(clock, seed)
    for _ in range(history.random.randrange(60)):
        await history.step()
    history.state.close()
    count, value = history.state.snapshot.update_count, history.state.value_or_none
    await close(history.state, clock)
    history.variable.change(lambda value: value + 1)
    await history.finish()
    await clock.advance(60)
    assert (history.state.snapshot.update_count, history.state.value_or_none) == (count, value)
    history.check_events()
    assert history.state.computed.dependencies == ()
    assert background_tasks() == frozenset()


async def close(state: ComputedState[int], clock: FakeClock) -> None:
    closing = asyncio.ensure_future(state.aclose())
    await clock.advance(11)
    assert closing.done()
