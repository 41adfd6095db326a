"""`eventually`: an assertion that is repeated when what it used changes."""

import asyncio
import gc

import pytest

from afresh import MutableState
from afresh.testing import eventually
from tests.testing.counters import Counters


@pytest.fixture
def counters() -> Counters:
    counters = Counters()
    counters.values["a"] = 0
    return counters


async def test_an_assertion_that_holds_passes_at_once_and_gives_its_value(counters):
    async def read() -> int:
        value = await counters.get("a")
        assert value == 0
        return value

    assert await eventually(read) == 0


async def test_it_is_repeated_when_a_result_it_used_goes_stale(counters):
    seen: list[int] = []

    async def check() -> None:
        seen.append(await counters.get("a"))
        assert seen[-1] == 3

    async def change() -> None:
        for value in (1, 2, 3):
            counters.set("a", value)
            for _ in range(5):
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(change())
        assert await eventually(check) is None
    assert seen == [0, 1, 2, 3]


async def test_a_plain_function_may_check_states():
    state = MutableState("new")
    asyncio.get_running_loop().call_later(0.01, state.set, "done")

    def check() -> str:
        assert state.use() == "done"
        return state.value

    assert await eventually(check) == "done"


async def test_any_error_means_not_yet():
    orders = MutableState[tuple[str, ...]](())
    asyncio.get_running_loop().call_later(0.01, orders.set, ("tea",))
    assert await eventually(lambda: orders.use()[0]) == "tea"


async def test_when_the_time_is_over_the_last_error_is_raised_where_it_happened(counters):
    async def check() -> None:
        assert await counters.get("a") == 5, "not there yet"

    with pytest.raises(AssertionError, match="not there yet") as caught:
        await eventually(check, timeout=0.02)
    assert caught.traceback[-1].name == "check"
    assert not hasattr(caught.value, "__notes__")


async def test_a_check_that_follows_nothing_is_told_so():
    with pytest.raises(AssertionError) as caught:
        await eventually(_fail, timeout=0.01)
    assert "It used no compute method and no state" in caught.value.__notes__[0]


def _fail() -> None:
    raise AssertionError("never")


async def test_a_check_that_never_ends_is_a_time_out():
    with pytest.raises(TimeoutError, match=r"did not come to an end within 0\.01 s"):
        await eventually(lambda: asyncio.sleep(60), timeout=0.01)


async def test_a_time_out_of_the_check_itself_is_an_error_like_others():
    state = MutableState(0)
    asyncio.get_running_loop().call_later(0.01, state.set, 1)

    async def check() -> None:
        if state.use() == 0:
            raise TimeoutError("the server is slow")

    await eventually(check)


async def test_a_check_that_makes_itself_stale_still_ends_in_time():
    state = MutableState(0)

    def check() -> None:
        state.set(state.use() + 1)
        raise AssertionError(state.value)

    with pytest.raises(AssertionError):
        await eventually(check, timeout=0.02)


async def test_it_leaves_no_dependant_behind(counters):
    async def check() -> None:
        assert await counters.get("a") == 1

    asyncio.get_running_loop().call_later(0.01, counters.set, "a", 1)
    await eventually(check)
    gc.collect()
    assert counters.get.existing("a").dependants == ()


async def test_it_adds_no_dependency_to_a_computation_around_it(counters):
    with pytest.raises(AssertionError):
        await eventually(_fail, timeout=0)
    computed = await counters.get.capture("a")
    await eventually(lambda: counters.get("a"))
    assert computed.dependants == ()
