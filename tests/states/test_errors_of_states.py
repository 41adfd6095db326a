"""When a state's function fails: what is shown meanwhile, and when it is tried again."""

import math

import pytest

from afresh import ComputedOptions, ComputedState, MutableState
from afresh.primitives.delays import RetryDelays
from afresh.primitives.transience import (
    Transience,
    TransienceResolver,
    prefer_transient,
    set_transience_resolver,
)
from afresh.states import NO_DELAY, FixedDelayer, UpdateDelayer
from afresh.testing import FakeClock


class Failing:
    """Fails with whatever `error` is set to, else counts; knows when it was called."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.calls: list[float] = []

    async def __call__(self) -> int:
        from afresh.primitives.clock import current_clock

        self.calls.append(current_clock().now())
        if self.error is not None:
            raise self.error
        return len(self.calls)


class Noting:
    """A delayer that notes what it is asked, and waits no longer than it must."""

    def __init__(self) -> None:
        self.retry_counts: list[int] = []

    async def delay(self, retry_count: int) -> None:
        self.retry_counts.append(retry_count)


class Tagged(Exception):
    """An error that says itself what kind it is."""

    def __init__(self, transience: Transience) -> None:
        super().__init__(transience.value)
        self.transience = transience


@pytest.fixture
def resolve():
    """Puts another resolver of transience in place, and restores the one before."""
    before = set_transience_resolver(prefer_transient)
    yield set_transience_resolver
    set_transience_resolver(before)


async def test_an_error_is_raised_by_whoever_uses_the_state(clock: FakeClock) -> None:
    async with ComputedState(Failing(LookupError("gone"))) as state:
        for _ in range(2):
            with pytest.raises(LookupError, match="gone"):
                await state.use()
        with pytest.raises(LookupError, match="gone"):
            _ = state.value
        assert isinstance(state.error, LookupError)
        assert state.value_or_none is None
        assert state.computed.is_consistent


async def test_the_last_value_stays_there_while_it_fails(clock: FakeClock) -> None:
    function = Failing(None)
    async with ComputedState(function, delay=60) as state:
        await state.update()
        function.error = LookupError()
        await state.recompute()
        assert state.error is not None
        assert state.last_value == 1


async def test_the_initial_value_stays_there_when_the_first_computation_fails(
    clock: FakeClock,
) -> None:
    async with ComputedState(Failing(LookupError()), initial="nothing yet") as state:
        await state.update()
        assert state.last_value == "nothing yet"
        assert not state.is_initial


@pytest.mark.parametrize(
    ("error", "options", "served"),
    [
        pytest.param(Tagged(Transience.TRANSIENT), {}, 1, id="transient"),
        pytest.param(Tagged(Transience.SUPER_TRANSIENT), {}, 1, id="super-transient"),
        pytest.param(Tagged(Transience.NON_TRANSIENT), {}, 30, id="non-transient"),
        pytest.param(LookupError(), {"error_delay": 7}, 7, id="non-transient, own horizon"),
        pytest.param(
            LookupError(), {"error_delay": math.inf}, math.inf, id="non-transient, no horizon"
        ),
        pytest.param(
            LookupError(), {"auto_invalidate": 5}, 5, id="non-transient, shorter lifetime of values"
        ),
        pytest.param(
            LookupError(),
            {"auto_invalidate": 5, "error_delay": math.inf},
            5,
            id="non-transient, lifetime of values and no horizon",
        ),
        pytest.param(
            Tagged(Transience.TERMINAL), {"error_delay": 7}, math.inf, id="terminal, no lifetime"
        ),
        pytest.param(
            Tagged(Transience.TERMINAL),
            {"auto_invalidate": 50, "error_delay": 7},
            50,
            id="terminal, lifetime of values",
        ),
    ],
)
async def test_how_long_an_error_is_served_depends_on_its_kind(
    clock: FakeClock, error: Exception, options: dict[str, float], served: float
) -> None:
    function = Failing(error)
    async with ComputedState(function, options=ComputedOptions(**options), start=False) as state:
        computed = await state.update()
        await clock.advance(min(served, 3600) - 0.1)
        assert computed.is_consistent
        await clock.advance(0.2)
        assert computed.is_consistent is (served == math.inf)


async def test_an_error_that_asks_for_time_gets_it(clock: FakeClock) -> None:
    error = TimeoutError()
    error.retry_delay = 12.0  # type: ignore[attr-defined]
    async with ComputedState(Failing(error), start=False) as state:
        computed = await state.update()
        await clock.advance(11.9)
        assert computed.is_consistent
        await clock.advance(0.2)
        assert computed.is_invalidated


async def test_a_resolver_that_fails_makes_errors_transient(
    clock: FakeClock, resolve: type[TransienceResolver]
) -> None:
    def fail(error: BaseException) -> Transience:
        raise RuntimeError("the resolver is broken")

    resolve(fail)
    async with ComputedState(Failing(LookupError()), start=False) as state:
        computed = await state.update()
        assert state.snapshot.retry_count == 1
        await clock.advance(1.1)
        assert computed.is_invalidated


async def test_retries_are_counted_until_a_success(clock: FakeClock) -> None:
    function = Failing(TimeoutError())
    delayer = Noting()
    async with ComputedState(
        function, delay=delayer, options=ComputedOptions(transient_error_delay=1)
    ) as state:
        await clock.settle()
        assert state.snapshot.retry_count == 1
        await clock.advance(1)
        assert state.snapshot.retry_count == 2
        function.error = None
        await clock.advance(1)
        assert state.snapshot.retry_count == 0
        state.invalidate()
        await clock.settle()
        assert delayer.retry_counts == [1, 2, 0]


async def test_only_errors_that_may_pass_count_as_retries(clock: FakeClock) -> None:
    function = Failing(TimeoutError())
    async with ComputedState(function, start=False) as state:
        await state.recompute()
        await state.recompute()
        assert state.snapshot.retry_count == 2
        function.error = LookupError()
        await state.recompute()
        snapshot = state.snapshot
        assert (snapshot.retry_count, snapshot.error_count, snapshot.update_count) == (0, 3, 3)


@pytest.mark.parametrize(
    "delayer",
    [
        FixedDelayer(0.5, retry_delays=RetryDelays.exponential(1, 60, 2, spread=0)),
        type(NO_DELAY)(retry_delays=RetryDelays.exponential(1, 60, 2, spread=0)),
    ],
    ids=["fixed", "none"],
)
async def test_each_retry_waits_longer_after_the_error_has_expired(
    clock: FakeClock, delayer: UpdateDelayer
) -> None:
    function = Failing(TimeoutError())
    async with ComputedState(
        function, delay=delayer, options=ComputedOptions(transient_error_delay=10)
    ):
        await clock.advance(80)
        assert function.calls == [0, 11, 23, 37, 55]


async def test_an_error_that_is_not_served_at_all_still_waits_for_the_retry_delay(
    clock: FakeClock,
) -> None:
    function = Failing(TimeoutError())
    delayer = type(NO_DELAY)(retry_delays=RetryDelays.exponential(1, 60, 2, spread=0))
    async with ComputedState(
        function, delay=delayer, options=ComputedOptions(transient_error_delay=0)
    ) as state:
        await clock.advance(20)
        assert function.calls == [0, 1, 3, 7, 15]
        function.error = None
        await clock.advance(20)
        assert state.value == 6


async def test_a_stale_error_is_recomputed_when_its_cause_changes(clock: FakeClock) -> None:
    source = MutableState(0)

    async def inverse() -> float:
        return 1 / source.use()

    async with ComputedState(inverse, delay=0.1) as state:
        await clock.settle()
        assert isinstance(state.error, ZeroDivisionError)
        source.set(2)
        await clock.advance(0.1)
        assert state.value == 0.5


async def test_a_function_that_runs_out_of_stack_is_logged_and_tried_again_ever_more_slowly(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0
    is_mended = False

    def recurse() -> int:
        return recurse()

    async def function() -> int:
        nonlocal calls
        calls += 1
        return 1 if is_mended else recurse()

    delayer = type(NO_DELAY)(retry_delays=RetryDelays.exponential(1, 60, 2, spread=0))
    async with ComputedState(function, delay=delayer) as state:
        await clock.advance(20)
        assert calls == 5
        assert state.is_initial
        assert caplog.text.count("could not be updated") == 5
        is_mended = True
        await clock.advance(20)
        assert state.value == 1


async def test_a_delayer_that_fails_is_logged_and_leaves_the_state_to_those_who_ask(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        async def delay(self, retry_count: int) -> None:
            raise LookupError("no clock")

    function = Failing(None)
    async with ComputedState(function, delay=Broken()) as state:
        await clock.settle()
        state.invalidate()
        await clock.advance(10)
        assert "no clock" in caplog.text
        assert state.value == 1
        assert await state.use() == 2
