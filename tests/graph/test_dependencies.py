"""What a computation used becomes its dependencies, and nothing else does."""

import asyncio
import gc

import pytest

from afresh import Computed, ComputeService, compute_method, isolated
from afresh.graph import edges, nodes
from tests.graph.services import Counters


class Numbers(ComputeService):
    """Leaves that the test opens one by one, and methods that use them in all ways."""

    def __init__(self) -> None:
        self.gates: dict[int, asyncio.Event] = {}
        self.left: list[asyncio.Future[int]] = []

    def gate(self, key: int) -> asyncio.Event:
        return self.gates.setdefault(key, asyncio.Event())

    @compute_method
    async def leaf(self, key: int) -> int:
        if key >= 10:
            await self.gate(key).wait()
        if key < 0:
            raise ValueError(key)
        return key

    @compute_method
    async def in_turn(self, *keys: int) -> int:
        return sum([await self.leaf(key) for key in keys])

    @compute_method
    async def at_once(self, *keys: int) -> int:
        return sum(await asyncio.gather(*(self.leaf(key) for key in keys)))

    @compute_method
    async def first_of(self, *keys: int) -> int:
        """Starts all, waits for the first, leaves the others running."""
        first, *others = [asyncio.ensure_future(self.leaf(key)) for key in keys]
        self.left += others
        return await first

    @compute_method
    async def called_only(self, key: int) -> int:
        self.leaf(key)
        return 0


def keys_of(computed: Computed[int]) -> list[object]:
    return [dependency.key for dependency in computed.dependencies]


async def test_calls_in_a_body_are_its_dependencies_in_the_order_of_their_first_use():
    numbers = Numbers()
    computed = await numbers.in_turn.capture(3, 1, 2, 1, 3)
    assert keys_of(computed) == [3, 1, 2]


async def test_hits_and_misses_are_dependencies_alike():
    numbers = Numbers()
    await numbers.leaf(1)
    assert keys_of(await numbers.in_turn.capture(1, 2)) == [1, 2]


async def test_what_is_used_after_the_first_await_is_a_dependency():
    class Late(Numbers):
        @compute_method
        async def late(self) -> int:
            await asyncio.sleep(0)
            await self.leaf(1)
            await asyncio.sleep(0)
            return await self.leaf(2)

    late = Late()
    computed = await late.late.capture()
    assert keys_of(computed) == [1, 2]
    late.leaf.invalidate(2)
    assert computed.is_invalidated


async def test_what_is_gathered_is_a_dependency():
    numbers = Numbers()
    computed = await numbers.at_once.capture(1, 2, 3)
    assert set(keys_of(computed)) == {1, 2, 3}
    numbers.leaf.invalidate(2)
    assert computed.is_invalidated


async def test_what_a_task_group_runs_is_a_dependency():
    class Grouped(Numbers):
        @compute_method
        async def grouped(self) -> int:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.leaf(key)) for key in (1, 2)]
            return sum(task.result() for task in tasks)

    computed = await Grouped().grouped.capture()
    assert set(keys_of(computed)) == {1, 2}


async def test_what_plain_methods_and_helpers_use_is_a_dependency():
    class Helped(Numbers):
        async def plain(self, key: int) -> int:
            return await self.leaf(key)

        @compute_method
        async def helped(self) -> int:
            return await self.plain(1) + sum([await self.leaf(key) for key in (2, 3)])

    assert keys_of(await Helped().helped.capture()) == [1, 2, 3]


async def test_a_dependency_of_a_dependency_is_none_of_ones_own():
    counters = Counters()

    class Outer(ComputeService):
        @compute_method
        async def get(self) -> int:
            return await counters.total("a", "b")

    outer = Outer()
    computed = await outer.get.capture()
    assert [each.category for each in computed.dependencies] == ["Counters.total"]


async def test_what_is_not_awaited_before_the_end_is_no_dependency():
    numbers = Numbers()

    computed = await numbers.first_of.capture(1, 10)
    assert keys_of(computed) == [1]

    numbers.gate(10).set()
    await asyncio.gather(*numbers.left)
    assert keys_of(computed) == [1]
    numbers.leaf.invalidate(10)
    assert computed.is_consistent


async def test_a_miss_that_is_never_awaited_is_no_dependency():
    numbers = Numbers()
    with pytest.warns(RuntimeWarning, match="never awaited"):
        computed = await numbers.called_only.capture(1)
    assert computed.dependencies == ()


async def test_both_are_dependencies_when_both_are_awaited():
    numbers = Numbers()
    computing = asyncio.ensure_future(numbers.at_once.capture(10, 11))
    await asyncio.sleep(0)
    numbers.gate(11).set()
    numbers.gate(10).set()
    assert set(keys_of(await computing)) == {10, 11}


async def test_when_the_first_fails_the_second_is_neither_waited_for_nor_a_dependency():
    numbers = Numbers()

    computed = await numbers.first_of.capture(-1, 10)

    assert isinstance(computed.error, ValueError)
    assert keys_of(computed) == [-1]
    numbers.gate(10).set()
    await asyncio.gather(*numbers.left)
    assert keys_of(computed) == [-1]


async def test_what_a_failed_gather_leaves_running_adds_no_edge_when_it_ends():
    numbers = Numbers()

    computed = await numbers.at_once.capture(-1, 10)
    assert isinstance(computed.error, ValueError)

    numbers.gate(10).set()
    while (late := numbers.leaf.existing(10)) is None or late.is_computing:
        await asyncio.sleep(0)
    assert keys_of(computed) == [-1]
    assert late.dependants == ()


async def test_a_failed_dependency_is_a_dependency():
    numbers = Numbers()
    computed = await numbers.in_turn.capture(1, -1, 2)

    assert isinstance(computed.error, ValueError)
    assert keys_of(computed) == [1, -1]
    numbers.leaf.invalidate(-1)
    assert computed.is_invalidated


async def test_a_call_from_outside_has_no_dependants():
    numbers = Numbers()
    computed = await numbers.leaf.capture(1)
    assert computed.dependants == ()
    assert computed.dependencies == ()


async def test_dependants_are_told_in_the_order_in_which_they_were_computed():
    numbers = Numbers()
    dependants = [await numbers.in_turn.capture(1, key) for key in (4, 2, 3)]
    leaf = await numbers.leaf.capture(1)
    assert leaf.dependants == tuple(dependants)


async def test_dependants_that_are_gone_are_not_told():
    numbers = Numbers()
    leaf = await numbers.leaf.capture(1)
    kept = await numbers.in_turn.capture(1, 2)
    await numbers.in_turn.capture(1, 3)
    assert len(leaf.dependants) == 2

    numbers.in_turn.invalidate(1, 3)

    assert leaf.dependants == (kept,)


async def test_what_is_told_of_the_graph_is_a_copy():
    numbers = Numbers()
    computed = await numbers.in_turn.capture(1, 2)
    leaf = await numbers.leaf.capture(1)
    dependencies, dependants = computed.dependencies, leaf.dependants

    computed.invalidate()

    assert [each.key for each in dependencies] == [1, 2]
    assert dependants == (computed,)
    assert computed.dependencies == ()
    assert leaf.dependants == ()


async def test_an_invalidated_result_holds_no_graph():
    numbers = Numbers()
    computed = await numbers.in_turn.capture(1, 2)
    leaf = await numbers.leaf.capture(1)

    leaf.invalidate()

    assert leaf.dependants == ()
    assert computed.dependencies == ()


async def test_a_dependant_that_goes_stale_leaves_its_other_dependencies():
    numbers = Numbers()
    await numbers.in_turn.capture(1, 2)
    one, two = await numbers.leaf.capture(1), await numbers.leaf.capture(2)

    one.invalidate()

    assert two.is_consistent
    assert two.dependants == ()


async def test_a_successor_depends_on_the_successors_of_what_was_used():
    numbers = Numbers()
    first = await numbers.in_turn.capture(1, 2)
    old_leaf = await numbers.leaf.capture(1)
    old_leaf.invalidate()

    second = await first.update()

    assert old_leaf not in second.dependencies
    assert keys_of(second) == [1, 2]
    assert first.dependencies == ()


async def test_dependencies_can_be_seen_while_the_body_runs():
    numbers = Numbers()
    computing = asyncio.ensure_future(numbers.in_turn(1, 1, 2, 10))
    await asyncio.sleep(0)
    computed = numbers.in_turn.existing(1, 1, 2, 10)

    assert computed is not None
    assert computed.is_computing
    assert keys_of(computed) == [1, 2]
    numbers.gate(10).set()
    await computing
    assert keys_of(computed) == [1, 2, 10]


async def test_asking_for_the_same_few_results_many_times_gives_few_edges():
    class Loops(Counters):
        @compute_method
        async def loop(self) -> int:
            for _ in range(2_000):
                for key in "abc":
                    await self.get(key)
            return 0

    loops = Loops()
    computed = await loops.loop.capture()
    assert keys_of(computed) == ["a", "b", "c"]
    assert all(each.dependants == (computed,) for each in computed.dependencies)


async def test_computations_at_the_same_time_keep_their_dependencies_apart():
    class Turns(Counters):
        @compute_method
        async def use(self, *keys: str) -> int:
            for key in keys:
                await self.get(key)
                await asyncio.sleep(0)
            return 0

    turns = Turns()
    await turns.get("both")
    one, other = await asyncio.gather(
        turns.use.capture("both", "a", "both", "b"), turns.use.capture("both", "c", "both", "d")
    )
    assert keys_of(one) == ["both", "a", "b"]
    assert keys_of(other) == ["both", "c", "d"]
    both = await turns.get.capture("both")
    assert both.dependants == (one, other)


async def test_holding_a_result_holds_what_it_was_computed_from():
    numbers = Numbers()
    computed = await numbers.in_turn.capture(1, 2)
    del numbers
    gc.collect()
    assert [each.value for each in computed.dependencies] == [1, 2]


async def test_reading_in_isolation_is_no_dependency():
    class Apart(Counters):
        @compute_method
        async def sum(self) -> int:
            with isolated():
                first = await self.get("a")
            return first + await self.get("b")

    apart = Apart()
    computed = await apart.sum.capture()
    assert keys_of(computed) == ["b"]
    apart.get.invalidate("a")
    assert computed.is_consistent
    apart.get.invalidate("b")
    assert computed.is_invalidated


async def test_an_update_in_a_body_is_no_dependency():
    class Updates(Counters):
        @compute_method
        async def sum(self, computed: Computed[int]) -> int:
            return (await computed.update()).value

    updates = Updates()
    consistent = await updates.get.capture("a")
    stale = await updates.get.capture("b")
    stale.invalidate()

    assert (await updates.sum.capture(consistent)).dependencies == ()
    assert (await updates.sum.capture(stale)).dependencies == ()


async def test_a_use_in_a_body_is_a_dependency_on_what_is_fresh():
    class Uses(Counters):
        @compute_method
        async def sum(self, computed: Computed[int]) -> int:
            return await computed.use()

    uses = Uses()
    consistent = await uses.get.capture("a")
    stale = await uses.get.capture("b")
    stale.invalidate()

    assert (await uses.sum.capture(consistent)).dependencies == (consistent,)
    dependant = await uses.sum.capture(stale)
    assert dependant.dependencies == (await uses.get.capture("b"),)
    assert dependant.is_consistent


async def test_the_use_of_a_stale_result_makes_the_dependant_stale_from_the_start():
    class Uses(Counters):
        @compute_method
        async def sum(self, computed: Computed[int]) -> int:
            return 1 + await computed.use(allow_inconsistent=True)

    uses = Uses()
    stale = await uses.get.capture("a")
    stale.invalidate()

    dependant = await uses.sum.capture(stale)

    assert dependant.value == 1
    assert dependant.is_invalidated
    assert uses.runs["a"] == 1
    assert uses.sum.existing(stale) is None


async def test_nodes_and_edges_of_the_graph_can_be_iterated_over():
    numbers = Numbers()
    computed = await numbers.in_turn.capture(1, 2)
    running = asyncio.ensure_future(numbers.leaf(10))
    await asyncio.sleep(0)
    one, two = computed.dependencies
    computing = numbers.leaf.existing(10)

    mine = {node for node in nodes() if node.keeper.instance is numbers}
    assert mine == {computed, one, two, computing}
    pairs = [pair for pair in edges() if pair[0] in mine]
    assert pairs == [(computed, one), (computed, two)]

    numbers.gate(10).set()
    await running
    one.invalidate()
    assert {node for node in nodes() if node in mine} == {two, computing}
    assert [pair for pair in edges() if pair[0] in mine] == []


async def test_the_graph_may_change_while_it_is_iterated_over():
    counters = Counters()
    for key in range(100):
        await counters.get(key)
    seen = 0
    for node in nodes():
        if node.keeper.instance is counters:
            node.invalidate()
            seen += 1
            await counters.get(seen + 1000)
    assert seen >= 100
