"""The figures for OpenTelemetry."""

from __future__ import annotations

import pytest

from afresh import ComputeService, compute_method
from afresh.graph import metrics, prune
from afresh.primitives.clock import use_clock
from afresh.testing.clock import FakeClock

metrics_sdk = pytest.importorskip("opentelemetry.sdk.metrics")


class Prices(ComputeService):
    @compute_method(keep_alive=10)
    async def of(self, name: str) -> int:
        return len(name)


async def test_sweeps_tell_what_is_kept_and_what_they_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prune()
    reader = metrics_sdk.export.InMemoryMetricReader()
    provider = metrics_sdk.MeterProvider([reader])
    monkeypatch.setattr(metrics, "_instruments", metrics._Instruments(provider.get_meter("test")))
    monkeypatch.setattr(metrics, "_is_started", True)
    clock = FakeClock()
    with use_clock(clock):
        prices = Prices()
        held = await prices.of.capture("tea")
        await prices.of("coffee")
        await clock.advance(3)
        kept_first = _values(reader)["computed.registry.node.count"]
        await clock.advance(12)
    values = _values(reader)
    assert kept_first >= 2
    assert values["computed.registry.pruned.key.count"] == 1
    assert values["computed.registry.node.count"] == kept_first - 1
    assert values["computed.registry.prunes.key-cycle.count"] >= 4
    assert held.is_consistent
    provider.shutdown()


def _values(reader) -> dict[str, float]:
    data = reader.get_metrics_data()
    return {
        metric.name: point.value if hasattr(point, "value") else point.count
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }
