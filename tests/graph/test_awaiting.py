"""What a call returns works wherever asyncio takes an awaitable, found or computed."""

import asyncio
import inspect
from collections.abc import Coroutine

import pytest

from afresh import ComputeService, compute_method, invalidating
from tests.graph.services import Counters, Gated


class Both(ComputeService):
    """`get(1)` is cached, `get(2)` is not, `get(-1)` fails and is cached."""

    @compute_method
    async def get(self, key: int) -> int:
        if key < 0:
            raise ValueError("negative")
        return key


@pytest.fixture
async def both() -> Both:
    service = Both()
    await service.get(1)
    with pytest.raises(ValueError, match="negative"):
        await service.get(-1)
    return service


hit_and_miss = pytest.mark.parametrize("key", [1, 2], ids=["hit", "miss"])
failing = pytest.mark.parametrize("key", [-1, -2], ids=["hit", "miss"])


@hit_and_miss
async def test_a_call_can_become_a_task(both: Both, key: int):
    task = asyncio.create_task(both.get(key), name="call")

    assert repr(task).startswith("<Task pending name='call'")
    assert await task == key
    assert "finished" in repr(task)


@failing
async def test_a_task_of_a_failing_call_fails(both: Both, key: int):
    with pytest.raises(ValueError, match="negative"):
        await asyncio.create_task(both.get(key))


@hit_and_miss
async def test_a_call_can_be_ensured(both: Both, key: int):
    assert await asyncio.ensure_future(both.get(key)) == key


async def test_hits_and_misses_can_be_gathered(both: Both):
    assert await asyncio.gather(both.get(1), both.get(2), both.get(1)) == [1, 2, 1]


async def test_the_same_hit_can_be_gathered_twice(both: Both):
    hit = both.get(1)
    assert await asyncio.gather(hit, hit) == [1, 1]


async def test_gather_hands_out_errors_of_hits_and_misses(both: Both):
    found, computed = await asyncio.gather(both.get(-1), both.get(-2), return_exceptions=True)

    assert isinstance(found, ValueError)
    assert isinstance(computed, ValueError)


@hit_and_miss
async def test_a_call_can_run_in_a_task_group(both: Both, key: int):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(both.get(key))
    assert task.result() == key


@failing
async def test_a_failing_call_fails_its_task_group(both: Both, key: int):
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(both.get(key))
    assert isinstance(caught.value.exceptions[0], ValueError)


@hit_and_miss
async def test_a_call_can_have_a_time_limit(both: Both, key: int):
    assert await asyncio.wait_for(both.get(key), 60) == key


@hit_and_miss
async def test_a_call_can_be_shielded(both: Both, key: int):
    assert await asyncio.shield(both.get(key)) == key


@hit_and_miss
async def test_tasks_of_calls_can_be_waited_for(both: Both, key: int):
    done, pending = await asyncio.wait([asyncio.ensure_future(both.get(key))])
    assert [task.result() for task in done] == [key]
    assert pending == set()


async def test_calls_can_be_awaited_as_they_are_completed(both: Both):
    calls = asyncio.as_completed([both.get(1), both.get(2)])
    assert {await call for call in calls} == {1, 2}


def test_hits_and_misses_can_be_run():
    counters = Counters()
    assert asyncio.run(counters.get("a")) == 0
    assert asyncio.run(counters.get("a")) == 0
    assert counters.runs["a"] == 1


async def test_a_hit_can_be_awaited_as_often_as_one_likes(both: Both):
    hit = both.get(1)
    assert [await hit, await hit, await hit] == [1, 1, 1]


async def test_a_failed_hit_can_be_awaited_as_often_as_one_likes(both: Both):
    hit = both.get(-1)
    for _ in range(3):
        with pytest.raises(ValueError, match="negative"):
            await hit


async def test_a_miss_can_be_awaited_once_as_any_coroutine(both: Both):
    miss = both.get(2)
    await miss
    with pytest.raises(RuntimeError, match="already awaited"):
        await miss


async def test_a_call_inside_invalidating_can_be_awaited_and_gathered(both: Both):
    with invalidating():
        nothing = both.get(1)
        assert await nothing is None
        assert await nothing is None
        assert await asyncio.gather(both.get(1), both.get(2)) == [None, None]
        assert await asyncio.wait_for(both.get(1), 60) is None
        assert await asyncio.create_task(both.get(1)) is None


@hit_and_miss
async def test_a_call_is_a_coroutine_to_those_who_ask(both: Both, key: int):
    call = both.get(key)

    assert isinstance(call, Coroutine)
    assert asyncio.iscoroutine(call)
    assert inspect.isawaitable(call)
    await call


async def test_a_hit_can_be_closed_and_thrown_into_like_a_coroutine(both: Both):
    hit = both.get(1)
    hit.close()
    hit.close()

    with pytest.raises(KeyError, match="thrown"):
        hit.throw(KeyError("thrown"))
    with pytest.raises(KeyError):
        hit.throw(KeyError)
    assert await hit == 1


async def test_a_hit_steps_to_its_end_at_once(both: Both):
    with pytest.raises(StopIteration) as returned:
        both.get(1).send(None)
    assert returned.value.value == 1


async def test_values_that_iteration_treats_specially_come_through(both: Both):
    class Odd(ComputeService):
        @compute_method
        async def get(self, key: str) -> object:
            return {"tuple": (1, 2), "stop": StopIteration(3), "error": ValueError("as a value")}[
                key
            ]

    odd = Odd()
    for _ in range(2):
        assert await odd.get("tuple") == (1, 2)
        assert (await odd.get("stop")).value == 3
        assert str(await odd.get("error")) == "as a value"
        assert await asyncio.create_task(odd.get("tuple")) == (1, 2)
        assert (await asyncio.create_task(odd.get("stop"))).value == 3


async def test_a_call_that_times_out_leaves_the_computation_to_the_others():
    gated = Gated()
    first = asyncio.ensure_future(gated.get(1))
    await gated.started.wait()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(gated.get(1), 0.001)

    gated.gate.set()
    assert await first == 0
    assert gated.runs == 1


async def test_a_shielded_call_goes_on_when_its_caller_is_cancelled():
    gated = Gated()
    inner = asyncio.ensure_future(gated.get(1))

    async def call() -> None:
        await asyncio.shield(inner)

    caller = asyncio.create_task(call())
    await gated.started.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller

    gated.gate.set()
    assert await inner == 0
    assert gated.get.existing(1) is not None


@pytest.mark.skipif("sys.version_info < (3, 12)", reason="tasks are eager from 3.12 on")
async def test_calls_work_in_eager_tasks():
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    both, gated = Both(), Gated()

    missed = asyncio.create_task(both.get(1))
    assert missed.done()  # nothing to wait for: computed before the loop had a turn
    found = asyncio.create_task(both.get(1))
    assert (await missed, await found) == (1, 1)
    with pytest.raises(ValueError, match="negative"):
        await asyncio.create_task(both.get(-1))

    waiting = [asyncio.create_task(gated.get()) for _ in range(3)]
    assert gated.runs == 1
    gated.gate.set()
    assert await asyncio.gather(*waiting) == [0] * 3
    assert gated.runs == 1
