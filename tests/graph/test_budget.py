"""No more results are kept than the budget allows, the least recently used leaving first."""

import gc
import itertools

import pytest

from afresh import ComputeService, compute_method, set_node_budget
from afresh.graph import computed_count, node_budget, prune
from tests.graph.services import Counters

pytestmark = pytest.mark.usefixtures("budget")


@pytest.fixture(autouse=True)
def others() -> int:
    """How many results tests before this one left that are still held."""
    gc.collect()
    prune()
    return computed_count()


async def test_the_default_is_a_million():
    assert node_budget() == 1_000_000


@pytest.mark.parametrize("budget", [0, -1])
async def test_a_budget_for_nothing_is_refused(budget: int):
    with pytest.raises(
        ValueError, match=rf"^A node budget of {budget} keeps nothing; use 1 or more\.$"
    ):
        set_node_budget(budget)
    assert node_budget() == 1_000_000


async def test_setting_it_returns_the_previous_one():
    assert set_node_budget(5000) == 1_000_000
    assert set_node_budget(6000) == 5000
    assert node_budget() == 6000


async def test_the_number_of_results_stays_within_it(others: int):
    counters = Counters()
    set_node_budget(others + 100)
    for key in range(1000):
        await counters.get(key)
        assert computed_count() <= others + 100
    assert computed_count() >= others + 80


async def test_the_least_recently_used_leave_first(others: int):
    counters = Counters()
    set_node_budget(others + 80)
    for key in range(80):
        await counters.get(key)
    for key in range(40):  # the first ones are used again
        await counters.get(key)
    for key in range(1000, 1020):
        await counters.get(key)

    kept = set(counters.get.table.entries)
    assert kept.issuperset(range(40))
    assert kept.issuperset(range(1000, 1020))
    dropped = set(range(80)) - kept
    assert len(dropped) >= 20
    assert dropped == set(range(40, 40 + len(dropped)))


async def test_they_leave_in_batches(others: int):
    counters = Counters()
    set_node_budget(others + 80)
    counts = []
    for key in range(200):
        await counters.get(key)
        counts.append(computed_count() - others)
    drops = [before - after for before, after in itertools.pairwise(counts)]
    assert max(drops) >= 8
    assert min(counts[100:]) >= 60


async def test_lowering_it_lets_results_leave_at_once(others: int):
    counters = Counters()
    for key in range(100):
        await counters.get(key)
    set_node_budget(others + 40)
    assert computed_count() <= others + 40
    kept = set(counters.get.table.entries)
    assert kept
    assert kept.issubset(range(60, 100))


async def test_results_of_all_methods_count_together(others: int):
    first, second = Counters(), Counters()
    set_node_budget(others + 50)
    for key in range(50):
        await first.get(key)
    for key in range(50):
        await second.get(key)
    assert len(first.get.table.entries) < 10
    assert len(second.get.table.entries) > 40


async def test_held_results_stay_even_over_it(others: int, caplog: pytest.LogCaptureFixture):
    counters = Counters()
    set_node_budget(others + 20)
    held = [await counters.get.capture(key) for key in range(60)]
    assert all(computed.is_consistent for computed in held)
    assert all(counters.get.existing(key) is held[key] for key in range(60))
    assert computed_count() - others >= 60
    assert "results are held, over the node budget of" in caplog.text
    assert len(caplog.records) < 60

    del held
    for key in range(1000, 1010):
        await counters.get(key)
    assert computed_count() - others <= 20


async def test_results_that_others_depend_on_stay(others: int):
    class Hub(ComputeService):
        @compute_method
        async def hub(self) -> int:
            return 1

        @compute_method
        async def leaf(self, number: int) -> int:
            return await self.hub() + number

    hub = Hub()
    set_node_budget(others + 20)
    for number in range(200):
        await hub.leaf(number)
    assert hub.hub.existing() is not None
    assert len(hub.leaf.table.entries) >= 10


async def test_what_a_dropped_result_held_leaves_when_it_is_old_too(others: int):
    counters = Counters()
    set_node_budget(others + 30)
    for key in range(10):
        await counters.total((key, 1), (key, 2))
    for key in range(100):
        await counters.get(key)
    assert len(counters.total.table.entries) == 0
    assert computed_count() <= others + 30


async def test_invalidated_results_make_room(others: int):
    counters = Counters()
    set_node_budget(others + 50)
    for round_ in range(10):
        for key in range(50):
            await counters.get(key)
        assert len(counters.get.table.entries) == 50, round_
        for key in range(50):
            counters.get.invalidate(key)
    assert sum(counters.runs.values()) == 500


async def test_watched_results_stay(others: int):
    counters = Counters()
    watched = await counters.get.capture("watched")
    calls: list[object] = []
    watched.on_invalidated(calls.append)
    del watched
    set_node_budget(others + 10)
    for key in range(100):
        await counters.get(key)
    assert counters.get.existing("watched") is not None
    assert calls == []
