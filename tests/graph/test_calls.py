"""A call computes once and is then answered from the cache."""

import asyncio

import pytest

from afresh import ComputeService, compute_method
from tests.graph.services import Counters, Gated


async def test_the_second_call_finds_the_first_ones_result():
    counters = Counters()
    counters.values["a"] = 1

    assert await counters.get("a") == 1
    assert await counters.get("a") == 1
    assert counters.runs["a"] == 1


async def test_different_arguments_have_results_of_their_own():
    counters = Counters()
    counters.values |= {"a": 1, "b": 2}

    assert await counters.get("a") == 1
    assert await counters.get("b") == 2
    assert await counters.get.capture("a") is not await counters.get.capture("b")
    assert counters.runs == {"a": 1, "b": 1}


async def test_an_invalidated_result_is_computed_again_by_the_next_call():
    counters = Counters()
    await counters.get("a")

    counters.set("a", 5)

    assert counters.runs["a"] == 1  # nobody asked yet
    assert await counters.get("a") == 5
    assert counters.runs["a"] == 2


async def test_a_change_of_a_dependency_is_seen_by_the_next_call_of_the_dependant():
    counters = Counters()
    assert await counters.total("a", "b") == 0

    counters.set("b", 2)

    assert await counters.total("a", "b") == 2
    assert counters.runs == {"a": 1, "b": 2, ("a", "b"): 2}


async def test_callers_at_the_same_time_share_one_computation():
    gated = Gated()
    calls = [asyncio.ensure_future(gated.get(1)) for _ in range(20)]
    await gated.started.wait()
    gated.value = 1
    gated.gate.set()

    assert await asyncio.gather(*calls) == [0] * 20
    assert gated.runs == 1


async def test_captures_at_the_same_time_return_the_same_result():
    gated = Gated()
    captures = [asyncio.ensure_future(gated.get.capture(1)) for _ in range(20)]
    await gated.started.wait()
    gated.gate.set()

    (computed,) = set(await asyncio.gather(*captures))
    assert computed.is_consistent
    assert gated.runs == 1


async def test_computations_for_different_arguments_run_side_by_side():
    gated = Gated()
    calls = [asyncio.ensure_future(gated.get(key)) for key in range(3)]
    await asyncio.sleep(0)

    assert gated.runs == 3
    gated.gate.set()
    await asyncio.gather(*calls)


async def test_a_miss_computes_when_awaited_and_not_when_called():
    counters = Counters()

    call = counters.get("a")
    await asyncio.sleep(0)

    assert counters.runs["a"] == 0
    await call
    assert counters.runs["a"] == 1


async def test_a_miss_that_others_fill_before_it_is_awaited_finds_their_result():
    counters = Counters()
    call = counters.get("a")
    await counters.get("a")

    await call

    assert counters.runs["a"] == 1


async def test_a_hit_is_found_when_called_and_not_when_awaited():
    counters = Counters()
    await counters.get("a")

    call = counters.get("a")
    counters.set("a", 1)

    assert await call == 0
    assert await counters.get("a") == 1


def test_a_hit_needs_no_event_loop():
    counters = Counters()
    asyncio.run(counters.get("a"))

    with pytest.raises(StopIteration) as returned:
        counters.get("a").__await__().send(None)
    assert returned.value.value == 0


async def test_none_is_a_value_like_any_other():
    class Finder(ComputeService):
        runs = 0

        @compute_method
        async def find(self, key: str) -> str | None:
            self.runs += 1
            return None

    finder = Finder()

    assert await finder.find("a") is None
    assert await finder.find("a") is None
    assert finder.runs == 1
    first = await finder.find.capture("a")
    assert first.error is None
    assert first.value is None
    finder.find.invalidate("a")
    assert await finder.find("a") is None
    assert (await finder.find.capture("a")).version != first.version


async def test_a_method_that_is_not_computed_may_do_the_same_work():
    class Sums(Counters):
        async def plain_total(self, first: str, second: str) -> int:
            return await self.get(first) + await self.get(second)

    sums = Sums()
    sums.values |= {"a": 1, "b": 2}

    assert await sums.plain_total("a", "b") == await sums.total("a", "b") == 3
    sums.set("a", 10)
    assert await sums.plain_total("a", "b") == await sums.total("a", "b") == 12


async def test_a_list_and_its_items_are_renewed_apart_from_each_other():
    class Notes(ComputeService):
        def __init__(self) -> None:
            self.texts = {1: "one", 2: "two", 3: "three"}
            self.reads: list[object] = []

        @compute_method
        async def ids(self) -> tuple[int, ...]:
            self.reads.append("ids")
            return tuple(self.texts)

        @compute_method
        async def text(self, number: int) -> str:
            self.reads.append(number)
            return self.texts[number]

        @compute_method
        async def all(self) -> tuple[str, ...]:
            self.reads.append("all")
            return tuple([await self.text(number) for number in await self.ids()])

    notes = Notes()
    await notes.all()
    notes.reads.clear()

    notes.texts[2] = "zwei"
    notes.text.invalidate(2)

    assert await notes.all() == ("one", "zwei", "three")
    assert notes.reads == ["all", 2]


async def test_a_method_that_many_call_is_one_place_to_invalidate_them_all():
    class Tenants(ComputeService):
        @compute_method
        async def everything_of(self, tenant: str) -> str:
            return tenant

        @compute_method
        async def get(self, tenant: str, key: int) -> int:
            await self.everything_of(tenant)
            return key

    tenants = Tenants()
    first = [await tenants.get.capture("first", key) for key in range(3)]
    second = [await tenants.get.capture("second", key) for key in range(3)]

    tenants.everything_of.invalidate("first")

    assert all(computed.is_invalidated for computed in first)
    assert all(computed.is_consistent for computed in second)


async def test_results_read_what_a_session_holds_apart_from_other_sessions():
    class Sessions(Counters):
        @compute_method
        async def sum(self, session: str, keys: tuple[str, ...]) -> int:
            return sum([await self.get((session, key)) for key in keys])

    sessions = Sessions()
    one = await sessions.sum.capture("one", ("a", "b"))
    other = await sessions.sum.capture("two", ("a", "b"))

    sessions.set(("one", "a"), 1)
    sessions.set(("one", "c"), 1)  # which no sum has read

    assert one.is_invalidated
    assert other.is_consistent
    assert await sessions.sum("one", ("a", "b")) == 1
    assert await sessions.sum("two", ("a", "b")) == 0


async def test_keys_that_are_not_waited_for_are_forgotten():
    gated = Gated()
    waiting = [asyncio.ensure_future(gated.get(key)) for key in range(5) for _ in range(3)]
    await asyncio.sleep(0)
    gated.gate.set()
    await asyncio.gather(*waiting)

    table = gated.get.table
    assert dict(table.computing) == {}
    assert len(table.entries) == 5
    gated.get.invalidate(0)
    assert len(table.entries) == 4


async def test_versions_of_many_results_are_all_different():
    counters = Counters()

    nodes = await asyncio.gather(*(counters.get.capture(key) for key in range(20_000)))

    versions = {node.version for node in nodes}
    assert len(versions) == 20_000
    assert min(versions) > 0
