"""States over services: a key-value store and a clock, as a page would show them."""

from afresh import ComputedState, ComputeService, compute_method
from afresh.primitives.clock import current_clock
from afresh.testing import FakeClock


class Store(ComputeService):
    """Texts by name."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    @compute_method
    async def get(self, name: str) -> str:
        return self._texts.get(name, "")

    def set(self, name: str, text: str) -> None:
        self._texts[name] = text
        self.get.invalidate(name)


class Time(ComputeService):
    """The time, right to the second."""

    @compute_method(auto_invalidate=1)
    async def now(self) -> float:
        return current_clock().now()


async def test_a_state_shows_a_value_of_a_store_half_a_second_after_it_changed(
    clock: FakeClock,
) -> None:
    store = Store()
    async with ComputedState(lambda: store.get("greeting"), delay=0.5, initial="?") as state:
        assert (state.value, state.snapshot.update_count) == ("?", 0)
        await clock.settle()
        assert (state.value, state.snapshot.update_count) == ("", 1)
        store.set("greeting", "hello")
        assert state.computed.is_invalidated
        await clock.advance(0.4)
        assert (state.value, state.snapshot.update_count) == ("", 1)
        await clock.advance(0.1)
        assert (state.value, state.snapshot.update_count) == ("hello", 2)
        store.set("another", "text")
        assert state.computed.is_consistent


async def test_a_state_shows_the_time_of_a_clock_and_goes_with_it(clock: FakeClock) -> None:
    time = Time()
    async with ComputedState(time.now, delay=0.1, initial=-1.0) as state:
        assert state.value == -1.0
        computed = await state.update()
        assert computed.is_consistent
        assert computed.value == 0.0
        await clock.advance(1.05)
        assert state.computed.is_invalidated
        await clock.advance(0.1)
        assert (state.value, state.computed.is_consistent) == (1.1, True)
        await clock.advance(10)
        assert state.value > 10


async def test_a_state_of_a_captured_result_follows_it_until_it_is_closed(
    clock: FakeClock,
) -> None:
    time = Time()
    computed = await time.now.capture()
    async with ComputedState(lambda: computed.use(), delay=0.1) as state:
        await clock.advance(5)
        assert state.value > 4
        closed_at = state.value
    await clock.advance(5)
    assert state.value == closed_at
