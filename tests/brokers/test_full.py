"""Brokers that have no room for more, and messages that have nowhere to go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aio_pika
import nats as nats_client
from nats.js.api import DiscardPolicy, StreamConfig
from redis.asyncio import Redis

from afresh.brokers import Ack, Disposition, IncomingMessage, MemoryTransport, Outcome, Subscription
from afresh.brokers.transports.memory import MemoryBroker
from afresh.brokers.transports.nats import NatsTransport
from afresh.brokers.transports.rabbitmq import RabbitTransport
from afresh.brokers.transports.redis import RedisTransport
from tests.brokers.test_transports import WITHIN, Seen, ids, message

MOST = 5


class Gated:
    """A handler that lets nothing through until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.came: list[str] = []

    async def __call__(self, came: IncomingMessage) -> Disposition:
        await self.open.wait()
        self.came.append(came.attributes["id"])
        return Ack()


async def refused(publish: Callable[[int], Awaitable[Outcome]]) -> list[int]:
    """Publish until something is refused; returns what was taken."""
    taken: list[int] = []
    async with asyncio.timeout(WITHIN):
        while (outcome := await publish(len(taken))) is Outcome.CONFIRMED:
            taken.append(len(taken))
    assert outcome is Outcome.TRANSIENT, "it is tried again, and nothing is wrong with it"
    return taken


async def test_a_full_queue_of_rabbitmq_refuses_for_now(rabbitmq: str, destination: str) -> None:
    connection = await aio_pika.connect(rabbitmq)
    async with connection, RabbitTransport(rabbitmq) as transport:
        channel = await connection.channel()
        queue = await channel.declare_queue(
            destination,
            durable=True,
            arguments={"x-max-length": MOST, "x-overflow": "reject-publish"},
        )
        exchange = await channel.declare_exchange(destination, "topic", durable=True)
        await queue.bind(exchange, "#")

        async def publish(number: int) -> Outcome:
            return (await transport.publish([message(number, destination)]))[0].outcome

        taken = await refused(publish)
        assert MOST <= len(taken) <= MOST + 2
        await queue.purge()
        assert await publish(99) is Outcome.CONFIRMED
        assert transport.health()["connected"]


async def test_a_full_stream_of_nats_refuses_for_now(nats: str, destination: str) -> None:
    client = await nats_client.connect(nats)
    await client.jetstream().add_stream(
        StreamConfig(
            name=destination,
            subjects=[f"{destination}.events.*", f"{destination}.group.*"],
            max_msgs=MOST,
            discard=DiscardPolicy.NEW,
        )
    )
    async with NatsTransport(nats) as transport:

        async def publish(number: int) -> Outcome:
            return (await transport.publish([message(number, destination)]))[0].outcome

        assert len(await refused(publish)) == MOST
        await client.jetstream().purge_stream(destination)
        assert await publish(99) is Outcome.CONFIRMED
    await client.close()


async def test_a_redis_without_memory_refuses_for_now(valkey: str, destination: str) -> None:
    async with RedisTransport(valkey) as transport, Redis.from_url(valkey) as redis:
        subscribed = await transport.subscribe(Subscription(destination, "readers"), Seen())
        await redis.config_set("maxmemory", 1)
        try:
            (result,) = await transport.publish([message(1, destination)])
        finally:
            await redis.config_set("maxmemory", 0)
        assert result.outcome is Outcome.TRANSIENT, result
        assert transport.health()["connected"]
        assert (await transport.publish([message(2, destination)]))[0].is_confirmed
        await subscribed.aclose()


async def test_a_full_group_in_memory_refuses_for_now(destination: str) -> None:
    async with MemoryTransport(broker=MemoryBroker(most=MOST)) as transport:
        gated = Gated()
        subscription = Subscription(destination, "readers", workers=1, prefetch=2)
        subscribed = await transport.subscribe(subscription, gated)

        async def publish(number: int) -> Outcome:
            return (await transport.publish([message(number, destination)]))[0].outcome

        taken = await refused(publish)
        gated.open.set()
        async with asyncio.timeout(WITHIN):
            while len(gated.came) < len(taken):
                await asyncio.sleep(0.01)
        assert await publish(99) is Outcome.CONFIRMED
        await subscribed.aclose()


async def test_rabbitmq_takes_nothing_that_no_queue_is_bound_for(
    rabbitmq: str, destination: str
) -> None:
    async with RabbitTransport(rabbitmq) as transport:
        (result,) = await transport.publish([message(1, destination)])
        assert result.outcome is Outcome.PERMANENT
        assert "No queue is bound" in (result.error or "")
        seen = Seen()
        subscribed = await transport.subscribe(Subscription(destination, "readers"), seen)
        assert (await transport.publish([message(2, destination)]))[0].is_confirmed
        assert ids(await seen.wait(1)) == ["m2"]
        await subscribed.aclose()
