"""Assertions about what goes stale, and assertions that wait until they hold."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar, cast, overload

from afresh.graph import ComputedOptions, ComputedSource
from afresh.graph._context import DELAY_RUNS
from afresh.graph.computed import Computed
from afresh.graph.producer import call_behind, produce
from afresh.graph.scopes import Isolated, isolated, try_capture
from afresh.primitives.clock import current_clock
from afresh.states import State

from .clock import FakeClock

__all__ = ["Call", "assert_invalidates", "eventually"]

T = TypeVar("T")

Call = Awaitable[Any] | Computed[Any] | State[Any] | Callable[[], Awaitable[Any]]
"""A call of a compute method, as `assert_invalidates` takes it."""

_ROUNDS = 10
"""How often results are renewed that make each other stale while they are computed."""


async def assert_invalidates(
    action: Awaitable[T] | Callable[[], Awaitable[T] | T],
    *calls: Call,
    unaffected: Call | Iterable[Call] = (),
    within: float | None = None,
) -> T:
    """Assert that an action makes the results of calls stale.

    The calls are made first, so that there are results that can go stale, then comes the action.

    Args:
        action: an awaitable that was not started yet, such as the call of an async function, or a
            function without arguments, async or not.
        calls: calls of compute methods, written as calls: ``orders.for_user("u1")``. Also a
            `Computed`, a state, or a function without arguments that makes the call, or that does
            several things of which the last call counts.
        unaffected: calls whose results the action must leave as they are; one, or several.
        within: seconds to wait for invalidations that come later than the end of the action, as
            those with an `invalidation_delay` do. By default one second of real time, which passes
            only when an assertion is about to fail. With a `FakeClock` in place, that is advanced
            by as much as is needed, up to `within`; by default not at all.

    Returns:
        What the action returns.

    Raises:
        AssertionError: names each call whose result is still fresh, or should be and is not.
        TypeError: the action is none, as it was carried out before this function was called; or a
            call is no call.
        Exception: what the action raises.

    Example:
        ```python
        await assert_invalidates(orders.place(command), orders.for_user("u1"), orders.total())
        ```
    """
    __tracebackhide__ = True
    untouched = _listed(unaffected)
    try:
        _check_action(action)
        if not calls and not untouched:
            raise TypeError("assert_invalidates() was given an action but no call to look at.")
        with isolated():
            before = await _fresh([*calls, *untouched])
        outcome = await _perform(action)
    finally:
        for each in (action, *calls, *untouched):
            if inspect.iscoroutine(each):
                each.close()  # or else Python warns of those that were not awaited after all
    expected, kept = before[: len(calls)], before[len(calls) :]
    await _wait_until_stale(expected, within)
    complaints = [_why_fresh(computed) for computed in expected if not computed.is_invalidated]
    complaints += [_why_stale(computed) for computed in kept if computed.is_invalidated]
    if complaints:
        raise AssertionError("\n".join(complaints))
    return outcome


def _listed(calls: Any) -> list[Any]:
    is_one = isinstance(calls, (Computed, State, Awaitable)) or not isinstance(calls, Iterable)
    return [calls] if is_one else list(calls)


# -- the action


def _check_action(action: Any) -> None:
    if isinstance(action, (Computed, State)) or call_behind(action) is not None:
        raise TypeError(
            f"{action!r} is the call of a compute method, which changes nothing; the action comes "
            "first, then the calls that it affects."
        )
    if isinstance(action, asyncio.Future) and action.done():
        raise TypeError(
            f"{action!r} is done already, before anybody could look at what it affects; pass the "
            "coroutine itself, or a function."
        )
    if not isinstance(action, Awaitable) and not callable(action):
        raise TypeError(
            f"The action is {action!r}, so it was carried out before anybody could look at what it "
            "affects; put it into a function: "
            "assert_invalidates(lambda: counters.increment('a'), counters.get('a'))."
        )


async def _perform(action: Awaitable[T] | Callable[[], Awaitable[T] | T]) -> T:
    outcome = action if isinstance(action, Awaitable) else action()
    return await outcome if inspect.isawaitable(outcome) else outcome


# -- the results that calls stand for


async def _fresh(calls: list[Any]) -> list[Computed[Any]]:
    """The results of the calls, all of them fresh at the same time."""
    found = [await _result_of(call) for call in calls]
    for _ in range(_ROUNDS):
        if all(computed.is_consistent for computed in found):
            return found
        found = [await computed.update() for computed in found]
    restless = ", ".join(each.describe() for each in found if not each.is_consistent)
    raise AssertionError(
        f"{restless} went stale by itself {_ROUNDS} times in a row, before the action; nothing can "
        "be told of its invalidation."
    )


async def _result_of(call: Any) -> Computed[Any]:
    if isinstance(call, Computed):
        return call
    if isinstance(call, State):
        return await call.update()
    behind = call_behind(call)
    if behind is not None:
        return cast("Computed[Any]", await produce(*behind, Isolated(), True))
    if isinstance(call, Awaitable):
        awaitable = call
        found = await try_capture(lambda: awaitable)
    elif callable(call):
        found = await try_capture(_producer(call))
    else:
        raise TypeError(
            f"{call!r} is no call of a compute method. Write the call itself, "
            "orders.for_user('u1'), or a function that makes it."
        )
    if found is None:
        raise TypeError(
            f"{call!r} called no compute method in the task that awaited it. Write the call "
            "itself, orders.for_user('u1'), or a function that makes it."
        )
    return found


def _producer(call: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    async def produce_it() -> None:
        outcome = call()
        if inspect.isawaitable(outcome):
            await outcome

    return produce_it


# -- waiting, and what to say


async def _wait_until_stale(expected: list[Computed[Any]], within: float | None) -> None:
    """Return when all are stale, or when there is no hope left."""
    clock = current_clock()
    seconds = 1.0 if within is None else within
    if isinstance(clock, FakeClock):
        end = clock.now() + (within or 0.0)
        await clock.settle()
        while clock.now() < end and not all(computed.is_invalidated for computed in expected):
            await clock.advance(max(min(clock.next_due, end) - clock.now(), 0.0))
        seconds = 1.0  # what threads and sockets still have to tell comes in real time
    fresh = [computed for computed in expected if not computed.is_invalidated]
    if fresh:
        waiting = asyncio.gather(*(computed.when_invalidated() for computed in fresh))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(waiting, seconds)


def _why_fresh(computed: Computed[Any]) -> str:
    text = f"{computed.describe()} was not invalidated."
    consolidation = computed.consolidation
    if computed.flags & DELAY_RUNS:
        delay = computed.options.invalidation_delay
        return f"{text} It will be, {delay:g} s after it was told to; allow for that with within=."
    if consolidation is not None and not consolidation.source.is_consistent:
        return f"{text} A new result for it is being compared; allow for that with within=."
    if consolidation is not None:
        return f"{text} It consolidates, and a new result would be equal, or nothing changed."
    if computed.dependencies:
        used = ", ".join(dependency.describe() for dependency in computed.dependencies)
        return f"{text} Nothing that it was computed from was: {used}."
    return f"{text} It uses no other result, so the action has to invalidate it itself."


def _why_stale(computed: Computed[Any]) -> str:
    return (
        f"{computed.describe()} was invalidated, and should have been left alone; "
        f"by {computed.invalidation_cause}."
    )


# -- waiting until something holds


@overload
async def eventually(check: Callable[[], Awaitable[T]], *, timeout: float = ...) -> T: ...
@overload
async def eventually(check: Callable[[], T], *, timeout: float = ...) -> T: ...
async def eventually(check: Callable[[], Any], *, timeout: float = 5.0) -> Any:
    """Repeat an assertion until it passes: at once, then whenever something it used went stale.

    Args:
        check: a function without arguments, async or not, that raises as long as what it looks for
            is not the case. It has to read through compute methods, or `use()` of states.
        timeout: seconds of real time after which to give up.

    Returns:
        What the check returns.

    Raises:
        Exception: what the check raised last, when the time is over.
        TimeoutError: the check never came to an end.

    Example:
        ```python
        async def shipped():
            order = await orders.get("o1")
            assert order.status == "shipped"
            return order

        order = await eventually(shipped)
        ```
    """
    __tracebackhide__ = True
    failure: Exception | None = None

    async def attempt() -> tuple[bool, Any]:
        nonlocal failure
        try:
            outcome = check()
            if inspect.isawaitable(outcome):
                outcome = await outcome
        except Exception as error:
            failure = error
            return False, None
        return True, outcome

    source = ComputedSource(attempt, options=ComputedOptions(keep_alive=math.inf))
    computed = source.computed
    scope = asyncio.timeout(timeout)
    try:
        async with scope:
            while True:
                computed = await computed.update()
                passed, outcome = computed.value
                if passed:
                    return outcome
                await computed.when_invalidated()
                await asyncio.sleep(0)  # a check that makes itself stale must not stop the world
    except TimeoutError:
        if not scope.expired():
            raise
        if failure is None:
            raise TimeoutError(f"{check!r} did not come to an end within {timeout:g} s.") from None
        if computed.is_consistent and not computed.dependencies:
            failure.add_note(
                "It used no compute method and no state, so nothing told when to look again."
            )
        raise failure from None
    finally:
        failure = None  # or else: error → traceback → this frame → error
        source.invalidate()
