"""Spans and figures of messages, from the command that publishes to the handlers at the end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afresh import App, Command, ComputeService, command_handler
from afresh.brokers import (
    Broker,
    ConsumerOptions,
    IncomingMessage,
    OutgoingMessage,
    RelayOptions,
    Transport,
    current_event,
    event,
    on_event,
    telemetry,
)
from afresh.brokers.telemetry import TraceOf
from afresh.brokers.transports.memory import MemoryBroker, MemoryTransport
from afresh.commands import telemetry as command_telemetry
from afresh.db import Database
from afresh.operations import RetryPolicy

from .shop import QUICK

trace_sdk = pytest.importorskip("opentelemetry.sdk.trace")
metrics_sdk = pytest.importorskip("opentelemetry.sdk.metrics")

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


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

    def span(self, name: str) -> Any:
        (found,) = (span for span in self._spans.get_finished_spans() if span.name == name)
        return found

    async def has(self, *names: str) -> None:
        """Wait until spans of these names have ended."""
        async with asyncio.timeout(30):
            while not {span.name for span in self._spans.get_finished_spans()}.issuperset(names):
                await asyncio.sleep(0.01)

    def figures(self) -> dict[str, dict[tuple[Any, ...], Any]]:
        """Figures by instrument, and by the values of their attributes in the order of names."""
        (resource,) = self._reader.get_metrics_data().resource_metrics
        return {
            metric.name: {
                tuple(point.attributes[name] for name in sorted(point.attributes)): getattr(
                    point, "value", getattr(point, "count", None)
                )
                for point in metric.data.data_points
            }
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def units(self) -> dict[str, str]:
        (resource,) = self._reader.get_metrics_data().resource_metrics
        return {m.name: m.unit for scope in resource.scope_metrics for m in scope.metrics}


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[Records]:
    records = Records()
    monkeypatch.setattr(telemetry, "_recorder", records.recorder)
    yield records
    records.tracers.shutdown()
    records.meters.shutdown()


class Base(DeclarativeBase):
    pass


class OrderRow(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


class PlaceOrder(Command[None], frozen=True):
    pass


class Services(ComputeService):
    """Publishes an event, handles it, publishes another one, and handles that."""

    def __init__(self, database: Database, suffix: str) -> None:
        self.database = database
        self.attributes: dict[str, dict[str, str]] = {}
        self.failures: list[Exception] = []
        self.suffix = suffix

    @command_handler
    async def place(self, command: PlaceOrder) -> None:
        async with self.database.operation() as op:
            op.session.add(OrderRow())
            op.publish(Placed(1), key="k", destination=f"placed{self.suffix}")

    async def pack(self, event: Placed) -> None:
        self.attributes["placed"] = current_event().attributes
        if self.failures:
            raise self.failures.pop(0)
        async with self.database.operation() as op:
            op.session.add(OrderRow())
            op.publish(Packed(event.order_id), key="k", destination=f"packed{self.suffix}")

    async def send(self, event: Packed) -> None:
        self.attributes["packed"] = current_event().attributes


class Placed(msgspec.Struct, frozen=True):
    order_id: int


class Packed(msgspec.Struct, frozen=True):
    order_id: int


@asynccontextmanager
async def running(
    records: Records,
    transport: Transport | None = None,
    suffix: str = "",
    trace: TraceOf = "link",
) -> AsyncIterator[tuple[App, Services]]:
    # Channels are names of their own where a server is shared.
    event("placed", destination=f"placed{suffix}")(Placed)
    event("packed", destination=f"packed{suffix}")(Packed)

    class Handlers(Services):
        @on_event(Placed, group="packing")
        async def on_placed(self, event: Placed) -> None:
            await self.pack(event)

        @on_event(Packed, group="sending")
        async def on_packed(self, event: Packed) -> None:
            await self.send(event)

    app = App(
        database=Database("sqlite+aiosqlite://", metadata=Base.metadata, create_tables=True),
        broker=Broker(
            transport or MemoryTransport(broker=MemoryBroker()),
            source="/tests",
            relay=RelayOptions(poll=0.05, retries=QUICK, pauses=QUICK, trace=trace),
            consumer=ConsumerOptions(retries=QUICK, deliveries=3, trace=trace),
        ),
        retries=RetryPolicy(retries=0),
    )
    app.commander._recorder = command_telemetry.Recorder(records.tracers, records.meters)
    services = app.add(Handlers(app.database, suffix), is_served=False)
    async with app:
        yield app, services


def identity(span: Any) -> tuple[int, int]:
    return span.context.trace_id, span.context.span_id


def linked(span: Any) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


async def test_each_step_of_a_message_is_linked_to_the_one_before(
    records: Records, connect_transport: Callable[[], Transport], destination: str
) -> None:
    async with running(records, connect_transport(), f"-{destination}") as (app, services):
        await app.call(PlaceOrder())
        # A message may be handled before its publisher hears that it was taken.
        await records.has(f"publish packed-{destination}", f"process packed-{destination}")
        command = records.span("cmd.PlaceOrder")
        published = records.span(f"publish placed-{destination}")
        processed = records.span(f"process placed-{destination}")
        published_next = records.span(f"publish packed-{destination}")
        processed_next = records.span(f"process packed-{destination}")

        assert linked(published) == [identity(command)]
        assert linked(processed) == [identity(published)]
        assert linked(processed_next) == [identity(published_next)]
        assert len({identity(each)[0] for each in (command, published, processed)}) == 3
        assert published.parent is None
        assert processed.parent is None
        # The handler publishes within the command that its delivery is.
        ((trace_id, _),) = linked(published_next)
        assert trace_id == identity(processed)[0]
        carried = services.attributes["placed"]["traceparent"].split("-")
        assert (int(carried[1], 16), int(carried[2], 16)) == identity(published)
        assert published.kind.name == "PRODUCER"
        assert processed.kind.name == "CONSUMER"
        assert published.attributes["outcome"] == "confirmed"
        assert processed.attributes["outcome"] == "handled"


async def test_the_whole_can_be_one_trace(records: Records) -> None:
    async with running(records, trace="parent") as (app, _):
        await app.call(PlaceOrder())
        await records.has("publish placed", "process packed")
        command, published, processed, last = map(
            records.span, ("cmd.PlaceOrder", "publish placed", "process placed", "process packed")
        )
        assert published.parent.span_id == identity(command)[1]
        assert processed.parent.span_id == identity(published)[1]
        assert len({identity(each)[0] for each in (command, published, processed, last)}) == 1
        assert not processed.links


async def test_figures_are_told_of_what_went_out_and_what_came_in(records: Records) -> None:
    async with running(records) as (app, services):
        services.failures.append(ConnectionError("busy"))
        await app.call(PlaceOrder())
        await records.has("publish packed", "process packed")
        message = OutgoingMessage(
            "twice",
            "placed",
            "placed.v1",
            b'{"order_id":2}',
            attributes=named("twice", "placed.v1"),
        )
        poison = OutgoingMessage("poison", "packed", "packed.v1", b"{", attributes=named("poison"))
        await app.broker.transport.publish([message, message, poison])
        async with asyncio.timeout(10):
            while sum(records.figures()["consumer.process.duration"].values()) < 7:
                await asyncio.sleep(0.01)
            while records.figures()["outbox.pending.count"] != {("",): 0}:
                await app.broker.relay().count()  # what is confirmed is noted soon after
        found = records.figures()
    assert found["outbox.publish.count"][("packed", "confirmed")] == 2
    assert found["outbox.publish.count"][("placed", "confirmed")] == 1
    assert found["outbox.publish.duration"] == found["outbox.publish.count"]
    assert found["outbox.pending.count"] == {("",): 0}
    assert found["outbox.oldest_age"] == {("",): 0}
    assert found["outbox.dead.count"] == {("",): 0}
    assert found["inbox.duplicate.count"] == {("packing", "placed"): 1}
    assert found["consumer.retry.count"] == {("packing", "placed"): 1}
    assert found["consumer.dead.count"] == {("sending", "packed"): 1}
    assert found["consumer.inflight"] == {("packing", "placed"): 0, ("sending", "packed"): 0}
    process = found["consumer.process.duration"]
    assert process[("packing", "placed", "handled")] == 2
    assert process[("packing", "placed", "retried")] == 1
    assert process[("packing", "placed", "duplicate")] == 1
    assert process[("sending", "packed", "handled")] == 2
    assert process[("sending", "packed", "dead")] == 1
    units = records.units()
    assert units["outbox.oldest_age"] == "s"
    assert units["consumer.process.duration"] == units["outbox.publish.duration"] == "ms"


def named(message_id: str, kind: str = "packed.v1") -> dict[str, str]:
    return {"specversion": "1.0", "id": message_id, "source": "/x", "type": kind}


async def test_levels_are_told_while_the_broker_is_away(records: Records) -> None:
    broker = MemoryBroker()
    async with running(records, MemoryTransport(broker=broker)) as (app, _):
        broker.stop()
        await app.call(PlaceOrder())
        async with asyncio.timeout(15):
            while records.figures().get("outbox.pending.count") != {("",): 1}:
                await asyncio.sleep(0.05)
        assert records.figures()["outbox.oldest_age"][("",)] > 0
        health = app.health()
        assert health["status"] == "degraded"
        assert health["broker"]["outbox"][""]["pending"] == 1


async def test_a_message_without_a_span_carries_that_of_the_command(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "_recorder", None)
    monkeypatch.setattr(telemetry, "_look_in", 1000)
    async with running(records) as (app, services):
        await app.call(PlaceOrder())
        async with asyncio.timeout(10):
            while "packed" not in services.attributes:
                await asyncio.sleep(0.01)
        carried = services.attributes["placed"]["traceparent"].split("-")
        command = records.span("cmd.PlaceOrder")
        assert (int(carried[1], 16), int(carried[2], 16)) == identity(command)


# -- by itself


def incoming(**attributes: str) -> IncomingMessage:
    return IncomingMessage("orders", b"", attributes={"id": "m1", **attributes})


def test_a_trace_that_others_send_is_understood_with_and_without_the_prefix(
    records: Records,
) -> None:
    records.recorder.receive("g", incoming(traceparent=PARENT, tracestate="a=1")).end("handled")
    span = records.span("process orders")
    assert linked(span) == [(int(TRACE, 16), int(SPAN, 16))]
    assert span.links[0].context.trace_state.get("a") == "1"
    plain = IncomingMessage("plain", b"", headers={"traceparent": PARENT})
    records.recorder.receive("g", plain, "parent").end("handled")
    assert records.span("process plain").parent.span_id == int(SPAN, 16)


@pytest.mark.parametrize("garbage", ["", "x", f"00-{'0' * 32}-{SPAN}-01", "\x00" * 1000])
@pytest.mark.parametrize("trace", ["link", "parent"])
def test_a_trace_that_can_not_be_read_is_left_out(
    records: Records, garbage: str, trace: TraceOf
) -> None:
    records.recorder.receive("g", incoming(traceparent=garbage), trace).end("handled")
    span = records.span("process orders")
    assert not span.links
    assert span.parent is None


def test_what_is_recorded_around_is_no_parent(records: Records) -> None:
    with records.tracers.get_tracer("tests").start_as_current_span("around"):
        records.recorder.receive("g", incoming()).end("handled")
        message = OutgoingMessage("m1", "orders", "t.v1", b"")
        publishing = records.recorder.publish(message)
        publishing.end("permanent", "too large")
    assert records.span("process orders").parent is None
    span = records.span("publish orders")
    assert span.parent is None
    assert span.status.description == "too large"
    assert (
        publishing.message.attributes["traceparent"].split("-")[1]
        == f"{span.context.trace_id:032x}"
    )
    assert "traceparent" not in message.attributes


def test_the_span_is_current_until_the_end_and_shows_the_failure(records: Records) -> None:
    from opentelemetry import trace

    before = trace.get_current_span()
    receiving = records.recorder.receive("g", incoming())
    during = trace.get_current_span()
    receiving.end("dead", "no such order")
    span = records.span("process orders")
    assert identity(span) == (during.get_span_context().trace_id, during.get_span_context().span_id)
    assert trace.get_current_span() is before
    assert (span.status.status_code.name, span.status.description) == ("ERROR", "no such order")


# -- when nobody listens


def test_nobody_is_asked_for_each_message(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(telemetry, "_recorder", None)
    monkeypatch.setattr(telemetry, "_look_in", 0)
    monkeypatch.setattr(telemetry, "_find", lambda: asked.append(1))
    for _ in range(1002):
        assert telemetry.look() is None
    assert len(asked) == 2


def test_a_provider_that_comes_late_is_found(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry import metrics, trace

    monkeypatch.setattr(telemetry, "_recorder", None)
    monkeypatch.setattr(telemetry, "_look_in", 0)
    assert telemetry.look() is None
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: records.tracers)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: records.meters)
    assert sum(telemetry.look() is not None for _ in range(1001)) == 1
    assert telemetry.look() is telemetry.look()


def test_nothing_is_recorded_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert telemetry._find() is None


def test_nothing_is_recorded_where_opentelemetry_is_too_old(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry import metrics, trace

    monkeypatch.setattr(trace, "get_tracer_provider", lambda: records.tracers)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: records.meters)
    assert telemetry._find() is not None
    monkeypatch.delattr(metrics.Meter, "create_gauge")
    assert telemetry._find() is None
