"""A function that something within keeps cancelling: it is tried again, ever more slowly."""

import asyncio
import logging

import pytest

from afresh import CancellationReprocessing, ComputedOptions, ComputedState
from afresh.primitives.delays import RetryDelays
from afresh.primitives.tasks import background_tasks
from afresh.states import NO_DELAY, YIELD, NoDelayer, StateEvent, UpdateDelayer
from afresh.testing import FakeClock
from tests.states.recording import note_events, update_number


class Cancelled:
    """Is cancelled from within until it is mended."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_mended = False

    async def __call__(self) -> int:
        self.calls += 1
        if not self.is_mended:
            lost = asyncio.get_running_loop().create_future()
            lost.cancel()
            await lost
        return self.calls


class Impatient:
    """A delayer that never waits, not even after failures."""

    async def delay(self, retry_count: int) -> None:
        return


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)


async def test_one_cancellation_is_tried_again_by_itself(clock: FakeClock) -> None:
    function = Cancelled()
    async with ComputedState(function, delay=60) as state:
        await clock.settle()
        assert function.calls == 1
        function.is_mended = True
        await clock.advance(0.1)
        assert state.value == 2
        assert state.snapshot.update_count == 1


@pytest.mark.parametrize(
    "delayer", [NO_DELAY, YIELD, Impatient()], ids=lambda delayer: type(delayer).__name__
)
async def test_cancelled_for_ever_it_does_not_spin(
    clock: FakeClock, delayer: UpdateDelayer
) -> None:
    function = Cancelled()
    async with ComputedState(function, delay=delayer) as state:
        await clock.advance(60)
        assert state.is_initial
        assert 10 < function.calls < 60 / 0.04
        function.is_mended = True
        await clock.advance(60)
        assert state.value == function.calls
        assert state.computed.is_consistent


async def test_the_delays_grow_as_if_there_were_errors(clock: FakeClock) -> None:
    times: list[float] = []

    async def function() -> None:
        times.append(clock.now())
        raise asyncio.CancelledError

    once = CancellationReprocessing(retries=0)
    delayer = NoDelayer(retry_delays=RetryDelays.exponential(1, 60, 2, spread=0))
    async with ComputedState(function, delay=delayer, options=ComputedOptions(reprocessing=once)):
        await clock.advance(20)
        assert times == [0, 1, 3, 7, 15]


async def test_handlers_hear_of_one_update_however_many_attempts_it_takes(
    clock: FakeClock,
) -> None:
    function = Cancelled()
    log: list[tuple[str, int]] = []
    async with ComputedState(function, delay=YIELD, configure=note_events(log, update_number)):
        await clock.advance(30)
        function.is_mended = True
        await clock.advance(30)
        assert log == [("invalidated", 0), ("updating", 0), ("updated", 1)]


async def test_a_caller_is_told_of_the_cancellation_and_goes_on(clock: FakeClock) -> None:
    once = CancellationReprocessing(retries=0)
    async with ComputedState(
        Cancelled(), start=False, options=ComputedOptions(reprocessing=once)
    ) as state:
        with pytest.raises(asyncio.CancelledError):
            await state.update()
        assert state.is_initial
        assert state.error is None


async def test_it_can_be_closed_meanwhile(clock: FakeClock) -> None:
    for seconds in (0.01, 1, 5, 30):
        function = Cancelled()
        state = ComputedState(function, delay=YIELD)
        await clock.advance(seconds)
        closing = asyncio.ensure_future(state.aclose())
        calls = function.calls
        await clock.advance(60)
        assert closing.done()
        assert function.calls == calls
    assert background_tasks() == frozenset()
    assert clock.timers == 0


async def test_a_change_meanwhile_is_followed(clock: FakeClock) -> None:
    function = Cancelled()
    async with ComputedState(function, delay=YIELD) as state:
        seen: list[int] = []
        state.on(StateEvent.UPDATED, lambda state, _: seen.append(state.value))
        await clock.advance(5)
        function.is_mended = True
        computed = await asyncio.wait_for(asyncio.ensure_future(update(state, clock)), 5)
        assert seen == [computed]


async def update(state: ComputedState[int], clock: FakeClock) -> int:
    updating = asyncio.ensure_future(state.update())
    await clock.advance(60)
    return (await updating).value
