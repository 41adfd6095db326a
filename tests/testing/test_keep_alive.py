"""The fake clock drives keep-alive, in one test after another."""

import gc

from afresh import ComputeService, compute_method
from afresh.graph import nodes, prune
from afresh.primitives.clock import use_clock
from afresh.testing import FakeClock


class Squares(ComputeService):
    def __init__(self) -> None:
        self.other = 0

    @compute_method(keep_alive=10)
    async def get(self, number: int) -> int:
        return number * number

    @compute_method(keep_alive=10, consolidate=0)
    async def steady(self, number: int) -> int:
        return number * number


async def test_an_unused_result_leaves_when_the_fake_clock_says_so():
    squares = Squares()
    with use_clock(FakeClock()) as clock:
        await squares.get(1)
        await clock.advance(9)
        assert squares.get.existing(1) is not None
        await clock.advance(10)
        assert squares.get.existing(1) is None


async def test_so_it_does_with_the_next_clock_when_the_service_lives_on():
    squares = Squares()
    for number in range(3):
        with use_clock(FakeClock()) as clock:
            await squares.get(number)
            await clock.advance(20)
            assert squares.get.existing(number) is None
            await squares.get(100)  # still there when the next clock takes over


async def test_a_clock_that_saw_no_new_result_has_no_timer():
    squares = Squares()
    with use_clock(FakeClock()):
        await squares.get(1)
    with use_clock(FakeClock()) as clock:
        await squares.get(1)
        assert clock.timers == 0


async def test_what_consolidates_leaves_with_all_that_is_behind_it():
    squares = Squares()
    with use_clock(FakeClock()) as clock:
        for number in range(3):
            await squares.steady(number)
        assert len(_results_of(squares)) == 6
        await clock.advance(30)
        assert _results_of(squares) == []


async def test_pruning_drops_what_consolidates_at_once():
    squares = Squares()
    for number in range(3):
        await squares.steady(number)
    gc.collect()
    prune()
    assert _results_of(squares) == []


async def test_a_target_that_went_stale_leaves_no_handler_on_its_source():
    squares = Squares()
    for _ in range(3):
        target = await squares.steady.capture(1)
        source = target.consolidation.source
        assert len(source.extra.handlers) == 1
        target.invalidate()
    assert source.is_consistent
    assert not source.extra.handlers


def _results_of(squares: Squares) -> list[object]:
    return [node for node in nodes() if node.keeper.instance is squares]
