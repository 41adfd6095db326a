"""Invalidating from other threads: while the loop works, idles, is elsewhere, closed or missing."""

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from afresh import (
    ComputedSource,
    ComputedState,
    MutableState,
    StateEvent,
    compute_function,
    invalidate_threadsafe,
    invalidating,
)
from afresh.graph import Computed, threads
from afresh.states import YIELD
from tests.graph.services import Counters


class Everything:
    """One of each thing that can be invalidated, its result, and the call that does it."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.variable = MutableState(1)
        self.source = ComputedSource(self.one)
        self.state: ComputedState[int] = ComputedState(self.one, delay=60)

    async def one(self) -> int:
        return 1

    async def targets(self) -> dict[str, tuple[Computed[Any], Callable[[], Future[None]]]]:
        counters = self.counters

        def several() -> None:
            counters.get("several")
            counters.get("more")

        async def named(key: str) -> Computed[int]:
            return await counters.get.capture(key)

        result = await named("result")
        return {
            "method": (await named("a"), lambda: invalidate_threadsafe(counters.get, "a")),
            "method by keyword": (
                await named("b"),
                lambda: invalidate_threadsafe(counters.get, key="b"),
            ),
            "result": (result, lambda: invalidate_threadsafe(result)),
            "function": (await named("several"), lambda: invalidate_threadsafe(several)),
            "function with arguments": (
                await named("c"),
                lambda: invalidate_threadsafe(lambda key: counters.get(key), "c"),
            ),
            "variable": (self.variable.computed, lambda: invalidate_threadsafe(self.variable)),
            "source": (await self.source.update(), lambda: invalidate_threadsafe(self.source)),
            "state": (await self.state.update(), lambda: invalidate_threadsafe(self.state)),
        }


TARGETS = [
    "method",
    "method by keyword",
    "result",
    "function",
    "function with arguments",
    "variable",
    "source",
    "state",
]


@contextlib.asynccontextmanager
async def everything() -> AsyncIterator[Everything]:
    all_of_it = Everything()
    async with all_of_it.state, asyncio.timeout(20):
        yield all_of_it


class TestWhileTheLoopRuns:
    @pytest.mark.parametrize("name", TARGETS)
    async def test_anything_can_be_invalidated_from_another_thread(self, name: str) -> None:
        async with everything() as all_of_it:
            computed, invalidate = (await all_of_it.targets())[name]
            told_in: list[int] = []
            computed.on_invalidated(lambda _: told_in.append(threading.get_ident()))
            future = await asyncio.to_thread(invalidate)
            await asyncio.wrap_future(future)
            assert computed.is_invalidated
            assert told_in == [threading.get_ident()]
            assert "test_threads.py" in str(computed.invalidation_cause)

    async def test_a_thread_can_wait_until_it_is_done(self) -> None:
        async with everything() as all_of_it:
            targets = await all_of_it.targets()

            def invalidate_all() -> list[bool]:
                done = []
                for computed, invalidate in targets.values():
                    invalidate().result(timeout=10)
                    done.append(computed.is_invalidated)
                return done

            assert await asyncio.to_thread(invalidate_all) == [True] * len(targets)

    async def test_an_idle_loop_is_woken(self) -> None:
        counters = Counters()
        computed = await counters.get.capture("a")
        threading.Timer(0.02, invalidate_threadsafe, (counters.get, "a")).start()
        started = time.monotonic()
        async with asyncio.timeout(10):
            await computed.when_invalidated()
        assert time.monotonic() - started < 5

    async def test_those_who_follow_a_variable_are_woken_though_nothing_was_ever_computed(
        self,
    ) -> None:
        state = MutableState(1)
        started = time.monotonic()
        threading.Timer(0.02, invalidate_threadsafe, (state,)).start()
        async with asyncio.timeout(10):
            await state.when_updated()
        assert time.monotonic() - started < 5
        assert state.snapshot.update_count == 1

    async def test_what_is_being_computed_goes_stale_when_it_is_there(self) -> None:
        value = 1
        started, gate = asyncio.Event(), asyncio.Event()

        @compute_function
        async def slow() -> int:
            now = value
            started.set()
            await gate.wait()
            return now

        calling = asyncio.ensure_future(slow())
        await started.wait()
        value = 2
        future = await asyncio.to_thread(invalidate_threadsafe, slow)
        await asyncio.wrap_future(future)
        gate.set()
        assert await calling == 1
        assert await slow() == 2

    async def test_a_body_in_a_thread_of_its_own_may_make_itself_stale(self) -> None:
        runs = 0

        @compute_function
        async def counted() -> int:
            nonlocal runs
            runs += 1
            if runs == 1:
                await asyncio.to_thread(lambda: invalidate_threadsafe(counted).result(10))
            return runs

        async with asyncio.timeout(10):
            assert await counted() == 1
            assert await counted() == 2
            assert await counted() == 2

    async def test_in_the_loops_own_thread_it_is_done_at_once(self) -> None:
        async with everything() as all_of_it:
            for computed, invalidate in (await all_of_it.targets()).values():
                assert invalidate().done()
                assert computed.is_invalidated

    async def test_from_a_thread_with_a_loop_of_its_own_it_goes_to_the_graphs_loop(self) -> None:
        counters = Counters()
        computed = await counters.get.capture("a")
        told_in: list[int] = []
        computed.on_invalidated(lambda _: told_in.append(threading.get_ident()))

        async def elsewhere() -> None:
            await asyncio.wrap_future(invalidate_threadsafe(counters.get, "a"))

        await asyncio.to_thread(lambda: contextvars.Context().run(asyncio.run, elsewhere()))
        assert told_in == [threading.get_ident()]

    async def test_the_scope_of_the_calling_thread_plays_no_part(self) -> None:
        counters = Counters()
        other = await counters.get.capture("other")
        computed = await counters.get.capture("a")
        computed.on_invalidated(lambda _: counters.get("other"))

        def invalidate() -> Future[None]:
            with invalidating():
                return invalidate_threadsafe(counters.get, "a")

        await asyncio.wrap_future(await asyncio.to_thread(invalidate))
        assert computed.is_invalidated
        assert other.is_consistent

    async def test_one_that_is_cancelled_in_time_is_not_carried_out(self) -> None:
        counters = Counters()
        computed = await counters.get.capture("a")
        futures: list[Future[None]] = []
        thread = threading.Thread(
            target=lambda: futures.append(invalidate_threadsafe(counters.get, "a"))
        )
        thread.start()
        thread.join()  # the loop has had no chance yet
        assert futures[0].cancel()
        await asyncio.sleep(0.01)
        assert computed.is_consistent


class TestWithoutALoop:
    def test_it_is_done_at_once(self) -> None:
        counters = Counters()
        computed = asyncio.run(capture(counters, "a"))
        future: list[Future[None]] = []
        thread = threading.Thread(
            target=lambda: future.append(invalidate_threadsafe(counters.get, "a"))
        )
        thread.start()
        thread.join()
        assert future[0].done()
        assert computed.is_invalidated
        assert asyncio.run(capture(counters, "a")) is not computed

    def test_a_loop_that_stands_still_is_not_waited_for(self) -> None:
        counters = Counters()
        loop = asyncio.new_event_loop()
        try:
            computed = loop.run_until_complete(capture(counters, "a"))
            assert invalidate_threadsafe(computed).done()
            assert computed.is_invalidated
        finally:
            loop.close()

    def test_a_loop_that_closes_in_this_very_moment_does_not_matter(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Closing:
            def is_running(self) -> bool:
                return True

            def call_soon_threadsafe(self, *_: object, **__: object) -> None:
                raise RuntimeError("Event loop is closed")

        monkeypatch.setattr(threads, "graph_loop", Closing)
        state = MutableState(1)
        assert invalidate_threadsafe(state).done()
        assert state.snapshot.update_count == 1

    def test_many_threads_do_not_get_in_each_others_way(self) -> None:
        state = MutableState(0)
        told: list[int] = []
        state.on(StateEvent.INVALIDATED, lambda state, _: told.append(state.snapshot.update_count))

        def hammer() -> None:
            for _ in range(500):
                invalidate_threadsafe(state)

        run_in_threads(hammer, 4)
        assert state.snapshot.update_count == 2000
        assert told == list(range(2000))


class TestMistakes:
    @pytest.mark.parametrize("target", [None, 5, "orders"])
    def test_what_can_not_be_invalidated_is_refused_at_once(self, target: object) -> None:
        with pytest.raises(TypeError, match="compute method"):
            invalidate_threadsafe(target)

    async def test_arguments_for_a_result_are_refused_at_once(self) -> None:
        computed = await Counters().get.capture("a")
        with pytest.raises(TypeError, match="argument"):
            invalidate_threadsafe(computed, "a")

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [(([1, 2],), TypeError), (("a", "b"), TypeError)],
        ids=["unhashable", "too many"],
    )
    async def test_an_error_is_in_the_future_and_in_the_log(
        self, caplog: pytest.LogCaptureFixture, arguments: tuple[Any, ...], error: type[Exception]
    ) -> None:
        counters = Counters()
        await counters.get("a")
        future = await asyncio.to_thread(invalidate_threadsafe, counters.get, *arguments)
        with pytest.raises(error):
            await asyncio.wrap_future(future)
        assert "invalidate_threadsafe" in caplog.text

    async def test_what_a_function_raises_is_in_the_future(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        await Counters().get("a")

        def fail() -> None:
            raise LookupError("no orders")

        future = await asyncio.to_thread(invalidate_threadsafe, fail)
        with pytest.raises(LookupError, match="no orders"):
            await asyncio.wrap_future(future)


class TestHammering:
    async def test_what_two_threads_make_stale_at_once_keeps_no_edge(self) -> None:
        first, second = MutableState(0), MutableState(0)

        @compute_function
        async def total() -> int:
            return first.use() + second.use()

        for _ in range(100):
            computed = await total.capture()
            sources = [first.computed, second.computed]
            futures = await asyncio.gather(
                *(asyncio.to_thread(invalidate_threadsafe, state) for state in (first, second))
            )
            await asyncio.gather(*map(asyncio.wrap_future, futures))
            for node in (computed, *sources):
                assert node.is_invalidated
                assert node.dependencies == node.dependants == ()

    async def test_four_threads_and_a_busy_loop_end_with_what_is_right(self) -> None:
        counters = Counters()
        keys = [f"key {number}" for number in range(8)]
        variable = MutableState(0)
        lock = threading.Lock()
        changes = 0

        @compute_function
        async def total() -> int:
            await asyncio.sleep(0)
            return sum([await counters.get(key) for key in keys]) + variable.use()

        def hammer() -> None:
            nonlocal changes
            for number in range(250):
                key = keys[number % len(keys)]
                with lock:
                    counters.values[key] = counters.values.get(key, 0) + 1
                    changes += 1
                last = invalidate_threadsafe(counters.get, key)
                invalidate_threadsafe(variable.change, lambda value: value + 1)
                invalidate_threadsafe(total)
                if number % 50 == 0:
                    last.result(timeout=10)

        async def ask(stop: asyncio.Event) -> int:
            asked = 0
            while not stop.is_set():
                await total()
                asked += 1
                await asyncio.sleep(0)
            return asked

        stop = asyncio.Event()
        async with asyncio.timeout(30), ComputedState(total, delay=YIELD) as state:
            asking = [asyncio.ensure_future(ask(stop)) for _ in range(3)]
            await asyncio.to_thread(run_in_threads, hammer, 4)
            await settled(lambda: variable.value == 1000)
            stop.set()
            assert min(await asyncio.gather(*asking)) > 0
            assert changes == 1000
            assert await total() == 2000
            await settled(lambda: state.value == 2000)


async def capture(counters: Counters, key: str) -> Computed[int]:
    return await counters.get.capture(key)


async def settled(is_reached: Callable[[], bool]) -> None:
    while not is_reached():
        await asyncio.sleep(0.001)


def run_in_threads(work: Callable[[], object], count: int) -> None:
    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(work) for _ in range(count)]:
            future.result(timeout=30)
