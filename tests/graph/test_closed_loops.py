"""An event loop that is closed while something is under way, and the one that comes after."""

import asyncio

import pytest

from afresh import ComputeService, compute_method
from afresh.primitives.tasks import background_tasks


class Readings(ComputeService):
    def __init__(self) -> None:
        self.value = 1
        self.gate: asyncio.Event | None = None

    @compute_method
    async def get(self) -> int:
        if self.gate is not None:
            await self.gate.wait()
        return self.value

    @compute_method(consolidate=0)
    async def steady(self) -> int:
        return self.value

    @compute_method(consolidate=60)
    async def slowly_steady(self) -> int:
        return self.value


@pytest.fixture
def loops():
    """Two event loops, of which the first is left with tasks that never ended."""
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    yield first, second
    first.close()
    second.close()


def leave(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[object]]:
    """Close a loop without ending its tasks."""
    tasks = list(asyncio.all_tasks(loop))
    for task in tasks:
        task._log_destroy_pending = False
    loop.close()
    return tasks


@pytest.mark.parametrize("method", ["steady", "slowly_steady"])
def test_a_comparison_that_its_loop_cut_short_leaves_nothing_stale(loops, method):
    """In the one case its task never took a step, in the other it waits."""
    first, second = loops
    readings = Readings()

    compute = getattr(readings, method)
    first.run_until_complete(compute.capture())
    readings.value = 2
    first.call_soon(compute.invalidate)
    first.call_soon(first.stop)
    first.run_forever()
    if method == "slowly_steady":
        first.run_until_complete(asyncio.sleep(0))
    left = leave(first)
    assert len(left) == 1
    second.run_until_complete(readings.get())
    assert second.run_until_complete(asyncio.wait_for(compute(), 5)) == 2
    left[0].get_coro().close()


def test_a_computation_whose_loop_is_closed_ends_quietly_for_those_who_wait(loops):
    first, second = loops
    readings = Readings()
    readings.gate = asyncio.Event()

    async def start() -> list[asyncio.Task[int]]:
        tasks = [asyncio.ensure_future(readings.get()) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks

    computing, _ = first.run_until_complete(start())
    left = leave(first)
    assert len(left) == 2
    computing.get_coro().close()  # as the garbage collector does
    readings.gate = None
    assert second.run_until_complete(asyncio.wait_for(readings.get(), 5)) == 1
    for task in left:
        task.get_coro().close()


def test_tasks_of_a_closed_loop_are_let_go_when_somebody_looks(loops):
    first, second = loops
    readings = Readings()

    async def change() -> None:
        await readings.slowly_steady()
        readings.slowly_steady.invalidate()

    first.run_until_complete(change())
    leave(first)

    async def look() -> frozenset[asyncio.Task[object]]:
        return background_tasks()

    assert second.run_until_complete(look()) == frozenset()
    from afresh.primitives import tasks

    assert all(not task.get_loop().is_closed() for task in tasks._tasks)
