"""Brokers of FastStream that users hand over, and messages that they publish with them by hand."""

from __future__ import annotations

import asyncio
from typing import Any

from faststream.kafka import KafkaBroker
from faststream.nats import NatsBroker
from faststream.redis import RedisBroker

from afresh.brokers import Subscription, Transport
from afresh.brokers.transports.kafka import KafkaTransport
from afresh.brokers.transports.nats import NatsTransport
from afresh.brokers.transports.redis import RedisTransport
from tests.brokers.test_transports import WITHIN, Seen, message


async def exchange(
    broker: Any, transport: Transport, destination: str, prefix: str, **to: Any
) -> None:
    """Have both sides publish; each must get what the other wrote."""
    await broker.start()
    async with transport:
        seen = Seen()
        subscribed = await transport.subscribe(Subscription(destination, "readers"), seen)
        attributes = {"specversion": "1.0", "id": "by-hand", "source": "/x", "type": "x.made.v1"}
        headers = {prefix + name: value for name, value in attributes.items()}
        await broker.publish({"number": 7}, headers=headers, **to)
        (came,) = await seen.wait(1)
        assert came.attributes == attributes
        assert came.body == b'{"number":7}'
        assert came.content_type == "application/json"
        sent = message(1, destination)
        assert (await transport.publish([sent]))[0].is_confirmed
        await seen.wait(2)
        await subscribed.aclose()
    assert await broker.ping(5), "it stays its owner's"
    await broker.stop()


async def test_redis(valkey: str, destination: str) -> None:
    broker = RedisBroker(valkey)
    got: asyncio.Queue[dict[str, int]] = asyncio.Queue()

    @broker.subscriber(stream=destination)
    async def handle(body: dict[str, int]) -> None:
        got.put_nowait(body)

    await exchange(broker, RedisTransport(broker=broker), destination, "ce-", stream=destination)
    async with asyncio.timeout(WITHIN):
        assert [await got.get(), await got.get()] == [{"number": 7}, {"number": 1}]


async def test_nats(nats: str, destination: str) -> None:
    broker = NatsBroker(nats)
    got: asyncio.Queue[dict[str, int]] = asyncio.Queue()

    @broker.subscriber(f"{destination}.events.*")
    async def handle(body: dict[str, int]) -> None:
        got.put_nowait(body)

    subject = f"{destination}.events.0"
    await exchange(broker, NatsTransport(broker=broker), destination, "ce-", subject=subject)
    async with asyncio.timeout(WITHIN):
        assert [await got.get(), await got.get()] == [{"number": 7}, {"number": 1}]


async def test_kafka(kafka: str, destination: str) -> None:
    broker = KafkaBroker(kafka.removeprefix("kafka://"), acks="all")
    await exchange(broker, KafkaTransport(broker=broker), destination, "ce_", topic=destination)
