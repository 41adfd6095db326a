"""Synchronizers: which results count as confirmed, how long to wait for it, what comes after."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from afresh import Computed, ComputedOptions, ComputedState, MutableState, compute_function
from afresh.graph import (
    NO_SYNCHRONIZER,
    PRECISE,
    SafeSynchronizer,
    Synchronizer,
    current_synchronizer,
)
from afresh.graph._context import current
from afresh.graph.producer import Producer, produce, settle
from afresh.graph.scopes import Isolated
from afresh.graph.synchronizer import Synchronization
from afresh.primitives.tasks import background_tasks
from afresh.testing import FakeClock


class Remote(Producer):
    """Numbers from far away: each is kept from last time until the test says that it is right."""

    def __init__(self) -> None:
        super().__init__(self._fetch, ComputedOptions())
        self.confirmed: dict[int, asyncio.Event] = {}
        self.failure: Exception | None = None
        self.fetched = 0

    async def _fetch(self) -> int:
        self.fetched += 1
        return self.fetched

    def synchronization(self, computed: Computed[Any]) -> Synchronization:
        event = self.confirmed.setdefault(computed.version, asyncio.Event())

        async def wait() -> None:
            await event.wait()
            if self.failure is not None:
                raise self.failure

        return Synchronization(event.is_set, wait)

    def remembered(self, value: int) -> Computed[int]:
        return settle(self, value)

    async def use(self) -> int:
        value: int = await produce(self, (), (), current.get())
        return value

    async def fetch(self) -> Computed[int]:
        computed: Computed[int] = await produce(self, (), (), Isolated(), True)
        return computed

    def confirm(self, computed: Computed[Any]) -> None:
        self.confirmed.setdefault(computed.version, asyncio.Event()).set()


@pytest.fixture
def remote() -> Remote:
    return Remote()


@pytest.fixture(autouse=True)
def none_in_force() -> Iterator[None]:
    assert current_synchronizer() is NO_SYNCHRONIZER
    yield
    assert current_synchronizer() is NO_SYNCHRONIZER


async def is_done(waiting: "asyncio.Future[Any]", clock: FakeClock) -> bool:
    await clock.settle()
    return waiting.done()


class TestNone:
    async def test_everything_counts_as_confirmed_at_once(self, remote: Remote) -> None:
        computed = remote.remembered(1)
        assert NO_SYNCHRONIZER.is_synchronized(computed)
        await NO_SYNCHRONIZER.when_synchronized(computed)
        assert computed.is_synchronized()

    async def test_synchronizing_returns_even_a_stale_result_as_it_is(self, remote: Remote) -> None:
        computed = remote.remembered(1)
        computed.invalidate()
        assert await NO_SYNCHRONIZER.synchronize(computed) is computed
        assert remote.fetched == 0


class TestPrecise:
    async def test_what_is_kept_from_last_time_is_confirmed_when_its_producer_says_so(
        self, clock: FakeClock, remote: Remote
    ) -> None:
        computed = remote.remembered(1)
        assert not PRECISE.is_synchronized(computed)
        waiting = asyncio.ensure_future(PRECISE.when_synchronized(computed))
        assert not await is_done(waiting, clock)
        await clock.advance(1000)
        assert not waiting.done()
        remote.confirm(computed)
        assert await is_done(waiting, clock)
        assert PRECISE.is_synchronized(computed)

    async def test_what_depends_on_nothing_unconfirmed_is_confirmed(self) -> None:
        @compute_function
        async def one() -> int:
            return 1

        computed = await one.capture()
        assert PRECISE.is_synchronized(computed)
        await PRECISE.when_synchronized(computed)

    async def test_a_result_is_confirmed_when_all_it_was_computed_from_is(
        self, clock: FakeClock
    ) -> None:
        first, second = Remote(), Remote()
        sources = [first.remembered(1), second.remembered(2)]

        @compute_function
        async def total() -> int:
            return await first.use() + await second.use()

        @compute_function
        async def shown() -> str:
            return str(await total() + await total())

        computed = await shown.capture()
        assert computed.value == "6"
        waiting = asyncio.ensure_future(PRECISE.when_synchronized(computed))
        assert not await is_done(waiting, clock)
        second.confirm(sources[1])
        assert not PRECISE.is_synchronized(computed)
        assert not await is_done(waiting, clock)
        first.confirm(sources[0])
        assert PRECISE.is_synchronized(computed)
        assert await is_done(waiting, clock)

    async def test_a_dependency_that_many_share_is_looked_at_once(self, remote: Remote) -> None:
        kept = remote.remembered(1)
        looks = 0

        class Counting(Synchronizer):
            def accepts(self, source: Synchronization) -> bool:
                nonlocal looks
                looks += 1
                return True

        @compute_function
        async def part(number: int) -> int:
            return await remote.use() + (await part(number - 1) if number else 0)

        @compute_function
        async def whole() -> int:
            return sum([await part(number) for number in range(20)])

        computed = await whole.capture()
        assert Counting().is_synchronized(computed)
        assert looks == 1
        assert kept.is_consistent

    async def test_a_result_that_consolidates_is_as_confirmed_as_its_source(
        self, clock: FakeClock, remote: Remote
    ) -> None:
        kept = remote.remembered(4)
        remote.fetched = 5

        @compute_function(consolidate=0)
        async def is_even() -> bool:
            return await remote.use() % 2 == 0

        @compute_function
        async def shown() -> str:
            return str(await is_even())

        computed = await shown.capture()
        assert not PRECISE.is_synchronized(computed)
        remote.confirm(kept)
        assert PRECISE.is_synchronized(computed)
        kept.invalidate()
        await clock.settle()
        assert computed.is_consistent
        assert not PRECISE.is_synchronized(computed), "the source is another one now"

    async def test_an_error_while_waiting_is_raised(self, clock: FakeClock, remote: Remote) -> None:
        computed = remote.remembered(1)
        remote.failure = ConnectionError("lost")
        waiting = asyncio.ensure_future(PRECISE.synchronize(computed))
        await clock.settle()
        remote.confirm(computed)
        with pytest.raises(ConnectionError, match="lost"):
            await waiting

    async def test_waiting_can_be_cancelled(self, clock: FakeClock, remote: Remote) -> None:
        computed = remote.remembered(1)
        for wait in (PRECISE.when_synchronized(computed), PRECISE.synchronize(computed)):
            waiting = asyncio.ensure_future(wait)
            await clock.settle()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting


class TestSynchronizing:
    async def test_a_confirmed_and_fresh_result_is_returned_as_it_is(self, remote: Remote) -> None:
        computed = remote.remembered(1)
        remote.confirm(computed)
        assert await PRECISE.synchronize(computed) is computed

    async def test_a_result_that_went_stale_while_it_waited_is_replaced(
        self, clock: FakeClock, remote: Remote
    ) -> None:
        computed = remote.remembered(10)
        waiting = asyncio.ensure_future(PRECISE.synchronize(computed))
        await clock.settle()
        computed.invalidate()
        remote.confirm(computed)
        assert not await is_done(waiting, clock), "the new one has to be confirmed as well"
        fresh = remote.existing(())
        assert fresh is not None
        remote.confirm(fresh)
        assert await waiting is fresh
        assert fresh.value == 1

    async def test_it_is_replaced_as_often_as_the_synchronizer_allows(
        self, clock: FakeClock, remote: Remote
    ) -> None:
        computed = remote.remembered(10)
        computed.invalidate()
        remote.confirm(computed)
        waiting = asyncio.ensure_future(Synchronizer(max_updates=3).synchronize(computed))
        for number in range(1, 4):
            await clock.settle()
            fresh = remote.existing(())
            assert fresh is not None
            assert fresh.value == number
            fresh.invalidate()
            remote.confirm(fresh)
        result = await waiting
        assert (result.value, result.is_consistent) == (3, False)
        assert remote.fetched == 3

    async def test_an_error_is_a_result_like_any_other(self, clock: FakeClock) -> None:
        @compute_function
        async def fail() -> int:
            raise LookupError

        computed = await fail.capture()
        assert await PRECISE.synchronize(computed) is computed


class TestSafe:
    async def test_what_is_confirmed_is_not_waited_for(
        self, clock: FakeClock, remote: Remote
    ) -> None:
        computed = remote.remembered(1)
        remote.confirm(computed)
        safe = SafeSynchronizer()
        assert safe.is_synchronized(computed)
        await safe.when_synchronized(computed)
        assert clock.timers == 0

    async def test_by_default_it_waits_for_five_seconds_at_most(
        self, clock: FakeClock, remote: Remote
    ) -> None:
        computed = remote.remembered(1)
        safe = SafeSynchronizer()
        assert not safe.is_synchronized(computed)
        waiting = asyncio.ensure_future(safe.synchronize(computed))
        await clock.advance(4.9)
        assert not waiting.done()
        await clock.advance(0.2)
        assert waiting.done()
        assert await waiting is computed
        assert not safe.is_synchronized(computed)

    async def test_confirmed_in_time_it_leaves_nothing_behind(
        self, clock: FakeClock, remote: Remote
    ) -> None:
        computed = remote.remembered(1)
        before = asyncio.all_tasks()
        waiting = asyncio.ensure_future(SafeSynchronizer().when_synchronized(computed))
        await clock.advance(1)
        remote.confirm(computed)
        assert await is_done(waiting, clock)
        assert clock.timers == 0
        assert asyncio.all_tasks() == before
        assert background_tasks() == frozenset()

    async def test_the_limit_is_one_for_all_sources_together(self, clock: FakeClock) -> None:
        remotes = [Remote() for _ in range(5)]
        for each in remotes:
            each.remembered(1)

        @compute_function
        async def total() -> int:
            return sum([await each.use() for each in remotes])

        computed = await total.capture()
        waiting = asyncio.ensure_future(SafeSynchronizer(3).when_synchronized(computed))
        await clock.advance(2.9)
        assert not waiting.done()
        await clock.advance(0.2)
        assert waiting.done()

    @pytest.mark.parametrize("limit", [0, -1])
    async def test_without_any_time_it_does_not_wait(
        self, clock: FakeClock, remote: Remote, limit: float
    ) -> None:
        computed = remote.remembered(1)
        safe = SafeSynchronizer(limit)
        assert await safe.synchronize(computed) is computed
        assert not safe.is_synchronized(computed)

    async def test_without_a_limit_it_waits_as_long_as_it_takes(
        self, clock: FakeClock, remote: Remote
    ) -> None:
        computed = remote.remembered(1)
        waiting = asyncio.ensure_future(SafeSynchronizer(None).when_synchronized(computed))
        await clock.advance(1e6)
        assert not waiting.done()
        remote.confirm(computed)
        assert await is_done(waiting, clock)

    async def test_what_it_may_assume_counts_as_confirmed(
        self, clock: FakeClock, remote: Remote
    ) -> None:
        computed = remote.remembered(1)
        is_connected = False
        safe = SafeSynchronizer(assumes=lambda source: not is_connected)
        assert safe.is_synchronized(computed)
        await safe.when_synchronized(computed)
        is_connected = True
        assert not safe.is_synchronized(computed)

    async def test_a_stale_result_is_replaced_after_the_wait(
        self, clock: FakeClock, remote: Remote
    ) -> None:
        computed = remote.remembered(10)
        waiting = asyncio.ensure_future(SafeSynchronizer(1).synchronize(computed))
        await clock.settle()
        computed.invalidate()
        await clock.advance(1)
        assert not waiting.done()
        await clock.advance(1)
        assert (await waiting).value == 1

    async def test_an_error_while_waiting_is_raised(self, clock: FakeClock, remote: Remote) -> None:
        computed = remote.remembered(1)
        remote.failure = ConnectionError("lost")
        waiting = asyncio.ensure_future(SafeSynchronizer().when_synchronized(computed))
        await clock.settle()
        remote.confirm(computed)
        with pytest.raises(ConnectionError, match="lost"):
            await waiting
        assert clock.timers == 0

    async def test_waiting_can_be_cancelled(self, clock: FakeClock, remote: Remote) -> None:
        before = asyncio.all_tasks()
        waiting = asyncio.ensure_future(SafeSynchronizer().when_synchronized(remote.remembered(1)))
        await clock.settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert asyncio.all_tasks() == before
        assert clock.timers == 0


class TestStates:
    async def test_a_variable_is_confirmed_from_the_start(self) -> None:
        state = MutableState(1)
        assert PRECISE.is_synchronized(state.computed)
        assert await PRECISE.synchronize(state.computed) is state.computed

    async def test_a_computed_state_is_confirmed_by_its_first_update(
        self, clock: FakeClock
    ) -> None:
        gate = asyncio.Event()

        async def slow() -> int:
            await gate.wait()
            return 1

        async with ComputedState(slow, initial=0) as state:
            initial = state.computed
            assert not PRECISE.is_synchronized(initial)
            waiting = asyncio.ensure_future(PRECISE.synchronize(initial))
            assert not await is_done(waiting, clock)
            gate.set()
            assert (await waiting).value == 1
            assert PRECISE.is_synchronized(state.computed)

    async def test_it_does_not_look_at_what_the_state_was_computed_from(
        self, clock: FakeClock, remote: Remote
    ) -> None:
        remote.remembered(1)
        async with ComputedState(remote.use) as state:
            computed = await state.update()
            assert len(computed.dependencies) == 1
            assert PRECISE.is_synchronized(computed)

    async def test_waiting_for_a_state_that_closes_fails(self, clock: FakeClock) -> None:
        async def forever() -> None:
            await asyncio.Event().wait()

        async with ComputedState(forever, graceful_close=0) as state:
            waiting = asyncio.ensure_future(PRECISE.when_synchronized(state.computed))
            await clock.settle()
        with pytest.raises(Exception, match="is closed"):
            await waiting


class TestInForce:
    async def test_one_is_in_force_inside_its_block(self, remote: Remote) -> None:
        computed = remote.remembered(1)
        safe = SafeSynchronizer()
        with PRECISE.activate() as synchronizer:
            assert synchronizer is PRECISE is current_synchronizer()
            assert not computed.is_synchronized()
            with safe.activate():
                assert current_synchronizer() is safe
                with NO_SYNCHRONIZER.activate():
                    assert computed.is_synchronized()
            assert current_synchronizer() is PRECISE
        assert current_synchronizer() is NO_SYNCHRONIZER

    async def test_a_block_that_fails_puts_the_one_before_back(self) -> None:
        with pytest.raises(LookupError), PRECISE.activate():
            raise LookupError
        assert current_synchronizer() is NO_SYNCHRONIZER

    async def test_tasks_started_inside_the_block_keep_it(self, clock: FakeClock) -> None:
        async def which() -> Synchronizer:
            await clock.sleep(1)
            return current_synchronizer()

        with PRECISE.activate():
            asking = asyncio.ensure_future(which())
        await clock.advance(1)
        assert await asking is PRECISE

    async def test_what_a_result_offers_goes_by_the_one_in_force(
        self, clock: FakeClock, remote: Remote
    ) -> None:
        computed = remote.remembered(1)
        await computed.when_synchronized()
        assert await computed.synchronize() is computed
        with PRECISE.activate():
            waits = [
                asyncio.ensure_future(computed.when_synchronized()),
                asyncio.ensure_future(computed.synchronize()),
            ]
        await clock.settle()
        assert not any(wait.done() for wait in waits)
        remote.confirm(computed)
        await asyncio.gather(*waits)

    async def test_a_computed_states_function_does_not_see_it_unless_context_flows(
        self, clock: FakeClock
    ) -> None:
        async def which() -> Synchronizer:
            return current_synchronizer()

        with PRECISE.activate():
            plain = ComputedState(which)
            flowing = ComputedState(which, flow_context=True)
        async with plain, flowing:
            await clock.settle()
            assert plain.value is NO_SYNCHRONIZER
            assert flowing.value is PRECISE
