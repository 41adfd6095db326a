"""Why a result went stale: what is recorded in each way of tracking, and how it reads."""

import re
from typing import Any

import pytest

from afresh import ComputedSource, ComputeService, MutableState, compute_method, invalidating
from afresh.graph import (
    InvalidationCause,
    Place,
    Tracking,
    invalidate_everything,
    track_causes,
    tracking,
)
from afresh.testing import FakeClock
from tests.graph.services import Counters

HERE = r"{} @ test_causes\.py:\d+"


@pytest.fixture
async def counters() -> Counters:
    service = Counters()
    await service.total("a", "b")
    return service


class Outer(ComputeService):
    def __init__(self, counters: Counters) -> None:
        self.counters = counters

    @compute_method
    async def get(self) -> int:
        return await self.counters.total("a", "b")


def cause_of(computed: Any) -> InvalidationCause:
    assert computed is not None
    cause = computed.invalidation_cause
    assert isinstance(cause, InvalidationCause)
    return cause


async def test_a_fresh_result_has_none(counters: Counters):
    computed = counters.get.existing("a")
    assert computed is not None
    assert computed.invalidation_cause is None


async def test_the_place_is_recorded_where_a_method_was_invalidated(counters: Counters):
    computed = counters.get.existing("a")
    counters.get.invalidate("a")
    cause = cause_of(computed)
    name = "test_the_place_is_recorded_where_a_method_was_invalidated"
    assert re.fullmatch(HERE.format(name), str(cause))
    (place,) = cause
    assert isinstance(place, Place)
    assert place is not None
    assert place.code.co_name == name
    assert repr(place) == f"<Place {place}>"


async def test_the_place_is_the_line(counters: Counters):
    first, second = counters.get.existing("a"), counters.get.existing("b")
    counters.get.invalidate("a")
    counters.get.invalidate("b")
    lines = [cause_of(each).origin.line for each in (first, second)]  # type: ignore[union-attr]
    assert lines[1] == lines[0] + 1


async def test_the_place_of_the_caller_is_recorded_whatever_is_called(counters: Counters):
    source = ComputedSource(lambda: counters.get("a"))
    state = MutableState(1)
    invalidations: list[tuple[Any, Any]] = [
        (await counters.get.capture("a"), lambda computed: computed.invalidate()),
        (await counters.get.capture("a"), lambda computed: computed.invalidate(now=True)),
        (await counters.get.capture("a"), lambda computed: counters.get.invalidate("a")),
        (await source.update(), lambda computed: source.invalidate()),
        (state.computed, lambda computed: state.invalidate()),
    ]
    for computed, invalidate in invalidations:
        if computed.is_invalidated:
            computed = await computed.update()
        invalidate(computed)
        assert "test_causes.py" in str(cause_of(computed)), computed


async def test_a_scope_records_where_it_was_opened(counters: Counters):
    computed = counters.get.existing("a")
    with invalidating():
        counters.get("a")
    assert re.fullmatch(
        HERE.format("test_a_scope_records_where_it_was_opened"), str(cause_of(computed))
    )


async def test_a_text_is_recorded_instead(counters: Counters):
    first, second = counters.get.existing("a"), counters.get.existing("b")
    assert first is not None
    first.invalidate(cause="a text")
    with invalidating("a scope"):
        counters.get("b")
    assert (str(cause_of(first)), str(cause_of(second))) == ("a text", "a scope")
    assert list(cause_of(first)) == ["a text"]


async def test_dependants_record_where_it_began(counters: Counters):
    total = counters.total.existing("a", "b")
    outer = await Outer(counters).get.capture()
    computed = counters.get.existing("a")
    assert computed is not None
    computed.invalidate(cause="the beginning")
    assert [str(cause_of(each)) for each in (computed, total, outer)] == ["the beginning"] * 3
    assert cause_of(outer) == cause_of(computed)
    assert list(cause_of(outer)) == ["the beginning"]


async def test_the_first_cause_stays(clock: FakeClock):
    class Delayed(Counters):
        @compute_method(invalidation_delay=1)
        async def get(self, key: str) -> int:
            return 0

    computed = await Delayed().get.capture("a")
    computed.invalidate(cause="the first")
    computed.invalidate(cause="the second")
    computed.invalidate(cause="the third", now=True)
    computed.invalidate(cause="the fourth")
    assert str(cause_of(computed)) == "the first"


async def test_what_happened_during_the_computation_is_the_cause_of_what_is_stale_from_the_start():
    class Born(Counters):
        @compute_method
        async def sum(self) -> int:
            await self.get("a")
            with invalidating("in between"):
                self.get("a")
            return 0

    computed = await Born().sum.capture()
    assert computed.is_invalidated
    assert str(cause_of(computed)) == "in between"


async def test_what_happens_by_itself_has_words_of_its_own(clock: FakeClock):
    class Various(ComputeService):
        @compute_method(auto_invalidate=1)
        async def value(self) -> int:
            return 1

        @compute_method(error_delay=1)
        async def error(self) -> int:
            raise ValueError

    various = Various()
    value, error = await various.value.capture(), await various.error.capture()
    await clock.advance(1)
    assert str(cause_of(value)) == "a cached value expired"
    assert str(cause_of(error)) == "a cached error expired"
    everything = await various.value.capture()
    invalidate_everything()
    assert str(cause_of(everything)) == "everything was invalidated"
    state = MutableState(1)
    computed = state.computed
    state.set(2)
    assert str(cause_of(computed)) == "a state was set"
    assert str(cause_of(ComputedSource(various.value).computed)) == (
        "an initial value is never fresh"
    )


async def test_what_expires_records_where_that_was_asked_for(clock: FakeClock, counters: Counters):
    computed = counters.get.existing("a")
    assert computed is not None
    computed.invalidate(after=1)
    await clock.advance(1)
    assert "test_what_expires_records" in str(cause_of(computed))


@pytest.mark.usefixtures("tracking")
class TestWithoutTracking:
    async def test_only_what_callers_hand_in_is_recorded(self, counters: Counters):
        assert track_causes(Tracking.NONE) is Tracking.ORIGIN
        assert tracking() is Tracking.NONE
        first, second = counters.get.existing("a"), counters.get.existing("b")
        total = counters.total.existing("a", "b")
        assert second is not None
        counters.get.invalidate("a")
        second.invalidate(cause="a text")
        assert [str(cause_of(each)) for each in (first, second, total)] == [
            "unknown",
            "a text",
            "unknown",
        ]


@pytest.mark.usefixtures("tracking")
class TestWithTheWholeChain:
    async def test_the_way_can_be_walked_back(self, counters: Counters):
        track_causes(Tracking.CHAIN)
        outer = await Outer(counters).get.capture()
        total = counters.total.existing("a", "b")
        leaf = counters.get.existing("a")
        assert leaf is not None
        leaf.invalidate(cause="the beginning")

        assert list(cause_of(outer)) == [total, leaf, "the beginning"]
        assert list(cause_of(total)) == [leaf, "the beginning"]
        assert list(cause_of(leaf)) == ["the beginning"]
        assert cause_of(outer).origin == "the beginning"
        assert str(cause_of(outer)) == "the beginning"
        assert cause_of(outer).describe_chain() == f"{total!r} <- {leaf!r} <- the beginning"

    async def test_it_ends_with_the_place_where_it_began(self, counters: Counters):
        track_causes(Tracking.CHAIN)
        total, leaf = counters.total.existing("a", "b"), counters.get.existing("a")
        counters.get.invalidate("a")
        *nodes, place = cause_of(total)
        assert nodes == [leaf]
        assert isinstance(place, Place)
        assert str(cause_of(total)) == str(place)

    async def test_what_is_stale_from_the_start_names_the_dependency_that_was(self):
        track_causes(Tracking.CHAIN)

        class Born(Counters):
            @compute_method
            async def sum(self) -> int:
                await self.get("a")
                node = self.get.existing("a")
                assert node is not None
                node.invalidate(cause="in between")
                return 0

        computed = await Born().sum.capture()
        first, last = cause_of(computed)
        assert repr(first).startswith("<Computed ")
        assert last == "in between"

    async def test_a_circle_of_causes_ends(self, counters: Counters):
        track_causes(Tracking.CHAIN)
        total, leaf = counters.total.existing("a", "b"), counters.get.existing("a")
        counters.get.invalidate("a")
        assert leaf is not None
        leaf.cause = total
        assert list(cause_of(total)) == [leaf, total]
        assert cause_of(total).origin is total
        leaf.cause = None

    async def test_a_delay_does_not_cut_the_chain(self, clock: FakeClock):
        track_causes(Tracking.CHAIN)

        class Delayed(Counters):
            @compute_method(invalidation_delay=1)
            async def sum(self) -> int:
                return await self.get("a")

        delayed = Delayed()
        computed = await delayed.sum.capture()
        leaf = delayed.get.existing("a")
        assert leaf is not None
        leaf.invalidate(cause="the beginning")
        await clock.advance(1)
        assert list(cause_of(computed)) == [leaf, "the beginning"]


def test_a_text_as_cause_ends_the_chain_after_itself():
    cause = InvalidationCause("a text")
    assert list(cause) == ["a text"]
    assert cause.origin == "a text"
    assert cause.describe_chain() == str(cause) == "a text"
    assert repr(cause) == "<InvalidationCause a text>"


def test_no_cause_is_an_unknown_one():
    cause = InvalidationCause(None)
    assert list(cause) == []
    assert cause.origin == cause.describe_chain() == str(cause) == "unknown"


def test_causes_are_compared_by_what_they_say():
    assert InvalidationCause("a") == InvalidationCause("a")
    assert InvalidationCause("a") != InvalidationCause("b")
    assert InvalidationCause("a") != "a"
    assert hash(InvalidationCause("a")) == hash(InvalidationCause("a"))
    code = test_no_cause_is_an_unknown_one.__code__
    assert Place(code, 2) == Place(code, 2)
    assert Place(code, 2) != Place(code, 4)
    assert hash(Place(code, 2)) == hash(Place(code, 2))
    assert Place(code, 10_000).line == code.co_firstlineno
