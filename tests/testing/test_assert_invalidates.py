"""`assert_invalidates`: what it accepts, what it waits for, and what it says."""

import asyncio
import gc
import re

import pytest

from afresh import ComputedState, MutableState
from afresh.testing import assert_invalidates
from tests.testing.counters import Counters


@pytest.fixture
def counters() -> Counters:
    counters = Counters()
    counters.values |= {"a": 1, "b": 2}
    return counters


# -- the calls


async def test_a_call_that_was_cached_is_seen_to_go_stale(counters):
    await counters.get("a")
    assert await assert_invalidates(counters.increment("a"), counters.get("a")) == 2


async def test_a_call_that_was_not_cached_is_made_first(counters):
    assert counters.get.existing("a") is None
    await assert_invalidates(counters.increment("a"), counters.get("a"), counters.total("a", "b"))
    assert counters.runs == 2  # one each: the total took what was there


async def test_a_call_that_fails_counts_like_any_other(counters):
    await assert_invalidates(lambda: counters.set("new", 1), counters.get("new"))


async def test_a_call_may_stand_in_a_function(counters):
    await assert_invalidates(
        counters.increment("a"),
        lambda: counters.get("a"),
        lambda: counters.report("a"),
    )


async def test_of_a_coroutine_that_makes_several_calls_the_last_counts(counters):
    async def read_both() -> None:
        await counters.get("a")
        await counters.get("b")

    await assert_invalidates(counters.increment("b"), read_both(), counters.report("b"))
    with pytest.raises(AssertionError, match=r"Counters\.get\('b'\) was not invalidated"):
        await assert_invalidates(counters.increment("a"), read_both(), within=0)


async def test_results_and_states_stand_for_themselves(counters):
    variable = MutableState(1)
    async with ComputedState(lambda: counters.get("a")) as state:

        async def change() -> None:
            variable.set(2)
            await counters.increment("a")

        computed = await counters.get.capture("a")
        await assert_invalidates(change(), computed, state, variable, variable.use)


async def test_a_result_that_had_gone_stale_is_renewed_first(counters):
    computed = await counters.get.capture("a")
    computed.invalidate()
    with pytest.raises(AssertionError, match=r"get\('a'\) was not invalidated"):
        await assert_invalidates(counters.increment("b"), computed, within=0)


async def test_calls_see_each_other_settled_before_the_action(counters):
    """Computing the second call makes the first one stale; that must not count."""

    async def disturb() -> int:
        counters.get.invalidate("a")
        return await counters.get("b")

    with pytest.raises(AssertionError, match=r"get\('a'\) was not invalidated"):
        await assert_invalidates(lambda: None, counters.get("a"), disturb, within=0)


async def test_a_result_that_never_stays_fresh_is_told_from_one_that_the_action_made_stale():
    state = MutableState(0)

    class Restless(Counters):
        async def get(self, key: str) -> int:
            value = state.use()
            state.set(value + 1)
            return value

    with pytest.raises(AssertionError, match=r"Restless\.get\('a'\) went stale by itself"):
        await assert_invalidates(lambda: None, Restless().get("a"))


async def test_the_calls_add_no_dependency_to_a_computation_around_them(counters):
    async with ComputedState(
        lambda: assert_invalidates(counters.increment("a"), counters.get("a"))
    ) as state:
        await state.when_ready()
        assert state.computed.dependencies == ()


# -- the action


async def test_the_action_may_be_a_function_that_returns_or_awaits(counters):
    assert await assert_invalidates(lambda: counters.increment("a"), counters.get("a")) == 2
    assert await assert_invalidates(lambda: counters.set("a", 5), counters.get("a")) is None


async def test_what_the_action_raises_passes_through(counters):
    async def fail() -> None:
        raise LookupError("no such order")

    with pytest.raises(LookupError, match="no such order"):
        await assert_invalidates(fail(), counters.get("a"))


async def test_an_action_that_was_carried_out_already_is_refused(counters):
    with pytest.raises(TypeError, match="carried out before anybody could look"):
        await assert_invalidates(counters.set("a", 2), counters.get("a"))
    done = asyncio.ensure_future(counters.increment("a"))
    await done
    with pytest.raises(TypeError, match="is done already"):
        await assert_invalidates(done, counters.get("a"))


async def test_a_call_in_the_place_of_the_action_is_refused(counters):
    with pytest.raises(TypeError, match="the action comes first"):
        await assert_invalidates(counters.get("a"), counters.increment("a"))
    await counters.get("a")
    with pytest.raises(TypeError, match="the action comes first"):
        await assert_invalidates(counters.get("a"), counters.get("b"))


async def test_what_is_no_call_is_refused(counters):
    with pytest.raises(TypeError, match="no call to look at"):
        await assert_invalidates(counters.increment("a"))
    with pytest.raises(TypeError, match="5 is no call"):
        await assert_invalidates(counters.increment("a"), 5)
    with pytest.raises(TypeError, match="called no compute method"):
        await assert_invalidates(counters.increment("a"), asyncio.sleep(0))
    assert counters.values["a"] == 1


async def test_nothing_is_left_unawaited_after_a_refusal(counters):
    """Python would warn of the coroutines, and warnings are errors here."""
    with pytest.raises(TypeError):
        await assert_invalidates(
            counters.increment("a"), 5, counters.get("a"), unaffected=counters.report("b")
        )
    gc.collect()


# -- what it says


async def test_each_call_that_stayed_fresh_is_named_with_a_hint(counters):
    with pytest.raises(AssertionError) as caught:
        await assert_invalidates(
            lambda: counters.set_silently("a", 7),
            counters.get("a"),
            counters.total("a", "b"),
            within=0,
        )
    own, derived = str(caught.value).splitlines()
    assert own == (
        "Counters.get('a') was not invalidated. "
        "It uses no other result, so the action has to invalidate it itself."
    )
    assert derived == (
        "Counters.total(('a', 'b')) was not invalidated. "
        "Nothing that it was computed from was: Counters.get('a'), Counters.get('b')."
    )


async def test_only_those_that_stayed_fresh_are_named(counters):
    with pytest.raises(AssertionError) as caught:
        await assert_invalidates(
            counters.increment("a"), counters.get("a"), counters.get("b"), within=0
        )
    assert re.findall(r"get\('.'\)", str(caught.value)) == ["get('b')"]


# -- what must not go stale


async def test_what_should_be_left_alone_is_checked_too(counters):
    await assert_invalidates(
        counters.increment("a"), counters.get("a"), unaffected=counters.get("b")
    )
    with pytest.raises(AssertionError, match=r"total.* was invalidated, .* by .*Counters\.set"):
        await assert_invalidates(
            counters.increment("a"),
            counters.get("a"),
            unaffected=[counters.get("b"), counters.total("a")],
        )
    with pytest.raises(AssertionError, match="should have been left alone"):
        await assert_invalidates(counters.increment("a"), unaffected=lambda: counters.get("a"))


# -- what comes later


async def test_an_invalidation_from_the_background_is_waited_for(counters):
    def start() -> None:
        asyncio.get_running_loop().call_later(0.02, counters.get.invalidate, "a")

    await assert_invalidates(start, counters.get("a"))
    with pytest.raises(AssertionError, match="was not invalidated"):
        await assert_invalidates(start, counters.get("a"), within=0)


async def test_the_fake_clock_moves_as_far_as_needed(counters, fake_clock):
    await assert_invalidates(
        lambda: counters.set("a", 10), counters.lazy_total("a"), counters.is_high("a"), within=60
    )
    assert fake_clock.now() == 2


async def test_the_fake_clock_stands_still_unless_told(counters, fake_clock):
    with pytest.raises(AssertionError) as caught:
        await assert_invalidates(
            lambda: counters.set("a", 10), counters.lazy_total("a"), counters.is_high("a")
        )
    assert fake_clock.now() == 0
    delayed, compared = str(caught.value).splitlines()
    assert "It will be, 2 s after it was told to; allow for that with within=." in delayed
    assert "A new result for it is being compared; allow for that with within=." in compared


async def test_an_equal_result_that_is_consolidated_stays_and_the_message_says_so(
    counters, fake_clock
):
    with pytest.raises(AssertionError, match="a new result would be equal"):
        await assert_invalidates(lambda: counters.set("a", 2), counters.is_high("a"), within=5)
