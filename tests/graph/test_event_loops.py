"""A service outlives event loops: one per test, one per call, closed in the middle of a body."""

import asyncio
import gc
import logging
import os
import sys

import pytest

from afresh import ComputeService, compute_method, isolated
from afresh.graph import nodes
from tests.graph.services import Counters


class Slow(ComputeService):
    """Waits for ever the first time, and not at all afterwards."""

    runs = 0

    @compute_method
    async def get(self) -> int:
        self.runs += 1
        if self.runs == 1:
            await asyncio.get_running_loop().create_future()
        return self.runs

    @compute_method
    async def outer(self) -> int:
        return 10 * await self.get()


def test_results_outlive_the_loop_they_were_computed_in():
    counters = Counters()
    for _ in range(3):
        assert asyncio.run(counters.total("a", "b")) == 0
    assert counters.runs == {"a": 1, "b": 1, ("a", "b"): 1}


def test_invalidations_between_loops_count():
    counters = Counters()
    for value in range(3):
        counters.set("a", value)
        assert asyncio.run(counters.total("a", "b")) == value


def test_a_service_works_in_one_new_loop_after_another():
    counters = Counters()

    async def work(number: int) -> int:
        calls = [counters.total("hub", key % 5) for key in range(20)]
        results = await asyncio.gather(*calls)
        computed = await counters.get.capture("hub")
        waiting = asyncio.ensure_future(computed.when_invalidated())
        await asyncio.sleep(0)
        counters.set("hub", number)
        await waiting
        return sum(results)

    for number in range(5):
        expected = 20 * counters.values.get("hub", 0)
        assert asyncio.run(work(number)) == expected


def test_a_task_that_is_cancelled_with_its_loop_leaves_nothing_computing():
    slow = Slow()

    async def work() -> None:
        tasks = [asyncio.ensure_future(slow.outer()) for _ in range(3)]
        await asyncio.sleep(0)
        assert slow.runs == 1
        assert tasks

    asyncio.run(work())
    assert asyncio.run(slow.outer()) == 20


def test_a_loop_that_is_closed_while_a_body_runs_is_forgotten(caplog: pytest.LogCaptureFixture):
    slow = Slow()
    loop = asyncio.new_event_loop()

    async def work() -> list[asyncio.Task[int]]:
        tasks = [asyncio.ensure_future(slow.outer()) for _ in range(3)]
        tasks.append(asyncio.ensure_future(slow.get()))
        await asyncio.sleep(0)
        return tasks

    tasks = loop.run_until_complete(work())
    loop.close()
    assert slow.runs == 1
    stuck = [node for node in nodes() if node.keeper.instance is slow]
    assert [node.is_computing for node in stuck] == [True, True]

    async def again() -> int:
        async with asyncio.timeout(5):
            return await slow.outer()

    assert asyncio.run(again()) == 20
    assert slow.runs == 2

    # The tasks of the closed loop are finished by the garbage collector at some time.
    with caplog.at_level(logging.CRITICAL):
        del tasks, loop
        gc.collect()
    assert asyncio.run(again()) == 20
    assert slow.runs == 2


def test_results_that_such_a_loop_waited_for_can_go_stale_in_the_next(
    caplog: pytest.LogCaptureFixture,
):
    counters = Counters()
    loop = asyncio.new_event_loop()

    async def work() -> asyncio.Task[None]:
        computed = await counters.get.capture("a")
        task = asyncio.create_task(computed.when_invalidated())
        await asyncio.sleep(0)
        return task

    task = loop.run_until_complete(work())
    loop.close()

    async def again() -> int:
        counters.set("a", 1)
        return await counters.get("a")

    assert asyncio.run(again()) == 1
    assert caplog.records == []
    with caplog.at_level(logging.CRITICAL):
        del task, loop
        gc.collect()


def test_timers_go_on_in_the_next_loop():
    class Expiring(ComputeService):
        runs = 0

        @compute_method(auto_invalidate=0.01)
        async def get(self) -> int:
            self.runs += 1
            return self.runs

    expiring = Expiring()
    assert asyncio.run(expiring.get()) == 1

    async def again() -> int:
        computed = expiring.get.existing()
        if computed is not None:
            async with asyncio.timeout(5):
                await Counters().get("anything")  # whatever computes brings the clock along
                await computed.when_invalidated()
        return await expiring.get()

    assert asyncio.run(again()) == 2


def test_a_new_loop_is_noticed_however_the_service_is_entered():
    slow = Slow()
    loop = asyncio.new_event_loop()
    task = loop.create_task(slow.get())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    async def capture() -> int:
        async with asyncio.timeout(5):
            return (await slow.get.capture()).value

    assert asyncio.run(capture()) == 2
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    del task
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("ends", ["with a value", "with an error"])
def test_what_the_end_of_such_a_loop_makes_of_a_body_is_no_result(
    ends: str, caplog: pytest.LogCaptureFixture
):
    class Odd(Slow):
        @compute_method
        async def get(self) -> int:
            self.runs += 1
            if self.runs > 1:
                return self.runs
            try:
                with isolated():
                    await asyncio.get_running_loop().create_future()
            except GeneratorExit:
                if ends == "with an error":
                    raise ValueError("while closing") from None
            return -1

    odd = Odd()
    loop = asyncio.new_event_loop()

    async def work() -> asyncio.Task[int]:
        task = asyncio.ensure_future(odd.outer())
        await asyncio.sleep(0)
        return task

    task = loop.run_until_complete(work())
    loop.close()
    assert odd.runs == 1
    assert asyncio.run(odd.outer()) == 20
    found = odd.get.existing()
    with caplog.at_level(logging.CRITICAL):
        del task, loop
        gc.collect()
    assert odd.get.existing() is found
    assert asyncio.run(odd.outer()) == 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
class TestAfterAFork:
    def child(self, work: object) -> int:
        """What `work()` returns in a forked child, as its exit code."""
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            code = 99
            try:
                code = work()  # type: ignore[operator]
            finally:
                os._exit(code)
        _, status = os.waitpid(process, 0)
        return os.waitstatus_to_exitcode(status)

    def test_the_child_starts_without_results(self):
        counters = Counters()
        asyncio.run(counters.total("a", "b"))

        def work() -> int:
            if list(nodes()) or counters.get.existing("a") is not None:
                return 1
            counters.values["a"] = 5
            return asyncio.run(counters.total("a", "b")) + counters.runs["a"]

        assert self.child(work) == 5 + 2
        assert counters.runs["a"] == 1
        assert counters.get.existing("a") is not None

    def test_the_child_does_not_wait_for_what_the_parent_computes(self):
        slow = Slow()

        async def work() -> int:
            task = asyncio.ensure_future(slow.get())
            await asyncio.sleep(0)
            try:
                return self.child(in_child)
            finally:
                task.cancel()

        def in_child() -> int:
            asyncio._set_running_loop(None)
            return asyncio.run(slow.get())

        assert asyncio.run(work()) == 2

    def test_results_of_the_child_leave_when_unused(self):
        from afresh.primitives.clock import use_clock
        from afresh.testing import FakeClock

        class Short(ComputeService):
            @compute_method(keep_alive=1)
            async def get(self) -> int:
                return 1

        short = Short()
        asyncio.run(short.get())

        def work() -> int:
            with use_clock(FakeClock()) as clock:
                asyncio.run(short.get())
                found = short.get.existing() is not None
                clock.advance_sync(2)
                return 10 * found + (short.get.existing() is None)

        assert self.child(work) == 11
