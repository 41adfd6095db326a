"""Compute functions: what a compute method is on an instance, without one."""

import asyncio
import gc
import inspect
import pickle
import weakref

import pytest

from afresh import compute_function, invalidating
from afresh.graph import ComputedOptions, default_options

runs: list[str] = []


@compute_function
async def rate(currency: str, day: int = 0) -> float:
    """The rate of a day."""
    runs.append(currency)
    return len(currency) + day / 10


@compute_function(keep_alive=5, ignore=("timeout",))
async def price(name: str, timeout: float = 1.0) -> float:
    return await rate(name) * 2


@pytest.fixture(autouse=True)
def fresh():
    runs.clear()
    with invalidating():
        rate("EUR")
        rate("EUR", 1)


async def test_a_function_is_computed_once_for_each_call():
    assert [await rate("EUR"), await rate("EUR", 1), await rate(day=1, currency="EUR")] == [
        3.0,
        3.1,
        3.1,
    ]
    assert runs == ["EUR", "EUR"]


async def test_functions_depend_on_each_other():
    computed = await price.capture("EUR")
    assert computed.value == 6.0
    assert [each.describe() for each in computed.dependencies] == ["rate('EUR', 0)"]

    assert rate.invalidate("EUR")

    assert computed.is_invalidated
    assert price.existing("EUR") is None
    assert await price("EUR", timeout=3.0) == 6.0
    assert runs == ["EUR", "EUR"]


async def test_a_function_has_options():
    assert rate.options == default_options()
    assert price.options == ComputedOptions(keep_alive=5)
    assert (await price.capture("EUR")).options.keep_alive == 5


async def test_a_function_is_known_by_its_name():
    computed = await rate.capture("EUR")
    assert computed.category == "rate"
    assert computed.describe() == "rate('EUR', 0)"
    assert rate.__doc__ == "The rate of a day."
    assert str(inspect.signature(rate)) == "(currency: str, day: int = 0) -> float"


async def test_a_function_may_be_made_and_dropped_at_run_time():
    def make(number: int):
        @compute_function
        async def get(key: int) -> int:
            return number + key

        return get

    one, other = make(1), make(2)
    assert [await one(1), await other(1)] == [2, 3]
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


async def test_a_function_can_be_wrapped_without_decorator_syntax():
    async def body(key: int) -> int:
        return key

    assert await compute_function(body)(1) == 1
    assert await compute_function(keep_alive=1)(body)(1) == 1


def test_a_method_looks_like_the_function_it_was_declared_as():
    from tests.graph.services import Counters

    counters = Counters()
    assert str(inspect.signature(counters.total)) == "(first: Any, second: Any) -> int"
    assert str(inspect.signature(Counters.total)) == "(self, first: Any, second: Any) -> int"
    assert inspect.unwrap(counters.total) is Counters.total.definition.function


def test_frameworks_take_both_for_async_functions():
    from tests.graph.services import Counters

    for function in (rate, Counters().get):
        assert asyncio.iscoroutinefunction(function)
        assert callable(function)


@pytest.mark.skipif("sys.version_info < (3, 12)", reason="inspect takes marks from 3.12 on")
def test_inspect_takes_both_for_async_functions():
    from tests.graph.services import Counters

    for function in (rate, Counters().get):
        assert inspect.iscoroutinefunction(function)


async def test_results_cannot_be_pickled_or_copied():
    computed = await rate.capture("EUR")
    with pytest.raises(TypeError, match="A Computed can't be pickled or copied"):
        pickle.dumps(computed)
