"""What is Kafka's own: positions, idempotent producers, topics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from afresh.brokers import Ack, Disposition, IncomingMessage, Retry, Subscription
from afresh.brokers.transports import kafka_subscribed
from afresh.brokers.transports.kafka import KafkaTransport
from tests.brokers.test_transports import WITHIN, Seen, ids, message


@pytest.fixture
def idempotent_kafka(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of librdkafka's mock of a cluster, which knows idempotent producers."""
    # It lets nobody into a group within three seconds.
    monkeypatch.setattr(kafka_subscribed, "SESSION_SECONDS", 10.0)
    confluent_kafka = pytest.importorskip("confluent_kafka")
    producer = confluent_kafka.Producer({"test.mock.num.brokers": 1, "log_level": 0})
    (broker,) = producer.list_topics(timeout=10).brokers.values()
    yield f"kafka://{broker.host}:{broker.port}"
    del producer


async def test_an_idempotent_producer_is_the_default(
    idempotent_kafka: str, destination: str
) -> None:
    async with KafkaTransport(idempotent_kafka) as transport:
        seen = Seen()
        subscribed = await transport.subscribe(Subscription(destination, "readers"), seen)
        sent = [message(number, destination, key=f"k{number % 4}") for number in range(40)]
        assert all(each.is_confirmed for each in await transport.publish(sent))
        await seen.wait(40)
        for key in ("k0", "k1", "k2", "k3"):
            wanted = [each.id for each in sent if each.key == key]
            assert [name for name in ids(seen.messages) if name in wanted] == wanted
        await subscribed.aclose()


async def test_the_position_stays_behind_the_oldest_record_that_is_not_settled(
    kafka: str, destination: str
) -> None:
    release = asyncio.Event()

    async def handle(came: IncomingMessage) -> Disposition:
        await seen(came)
        if came.attributes["id"] == "m0":
            await release.wait()
        return Ack()

    async with KafkaTransport(kafka, idempotent=False, partitions=1) as transport:
        seen = Seen()
        subscription = Subscription(destination, "readers")
        subscribed = await transport.subscribe(subscription, handle)
        for number in range(10):  # not in one batch, of which Tansu tells the first record alone
            await transport.publish([message(number, destination, key=f"k{number}")])
        async with asyncio.timeout(WITHIN):
            while subscribed.health()["in_flight"] != 1 or len(seen.messages) < 10:
                await asyncio.sleep(0.02)
        assert await subscribed.lag() == 10, "nothing behind m0 counts as done"
        await subscribed.aclose(drain=0.05)
        again = Seen()
        second = await transport.subscribe(subscription, again)
        await again.wait(1)
        assert ids(again.messages)[0] == "m0"
        async with asyncio.timeout(WITHIN):
            while await second.lag():
                await asyncio.sleep(0.02)
        await second.aclose()


async def test_a_group_that_was_away_hears_what_it_missed(kafka: str, destination: str) -> None:
    async with KafkaTransport(kafka, idempotent=False) as transport:
        subscription = Subscription(destination, "readers")
        await transport.publish([message(0, destination)])
        first = await transport.subscribe(subscription, Seen())
        await first.aclose()
        await transport.publish([message(1, destination)])
        seen = Seen()
        second = await transport.subscribe(subscription, seen)
        await transport.publish([message(2, destination)])
        await seen.wait(2)
        assert sorted(ids(seen.messages)) == ["m1", "m2"]
        await second.aclose()


async def test_what_waits_for_its_time_is_left_at_the_broker_when_it_is_too_much(
    kafka: str, destination: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_subscribed, "LATER_MOST", 1)
    seen = Seen(lambda came: Ack() if came.deliveries > 1 else Retry(0.3))
    async with KafkaTransport(kafka, idempotent=False, partitions=2) as transport:
        subscription = Subscription(destination, "readers", prefetch=1)
        subscribed = await transport.subscribe(subscription, seen)
        await transport.publish([message(number, destination) for number in range(5)])
        await seen.wait(10)
        assert sorted(ids(seen.messages)) == sorted(2 * [f"m{number}" for number in range(5)])
        await subscribed.aclose()
