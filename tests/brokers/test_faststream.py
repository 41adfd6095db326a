"""Brokers of FastStream that users hand over, and events that they publish with them by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from faststream.kafka import KafkaBroker
from faststream.nats import NatsBroker
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue
from faststream.redis import RedisBroker

from afresh import App, ComputeService
from afresh.brokers import Broker, Subscription, Transport, current_event, on_event
from afresh.brokers.transports.kafka import KafkaTransport
from afresh.brokers.transports.nats import NatsTransport
from afresh.brokers.transports.rabbitmq import RabbitTransport
from afresh.brokers.transports.redis import RedisTransport
from tests.brokers.shop import OrderPlaced
from tests.brokers.test_transports import WITHIN, Seen, message

STRUCTURED = "application/cloudevents+json"


@dataclass
class Side:
    """A FastStream app beside ours, on one broker object."""

    broker: Any
    transport: Transport
    prefix: str
    to: Callable[[str], dict[str, Any]]
    """Where it publishes what goes to a destination."""
    subscriber: Callable[[str], Any]
    """Makes a subscriber of a destination."""
    got: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)

    async def publish(self, destination: str, body: Any, headers: dict[str, str]) -> None:
        await self.broker.publish(body, headers=headers, **self.to(destination))


def exchange(name: str) -> RabbitExchange:
    return RabbitExchange(name, type=ExchangeType.TOPIC, durable=True)


@pytest.fixture(params=["rabbitmq", "kafka", "nats", "redis"])
def side(request: pytest.FixtureRequest) -> Side:
    """What a user has: a broker of FastStream, which they hand to us."""
    url = request.getfixturevalue({"redis": "valkey"}.get(request.param, request.param))
    broker: Any
    match request.param:
        case "rabbitmq":
            broker = RabbitBroker(url)
            return Side(
                broker,
                RabbitTransport(broker=broker),
                "ce-",
                lambda name: {"exchange": exchange(name), "routing_key": "by.hand"},
                lambda name: broker.subscriber(
                    RabbitQueue(f"{name}.theirs", routing_key="#"), exchange(name)
                ),
            )
        case "kafka":
            broker = KafkaBroker(url.removeprefix("kafka://"), acks="all")
            return Side(
                broker,
                KafkaTransport(broker=broker),
                "ce_",
                lambda name: {"topic": name},
                lambda name: broker.subscriber(name, auto_offset_reset="earliest"),
            )
        case "nats":
            broker = NatsBroker(url)
            return Side(
                broker,
                NatsTransport(broker=broker),
                "ce-",
                lambda name: {"subject": f"{name}.events.0"},
                lambda name: broker.subscriber(f"{name}.events.*"),
            )
    broker = RedisBroker(url)
    return Side(
        broker,
        RedisTransport(broker=broker),
        "ce-",
        lambda name: {"stream": name},
        lambda name: broker.subscriber(stream=name),
    )


async def test_a_broker_that_is_handed_over_keeps_its_subscribers_and_stays_its_owners(
    side: Side, destination: str
) -> None:
    @side.subscriber(destination)
    async def handle(body: dict[str, int]) -> None:
        side.got.put_nowait(body)

    await side.broker.start()
    async with side.transport as transport:
        seen = Seen()
        subscribed = await transport.subscribe(Subscription(destination, "readers"), seen)
        attributes = {"specversion": "1.0", "id": "by-hand", "source": "/x", "type": "x.made.v1"}
        headers = {side.prefix + name: value for name, value in attributes.items()}
        await side.publish(destination, {"number": 7}, headers)
        (came,) = await seen.wait(1)
        assert came.attributes == attributes
        assert came.body == b'{"number":7}'
        assert came.content_type == "application/json"
        assert (await transport.publish([message(1, destination)]))[0].is_confirmed
        await seen.wait(2)
        async with asyncio.timeout(WITHIN):
            bodies = [await side.got.get(), await side.got.get()]
        assert sorted(each["number"] for each in bodies) == [1, 7]
        await subscribed.aclose()
    await side.publish(destination, {"number": 8}, headers)
    async with asyncio.timeout(WITHIN):
        assert await side.got.get() == {"number": 8}, "it goes on without us"
    assert await side.broker.ping(5)
    await side.broker.stop()


class Orders(ComputeService):
    """Keeps what it is handed."""

    def __init__(self) -> None:
        self.handed: asyncio.Queue[tuple[OrderPlaced, str, str]] = asyncio.Queue()

    @on_event(OrderPlaced, group="orders")
    async def take(self, event: OrderPlaced) -> None:
        meta = current_event()
        self.handed.put_nowait((event, meta.id, meta.source))


async def test_an_event_published_by_hand_reaches_its_handler_like_any_other(side: Side) -> None:
    attributes = {
        "specversion": "1.0",
        "id": "by-hand",
        "source": "/their/app",
        "type": "tests.order_placed.v1",
    }
    data = {"order_id": 1, "user_id": "u1", "note": "größer"}
    await side.broker.start()
    app = App(broker=Broker(side.transport, source="/ours"))
    orders = app.add(Orders(), is_served=False)
    async with app:
        await subscribed(app)
        headers = {side.prefix + name: value for name, value in attributes.items()}
        await side.publish("tests", data, headers)
        async with asyncio.timeout(WITHIN):
            event, name, source = await orders.handed.get()
        assert event == OrderPlaced(1, "u1", "größer")
        assert (name, source) == ("by-hand", "/their/app")
        whole = attributes | {"id": "structured", "data": data | {"order_id": 2}}
        await side.publish("tests", msgspec.json.encode(whole), {"content-type": STRUCTURED})
        async with asyncio.timeout(WITHIN):
            event, name, source = await orders.handed.get()
        assert event == OrderPlaced(2, "u1", "größer")
        assert (name, source) == ("structured", "/their/app")
    await side.broker.stop()


async def subscribed(app: App) -> None:
    """Wait until the broker of an app has its subscriptions."""
    assert app.broker is not None
    async with asyncio.timeout(WITHIN):
        while app.broker.error or app.broker.health()["subscriptions"][0].get("error"):
            await asyncio.sleep(0.02)
