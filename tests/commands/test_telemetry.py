"""Spans and durations for OpenTelemetry."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from afresh import ComputeService
from afresh.commands import (
    Command,
    Commander,
    SystemCommand,
    command_handler,
    telemetry,
)
from tests.commands.services import Countdown, Counting, Fail, MemoryOrders, Paid, PlaceOrder

trace_sdk = pytest.importorskip("opentelemetry.sdk.trace")
metrics_sdk = pytest.importorskip("opentelemetry.sdk.metrics")


class Records:
    """What was told."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._spans = InMemorySpanExporter()
        self.tracers = trace_sdk.TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = metrics_sdk.export.InMemoryMetricReader()
        self.meters = metrics_sdk.MeterProvider([self._reader])
        self.recorder = telemetry.Recorder(self.tracers, self.meters)

    @property
    def spans(self) -> list[Any]:
        return sorted(self._spans.get_finished_spans(), key=lambda span: span.start_time)

    def span(self, name: str) -> Any:
        (found,) = (span for span in self.spans if span.name == name)
        return found

    @property
    def durations(self) -> list[dict[str, Any]]:
        data = self._reader.get_metrics_data()
        (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
        assert (metric.name, metric.unit) == ("command.execution.duration", "ms")
        assert all(point.sum > 0 for point in metric.data.data_points)
        return [dict(point.attributes) for point in metric.data.data_points]


@pytest.fixture
def records(commander: Commander) -> Iterator[Records]:
    records = Records()
    commander._recorder = records.recorder
    yield records
    records.tracers.shutdown()
    records.meters.shutdown()


def tags(name: str, scope: str, outcome: str, kind: str = "command") -> dict[str, str]:
    return {
        "command.name": name,
        "command.kind": kind,
        "command.scope": scope,
        "outcome": outcome,
    }


async def test_commands_have_spans_within_those_of_their_callers(
    commander: Commander, records: Records
) -> None:
    commander.add(Counting(commander))
    tracer = records.tracers.get_tracer("test")
    with tracer.start_as_current_span("caller") as caller:
        await commander.call(Countdown(1))
    parents = {span.context.span_id: span.parent and span.parent.span_id for span in records.spans}
    outermost, nested = (span for span in records.spans if span.name == "cmd.Countdown")
    assert parents[outermost.context.span_id] == caller.get_span_context().span_id
    assert parents[nested.context.span_id] == outermost.context.span_id
    assert outermost.attributes["command.scope"] == "outermost"
    assert nested.attributes["command.scope"] == "nested"
    assert outermost.attributes["command.kind"] == "command"


async def test_durations_tell_of_success_error_and_cancellation(
    commander: Commander, records: Records
) -> None:
    class Failing(ComputeService):
        @command_handler
        async def fail(self, command: Fail) -> None:
            await commander.run(Countdown(0))
            if command.text == "cancel":
                raise asyncio.CancelledError
            raise ValueError(command.text)

    commander.add(Failing())
    commander.add(Counting(commander))
    await commander.run(Countdown(0))
    await commander.run(Fail())
    await commander.run(Fail("cancel"))
    assert sorted(records.durations, key=str) == sorted(
        [
            tags("Countdown", "outermost", "success"),
            tags("Countdown", "nested", "success"),
            tags("Fail", "outermost", "error"),
            tags("Fail", "outermost", "cancel"),
        ],
        key=str,
    )
    failed, cancelled = (span for span in records.spans if span.name == "cmd.Fail")
    assert not failed.status.is_ok
    assert failed.events[0].name == "exception"
    assert cancelled.status.is_unset


async def test_each_chain_of_an_event_has_a_span(commander: Commander, records: Records) -> None:
    class One(ComputeService):
        @command_handler
        async def on_paid(self, command: Paid) -> None: ...

    class Two(One):
        pass

    commander.add(One())
    commander.add(Two())
    await commander.call(Paid(1))
    assert [span.attributes["command.kind"] for span in records.spans] == ["event", "event"]


class Notify(Command[None], SystemCommand, frozen=True):
    pass


async def test_what_a_system_command_calls_is_not_told(
    commander: Commander, records: Records
) -> None:
    class Notifying(ComputeService):
        @command_handler
        async def notify(self, command: Notify) -> None:
            await commander.call(PlaceOrder("u1"))

        @command_handler
        async def fail(self, command: Fail) -> None:
            await commander.call(Notify())

    class Orders(ComputeService):
        @command_handler
        async def place(self, command: PlaceOrder) -> Any:
            return await commander.call(Countdown(1))

    commander.add(Notifying())
    commander.add(Orders())
    commander.add(Counting(commander))
    await commander.call(Notify())
    assert [span.name for span in records.spans] == ["cmd.Notify"]
    await commander.call(Fail())
    assert [span.name for span in records.spans] == ["cmd.Notify", "cmd.Fail"]


class Shown(Command[None], frozen=True):
    fails: bool = False

    def __repr__(self) -> str:
        shown.append(self.fails)
        if self.fails:
            raise ValueError
        return "Shown"


shown: list[bool] = []


class Showing(ComputeService):
    @command_handler
    async def show(self, command: Shown) -> None: ...


async def test_payloads_are_told_only_where_that_is_asked_for(
    commander: Commander, records: Records
) -> None:
    shown.clear()
    commander.add(Showing())
    await commander.call(Shown())
    assert "command.payload" not in records.span("cmd.Shown").attributes
    assert shown == []


async def test_a_payload_is_rendered_once_and_only_for_spans_that_record(
    records: Records,
) -> None:
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    shown.clear()
    commander = Commander(capture_payload=True)
    commander.add(Showing())
    commander._recorder = records.recorder
    await commander.call(Shown())
    assert records.span("cmd.Shown").attributes["command.payload"] == "Shown"
    assert shown == [False]
    silent = trace_sdk.TracerProvider(sampler=ALWAYS_OFF)
    commander._recorder = telemetry.Recorder(silent, records.meters)
    await commander.call(Shown())
    assert shown == [False]


async def test_a_payload_that_can_t_be_rendered_does_not_fail_the_command(
    records: Records,
) -> None:
    commander = Commander(capture_payload=True)
    commander.add(Showing())
    commander._recorder = records.recorder
    await commander.call(Shown(fails=True))
    (event,) = records.span("cmd.Shown").events
    assert event.name == "command.payload.error"
    assert event.attributes["error"] == "ValueError"


async def test_a_provider_that_comes_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry import metrics, trace

    records = Records()
    commander = Commander()
    commander.add(MemoryOrders())
    assert commander._recorder is None
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: records.tracers)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: records.meters)
    for _ in range(1001):
        await commander.call(PlaceOrder("u1"))
    assert 1 <= len(records.spans) <= 2
    records.tracers.shutdown()
    records.meters.shutdown()


async def test_without_opentelemetry_nobody_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert telemetry.look() == (None, 0)
