"""Watching the graph at work, and the monitor's reports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from afresh import ComputeService, compute_method
from afresh.graph import (
    GraphEvent,
    GraphEventKind,
    Monitor,
    Tracking,
    observe,
    track_causes,
)
from afresh.primitives.clock import use_clock
from afresh.primitives.tasks import background_tasks
from afresh.testing.clock import FakeClock


class Prices(ComputeService):
    def __init__(self) -> None:
        self.net: dict[str, int] = {"tea": 100}

    @compute_method
    async def of(self, name: str) -> int:
        return self.net[name]

    @compute_method
    async def gross(self, name: str) -> int:
        return await self.of(name) * 119 // 100


@pytest.fixture
def prices() -> Prices:
    return Prices()


@pytest.fixture
def chains() -> Iterator[None]:
    previous = track_causes(Tracking.CHAIN)
    yield
    track_causes(previous)


async def test_an_observer_is_told_of_results_and_of_their_end_in_order(prices: Prices) -> None:
    told: list[tuple[GraphEventKind, str]] = []
    stop = observe(lambda event: told.append((event.kind, event.computed.describe())))
    await prices.gross("tea")
    prices.of.invalidate("tea")
    stop()
    assert told == [
        (GraphEventKind.COMPUTED, "Prices.of('tea')"),
        (GraphEventKind.COMPUTED, "Prices.gross('tea')"),
        (GraphEventKind.INVALIDATED, "Prices.of('tea')"),
        (GraphEventKind.INVALIDATED, "Prices.gross('tea')"),
    ]


async def test_an_observer_that_stopped_is_told_nothing(prices: Prices) -> None:
    told: list[GraphEvent] = []
    stop = observe(told.append)
    stop()
    stop()
    await prices.of("tea")
    assert told == []


async def test_an_event_tells_how_long_the_body_took_and_why_the_result_went_stale(
    prices: Prices,
) -> None:
    told: list[GraphEvent] = []
    stop = observe(told.append)
    await prices.of("tea")
    prices.of.invalidate("tea")
    stop()
    computed, invalidated = told
    assert computed.duration is not None
    assert 0 <= computed.duration < 60
    assert computed.cause is None
    assert "test_observe.py" in str(invalidated.cause)


async def test_hits_are_told_of_by_samples_that_carry_their_weight(prices: Prices) -> None:
    told: list[GraphEvent] = []
    stop = observe(told.append, GraphEventKind.HIT, sample_hits=3)
    for _ in range(10):
        await prices.of("tea")
    stop()
    assert [event.weight for event in told] == [3, 3, 3]
    assert {event.kind for event in told} == {GraphEventKind.HIT}


async def test_an_observer_that_fails_is_logged_and_stops_nobody(
    prices: Prices, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[GraphEvent] = []

    def fail(_: GraphEvent) -> None:
        raise RuntimeError("no")

    stops = [observe(fail), observe(told.append)]
    assert await prices.of("tea") == 100
    for stop in stops:
        stop()
    assert len(told) == 1
    assert "raised an error" in caplog.text


def test_no_hits_at_all_can_not_be_asked_for() -> None:
    with pytest.raises(ValueError, match="sample_hits=0"):
        observe(print, GraphEventKind.HIT, sample_hits=0)


async def test_a_report_counts_reads_updates_and_the_ways_of_invalidations(prices: Prices) -> None:
    monitor = Monitor(sample_hits=1)
    monitor.attach()
    for _ in range(4):
        await prices.gross("tea")
    prices.of.invalidate("tea")
    await prices.gross("tea")
    report = monitor.take_report()
    monitor.detach()
    assert report.computed == {"Prices.of": 2, "Prices.gross": 2}
    assert report.hits == {"Prices.gross": 3}
    assert report.invalidated == {"Prices.of": 1, "Prices.gross": 1}
    assert report.hit_ratio("Prices.gross") == pytest.approx(3 / 5)
    assert report.hit_ratio("unknown") == 0
    text = str(report)
    assert "Prices.gross: 5, 60.0% found" in text
    assert "Prices.gross: +2 -1" in text
    assert "Invalidations came from:" in text


async def test_with_whole_chains_a_path_names_where_an_invalidation_began(
    prices: Prices, chains: None
) -> None:
    monitor = Monitor()
    monitor.attach()
    computed = await prices.gross.capture("tea")
    prices.of.invalidate("tea")
    paths = monitor.take_report().paths
    monitor.detach()
    assert not computed.is_consistent
    (origin,) = {path[0] for path in paths}
    assert {path[1:] for path in paths} == {("Prices.of",), ("Prices.of", "Prices.gross")}
    assert "test_observe.py" in origin


async def test_a_report_without_events_is_one_line(prices: Prices) -> None:
    monitor = Monitor()
    monitor.attach()
    report = monitor.take_report()
    monitor.detach()
    assert str(report).splitlines() == ["The graph in 0.0 s:"]


async def test_failures_are_counted_and_categories_can_be_left_out(prices: Prices) -> None:
    monitor = Monitor(accepts=lambda category: category.endswith("gross"))
    monitor.attach()
    with pytest.raises(KeyError):
        await prices.gross("coffee")
    report = monitor.take_report()
    monitor.detach()
    assert report.failed == {"Prices.gross": 1}
    assert "1 failed" in str(report)


async def test_a_monitor_in_the_background_reports_every_period_and_pauses_between(
    prices: Prices,
) -> None:
    clock = FakeClock()
    reports: list[int] = []
    with use_clock(clock):
        async with Monitor(
            10, pause=5, log=lambda report: reports.append(report.computed["Prices.of"])
        ) as monitor:
            await clock.advance(1)
            assert "counting" in repr(monitor)
            await prices.of("tea")
            await clock.advance(10)
            assert reports == [1]
            prices.of.invalidate("tea")
            await prices.of("tea")  # in the pause
            await clock.advance(15)
            assert reports == [1, 0]
        assert "stopped" in repr(monitor)
        assert not background_tasks()
