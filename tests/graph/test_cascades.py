"""A stale result makes everything computed from it stale: how far, in which order, how deep."""

import asyncio
import gc
import sys

import pytest

from afresh import Computed, ComputeService, compute_function, compute_method
from tests.graph.services import Counters


class Tree(ComputeService):
    """`node(n)` uses the nodes that `uses[n]` names."""

    def __init__(self, **uses: str) -> None:
        self.uses = uses

    @compute_method
    async def node(self, name: str) -> str:
        for used in self.uses.get(name, ""):
            await self.node(used)
        return name


async def test_all_levels_go_stale():
    tree = Tree(a="b", b="c", c="d")
    nodes = [await tree.node.capture(name) for name in "abcd"]

    tree.node.invalidate("d")

    assert all(node.is_invalidated for node in nodes)


async def test_what_does_not_depend_on_it_stays():
    tree = Tree(a="bc", d="c")
    a, b, c, d = [await tree.node.capture(name) for name in "abcd"]

    tree.node.invalidate("b")

    assert [node.is_consistent for node in (a, b, c, d)] == [False, False, True, True]


async def test_dependencies_stay():
    tree = Tree(a="b", b="c")
    a, b, c = [await tree.node.capture(name) for name in "abc"]

    a.invalidate()

    assert (b.is_consistent, c.is_consistent) == (True, True)


async def test_a_diamond_goes_stale_once():
    tree = Tree(top="lr", l="x", r="x")
    calls: list[str] = []
    for name in ("top", "l", "r", "x"):
        node = await tree.node.capture(name)
        node.on_invalidated(lambda node: calls.append(node.value))

    tree.node.invalidate("x")

    assert sorted(calls) == ["l", "r", "top", "x"]


async def test_own_handlers_come_first_then_dependants_depth_first_as_they_were_computed():
    tree = Tree(a="x", b="x", c="x", d="a", e="a", f="b", g="df")
    calls: list[str] = []
    for name in "abcdefg":
        node = await tree.node.capture(name)
        node.on_invalidated(lambda node: calls.append(node.value))
    x = await tree.node.capture("x")
    x.on_invalidated(lambda _: calls.append("x"))
    x.on_invalidated(lambda _: calls.append("x again"))

    x.invalidate()

    assert calls == ["x", "x again", "a", "d", "g", "e", "b", "f", "c"]


async def test_a_handler_sees_dependants_that_do_not_know_yet():
    tree = Tree(a="x")
    x, a = await tree.node.capture("x"), await tree.node.capture("a")
    seen: list[bool] = []
    x.on_invalidated(lambda _: seen.append(a.is_consistent))
    x.on_invalidated(lambda x: seen.append(x.is_invalidated))

    x.invalidate()

    assert seen == [True, True]
    assert a.is_invalidated


async def test_invalidating_both_dependencies_of_a_result_leaves_no_edges():
    tree = Tree(a="bc")
    for _ in range(100):
        a, b, c = [await tree.node.capture(name) for name in "abc"]
        b.invalidate()
        c.invalidate()
        for node in (a, b, c):
            assert node.is_invalidated
            assert node.dependencies == node.dependants == ()


async def test_a_dependency_that_goes_stale_during_the_computation_makes_it_stale_at_the_end():
    class Slow(Counters):
        def __init__(self) -> None:
            super().__init__()
            self.read = asyncio.Event()
            self.gate = asyncio.Event()

        @compute_method
        async def slow(self) -> int:
            value = await self.get("a")
            self.read.set()
            await self.gate.wait()
            return value

    slow = Slow()
    computing = asyncio.ensure_future(slow.slow.capture())
    await slow.read.wait()
    slow.set("a", 1)
    slow.gate.set()

    computed = await computing

    assert computed.value == 0
    assert computed.is_invalidated
    assert computed.dependencies == ()
    assert slow.slow.existing() is None
    assert await slow.slow() == 1


async def test_an_invalidation_during_the_computation_is_not_lost_on_its_dependants():
    class Slow(Counters):
        def __init__(self) -> None:
            super().__init__()
            self.started = asyncio.Event()
            self.gate = asyncio.Event()

        @compute_method
        async def slow(self) -> int:
            value = self.values.get("a", 0)
            self.started.set()
            await self.gate.wait()
            return value

        @compute_method
        async def twice(self) -> int:
            return 2 * await self.slow()

    slow = Slow()
    computing = asyncio.ensure_future(slow.twice.capture())
    await slow.started.wait()
    slow.values["a"] = 1
    assert slow.slow.invalidate()
    slow.gate.set()

    computed = await computing

    assert computed.value == 0
    assert computed.is_invalidated
    assert await slow.twice() == 2


async def test_a_dependant_of_what_is_stale_from_the_start_is_stale_from_the_start():
    tree = Tree(a="b")

    class Eager(Tree):
        @compute_method
        async def node(self, name: str) -> str:
            value = await super().node(name)
            if name == "b":
                node = self.node.existing("b")
                assert node is not None
                node.invalidate()
            return value

    eager = Eager(a="b")
    computed = await eager.node.capture("a")
    assert computed.is_invalidated
    assert computed.value == "a"
    assert (await tree.node.capture("a")).is_consistent


class Chain(ComputeService):
    """`link(n)` depends on `link(n - 1)`; `leaf(n)` on `hub()`."""

    @compute_method
    async def link(self, number: int) -> int:
        return await self.link(number - 1) + 1 if number else 0

    @compute_method
    async def hub(self) -> int:
        return 0

    @compute_method
    async def leaf(self, number: int) -> int:
        return await self.hub() + number


COUNT = 100_000


async def test_a_chain_of_a_hundred_thousand_goes_stale_without_recursion():
    chain = Chain()
    for number in range(COUNT):
        await chain.link(number)
    last = await chain.link.capture(COUNT - 1)
    assert last.value == COUNT - 1

    chain.link.invalidate(0)

    assert last.is_invalidated
    assert len(chain.link.table.entries) == 0


async def test_a_fan_out_of_a_hundred_thousand_goes_stale():
    chain = Chain()
    for number in range(COUNT):
        await chain.leaf(number)
    hub = await chain.hub.capture()
    assert len(hub.dependants) == COUNT
    first, last = await chain.leaf.capture(0), await chain.leaf.capture(COUNT - 1)

    hub.invalidate()

    assert (first.is_invalidated, last.is_invalidated) == (True, True)
    assert len(chain.leaf.table.entries) == 0
    assert await chain.leaf(0) == 0


async def test_a_chain_of_a_hundred_thousand_is_freed_without_recursion():
    chain = Chain()
    for number in range(COUNT):
        await chain.link(number)
    last = await chain.link.capture(COUNT - 1)
    del chain
    gc.collect()
    assert last.value == COUNT - 1
    del last
    gc.collect()


async def test_a_chain_recomputes_as_deep_as_pythons_limit_allows():
    chain = Chain()
    depth = sys.getrecursionlimit() // 4

    computed = await chain.link.capture(depth)
    assert computed.value == depth
    chain.link.invalidate(0)
    assert computed.is_invalidated
    assert (await computed.update()).value == depth


@compute_function
async def hub() -> int:
    return 0


@compute_function
async def leaf(number: int) -> int:
    return await hub() + number


async def test_dependants_that_come_and_go_leave_nothing_behind_in_what_they_used():
    computed: Computed[int] = await hub.capture()
    for number in range(1000):
        await leaf(number)
        leaf.invalidate(number)
    assert computed.dependants == ()
    again = [await leaf.capture(number) for number in range(3)]
    assert computed.dependants == tuple(again)
    computed.invalidate()


async def test_half_of_the_dependants_may_be_recomputed_again_and_again():
    chain = Chain()
    hub = await chain.hub.capture()
    leaves = [await chain.leaf.capture(number) for number in range(100)]
    for _ in range(20):
        for number in range(50):
            leaves[number].invalidate()
            leaves[number] = await chain.leaf.capture(number)
    assert set(hub.dependants) == set(leaves)
    assert len(hub.dependants) == 100
    hub.invalidate()
    assert all(each.is_invalidated for each in leaves)


@pytest.mark.parametrize("width", [1, 15, 16, 17, 64, 65, 1000])
async def test_a_result_may_have_any_number_of_dependencies(width: int):
    class Sums(Counters):
        @compute_method
        async def sum(self) -> int:
            return sum([await self.get(key) for key in (*range(width), *range(width))])

    sums = Sums()
    for key in range(width):
        computed = await sums.sum.capture()
        assert len(computed.dependencies) == width
        if width > 100 and key % 100:
            continue
        sums.set(key, 1)
        assert computed.is_invalidated
