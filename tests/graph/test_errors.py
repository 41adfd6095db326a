"""A failed computation is a result: raised to every caller until it expires."""

import gc
import math
import sys
import weakref
from typing import Any

import pytest

from afresh import ComputeService, compute_method
from afresh.primitives.transience import Transience, prefer_transient, set_transience_resolver
from afresh.testing import FakeClock


class Failing(ComputeService):
    """`get(error)` raises a new error of that kind each time the body runs."""

    def __init__(self) -> None:
        self.runs = 0
        self.error: Any = ValueError

    @compute_method
    async def get(self, key: object = None) -> int:
        self.runs += 1
        if self.error is None:
            return self.runs
        raise self.error(f"run {self.runs}")

    @compute_method
    async def outer(self, key: object = None) -> int:
        return await self.get(key)

    @compute_method(transient_error_delay=0.25, error_delay=5)
    async def short(self) -> int:
        return await self.get("short")


async def test_an_error_is_raised_again_without_running_the_body():
    failing = Failing()
    for _ in range(3):
        with pytest.raises(ValueError, match="run 1"):
            await failing.get()
    assert failing.runs == 1


async def test_an_error_goes_through_to_all_who_depend_on_it():
    failing = Failing()
    for _ in range(2):
        with pytest.raises(ValueError, match="run 1"):
            await failing.outer()
    computed = await failing.outer.capture()
    assert [each.category for each in computed.dependencies] == ["Failing.get"]
    failing.error = None
    failing.get.invalidate(None)
    assert await failing.outer() == 2


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (TimeoutError, 1),
        (ConnectionResetError, 1),
        (OSError, 1),
        (Exception, 1),
        (ValueError, 30),
        (KeyError, 30),
        (TypeError, 30),
        (RuntimeError, 30),
        (FileNotFoundError, 30),
        (AssertionError, 30),
    ],
)
async def test_an_error_expires_by_whether_it_may_pass(
    clock: FakeClock, error: type[Exception], seconds: float
):
    failing = Failing()
    failing.error = error
    computed = await failing.get.capture()
    await clock.advance(seconds - 0.01)
    assert computed.is_consistent
    assert await computed.update() is computed
    await clock.advance(0.01)
    assert computed.is_invalidated
    assert str(computed.invalidation_cause) == "a cached error expired"
    failing.error = None
    assert await failing.get() == 2


async def test_a_dependant_goes_with_the_error_it_got(clock: FakeClock):
    failing = Failing()
    failing.error = TimeoutError
    outer = await failing.outer.capture()
    failing.error = None
    await clock.advance(1)
    assert outer.is_invalidated
    assert await failing.outer() == 2


async def test_options_say_how_long_errors_are_served(clock: FakeClock):
    failing = Failing()
    failing.error = TimeoutError
    computed = await failing.short.capture()
    await clock.advance(0.25)
    assert computed.is_invalidated
    failing.error = ValueError
    failing.get.invalidate("short")
    computed = await failing.short.capture()
    await clock.advance(4.9)
    assert computed.is_consistent
    await clock.advance(0.1)
    assert computed.is_invalidated


async def test_an_error_that_says_when_to_try_again_is_served_that_long(clock: FakeClock):
    class Busy(TimeoutError):
        retry_delay = 1.0

    failing = Failing()
    failing.error = Busy
    waits = await failing.short.capture()
    await clock.advance(0.6)
    assert waits.is_consistent
    await clock.advance(0.4)
    assert waits.is_invalidated

    failing.error = TimeoutError
    failing.get.invalidate("short")
    plain = await failing.short.capture()
    await clock.advance(0.25)
    assert plain.is_invalidated


@pytest.mark.parametrize("delay", [0, -1, None, True, "1", 0.1])
async def test_a_wish_that_is_shorter_or_makes_no_sense_changes_nothing(
    clock: FakeClock, delay: Any
):
    class Odd(TimeoutError):
        retry_delay = delay

    failing = Failing()
    failing.error = Odd
    computed = await failing.get.capture()
    await clock.advance(0.99)
    assert computed.is_consistent
    await clock.advance(0.01)
    assert computed.is_invalidated


async def test_an_error_may_be_served_for_ever(clock: FakeClock):
    class Patient(ComputeService):
        @compute_method(error_delay=math.inf)
        async def get(self) -> int:
            raise ValueError

    computed = await Patient().get.capture()
    await clock.advance(1000)
    assert computed.is_consistent


async def test_an_error_may_be_served_to_nobody_else(clock: FakeClock):
    class Hasty(ComputeService):
        runs = 0

        @compute_method(error_delay=0)
        async def get(self) -> int:
            self.runs += 1
            raise ValueError

    hasty = Hasty()
    for _ in range(2):
        with pytest.raises(ValueError):
            await hasty.get()
    assert hasty.runs == 2


async def test_the_lifetime_of_values_limits_that_of_errors(clock: FakeClock):
    class Expiring(ComputeService):
        @compute_method(auto_invalidate=2, error_delay=30)
        async def get(self) -> int:
            raise ValueError

        @compute_method(auto_invalidate=2, error_delay=30)
        async def terminal(self) -> int:
            error = ValueError()
            error.transience = Transience.TERMINAL  # type: ignore[attr-defined]
            raise error

        @compute_method(error_delay=1)
        async def final(self) -> int:
            error = ValueError()
            error.transience = Transience.TERMINAL  # type: ignore[attr-defined]
            raise error

    expiring = Expiring()
    short, terminal = await expiring.get.capture(), await expiring.terminal.capture()
    final = await expiring.final.capture()
    await clock.advance(1.9)
    assert (short.is_consistent, terminal.is_consistent) == (True, True)
    await clock.advance(0.1)
    assert (short.is_invalidated, terminal.is_invalidated) == (True, True)
    assert final.is_consistent


async def test_a_resolver_decides_what_may_pass(clock: FakeClock):
    set_transience_resolver(lambda error: Transience.NON_TRANSIENT)
    try:
        failing = Failing()
        failing.error = TimeoutError
        computed = await failing.get.capture()
        await clock.advance(29)
        assert computed.is_consistent
        await clock.advance(1)
        assert computed.is_invalidated
    finally:
        set_transience_resolver(prefer_transient)


async def test_a_resolver_that_fails_makes_errors_pass(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
):
    def resolve(error: BaseException) -> Transience:
        raise KeyError("of the resolver")

    set_transience_resolver(resolve)
    try:
        computed = await Failing().get.capture()
    finally:
        set_transience_resolver(prefer_transient)
    await clock.advance(1)
    assert computed.is_invalidated
    assert "of the resolver" in caplog.text


async def test_an_error_that_goes_stale_before_leaves_no_timer(clock: FakeClock):
    failing = Failing()
    await failing.get.capture()
    timers = clock.timers
    for _ in range(5):
        failing.get.invalidate()
        await failing.get.capture()
    assert clock.timers == timers
    failing.error = None
    failing.get.invalidate()
    await failing.get.capture()
    assert clock.timers == timers - 1


async def test_an_error_expires_as_computed_however_often_it_is_raised(clock: FakeClock):
    failing = Failing()
    failing.error = TimeoutError
    computed = await failing.get.capture()
    for _ in range(9):
        await clock.advance(0.1)
        with pytest.raises(TimeoutError):
            await failing.get()
    assert computed.is_consistent
    await clock.advance(0.1)
    assert computed.is_invalidated


async def test_an_error_that_its_caller_catches_is_a_value_there(clock: FakeClock):
    class Catching(Failing):
        @compute_method
        async def safe(self) -> int:
            try:
                return await self.get()
            except ValueError:
                return -1

    catching = Catching()
    computed = await catching.safe.capture()
    assert computed.value == -1
    await clock.advance(30)
    assert computed.is_invalidated


async def test_assertions_of_arguments_are_results_with_their_message():
    class Checking(ComputeService):
        @compute_method
        async def get(self, key: str) -> str:
            if not key:
                raise ValueError("key: must not be empty")
            return key

    checking = Checking()
    computed = await checking.get.capture("")
    assert str(computed.error) == "key: must not be empty"
    assert (await checking.get.capture("a")).value == "a"


class TestFrames:
    """A cached error keeps none of the stack that it was raised on."""

    async def test_variables_of_the_body_are_freed(self):
        class Thing:
            pass

        references: list[weakref.ref[Thing]] = []

        class Holding(ComputeService):
            @compute_method
            async def get(self) -> int:
                thing = Thing()
                references.append(weakref.ref(thing))
                raise ValueError("held")

            @compute_method
            async def chained(self) -> int:
                thing = Thing()
                references.append(weakref.ref(thing))
                try:
                    raise KeyError("inner")
                except KeyError as error:
                    raise ValueError("outer") from error

            @compute_method
            async def in_passing(self) -> int:
                thing = Thing()
                references.append(weakref.ref(thing))
                try:
                    raise KeyError("inner")
                except KeyError:
                    raise ValueError("outer")  # noqa: B904

            @compute_method
            async def grouped(self) -> int:
                thing = Thing()
                references.append(weakref.ref(thing))
                errors: list[Exception] = []
                for number in range(2):
                    try:
                        raise ValueError(number)
                    except ValueError as error:
                        errors.append(error)
                raise ExceptionGroup("several", errors)

        holding = Holding()
        for method in (holding.get, holding.chained, holding.in_passing, holding.grouped):
            for _ in range(2):
                try:
                    await method()
                except Exception:
                    pass
        gc.collect()
        assert len(references) == 4
        assert [reference() for reference in references] == [None] * 4
        assert isinstance((await holding.grouped.capture()).error, ExceptionGroup)

    async def test_what_is_stored_has_no_traceback(self):
        failing = Failing()
        computed = await failing.get.capture()
        assert computed.error is not None
        for _ in range(3):
            with pytest.raises(ValueError):
                await failing.get()
            with pytest.raises(ValueError):
                _ = computed.value
        assert computed.error.__traceback__ is None
        assert computed.error.__context__ is None

    async def test_the_first_caller_sees_the_whole_stack(self):
        failing = Failing()
        with pytest.raises(ValueError) as caught:
            await failing.outer()
        names = [entry.name for entry in caught.traceback]
        assert names[-1] == "get"
        assert "outer" in names

    async def test_later_callers_see_where_it_came_from_in_a_note(self):
        failing = Failing()
        with pytest.raises(ValueError):
            await failing.get()
        with pytest.raises(ValueError) as caught:
            await failing.get()
        (note,) = caught.value.__notes__
        assert note.startswith(
            "cached as the result of Failing.get(None); first raised in get at test_errors.py:"
        )

    async def test_every_caller_gets_an_error_of_its_own(self):
        failing = Failing()
        raised: list[BaseException] = []
        for _ in range(3):
            try:
                await failing.get()
            except ValueError as error:
                error.add_note("by this caller")
                raised.append(error)
        assert len({id(error) for error in raised}) == 3
        computed = await failing.get.capture()
        assert computed.error not in raised
        assert "by this caller" not in computed.error.__notes__  # type: ignore[union-attr]
        assert [str(error) for error in raised] == ["run 1"] * 3

    async def test_raising_again_and_again_makes_no_long_traceback(self):
        failing = Failing()
        lengths: list[int] = []
        for _ in range(5):
            try:
                await failing.get()
            except ValueError as error:
                length, place = 0, error.__traceback__
                while place is not None:
                    length, place = length + 1, place.tb_next
                lengths.append(length)
        assert max(lengths) < 6
        assert len(set(lengths[1:])) == 1

    async def test_an_error_raised_while_another_is_handled_does_not_keep_that(self):
        failing = Failing()
        await failing.get.capture()
        handled = KeyError("of the caller")
        try:
            raise handled
        except KeyError:
            with pytest.raises(ValueError) as caught:
                await failing.get()
        assert caught.value.__context__ is handled
        stored = (await failing.get.capture()).error
        assert stored is not None
        assert stored.__context__ is None
        assert sys.getrefcount(handled) < 6
