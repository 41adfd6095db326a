"""Getting at the result behind a call."""

import asyncio

import pytest

from afresh import (
    Computed,
    ComputeService,
    NotCapturedError,
    capture,
    capturing,
    compute_method,
    get_existing,
    invalidating,
)
from afresh.graph import try_capture
from tests.graph.services import Counters, Gated


class Failing(ComputeService):
    runs = 0

    @compute_method
    async def get(self, key: int) -> int:
        self.runs += 1
        raise ValueError(f"no {key}")

    @compute_method
    async def outer(self, key: int) -> int:
        return await self.get(key)


async def test_a_method_captures_its_own_result():
    counters = Counters()
    computed = await counters.get.capture("a")
    assert isinstance(computed, Computed)
    assert computed.value == 0
    assert await counters.get.capture(key="a") is computed
    assert counters.runs["a"] == 1


async def test_the_last_call_in_a_block_is_captured():
    counters = Counters()
    with capturing() as captured:
        await counters.get("a")
        assert captured.computed is counters.get.existing("a")
        await counters.get("b")
    assert captured.computed is counters.get.existing("b")


async def test_hits_are_captured_like_misses():
    counters = Counters()
    await counters.get("a")
    with capturing() as captured:
        await counters.get("a")
    assert captured.computed is counters.get.existing("a")
    assert counters.runs["a"] == 1


async def test_calls_of_a_computation_are_not_captured():
    counters = Counters()
    with capturing() as captured:
        await counters.total("a", "b")
    assert captured.computed is counters.total.existing("a", "b")


async def test_nested_blocks_capture_apart_from_each_other():
    counters = Counters()
    with capturing() as outer:
        await counters.get("a")
        with capturing() as inner:
            await counters.get("b")
        assert outer.computed is counters.get.existing("a")
    assert inner.computed is counters.get.existing("b")


async def test_a_block_that_calls_nothing_captures_nothing():
    with capturing() as captured:
        pass
    assert captured.computed is None


async def test_gathered_calls_are_captured_in_whatever_order_they_end():
    counters = Counters()
    with capturing() as captured:
        await asyncio.gather(counters.get("a"), counters.get("b"))
    assert captured.computed in (counters.get.existing("a"), counters.get.existing("b"))


async def test_capture_takes_a_function_that_calls():
    counters = Counters()

    async def work() -> None:
        await counters.get("a")
        await counters.get("b")

    assert await capture(lambda: counters.get("a")) is counters.get.existing("a")
    assert await capture(work) is counters.get.existing("b")


async def test_capture_of_nothing_says_so():
    async def nothing() -> int:
        return 1

    with pytest.raises(
        NotCapturedError,
        match=r"nothing at .* called no compute method, so there is nothing to capture; call one",
    ):
        await capture(nothing)
    assert await try_capture(nothing) is None


async def test_a_failed_computation_is_captured_and_not_raised():
    failing = Failing()
    first = await failing.get.capture(1)
    assert isinstance(first.error, ValueError)
    assert await failing.get.capture(1) is first
    assert await capture(lambda: failing.get(1)) is first
    assert await try_capture(lambda: failing.get(1)) is first
    assert failing.runs == 1
    outer = await capture(lambda: failing.outer(1))
    assert outer is failing.outer.existing(1)
    assert str(outer.error) == "no 1"


async def test_an_error_that_has_nothing_to_do_with_the_result_is_raised():
    counters = Counters()

    async def work() -> None:
        await counters.get("a")
        raise KeyError("of the caller")

    with pytest.raises(KeyError, match="of the caller"):
        await capture(work)
    with pytest.raises(KeyError):
        await try_capture(work)


async def test_a_cancellation_is_raised():
    gated = Gated()
    for work in (lambda: gated.get.capture(1), lambda: capture(lambda: gated.get(1))):
        gated.started.clear()
        task = asyncio.ensure_future(work())
        await gated.started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert gated.get.existing(1) is None


async def test_a_result_that_went_stale_at_once_is_captured():
    class Once(ComputeService):
        @compute_method(auto_invalidate=0)
        async def get(self) -> int:
            return 1

    once = Once()
    computed = await once.get.capture()
    assert computed.is_invalidated
    assert computed.value == 1
    assert (await capture(lambda: once.get())).is_invalidated


async def test_a_capture_in_a_body_adds_no_dependency():
    class Capturing(Counters):
        @compute_method
        async def look(self) -> int:
            first = await self.get.capture("a")
            with capturing() as captured:
                await self.get("b")
            assert captured.computed is not None
            return first.value + captured.computed.value

    capturing_service = Capturing()
    computed = await capturing_service.look.capture()
    assert computed.dependencies == ()
    capturing_service.get.invalidate("a")
    assert computed.is_consistent


async def test_uses_of_results_are_captured():
    counters = Counters()
    computed = await counters.get.capture("a")
    with capturing() as captured:
        await computed.use()
    assert captured.computed is computed
    computed.invalidate()
    with capturing() as captured:
        await computed.use()
    assert captured.computed is counters.get.existing("a")


async def test_updates_are_not_captured():
    counters = Counters()
    computed = await counters.get.capture("a")
    computed.invalidate()
    with capturing() as captured:
        await computed.update()
    assert captured.computed is None


async def test_invalidating_calls_are_not_captured():
    counters = Counters()
    await counters.get("a")
    with capturing() as captured:
        with invalidating():
            counters.get("a")
    assert captured.computed is None


async def test_what_exists_is_found_without_computing():
    counters = Counters()
    assert get_existing(lambda: counters.get("a")) is None
    computed = await counters.get.capture("a")
    assert get_existing(lambda: counters.get("a")) is computed
    computed.invalidate()
    assert get_existing(lambda: counters.get("a")) is None
    assert counters.runs["a"] == 1


async def test_what_is_being_computed_exists():
    gated = Gated()
    computing = asyncio.ensure_future(gated.get())
    await gated.started.wait()
    found = get_existing(lambda: gated.get())
    assert found is not None
    assert found.is_computing
    gated.gate.set()
    await computing
    assert found.is_consistent
