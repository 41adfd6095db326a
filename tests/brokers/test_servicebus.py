"""What Azure Service Bus does in its own way: locks, rights, addresses, and being away."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from afresh.brokers import (
    Ack,
    Disposition,
    IncomingMessage,
    Outcome,
    OutgoingMessage,
    Retry,
    Subscription,
)
from afresh.brokers.transports.servicebus import ServiceBusTransport
from afresh.brokers.transports.servicebus_place import Place
from tests.servers.servicebus import ServiceBus

WITHIN = 20.0
KEY = "SharedAccessKeyName=Root;SharedAccessKey=c2VjcmV0"


def message(name: str, destination: str) -> OutgoingMessage:
    attributes = {"specversion": "1.0", "id": name, "source": "/tests", "type": "tests.made.v1"}
    return OutgoingMessage(name, destination, "tests.made.v1", b"{}", attributes=attributes)


async def test_a_lock_is_renewed_while_a_handler_takes_longer(
    servicebus: str, destination: str
) -> None:
    calls: list[str] = []
    ended = asyncio.Event()

    async def slow(came: IncomingMessage) -> Disposition:
        calls.append(came.attributes["id"])
        if len(calls) == 1:
            await asyncio.sleep(2.5)
        else:
            ended.set()
        return Ack()

    async with ServiceBusTransport(servicebus, lock=1.5) as transport:
        subscribed = await transport.subscribe(
            Subscription(destination, "readers", workers=1), slow
        )
        for name in ("m1", "m2"):
            assert (await transport.publish([message(name, destination)]))[0].is_confirmed
        async with asyncio.timeout(WITHIN):
            await ended.wait()
        await asyncio.sleep(0.5)
        await subscribed.aclose()
        assert calls == ["m1", "m2"], "nothing came a second time"


async def test_what_a_group_retries_does_not_come_to_other_groups(
    servicebus: str, destination: str
) -> None:
    tries: list[int] = []
    others: list[str] = []
    done = asyncio.Event()

    async def again(came: IncomingMessage) -> Disposition:
        tries.append(came.deliveries)
        if len(tries) == 1:
            return Retry(0.2)
        done.set()
        return Ack()

    async def other(came: IncomingMessage) -> Disposition:
        others.append(came.attributes["id"])
        return Ack()

    async with ServiceBusTransport(servicebus) as transport:
        subscriptions = [
            await transport.subscribe(Subscription(destination, "again"), again),
            await transport.subscribe(Subscription(destination, "other"), other),
        ]
        await transport.publish([message("m1", destination)])
        async with asyncio.timeout(WITHIN):
            await done.wait()
        await transport.publish([message("m2", destination)])
        async with asyncio.timeout(WITHIN):
            while "m2" not in others:
                await asyncio.sleep(0.01)
        assert tries[:2] == [1, 2]
        assert others == ["m1", "m2"]
        for each in subscriptions:
            await each.aclose()


async def test_a_topic_that_may_not_be_made_is_refused_for_good(
    servicebus: str, destination: str
) -> None:
    async with ServiceBusTransport(servicebus, declares=False) as transport:
        (result,) = await transport.publish([message("m1", destination)])
        assert result.outcome is Outcome.PERMANENT
        assert result.error is not None
        assert "could not be found" in result.error


async def test_a_broadcast_needs_the_right_to_make_subscriptions(
    servicebus: str, destination: str
) -> None:
    async def ignore(came: IncomingMessage) -> Disposition:
        return Ack()

    async with ServiceBusTransport(servicebus, declares=False) as transport:
        with pytest.raises(ValueError, match="Manage"):
            await transport.subscribe(Subscription(destination, "g", mode="broadcast"), ignore)


@pytest.fixture
def own_server(servicebus: str) -> Iterator[ServiceBus]:
    """A namespace of this test alone: to be killed."""
    server = ServiceBus()
    server.start()
    yield server
    server.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_a_subscription_comes_back_with_the_namespace(
    own_server: ServiceBus, destination: str
) -> None:
    came: list[str] = []
    connected = asyncio.Event()

    async def handle(message: IncomingMessage) -> Disposition:
        came.append(message.attributes["id"])
        return Ack()

    async with ServiceBusTransport(own_server.url) as transport:
        subscription = Subscription(destination, "readers", on_connected=connected.set)
        subscribed = await transport.subscribe(subscription, handle)
        assert (await transport.publish([message("m1", destination)]))[0].is_confirmed
        own_server.kill()
        (result,) = await transport.publish([message("m2", destination)])
        assert result.outcome is Outcome.UNAVAILABLE
        assert not transport.health()["connected"]
        with pytest.raises(ConnectionError):
            await transport.start()
        own_server.start()
        async with asyncio.timeout(WITHIN):
            await connected.wait()
            while not (await transport.publish([message("m3", destination)]))[0].is_confirmed:
                await asyncio.sleep(0.1)
            while "m3" not in came:
                await asyncio.sleep(0.01)
        assert transport.health()["connected"]
        await subscribed.aclose()
    del transport, subscribed
    gc.collect()  # the SDK leaves sockets open whose other end is gone, and says so only then


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        (f"Endpoint=sb://shop.servicebus.windows.net/;{KEY}", "shop.servicebus.windows.net", 5671),
        (
            "servicebus://Root:c2VjcmV0@shop.servicebus.windows.net",
            "shop.servicebus.windows.net",
            5671,
        ),
        (f"Endpoint=sb://localhost;{KEY};UseDevelopmentEmulator=true;", "localhost", 5672),
        ("servicebus://Root:c2VjcmV0@localhost:5999?emulator=true", "localhost", 5999),
    ],
)
def test_addresses_are_understood(url: str, host: str, port: int) -> None:
    place = Place.read(url)
    assert (place.host, place.port, place.key) == (host, port, "c2VjcmV0")


@pytest.mark.parametrize("url", ["amqp://localhost", "servicebus://", "Endpoint=localhost"])
def test_addresses_of_something_else_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="Endpoint=sb://"):
        ServiceBusTransport(url)


async def test_a_topic_that_detects_duplicates_takes_a_message_once_and_retries_still_work(
    servicebus: str, destination: str
) -> None:
    administration = Place.read(servicebus).administration()
    assert administration is not None
    await asyncio.to_thread(
        administration.create_topic, destination, requires_duplicate_detection=True
    )
    came: list[tuple[str, int]] = []

    async def handle(message: IncomingMessage) -> Disposition:
        came.append((message.attributes["id"], message.deliveries))
        return Retry(0.1) if message.deliveries == 1 else Ack()

    async with ServiceBusTransport(servicebus) as transport:
        subscription = Subscription(destination, "readers", workers=1)
        subscribed = await transport.subscribe(subscription, handle)
        for name in ("m1", "m1", "m2"):
            assert (await transport.publish([message(name, destination)]))[0].is_confirmed
        async with asyncio.timeout(WITHIN):
            while len(came) < 4:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert sorted(came) == [("m1", 1), ("m1", 2), ("m2", 1), ("m2", 2)]
        await subscribed.aclose()
