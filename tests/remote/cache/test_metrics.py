"""The figures for OpenTelemetry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from afresh.remote.cache import MemoryCache, metrics, open_cache

from .entries import entry, key

metrics_sdk = pytest.importorskip("opentelemetry.sdk.metrics")

Figures = Callable[[str], dict[str, float]]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[Figures]:
    """The figures of an instrument by outcome: what was counted, or how many durations."""

    def figures(name: str) -> dict[str, float]:
        data = reader.get_metrics_data()
        return {
            point.attributes["outcome"]: point.value if hasattr(point, "value") else point.count
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == f"remote_computed.cache.{name}"
            for point in metric.data.data_points
        }

    reader = metrics_sdk.export.InMemoryMetricReader()
    provider = metrics_sdk.MeterProvider([reader])
    monkeypatch.setattr(metrics, "_instruments", metrics._Instruments(provider.get_meter("test")))
    monkeypatch.setattr(metrics, "_is_started", True)
    yield figures
    provider.shutdown()


class Slow(MemoryCache):
    async def read(self, key: object) -> None:
        await asyncio.sleep(10)


class Broken(MemoryCache):
    async def read(self, key: object) -> None:
        raise OSError("gone")


async def test_a_miss_and_a_hit_are_counted_and_timed(figures: Figures) -> None:
    cache = open_cache(MemoryCache())  # a part in a shared one counts once
    assert cache is not None
    assert await cache.get(key()) is None
    cache.set(entry())
    assert await cache.get(key()) == entry()
    assert figures("request.count") == {"miss": 1, "hit": 1}
    assert figures("lookup.duration") == {"miss": 1, "hit": 1}


async def test_an_error_is_one_whether_in_reading_or_decoding(figures: Figures) -> None:
    assert await Broken().get(key()) is None
    cache = MemoryCache()
    cache.set(entry(data=b"no number"))
    assert await cache.get_value(key(), int) is None
    assert await cache.get_value(key("b"), int) is None
    assert figures("request.count") == {"error": 2, "miss": 1}


async def test_a_cancelled_look_up_is_counted_as_that(figures: Figures) -> None:
    task = asyncio.ensure_future(Slow().get(key()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert figures("request.count") == {"cancel": 1}
