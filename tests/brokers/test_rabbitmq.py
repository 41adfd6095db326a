"""What is RabbitMQ's own: queues that are gone."""

from __future__ import annotations

import asyncio

import aio_pika

from afresh.brokers import DeadLetter, Subscription
from afresh.brokers.transports.rabbitmq import RabbitTransport
from tests.brokers.test_transports import WITHIN, Seen, ids, message


async def test_a_message_that_can_not_be_put_aside_comes_again(
    rabbitmq: str, destination: str
) -> None:
    connection = await aio_pika.connect(rabbitmq)
    async with connection, RabbitTransport(rabbitmq) as transport:
        seen = Seen(lambda came: DeadLetter("It is bad."))
        subscription = Subscription(destination, "readers", workers=1, prefetch=1)
        subscribed = await transport.subscribe(subscription, seen)
        channel = await connection.channel()
        await channel.queue_delete(f"{destination}.readers.dead")
        await transport.publish([message(1, destination)])
        await seen.wait(2)
        assert [each.deliveries for each in seen.messages[:2]] == [1, 2]
        assert not await transport.dead(subscription), "this declares the queue"
        dead = []
        async with asyncio.timeout(WITHIN):
            while not dead:
                await asyncio.sleep(0.05)
                dead = list(await transport.dead(subscription))
        assert ids([each.message for each in dead]) == ["m1"]
        await subscribed.aclose()
