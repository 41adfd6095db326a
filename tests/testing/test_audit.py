"""`audit`: it names what is stale, and leaves the graph as it was."""

import asyncio
import itertools
import re

import pytest

from afresh import ComputeService, MutableState, compute_function, compute_method, current_computed
from afresh.graph import nodes
from afresh.primitives.clock import current_clock
from afresh.testing import audit
from tests.testing.counters import Counters


@pytest.fixture(autouse=True)
def _nothing_cached(fresh_graph):
    """An audit looks at all that is cached, other tests' results included."""


@pytest.fixture
def counters() -> Counters:
    counters = Counters()
    counters.values |= {"a": 1, "b": 2}
    return counters


def told(items) -> list[str]:
    """What each says, without the place of a class that a test defines."""
    return [re.sub(r"[^\s~]*<locals>\.", "", str(item)) for item in items]


def stale(result) -> list[str]:
    return told(finding.name for finding in result.stale)


# -- what it finds


async def test_nothing_is_stale_when_every_change_was_told(counters):
    await counters.total("a", "b")
    counters.set("a", 5)
    await counters.total("a", "b")
    result = await audit()
    assert result
    assert (result.checked, result.stale, result.skipped, result.unknown) == (3, (), (), ())
    result.check()


async def test_of_a_missing_invalidation_it_names_the_source_and_not_what_came_of_it(counters):
    await counters.total("a", "b")
    counters.set_silently("a", 5)
    result = await audit()
    assert stale(result) == ["Counters.get('a')"]
    assert result.checked == 3
    [finding] = result.stale
    assert (finding.cached.value, finding.fresh.value) == (1, 5)
    assert finding.computed is counters.get.existing("a")


async def test_it_is_false_and_fails_with_all_the_names_when_something_is_stale(counters):
    await counters.total("a", "b")
    counters.set_silently("a", 5)
    counters.set_silently("b", 6)
    result = await audit()
    assert not result
    with pytest.raises(AssertionError) as caught:
        result.check()
    assert str(caught.value).splitlines() == [
        "2 of 3 cached results are stale. Invalidate each where the data behind it changes:",
        "  Counters.get('a') is cached as 1 but gives 5",
        "  Counters.get('b') is cached as 2 but gives 6",
    ]
    assert repr(result) == (
        "<Audit of 3 results: Counters.get('a') is cached as 1 but gives 5, "
        "Counters.get('b') is cached as 2 but gives 6>"
    )
    assert repr(result.stale[0]) == "<Counters.get('a') is cached as 1 but gives 5>"


async def test_errors_are_results_like_any_other(counters):
    with pytest.raises(KeyError):
        await counters.get("new")
    assert stale(await audit()) == []
    counters.set_silently("new", 3)
    result = await audit()
    assert told(result.stale) == ["Counters.get('new') is cached as KeyError('new') but gives 3"]
    await counters.get("a")
    del counters.values["a"]
    assert stale(await audit()) == ["Counters.get('new')", "Counters.get('a')"]


async def test_another_path_through_a_body_is_followed_without_caching_anything():
    class Choices(ComputeService):
        def __init__(self) -> None:
            self.left = True
            self.runs = 0

        @compute_method
        async def side(self, name: str) -> str:
            self.runs += 1
            return name

        @compute_method
        async def chosen(self) -> list[str]:
            name = "left" if self.left else "right"
            return list(await asyncio.gather(self.side(name), self.side(name)))

    choices = Choices()
    await choices.chosen()
    choices.left = False
    result = await audit(choices)
    assert stale(result) == ["Choices.chosen()"]
    assert result.stale[0].fresh.value == ["right", "right"]
    assert choices.side.existing("right") is None
    assert choices.runs == 1 + 1 + 2  # cached; audited; needed by the two runs of the stale one


async def test_a_call_of_itself_fails_in_the_audit_as_it_does_in_the_graph():
    @compute_function
    async def endless(number: int) -> int:
        return await endless(number)

    computed = await endless.capture(1)
    assert computed.error is not None
    result = await audit(endless)
    assert (stale(result), result.checked) == ([], 1)


async def test_what_consolidates_is_judged_by_what_callers_see_and_by_its_own_comparison():
    class Rounded(ComputeService):
        number = 1.0

        @compute_method(consolidate=0, equals=lambda one, other: round(one) == round(other))
        async def get(self) -> float:
            return self.number

    rounded = Rounded()
    await rounded.get()
    rounded.number = 1.2
    result = await audit(rounded.get)
    assert (stale(result), result.checked) == ([], 1)
    rounded.number = 2.0
    assert stale(await audit(rounded)) == ["Rounded.get()"]


async def test_a_hidden_source_that_the_next_call_would_show_is_judged_too():
    class Levels(ComputeService):
        number = 1

        @compute_method(consolidate=0)
        async def get(self) -> int:
            return self.number

    levels = Levels()
    target = await levels.get.capture()
    target.invalidate()
    levels.number = 2
    assert levels.get.existing() is None
    assert stale(await audit(levels.get)) == ["~Levels.get()"]
    assert await levels.get() == 1


# -- what it leaves alone


async def test_the_graph_is_as_before(counters):
    await counters.total("a", "b")
    counters.set_silently("a", 5)
    before = {
        node: (node.version, node.state, node.dependencies, node.dependants) for node in nodes()
    }
    result = await audit()
    assert stale(result) == ["Counters.get('a')"]
    after = {
        node: (node.version, node.state, node.dependencies, node.dependants) for node in nodes()
    }
    assert after == before
    assert await counters.get("a") == 1


async def test_what_a_body_does_to_its_own_result_touches_only_that_of_the_run(fake_clock):
    freed: list[int] = []

    class Feeds(ComputeService):
        @compute_method
        async def latest(self) -> int:
            current_computed().invalidate(after=5)
            current_computed().on_invalidated(lambda computed: freed.append(computed.version))
            return 1

        @compute_method
        async def hurried(self) -> int:
            current_computed().invalidate()
            return 1

    feeds = Feeds()
    computed = await feeds.latest.capture()
    timers = fake_clock.timers
    result = await audit(feeds)
    assert result.checked == 1
    assert computed.is_consistent
    assert len(freed) == 1  # what the run had subscribed to is given back
    assert freed[0] != computed.version
    assert fake_clock.timers == timers
    await fake_clock.advance(5)
    assert computed.is_invalidated


async def test_a_state_that_a_body_uses_gets_no_dependant(counters):
    state = MutableState(1)

    @compute_function
    async def doubled() -> int:
        return 2 * state.use()

    computed = await doubled.capture()
    assert (await audit(doubled)).checked == 1
    assert state.computed.dependants == (computed,)


# -- what can't be judged


async def test_what_expires_by_itself_is_told_apart(counters, fake_clock):
    await counters.seconds()
    fake_clock._now = 0.5  # time that passes without anybody looking at timers
    assert await audit()
    fake_clock._now = 1.0
    result = await audit()
    assert result
    assert told(result.expiring) == [
        "Counters.seconds() is cached as 0 but gives 1 (expires in 0 s)"
    ]
    assert "These differ, but expire by themselves:" in str(result)


async def test_values_that_never_equal_each_other_are_unknown():
    class Things(ComputeService):
        number = itertools.count()

        @compute_method
        async def thing(self) -> object:
            return object()

        @compute_method
        async def counted(self) -> int:
            return next(self.number)

        @compute_method
        async def not_a_number(self) -> float:
            return float("nan")

        @compute_method
        async def awkward(self) -> "Awkward":
            return Awkward()

    class Awkward:
        def __eq__(self, other: object) -> bool:
            raise ValueError("ambiguous")

        __hash__ = None

    things = Things()
    for method in (things.thing, things.counted, things.not_a_number, things.awkward):
        await method()
    result = await audit(things)
    assert result
    assert result.checked == 1
    thing, counted, awkward = told(result.unknown)
    assert "it has no ==, or depends on time or chance" in thing
    assert counted.startswith("Things.counted() is cached as 0 but gives 2 (and 1 just before")
    assert "not comparable: ValueError: ambiguous" in awkward


async def test_values_are_compared_as_told():
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    class Names(ComputeService):
        name = "tea"

        @compute_method
        async def get(self) -> Named:
            return Named(self.name)

    names = Names()
    await names.get()

    def same(one: Named, other: Named) -> bool:
        return one.name == other.name

    assert (await audit(names, equals=same)).checked == 1
    names.name = "cake"
    assert stale(await audit(names, equals=same)) == ["Names.get()"]


async def test_errors_that_may_pass_by_themselves_are_not_held_against_anybody():
    class Rates(ComputeService):
        is_up = False

        @compute_method
        async def get(self, currency: str) -> float:
            if not self.is_up:
                raise ConnectionError("down")
            return 1.0

    rates = Rates()
    with pytest.raises(ConnectionError):
        await rates.get("EUR")
    rates.is_up = True
    await rates.get("USD")
    result = await audit(rates)
    assert told(result.skipped) == ["Rates.get('EUR'): ConnectionError('down') may pass by itself"]
    rates.is_up = False
    [finding] = told((await audit(rates)).unknown)
    assert finding.endswith("gives ConnectionError('down') (this error may pass by itself)")


async def test_what_changes_while_the_audit_looks_is_skipped(counters):
    class Slow(Counters):
        async def get(self, key: str) -> int:
            value = await super().get(key)
            if self.runs == 2:  # the audit's
                self.set(key, 7)
            return value

    slow = Slow()
    slow.values["a"] = 1
    await slow.get("a")
    slow.values["a"] = 6
    result = await audit(slow)
    assert stale(result) == []
    assert [each.reason for each in result.skipped] == ["it changed in the meantime"]


async def test_a_change_that_is_told_late_but_within_the_audit_is_not_held_against_it(counters):
    class Late(ComputeService):
        @compute_method
        async def told_late(self) -> int:
            return len(data)

        @compute_method
        async def slow(self) -> int:
            if len(data) == 1:
                await asyncio.sleep(0.01)
                self.told_late.invalidate()
            return 0

    data: list[int] = []
    late = Late()
    await late.told_late()
    await late.slow()
    data.append(1)
    result = await audit(late, concurrency=1)
    assert stale(result) == []
    assert told(result.skipped) == ["Late.told_late(): it changed in the meantime"]


async def test_an_invalidation_under_way_is_not_a_missing_one(counters, fake_clock):
    await counters.lazy_total("a")
    await counters.is_high("a")
    counters.set("a", 20)
    await asyncio.sleep(0)
    result = await audit()
    assert stale(result) == []
    assert told(result.skipped) == [
        "Counters.lazy_total(('a',)): an invalidation is under way",
        "Counters.is_high('a'): it is being compared with a new result",
    ]
    await fake_clock.advance(5)
    await counters.lazy_total("a")
    assert (await audit()).checked == 2


async def test_a_body_that_does_not_end_is_skipped(counters):
    class Stuck(ComputeService):
        event: asyncio.Event | None = None
        is_cancelling = False

        @compute_method
        async def wait(self) -> int:
            if self.event is not None:
                await self.event.wait()
            return 0

        @compute_method
        async def cancelled(self) -> int:
            if self.is_cancelling:
                await current_clock().sleep(0)
                task = asyncio.ensure_future(asyncio.sleep(60))
                task.cancel()
                await task
            return 0

    stuck = Stuck()
    await stuck.wait()
    await stuck.cancelled()
    stuck.event = asyncio.Event()
    stuck.is_cancelling = True
    result = await audit(stuck, timeout=0.02)
    assert told(result.skipped) == [
        "Stuck.wait(): not computed within 0.02 s",
        "Stuck.cancelled(): not computed within 0.02 s",
    ]


async def test_cancelling_an_audit_stops_it(counters):
    class Stuck(ComputeService):
        events: list[asyncio.Event] = []

        @compute_method
        async def wait(self, number: int) -> int:
            for event in self.events:
                await event.wait()
            return number

    stuck = Stuck()
    for number in range(20):
        await stuck.wait(number)
    stuck.events.append(asyncio.Event())
    task = asyncio.ensure_future(audit())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1
    assert all(node.is_consistent for node in nodes())


async def test_no_more_bodies_run_at_once_than_allowed():
    class Busy(ComputeService):
        running = highest = 0

        @compute_method
        async def get(self, number: int) -> int:
            self.running += 1
            self.highest = max(self.highest, self.running)
            await asyncio.sleep(0)
            self.running -= 1
            return number

    busy = Busy()
    for number in range(20):
        await busy.get(number)
    for concurrency in (1, 3):
        busy.highest = 0
        assert (await audit(concurrency=concurrency)).checked == 20
        assert busy.highest == concurrency


# -- what it is told to look at


class Special(Counters):
    @compute_method
    async def extra(self) -> int:
        return 1


async def test_only_what_is_named_is_looked_at(counters):
    other = Special()
    other.values["a"] = 1
    await counters.total("a")
    await other.get("a")
    await other.extra()
    for named, count in [
        ([], 4),
        ([counters], 2),
        ([other], 2),
        ([Counters], 4),
        ([Special], 2),
        ([counters.get], 1),
        ([other.get], 1),
        ([Counters.get], 2),
        ([Special.extra], 1),
        ([counters.total, other], 3),
        ([lambda computed: computed.args == ("a",)], 2),
    ]:
        assert (await audit(*named)).checked == count, named
        result = await audit(exclude=named)
        assert result.checked == 4 - count if named else 4
        assert all(each.reason == "excluded" for each in result.skipped)
    assert (await audit(exclude=Counters.get)).checked == 2


async def test_an_excluded_body_does_not_run(counters):
    await counters.get("a")
    runs = counters.runs
    await audit(exclude=counters.get)
    assert counters.runs == runs
    await audit()
    assert counters.runs == runs + 1


async def test_a_result_for_arguments_with_a_key_of_their_own_is_computed_with_those():
    class Sums(ComputeService):
        bonus = 0

        @compute_method(key=lambda numbers: tuple(numbers))
        async def sum(self, numbers: list[int]) -> int:
            return sum(numbers) + self.bonus

        @compute_method(ignore=("hint",))
        async def hinted(self, number: int, *, hint: str = "none") -> str:
            return f"{number} {hint}" if self.bonus else str(number)

    sums = Sums()
    await sums.sum([1, 2])
    await sums.hinted(1, hint="quick")
    assert (await audit(sums)).checked == 2
    sums.bonus = 1
    assert [finding.fresh.value for finding in (await audit(sums)).stale] == [4, "1 none"]


async def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match="no service, no class of services"):
        await audit(5)
    with pytest.raises(ValueError, match="at least one body"):
        await audit(concurrency=0)
    with pytest.raises(ValueError, match="seconds above 0"):
        await audit(timeout=0)
