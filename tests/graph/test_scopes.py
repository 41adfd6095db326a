"""`invalidating()`, `isolated()` and what they do to the calls inside."""

import asyncio
import contextvars

import pytest

from afresh import (
    Computed,
    ComputeService,
    InvalidStateError,
    MutableState,
    compute_method,
    current_computed,
    invalidating,
    is_invalidating,
    isolated,
)
from afresh.graph import capturing, capturing_existing, try_current_computed
from tests.graph.services import Counters, Gated


class TestInvalidating:
    async def test_calls_inside_make_results_stale(self):
        counters = Counters()
        first, second = await counters.get.capture("a"), await counters.get.capture("b")
        total = await counters.total.capture("b", "c")

        with invalidating():
            counters.get("a")
            counters.get(key="b")

        assert first.is_invalidated
        assert second.is_invalidated
        assert total.is_invalidated

    async def test_nothing_is_computed_inside(self):
        counters = Counters()
        with invalidating():
            assert await counters.get("a") is None
            assert await counters.total("a", "b") is None
        assert counters.runs == {}
        assert counters.get.existing("a") is None

    async def test_what_a_call_returns_there_says_what_it_is(self):
        with invalidating():
            assert repr(Counters().get("a")) == (
                "<awaitable None: a scope kept the call from computing>"
            )

    async def test_a_cancelled_task_may_still_invalidate(self):
        counters = Counters()
        computed = await counters.get.capture("a")

        async def work() -> None:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                with invalidating():
                    assert await counters.get("a") is None
                raise

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert computed.is_invalidated

    async def test_it_is_told_by_is_invalidating(self):
        assert not is_invalidating()
        with invalidating():
            assert is_invalidating()
            with isolated():
                assert not is_invalidating()
            with capturing():
                assert not is_invalidating()
            assert is_invalidating()
        assert not is_invalidating()

    async def test_a_result_being_computed_goes_stale_when_it_is_there(self):
        gated = Gated()
        computing = asyncio.ensure_future(gated.get.capture())
        await gated.started.wait()
        computed = gated.get.existing()
        assert computed is not None

        with invalidating():
            gated.get()

        assert computed.is_computing
        assert gated.get.existing() is computed
        gated.gate.set()
        assert await computing is computed
        assert computed.is_invalidated
        assert gated.get.existing() is None

    async def test_ordinary_methods_run_as_ever(self):
        class Mixed(Counters):
            async def refresh(self, key: str) -> str:
                await self.get(key)
                return "done"

        mixed = Mixed()
        await mixed.get("a")
        with invalidating():
            assert await mixed.refresh("a") == "done"
        assert mixed.get.existing("a") is None

    async def test_a_method_may_ask_whether_it_is_called_to_invalidate(self):
        class Orders(Counters):
            async def place(self, key: str) -> int:
                if is_invalidating():
                    self.get(key)
                    return 0
                self.values[key] = self.values.get(key, 0) + 1
                return self.values[key]

        orders = Orders()
        assert await orders.get("a") == 0
        assert await orders.place("a") == 1
        assert await orders.get("a") == 0
        with invalidating():
            await orders.place("a")
        assert await orders.get("a") == 1

    async def test_nothing_can_be_used_inside(self):
        computed = await Counters().get.capture("a")
        state = MutableState(1)
        with invalidating():
            with pytest.raises(
                InvalidStateError,
                match=r"^Counters.get\('a'\) can't be used inside invalidating\(\): nothing is com",
            ):
                computed.use()
            with pytest.raises(InvalidStateError, match=r"inside invalidating\(\)"):
                state.use()
            assert state.value == 1

    async def test_an_update_inside_computes(self):
        counters = Counters()
        computed = await counters.total.capture("a", "b")
        counters.set("a", 5)
        with invalidating():
            fresh = await computed.update()
            assert is_invalidating()
        assert fresh.value == 5
        assert fresh.is_consistent

    async def test_computations_started_inside_a_nested_isolation_are_ordinary(self):
        counters = Counters()
        with invalidating():
            with isolated():
                assert await counters.total("a", "b") == 0
        assert counters.runs == {"a": 1, "b": 1, ("a", "b"): 1}

    async def test_a_nested_one_counts_until_it_ends(self):
        counters = Counters()
        one, two, three = [await counters.get.capture(key) for key in "abc"]
        with invalidating("outer"):
            counters.get("a")
            with invalidating("inner"):
                counters.get("b")
            counters.get("c")
        assert [str(each.invalidation_cause) for each in (one, two, three)] == [
            "outer",
            "inner",
            "outer",
        ]

    async def test_it_flows_into_tasks_started_inside_and_stays_on_there(self):
        counters = Counters()
        seen: list[object] = []
        go_on = asyncio.Event()

        async def work() -> None:
            seen.append(is_invalidating())
            await go_on.wait()
            seen.append(is_invalidating())
            seen.append(await counters.get("a"))
            with isolated():
                seen.append(await counters.get("a"))

        with invalidating():
            task = asyncio.create_task(work())
            await asyncio.sleep(0)
        go_on.set()
        await task
        assert seen == [True, True, None, 0]

    async def test_it_does_not_flow_into_tasks_of_others(self):
        counters = Counters()
        gate = asyncio.Event()

        async def work() -> int:
            await gate.wait()
            return await counters.get("a")

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        with invalidating():
            gate.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert await task == 0

    async def test_it_ends_with_the_block_also_after_an_error(self):
        with pytest.raises(KeyError):
            with invalidating():
                raise KeyError
        assert not is_invalidating()

    async def test_in_a_body_it_invalidates_and_depends_on_nothing(self):
        class Clearing(Counters):
            @compute_method
            async def clear(self) -> int:
                with invalidating():
                    self.get("a")
                return await self.get("b")

        clearing = Clearing()
        computed = await clearing.get.capture("a")
        cleared = await clearing.clear.capture()
        assert computed.is_invalidated
        assert [each.key for each in cleared.dependencies] == ["b"]

    def test_it_needs_no_event_loop(self):
        counters = Counters()
        asyncio.run(counters.get("a"))
        with invalidating():
            counters.get("a")
        assert counters.get.existing("a") is None

    def test_bad_arguments_are_refused_inside_as_ever(self):
        counters = Counters()
        with invalidating():
            with pytest.raises(TypeError, match=r"get\(\) missing 1 required"):
                counters.get()
            with pytest.raises(TypeError, match="not hashable"):
                counters.get([])

    def test_one_block_is_entered_once_at_a_time(self):
        block = invalidating()
        with block:
            with pytest.raises(
                InvalidStateError,
                match=r"^invalidating\(\) is entered already; make a new one instead\.$",
            ):
                block.__enter__()
            assert is_invalidating()
        assert not is_invalidating()


class TestIsolated:
    async def test_calls_inside_compute_and_are_cached(self):
        counters = Counters()
        with isolated():
            assert await counters.get("a") == 0
            assert await counters.get("a") == 0
        assert counters.runs["a"] == 1

    async def test_what_is_called_inside_may_have_dependencies(self):
        counters = Counters()
        with isolated():
            computed = await counters.total.capture("a", "b")
            await counters.total("c", "d")
        assert len(computed.dependencies) == 2
        found = counters.total.existing("c", "d")
        assert found is not None
        assert len(found.dependencies) == 2

    async def test_no_result_is_the_current_one_inside(self):
        class Looking(ComputeService):
            @compute_method
            async def look(self) -> tuple[object, object]:
                inside: object = None
                with isolated():
                    inside = try_current_computed()
                return inside, current_computed()

        looking = Looking()
        inside, outside = await looking.look()
        assert inside is None
        assert outside is looking.look.existing()

    async def test_uses_of_results_inside_are_no_dependencies(self):
        counters = Counters()
        computed = await counters.get.capture("a")
        state = MutableState(1)

        class Using(ComputeService):
            @compute_method
            async def sum(self) -> int:
                with isolated():
                    return await computed.use() + state.use()

        assert (await Using().sum.capture()).dependencies == ()

    async def test_a_task_started_inside_is_isolated(self):
        counters = Counters()

        class Using(ComputeService):
            @compute_method
            async def get(self) -> int:
                with isolated():
                    task = asyncio.create_task(counters.get("a"))
                return await task

        assert (await Using().get.capture()).dependencies == ()


class TestCurrent:
    async def test_the_current_result_is_the_one_being_computed(self):
        class Looking(Counters):
            @compute_method
            async def outer(self) -> tuple[Computed[object], Computed[object]]:
                inner = await self.inner()
                return current_computed(), inner

            @compute_method
            async def inner(self) -> Computed[object]:
                assert current_computed().is_computing
                return current_computed()

        looking = Looking()
        outer, inner = await looking.outer()
        assert outer is looking.outer.existing()
        assert inner is looking.inner.existing()

    async def test_outside_there_is_none(self):
        assert try_current_computed() is None
        with pytest.raises(
            InvalidStateError,
            match=r"^No result is being computed here; current_computed\(\) is for bodies of comp",
        ):
            current_computed()

    async def test_its_value_is_not_there_yet(self):
        class Looking(ComputeService):
            @compute_method
            async def look(self) -> str:
                with pytest.raises(InvalidStateError, match="no result yet"):
                    _ = current_computed().value
                return "looked"

        assert await Looking().look() == "looked"

    async def test_a_task_that_outlives_its_computation_has_none(self):
        seen: list[object] = []

        class Starting(Counters):
            @compute_method
            async def start(self, gate: asyncio.Event) -> asyncio.Task[None]:
                async def work() -> None:
                    seen.append(try_current_computed() is not None)
                    await gate.wait()
                    seen.append(try_current_computed())
                    await self.get("a")

                task = asyncio.create_task(work())
                await asyncio.sleep(0)
                return task

        starting = Starting()
        gate = asyncio.Event()
        computed = await starting.start.capture(gate)
        await asyncio.sleep(0)
        gate.set()
        await computed.value
        assert seen == [True, None]
        assert computed.dependencies == ()
        assert computed.is_consistent

    async def test_a_fresh_context_knows_nothing_of_it(self):
        counters = Counters()

        class Apart(ComputeService):
            @compute_method
            async def get(self) -> int:
                context = contextvars.Context()
                return await asyncio.create_task(counters.get("a"), context=context)

        await counters.get("a")
        assert len((await Apart().get.capture()).dependencies) == 1  # a hit is used by the call
        counters.get.invalidate("a")


class TestExisting:
    async def test_nothing_is_there_before_the_first_call(self):
        counters = Counters()
        assert counters.get.existing("a") is None
        computed = await counters.get.capture("a")
        assert counters.get.existing("a") is computed
        counters.get.invalidate("a")
        assert counters.get.existing("a") is None

    async def test_a_block_that_only_looks_computes_nothing(self):
        counters = Counters()
        with capturing_existing() as found:
            assert await counters.get("a") is None
            assert found.computed is None
        computed = await counters.get.capture("a")
        with capturing_existing() as found:
            assert await counters.get("a") is None
        assert found.computed is computed
        assert counters.runs["a"] == 1

    async def test_what_is_being_computed_is_found(self):
        gated = Gated()
        computing = asyncio.ensure_future(gated.get())
        await gated.started.wait()
        with capturing_existing() as found:
            gated.get()
        assert found.computed is gated.get.existing()
        assert found.computed is not None
        assert found.computed.is_computing
        gated.gate.set()
        await computing

    async def test_nothing_can_be_used_inside(self):
        computed = await Counters().get.capture("a")
        with capturing_existing():
            with pytest.raises(InvalidStateError, match=r"inside capturing_existing\(\)"):
                computed.use()
