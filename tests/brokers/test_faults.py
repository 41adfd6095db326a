"""What transports make of brokers that go away, and come back."""

from __future__ import annotations

import asyncio
import gc
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable

import pytest

from afresh.brokers import (
    MemoryTransport,
    Outcome,
    PublishResult,
    Subscription,
    Transport,
    open_transport,
)
from afresh.brokers.transports.memory import MemoryBroker
from tests.brokers.gate import Gate
from tests.brokers.test_transports import Seen, ids, message
from tests.servers.fixtures import made
from tests.servers.kafka import Kafka
from tests.servers.nats import Nats
from tests.servers.processes import Server
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.servicebus import ServiceBus
from tests.servers.valkey import Valkey

WITHIN = 60.0


class DurableValkey(Valkey):
    """A Valkey that writes down what it confirms."""

    def command(self) -> list[str]:
        return [*super().command(), "--appendonly", "yes"]


class Stoppable(ABC):
    """A broker of one test alone."""

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    async def stop(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    def transport(self) -> Transport: ...


class StoppableServer(Stoppable):
    """A broker that is stopped in earnest."""

    def __init__(self, server_class: type[Server]) -> None:
        self.server = made(server_class)

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def stop(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def close(self) -> None:
        await asyncio.to_thread(self.server.close)

    def transport(self) -> Transport:
        return open_transport(self.server.url)


class StoppableKafka(Stoppable):
    """A broker that is out of reach: Tansu forgets all when it is stopped."""

    def __init__(self) -> None:
        self.server = made(Kafka)
        self.gate = Gate(self.server.port)
        self.server.advertised_port = self.gate.port
        self.server.start()

    async def start(self) -> None:
        await self.gate.open()

    async def stop(self) -> None:
        await self.gate.close()

    async def close(self) -> None:
        await self.gate.close()
        await asyncio.to_thread(self.server.close)

    def transport(self) -> Transport:
        return open_transport(self.server.url, idempotent=False)


class StoppableServiceBus(Stoppable):
    """A namespace that is out of reach: the peer forgets all when it is stopped."""

    def __init__(self) -> None:
        self.server = made(ServiceBus)
        self.gates = Gate(self.server.port), Gate(self.server.administration_port)
        self.server.start()

    async def start(self) -> None:
        for gate in self.gates:
            await gate.open()

    async def stop(self) -> None:
        for gate in self.gates:
            await gate.close()

    async def close(self) -> None:
        await self.stop()
        await asyncio.to_thread(self.server.close)

    def transport(self) -> Transport:
        url = self.server.url
        for gate in self.gates:
            url = url.replace(str(gate.to), str(gate.port))
        return open_transport(url)


class StoppableMemory(Stoppable):
    """A broker within the process, that is out of reach."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.broker.stop()

    async def start(self) -> None:
        self.broker.resume()

    async def stop(self) -> None:
        self.broker.stop()

    async def close(self) -> None:
        """It ends with the test."""

    def transport(self) -> Transport:
        return MemoryTransport(broker=self.broker)


BROKERS: dict[str, Callable[[], Stoppable]] = {
    "memory": StoppableMemory,
    "rabbitmq": lambda: StoppableServer(RabbitMQ),
    "nats": lambda: StoppableServer(Nats),
    "redis": lambda: StoppableServer(DurableValkey),
    "kafka": StoppableKafka,
    "servicebus": StoppableServiceBus,
}


# The SDK of Azure leaves sockets open whose other end is gone.
SILENT = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(
    params=[pytest.param(name, marks=SILENT) if name == "servicebus" else name for name in BROKERS]
)
async def stoppable(request: pytest.FixtureRequest) -> AsyncIterator[Stoppable]:
    broker = BROKERS[request.param]()
    yield broker
    await broker.close()
    gc.collect()  # what is left open is found now, and not in another test


async def connect(transport: Transport) -> None:
    """Connect as soon as the broker is there."""
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                await transport.start()
            except ConnectionError:
                await asyncio.sleep(0.2)
            else:
                return


async def test_a_broker_that_is_not_there_is_said_to_be_so_until_it_is(
    stoppable: Stoppable, destination: str
) -> None:
    transport = stoppable.transport()
    with pytest.raises(ConnectionError):
        await transport.start()
    (result,) = await transport.publish([message(1, destination)])
    assert result.outcome is Outcome.UNAVAILABLE
    await stoppable.start()
    await connect(transport)
    assert transport.health() == {"connected": True, "error": None}
    await transport.aclose()


async def test_nothing_confirmed_is_lost_when_a_broker_is_stopped_in_mid_stream(
    stoppable: Stoppable, destination: str
) -> None:
    await stoppable.start()
    transport = stoppable.transport()
    await connect(transport)
    seen = Seen()
    connected: list[str] = []
    subscription = Subscription(
        destination, "readers", on_connected=lambda: connected.append("again")
    )
    subscribed = await transport.subscribe(subscription, seen)
    told, swept = Seen(), asyncio.Event()
    broadcast = await transport.subscribe(
        Subscription(destination, "hosts", mode="broadcast", on_connected=swept.set), told
    )
    results: dict[str, PublishResult] = {}

    def confirmed() -> set[str]:
        return {name for name, result in results.items() if result.is_confirmed}

    async def keep_publishing() -> None:
        for number in range(1_000_000):
            each = message(number, destination, key=f"k{number % 5}")
            (results[each.id],) = await transport.publish([each])
            await asyncio.sleep(0.005)

    async def until(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WITHIN):
            while not condition():
                await asyncio.sleep(0.02)

    publishing = asyncio.create_task(keep_publishing())
    await until(lambda: len(confirmed()) >= 50 and len(seen.messages) >= 10)
    assert not connected
    assert not swept.is_set()
    await stoppable.stop()
    await until(lambda: Outcome.UNAVAILABLE in {each.outcome for each in results.values()})
    await until(lambda: not transport.health()["connected"])
    assert subscribed.health()["error"]
    before = len(confirmed())
    await stoppable.start()
    await until(lambda: len(confirmed()) >= before + 50)
    publishing.cancel()
    await asyncio.wait([publishing])
    await until(lambda: confirmed() <= set(ids(seen.messages)))
    assert connected
    async with asyncio.timeout(WITHIN):
        await swept.wait()
    (results["last"],) = await transport.publish([message(-1, destination, key="last")])
    assert results["last"].is_confirmed
    await until(lambda: "m-1" in ids(told.messages))
    assert {each.outcome for each in results.values()} <= {
        Outcome.CONFIRMED,
        Outcome.UNAVAILABLE,
        Outcome.TRANSIENT,
    }
    await until(lambda: subscribed.health()["error"] is None)
    await subscribed.aclose()
    await broadcast.aclose()
    await transport.aclose()


async def test_an_on_connected_that_fails_ends_nothing(destination: str) -> None:
    stoppable = StoppableMemory()
    await stoppable.start()

    def fail() -> None:
        raise RuntimeError("no")

    async with stoppable.transport() as transport:
        seen = Seen()
        subscription = Subscription(destination, "readers", on_connected=fail)
        subscribed = await transport.subscribe(subscription, seen)
        await stoppable.stop()
        await stoppable.start()
        await transport.publish([message(1, destination)])
        await seen.wait(1)
        await subscribed.aclose()
