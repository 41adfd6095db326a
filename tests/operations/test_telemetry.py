"""Figures about attempts for OpenTelemetry."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from afresh.operations import RetryPolicy, current_operation, telemetry
from afresh.operations.telemetry import record_failure
from afresh.primitives.delays import RetryDelays
from afresh.primitives.transience import Transience
from tests.operations.library import Host, Through

metrics_sdk = pytest.importorskip("opentelemetry.sdk.metrics")


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = metrics_sdk.MeterProvider([reader])
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    yield reader
    provider.shutdown()
    telemetry._instruments.cache_clear()


class Busy(Exception):
    transience = Transience.TRANSIENT


class Scope:
    """In place of a database: nothing can be committed."""

    is_in_doubt = False
    outbox = None

    def transience_of(self, error: BaseException) -> Transience:
        return Transience.TRANSIENT

    async def commit(self) -> None:
        raise Busy

    async def was_committed(self) -> bool:
        raise AssertionError

    async def rollback(self) -> None:
        pass


async def test_attempts_are_counted_with_the_time_between_them(reader: Any) -> None:
    host = Host(retries=RetryPolicy(2, RetryDelays.exponential(0.001, 0.002, 2, 0)))

    async def work() -> None:
        current_operation().scope = Scope()

    host.library.work["a"] = work
    with pytest.raises(Busy):
        await host.call(Through("a"))
    scopes = reader.get_metrics_data().resource_metrics[0].scope_metrics
    (scope,) = (each for each in scopes if each.scope.name == "afresh.operations")
    counts, delays = sorted(scope.metrics, key=lambda each: each.name)
    assert (counts.name, delays.name) == ("operation.retry.count", "operation.retry.delay")
    assert (counts.unit, delays.unit) == ("{retry}", "ms")
    assert {
        (point.attributes["outcome"], point.value): dict(point.attributes)
        for point in counts.data.data_points
    } == {
        (outcome, number): {
            "command.name": "Through",
            "transiency": "transient",
            "outcome": outcome,
        }
        for outcome, number in (("scheduled", 2), ("exhausted", 1))
    }
    (point,) = delays.data.data_points
    assert (point.count, point.sum) == (2, pytest.approx(3))
    assert dict(point.attributes) == {"command.name": "Through", "transiency": "transient"}


def test_nothing_is_recorded_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry._instruments.cache_clear()
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    record_failure(Through, Transience.TRANSIENT, "scheduled", 1)
    assert telemetry._instruments.cache_info().currsize == 0
