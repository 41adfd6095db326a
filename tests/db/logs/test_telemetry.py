"""Figures for OpenTelemetry: where somebody listens, and nothing where nobody does."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from afresh.commands import Command, Commander, command_handler
from afresh.db.logs import EventLogReader, telemetry
from afresh.operations.codec import LogCodec
from tests.db.logs.world import Host, Log, idle, until

Start: TypeAlias = Callable[..., Awaitable[Host]]


class Say(Command[None], frozen=True):
    text: str


class Service:
    @command_handler
    async def say(self, command: Say) -> None:
        if command.text == "bad":
            raise ValueError("no")


@pytest.fixture(autouse=True)
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nobody had looked for a provider yet."""
    monkeypatch.setattr(telemetry, "_recorder", None)
    monkeypatch.setattr(telemetry, "_look_in", 1)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[str, list[Any]]]]:
    """Gives the points of all figures by their names."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)

    def points() -> dict[str, list[Any]]:
        data = reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    yield points
    provider.shutdown()


async def test_batches_and_delays_of_operations_are_recorded(
    log: Log, start_host: Start, measured: Callable[[], dict[str, list[Any]]]
):
    host = await start_host(log, "B")
    await idle(host.reader)
    gap = await log.skip()
    await log.add("A")
    await log.add("B")
    await host.look()
    await log.add("A", index=gap)
    await host.look()
    points = measured()
    sizes = points["db.log.batch.size"][0]
    assert dict(sizes.attributes) == {"log.kind": "operations", "outcome": "success"}
    assert sizes.max == 2
    assert points["db.log.batch.duration"][0].sum > 0
    delays = points["db.operation_log.processing.delay"]
    assert {point.attributes["path"]: point.count for point in delays} == {"batch": 1, "gap": 1}
    assert {point.attributes["shard"] for point in delays} == {""}


async def test_a_batch_that_failed_is_recorded_as_such(
    log: Log, start_host: Start, measured: Callable[[], dict[str, list[Any]]]
):
    host = await start_host(log, "B")
    await idle(host.reader)
    async with log.shard.write.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE _operations")
    log.changed()
    await until(lambda: host.health["error"])
    outcomes = {point.attributes["outcome"] for point in measured()["db.log.batch.size"]}
    assert "error" in outcomes


async def test_delays_of_events_are_recorded(
    log: Log, measured: Callable[[], dict[str, list[Any]]]
):
    commander = Commander()
    commander.add(Service())
    codec = LogCodec(commander.registry)
    await log.add_event(codec.encode(Say("good")), delay=-50)
    reader = EventLogReader(
        log.shard, log.tables, commander, codec, host_id="B", watcher=log.watcher
    )
    await reader.start()
    await until(lambda: reader.health()["processed"] == 1)
    await idle(reader)
    await reader.aclose()
    (delay,) = measured()["db.event_log.processing.delay"]
    assert dict(delay.attributes) == {"shard": "", "path": "batch"}
    assert 50_000 <= delay.sum < 90_000


def test_nothing_is_recorded_where_nobody_listens(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics, "get_meter_provider", metrics.NoOpMeterProvider)
    assert telemetry.find_recorder() is None
    assert telemetry._look_in == 1000  # somebody may come later


def test_nothing_is_recorded_without_opentelemetry(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert telemetry.find_recorder() is None
    assert telemetry.find_recorder() is None
    assert telemetry._look_in == 0
