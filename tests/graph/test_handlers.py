"""`on_invalidated`: who is called, when, how often, and what may go wrong in there."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from afresh import Computed, compute_method, current_computed, invalidating, is_invalidating
from afresh.graph import capturing, try_current_computed
from tests.graph.services import Counters, Gated


@pytest.fixture
def counters() -> Counters:
    return Counters()


async def test_a_handler_is_called_once_with_the_result(counters: Counters):
    computed = await counters.get.capture("a")
    calls: list[Computed[int]] = []
    computed.on_invalidated(calls.append)
    assert calls == []

    computed.invalidate()
    computed.invalidate()
    counters.set("a", 1)
    await counters.get("a")
    counters.set("a", 2)

    assert calls == [computed]


async def test_a_handler_is_called_inside_the_invalidation(counters: Counters):
    computed = await counters.total.capture("a", "b")
    calls: list[str] = []
    computed.on_invalidated(lambda _: calls.append("handler"))

    counters.get.invalidate("a")
    calls.append("after")

    assert calls == ["handler", "after"]


async def test_handlers_are_called_in_the_order_in_which_they_were_added(counters: Counters):
    computed = await counters.get.capture("a")
    calls: list[int] = []
    for number in range(20):
        computed.on_invalidated(lambda _, number=number: calls.append(number))

    computed.invalidate()

    assert calls == list(range(20))


async def test_a_handler_that_is_added_twice_is_called_once(counters: Counters):
    computed = await counters.get.capture("a")
    calls: list[Computed[int]] = []
    other: list[Computed[int]] = []
    for add in (calls.append, other.append, calls.append):
        computed.on_invalidated(add)

    computed.invalidate()

    assert len(calls) == len(other) == 1


async def test_a_handler_that_comes_too_late_is_called_at_once(counters: Counters):
    computed = await counters.get.capture("a")
    computed.invalidate()
    calls: list[Computed[int]] = []

    remove = computed.on_invalidated(calls.append)
    assert calls == [computed]
    remove()

    computed.on_invalidated(calls.append)
    assert calls == [computed, computed]


async def test_a_handler_can_be_removed(counters: Counters):
    computed = await counters.get.capture("a")
    calls: list[str] = []
    remove = computed.on_invalidated(lambda _: calls.append("removed"))
    computed.on_invalidated(lambda _: calls.append("kept"))

    remove()
    remove()
    computed.invalidate()
    remove()

    assert calls == ["kept"]


@pytest.mark.parametrize("size", range(10))
async def test_any_of_several_handlers_can_be_removed(counters: Counters, size: int):
    chance = random.Random(size)
    for _ in range(10):
        computed = await counters.get.capture(size)
        calls: list[int] = []
        removers: list[Callable[[], None]] = [
            computed.on_invalidated(lambda _, number=number, calls=calls: calls.append(number))
            for number in range(size)
        ]
        removed = set(chance.sample(range(size), chance.randint(0, size)))
        for number in removed:
            removers[number]()

        computed.invalidate()

        assert calls == [number for number in range(size) if number not in removed]


@pytest.mark.parametrize("size", [1, 3, 7])
async def test_a_handler_that_fails_stops_nobody(
    counters: Counters, size: int, caplog: pytest.LogCaptureFixture
):
    for failing in range(size):
        computed = await counters.get.capture("a")
        dependant = await counters.total.capture("a", "b")
        calls: list[int] = []

        def handler(number: int, failing: int = failing, calls: list[int] = calls) -> Any:
            def handle(_: Any) -> None:
                calls.append(number)
                if number == failing:
                    raise ValueError("in a handler")

            return handle

        for number in range(size):
            computed.on_invalidated(handler(number))

        computed.invalidate()

        assert calls == list(range(size))
        assert dependant.is_invalidated
        (record,) = caplog.records
        assert record.name == "afresh.graph"
        assert record.getMessage() == ("A handler of the invalidation of Counters.get('a') failed.")
        assert "in a handler" in str(record.exc_info)
        caplog.clear()


async def test_a_late_handler_that_fails_is_logged(
    counters: Counters, caplog: pytest.LogCaptureFixture
):
    computed = await counters.get.capture("a")
    computed.invalidate()

    computed.on_invalidated(lambda _: 1 / 0)

    assert "failed" in caplog.text


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
async def test_a_handler_that_is_cancelled_stops_nobody_either(
    counters: Counters, error: type[BaseException], caplog: pytest.LogCaptureFixture
):
    computed = await counters.get.capture("a")
    dependant = await counters.total.capture("a", "b")
    calls: list[Any] = []

    def fail(_: Any) -> None:
        raise error

    computed.on_invalidated(fail)
    computed.on_invalidated(calls.append)

    computed.invalidate()

    assert calls == [computed]
    assert dependant.is_invalidated
    assert "failed" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_the_end_of_the_program_is_not_swallowed_and_leaves_nothing_half_stale(
    counters: Counters, error: type[BaseException]
):
    computed = await counters.get.capture("a")
    dependant = await counters.total.capture("a", "b")
    calls: list[Any] = []

    def fail(_: Any) -> None:
        raise error

    computed.on_invalidated(fail)
    computed.on_invalidated(calls.append)

    with pytest.raises(error):
        computed.invalidate()

    assert calls == [computed]
    assert dependant.is_invalidated


async def test_a_handler_may_invalidate_others_and_itself(counters: Counters):
    first, second = await counters.get.capture("a"), await counters.get.capture("b")
    total = await counters.total.capture("a", "b")
    calls: list[str] = []

    def handle(_: Any) -> None:
        calls.append("first")
        second.invalidate()
        first.invalidate()
        counters.get.invalidate("a")

    first.on_invalidated(handle)
    second.on_invalidated(lambda _: calls.append("second"))
    total.on_invalidated(lambda _: calls.append("total"))

    first.invalidate()

    assert calls == ["first", "second", "total"]


async def test_a_handler_may_invalidate_a_dependant_before_its_turn(counters: Counters):
    computed = await counters.get.capture("a")
    dependants = [await counters.total.capture("a", key) for key in "bcd"]
    calls: list[Any] = []
    for dependant in dependants:
        dependant.on_invalidated(calls.append)
    dependants[0].on_invalidated(lambda _: dependants[2].invalidate())

    computed.invalidate()

    assert calls == [dependants[0], dependants[2], dependants[1]]


async def test_a_handler_may_add_handlers(counters: Counters):
    computed = await counters.get.capture("a")
    calls: list[str] = []

    def handle(computed: Computed[int]) -> None:
        calls.append("first")
        computed.on_invalidated(lambda _: calls.append("added"))

    computed.on_invalidated(handle)
    computed.on_invalidated(lambda _: calls.append("second"))

    computed.invalidate()

    assert calls == ["first", "added", "second"]


async def test_a_handler_may_remove_handlers_that_were_called(counters: Counters):
    computed = await counters.get.capture("a")
    calls: list[str] = []
    remove = computed.on_invalidated(lambda _: calls.append("first"))
    computed.on_invalidated(lambda _: remove())
    computed.on_invalidated(lambda _: calls.append("last"))

    computed.invalidate()

    assert calls == ["first", "last"]


async def test_a_handler_may_start_computing_the_successor(counters: Counters):
    computed = await counters.get.capture("a")
    tasks: list[asyncio.Task[int]] = []
    computed.on_invalidated(
        lambda _: tasks.append(asyncio.get_running_loop().create_task(counters.get("a")))
    )

    counters.set("a", 7)

    assert await tasks[0] == 7
    assert computed.value == 0


async def test_a_handler_sees_no_result_for_its_key(counters: Counters):
    computed = await counters.get.capture("a")
    found: list[Any] = []
    computed.on_invalidated(lambda _: found.append(counters.get.existing("a")))
    computed.invalidate()
    assert found == [None]


async def test_a_handler_runs_outside_the_scope_of_whoever_invalidates(counters: Counters):
    computed = await counters.get.capture("a")
    other = await counters.get.capture("b")
    seen: list[Any] = []

    def handle(_: Any) -> None:
        seen.append((is_invalidating(), try_current_computed()))
        counters.get("b")  # a hit, and no invalidation

    computed.on_invalidated(handle)
    with invalidating():
        counters.get("a")
        assert is_invalidating()

    assert seen == [(False, None)]
    assert other.is_consistent


async def test_a_handler_that_runs_in_a_body_adds_no_dependency(counters: Counters):
    computed = await counters.get.capture("a")
    await counters.get("b")
    computed.on_invalidated(lambda _: counters.get("b"))

    class Changing(Counters):
        @compute_method
        async def change(self) -> int:
            computed.invalidate()
            return 0

    assert (await Changing().change.capture()).dependencies == ()


async def test_a_handler_captures_nothing_for_whoever_invalidates(counters: Counters):
    computed = await counters.get.capture("a")
    await counters.get("b")
    computed.on_invalidated(lambda _: counters.get("b"))
    with capturing() as captured:
        computed.invalidate()
    assert captured.computed is None


async def test_a_handler_can_be_attached_while_the_result_is_computed():
    gated = Gated()
    calls: list[str] = []
    computing = asyncio.ensure_future(gated.get())
    await gated.started.wait()
    computed = gated.get.existing()
    assert computed is not None
    computed.on_invalidated(lambda _: calls.append("handler"))

    gated.get.invalidate()
    assert calls == []
    gated.gate.set()
    await computing

    assert calls == ["handler"]


async def test_a_body_can_attach_a_handler_to_its_result():
    calls: list[Any] = []

    class Watching(Counters):
        @compute_method
        async def watched(self) -> int:
            current_computed().on_invalidated(calls.append)
            return 0

    watching = Watching()
    computed = await watching.watched.capture()
    watching.watched.invalidate()
    assert calls == [computed]


async def test_a_handler_that_cannot_be_compared_is_refused(counters: Counters):
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, _: Any) -> None: ...

    computed = await counters.get.capture("a")
    with pytest.raises(TypeError, match="unhashable"):
        computed.on_invalidated(Unhashable())


async def test_handlers_of_many_results_are_called_each_with_its_own(counters: Counters):
    calls: list[int] = []
    for key in range(100):
        computed = await counters.total.capture("hub", key)
        computed.on_invalidated(lambda computed: calls.append(computed.args[1]))

    counters.get.invalidate("hub")

    assert calls == list(range(100))
