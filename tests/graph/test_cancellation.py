"""Cancelled callers, and bodies that are cancelled from within; a cancellation is never cached."""

import asyncio
import contextlib
import contextvars
import gc
import logging

import pytest

from afresh import ComputeService, compute_function, compute_method
from afresh.graph import CancellationReprocessing, ComputedOptions
from afresh.primitives.delays import RetryDelays
from afresh.testing import FakeClock
from tests.graph.services import Gated


class TestACancelledCaller:
    async def test_gets_its_cancellation_and_leaves_no_result(self):
        gated = Gated()
        call = asyncio.ensure_future(gated.get())
        await gated.started.wait()

        call.cancel("a reason")
        with pytest.raises(asyncio.CancelledError, match="a reason"):
            await call

        assert gated.get.existing() is None
        assert dict(gated.get.table.computing) == {}
        gated.gate.set()
        assert await gated.get() == 0
        assert gated.runs == 2

    async def test_is_replaced_by_the_next_who_waits(self):
        gated = Gated()
        calls = [asyncio.ensure_future(gated.get()) for _ in range(3)]
        await gated.started.wait()
        gated.started.clear()

        calls[0].cancel()
        await gated.started.wait()
        assert gated.runs == 2
        gated.gate.set()

        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in results] == [asyncio.CancelledError, int, int]
        assert gated.runs == 2

    async def test_may_be_any_of_those_who_wait(self):
        gated = Gated()
        calls = [asyncio.ensure_future(gated.get()) for _ in range(4)]
        await gated.started.wait()

        calls[1].cancel()
        calls[3].cancel()
        await asyncio.sleep(0)
        assert [call.done() for call in calls] == [False, True, False, True]
        assert gated.runs == 1

        gated.gate.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in results] == [int, asyncio.CancelledError] * 2
        assert gated.runs == 1

    async def test_may_be_one_after_the_other(self):
        gated = Gated()
        calls = [asyncio.ensure_future(gated.get()) for _ in range(5)]
        for run, call in enumerate(calls[:4], 1):
            await gated.started.wait()
            gated.started.clear()
            assert gated.runs == run
            call.cancel()
        await gated.started.wait()
        gated.gate.set()
        assert await calls[4] == 0
        assert gated.runs == 5

    async def test_that_is_cancelled_before_it_begins_computes_nothing(self):
        gated = Gated()
        gated.gate.set()
        for _ in range(5):
            call = asyncio.ensure_future(gated.get())
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert gated.runs == 0
        assert await gated.get() == 0

    async def test_cancels_what_its_body_computes(self):
        gated = Gated()

        class Outer(ComputeService):
            @compute_method
            async def get(self) -> int:
                return await gated.get()

        outer = Outer()
        call = asyncio.ensure_future(outer.get())
        await gated.started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert outer.get.existing() is gated.get.existing() is None
        gated.gate.set()
        assert await outer.get() == 0

    async def test_leaves_to_others_what_they_wait_for_inside_it(self):
        gated = Gated()

        class Outer(ComputeService):
            @compute_method
            async def get(self) -> int:
                return await gated.get()

        outer = Outer()
        first = asyncio.ensure_future(outer.get())
        await gated.started.wait()
        gated.started.clear()
        other = asyncio.ensure_future(gated.get())
        await asyncio.sleep(0)

        first.cancel()
        await gated.started.wait()
        gated.gate.set()

        assert await other == 0
        assert gated.runs == 2

    async def test_with_a_time_limit_counts_as_cancelled_from_outside(self):
        gated = Gated()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await gated.get()
        assert gated.runs == 1
        assert gated.get.existing() is None
        gated.gate.set()
        assert await gated.get() == 0

    async def test_in_a_gather_is_told_apart_from_the_others(self):
        gated = Gated()

        async def gather() -> None:
            await asyncio.gather(gated.get(1), gated.get(2))

        task = asyncio.create_task(gather())
        other = asyncio.ensure_future(gated.get(2))
        await gated.started.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gated.gate.set()
        assert await other == 0

    async def test_whose_body_swallows_it_gets_and_caches_the_value(self):
        class Stubborn(ComputeService):
            runs = 0

            @compute_method
            async def get(self) -> int:
                self.runs += 1
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(10)
                return self.runs

        stubborn = Stubborn()
        call = asyncio.ensure_future(stubborn.get())
        await asyncio.sleep(0)
        call.cancel()
        assert await call == 1
        assert await stubborn.get() == 1

    async def test_whose_body_turns_it_into_an_error_caches_that(self):
        class Telling(ComputeService):
            @compute_method
            async def get(self) -> int:
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    raise ValueError("was cancelled") from None
                return 1

        telling = Telling()
        call = asyncio.ensure_future(telling.get())
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(ValueError, match="was cancelled"):
            await call
        assert telling.get.existing() is not None

    async def test_in_great_numbers_leaves_no_call_hanging(self):
        class Slow(ComputeService):
            @compute_method
            async def get(self, key: int) -> int:
                for _ in range(5):
                    await asyncio.sleep(0)
                return key

        slow = Slow()
        calls = [asyncio.ensure_future(slow.get(number % 10)) for number in range(1000)]
        await asyncio.sleep(0)
        for number, call in enumerate(calls):
            if number // 10 % 2 == 0:
                call.cancel()
            if number % 100 == 0:
                await asyncio.sleep(0)
        results = await asyncio.gather(*calls, return_exceptions=True)
        for number, result in enumerate(results):
            if not isinstance(result, asyncio.CancelledError):
                assert result == number % 10
        assert sum(isinstance(result, int) for result in results) >= 500
        assert dict(slow.get.table.computing) == {}


class Inner(ComputeService):
    """Its body waits for futures that the test makes, and cancels or sets."""

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[int]] = []

    @compute_method
    async def get(self) -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        return await future


def reprocessing(duration: float = 2.0) -> ComputedOptions:
    """Options with exact delays before retries."""
    delays = RetryDelays.exponential(0.05, 1.0, spread=0)
    return ComputedOptions(reprocessing=CancellationReprocessing(duration=duration, delays=delays))


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes chance out of the delays before retries."""
    monkeypatch.setattr("afresh.graph.options._default", reprocessing())
    # Options are read when a method is first used: make sure that is in the test.
    monkeypatch.setattr(Inner.get.definition, "_options", None)


@pytest.mark.usefixtures("exact")
class TestABodyThatIsCancelledFromWithin:
    async def test_runs_again_after_a_delay(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ):
        inner = Inner()
        call = asyncio.ensure_future(inner.get())
        await clock.settle()
        first = inner.get.existing()
        assert first is not None

        inner.futures[0].cancel()
        await clock.advance(0.049)
        assert len(inner.futures) == 1
        assert first.is_computing  # others wait on
        await clock.advance(0.001)
        assert len(inner.futures) == 2
        assert first.is_invalidated
        assert str(first.invalidation_cause) == "the computation was cancelled"
        assert isinstance(first.error, asyncio.CancelledError)

        inner.futures[1].set_result(7)
        assert await call == 7
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.getMessage() == "Inner.get() was cancelled from within; trying again."

    async def test_keeps_those_waiting_who_wait(self, clock: FakeClock):
        inner = Inner()
        calls = [asyncio.ensure_future(inner.get()) for _ in range(3)]
        await clock.settle()
        inner.futures[0].cancel()
        await clock.settle()
        late = asyncio.ensure_future(inner.get())
        await clock.advance(0.05)
        assert len(inner.futures) == 2
        inner.futures[1].set_result(7)
        assert await asyncio.gather(*calls, late) == [7] * 4
        assert len(inner.futures) == 2

    async def test_is_tried_ten_times_more(self, clock: FakeClock, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("afresh.graph.options._default", reprocessing(duration=1000))

        class Patient(Inner):
            @compute_method
            async def get(self) -> int:
                return await super().get()

        patient = Patient()
        call = asyncio.ensure_future(patient.get())
        for _ in range(20):
            await clock.settle()
            if call.done():
                break
            patient.futures[-1].cancel()
            await clock.advance(1)
        with pytest.raises(asyncio.CancelledError):
            await call
        assert len(patient.futures) == 11
        assert patient.get.existing() is None

    async def test_is_not_tried_again_after_two_seconds(self, clock: FakeClock):
        inner = Inner()
        call = asyncio.ensure_future(inner.get())
        runs = 0
        while not call.done():
            await clock.settle()
            if len(inner.futures) > runs:
                runs = len(inner.futures)
                inner.futures[-1].cancel()
            await clock.advance(0.01)
        with pytest.raises(asyncio.CancelledError):
            await call
        delays = [min(1.0, 0.05 * 2 ** (number / 2)) for number in range(9)]
        assert sum(delays[:8]) < 2 < sum(delays)
        assert runs == 1 + len(delays)

    async def test_waits_longer_before_each_retry(self, clock: FakeClock):
        inner = Inner()
        call = asyncio.ensure_future(inner.get())
        expected = [0.05, 0.0707, 0.1, 0.1414]
        for delay in expected:
            await clock.settle()
            inner.futures[-1].cancel()
            runs = len(inner.futures)
            await clock.advance(delay - 0.001)
            assert len(inner.futures) == runs
            await clock.advance(0.002)
            assert len(inner.futures) == runs + 1
        inner.futures[-1].set_result(1)
        assert await call == 1

    async def test_stops_when_its_caller_is_cancelled_in_between(self, clock: FakeClock):
        inner = Inner()
        call = asyncio.ensure_future(inner.get())
        await clock.settle()
        timers = clock.timers
        inner.futures[0].cancel()
        await clock.settle()
        assert clock.timers == timers + 1

        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert clock.timers == timers
        assert inner.get.existing() is None
        assert len(inner.futures) == 1

    async def test_goes_over_to_the_next_who_waits_then(self, clock: FakeClock):
        inner = Inner()
        first, second = asyncio.ensure_future(inner.get()), asyncio.ensure_future(inner.get())
        await clock.settle()
        inner.futures[0].cancel()
        await clock.settle()
        first.cancel()
        await clock.settle()
        assert len(inner.futures) == 2
        inner.futures[1].set_result(3)
        assert await second == 3

    async def test_may_be_so_because_a_task_it_awaits_was_cancelled(self, clock: FakeClock):
        tasks: list[asyncio.Task[None]] = []

        class Tasks(ComputeService):
            @compute_method
            async def get(self) -> int:
                tasks.append(asyncio.create_task(asyncio.sleep(1000 if len(tasks) == 0 else 0)))
                await tasks[-1]
                return len(tasks)

        call = asyncio.ensure_future(Tasks().get())
        await clock.settle()
        tasks[0].cancel()
        await clock.advance(0.05)
        assert await call == 2

    async def test_may_be_so_because_it_raises_the_error_itself(self, clock: FakeClock):
        class Raising(ComputeService):
            runs = 0

            @compute_method
            async def get(self) -> int:
                self.runs += 1
                if self.runs < 3:
                    raise asyncio.CancelledError
                return self.runs

        call = asyncio.ensure_future(Raising().get())
        await clock.advance(1)
        assert await call == 3

    async def test_is_told_apart_in_a_task_that_once_swallowed_a_cancellation(
        self, clock: FakeClock
    ):
        inner = Inner()

        async def work() -> int:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(10)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 1
            return await inner.get()

        task = asyncio.create_task(work())
        await clock.settle()
        task.cancel()
        await clock.settle()
        inner.futures[0].cancel()
        await clock.advance(0.05)
        assert len(inner.futures) == 2

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(inner.futures) == 2

    async def test_depends_on_what_the_last_run_used(self, clock: FakeClock):
        class Uses(Inner):
            @compute_method
            async def part(self, key: int) -> int:
                return key

            @compute_method
            async def sum(self) -> int:
                number = await self.part(len(self.futures))
                future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
                self.futures.append(future)
                return number + await future

        uses = Uses()
        call = asyncio.ensure_future(uses.sum.capture())
        await clock.settle()
        uses.futures[0].cancel()
        await clock.advance(0.05)
        uses.futures[1].set_result(1)
        computed = await call
        assert [each.key for each in computed.dependencies] == [1]

    async def test_gives_right_values_however_often_it_happens(self, clock: FakeClock):
        class Flaky(ComputeService):
            value = 0
            runs = 0

            @compute_method
            async def get(self) -> int:
                self.runs += 1
                if self.runs % 2:
                    raise asyncio.CancelledError
                return self.value

        flaky = Flaky()
        for value in range(10):
            flaky.value = value
            flaky.get.invalidate()
            call = asyncio.ensure_future(flaky.get())
            await clock.advance(0.1)
            assert await call == value

    async def test_can_be_captured_only_when_it_ends_otherwise(self, clock: FakeClock):
        class Always(ComputeService):
            @compute_method
            async def get(self) -> int:
                raise asyncio.CancelledError

        always = Always()
        call = asyncio.ensure_future(always.get.capture())
        await clock.advance(10)
        with pytest.raises(asyncio.CancelledError):
            await call
        assert always.get.existing() is None


async def test_a_time_limit_inside_a_body_is_an_error_that_may_pass(clock: FakeClock):
    gated = Gated()

    class Limited(ComputeService):
        @compute_method
        async def get(self) -> int:
            async with asyncio.timeout(0.001):
                return await gated.get()

    limited = Limited()
    with pytest.raises(TimeoutError):
        await limited.get()
    computed = limited.get.existing()
    assert computed is not None
    assert isinstance(computed.error, TimeoutError)
    assert gated.get.existing() is None
    assert gated.runs == 1
    gated.gate.set()
    await clock.advance(1)
    assert await limited.get() == 0


async def test_a_wait_with_a_limit_inside_a_body_is_one_too():
    gated = Gated()

    class Limited(ComputeService):
        @compute_method
        async def get(self) -> int:
            return await asyncio.wait_for(gated.get(), 0.001)

    computed = await Limited().get.capture()
    assert isinstance(computed.error, TimeoutError)
    assert gated.get.existing() is None


@pytest.mark.parametrize("error", [GeneratorExit, KeyboardInterrupt, SystemExit])
async def test_what_ends_a_coroutine_or_the_program_is_not_cached(error: type[BaseException]):
    class Ending(ComputeService):
        error: type[BaseException] | None = None
        runs = 0

        @compute_method
        async def get(self) -> int:
            self.runs += 1
            if self.error is not None:
                raise self.error
            return self.runs

        @compute_method
        async def outer(self) -> int:
            return await self.get()

    ending = Ending()
    ending.error = error
    for call in (ending.get, ending.outer):
        coroutine = call()
        with pytest.raises(error):
            coroutine.send(None)
    ending.error = None
    assert await ending.outer() == 3


async def test_a_call_that_is_closed_half_way_lets_the_next_one_in():
    gated = Gated()
    coroutine = gated.get()
    contextvars.copy_context().run(coroutine.send, None)
    waiting = asyncio.ensure_future(gated.get())
    await asyncio.sleep(0)
    assert gated.runs == 1

    coroutine.close()
    await asyncio.sleep(0)
    assert gated.runs == 2

    gated.gate.set()
    assert await waiting == 0


async def test_a_call_that_is_forgotten_half_way_lets_the_next_one_in():
    gated = Gated()
    coroutine = gated.get()
    contextvars.copy_context().run(coroutine.send, None)
    assert gated.runs == 1

    del coroutine
    gc.collect()

    gated.gate.set()
    assert await gated.get() == 0
    assert gated.runs == 2


async def test_only_cancellations_are_not_cached():
    class Odd(BaseException):
        pass

    @compute_function
    async def fail(kind: type[BaseException]) -> int:
        raise kind

    for kind, is_cached in ((ValueError, True), (Odd, False)):
        with pytest.raises(kind):
            await fail(kind)
        assert (fail.existing(kind) is not None) == is_cached
