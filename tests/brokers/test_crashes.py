"""Messages of a host that died come to another one, counted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from afresh.brokers import Ack, Disposition, IncomingMessage, Subscription
from afresh.brokers.transports import nats as nats_transport
from afresh.brokers.transports import redis_subscribed as redis_transport
from afresh.brokers.transports.nats import NatsTransport
from afresh.brokers.transports.redis import RedisTransport
from tests.brokers.test_transports import WITHIN, Seen, ids, message


async def die(subscribed: Any) -> None:
    """End all that it does, and settle nothing, as a killed process does."""
    if isinstance(subscribed._transport, NatsTransport):
        await subscribed._inbox.unsubscribe()
    for task in (*subscribed._tasks, *subscribed._lanes._tasks):
        task.cancel()
        await asyncio.wait([task])
    if isinstance(subscribed._transport, RedisTransport):
        await subscribed._detach()


@pytest.mark.parametrize("kind", ["nats", "redis"])
async def test_another_host_gets_what_a_dead_one_had(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, destination: str
) -> None:
    monkeypatch.setattr(nats_transport, "ACK_SECONDS", 1.0)
    monkeypatch.setattr(redis_transport, "IDLE_SECONDS", 1.0)
    made = {"nats": NatsTransport, "redis": RedisTransport}[kind]
    url = request.getfixturevalue({"redis": "valkey"}.get(kind, kind))
    started = asyncio.Event()

    async def never(came: IncomingMessage) -> Disposition:
        started.set()
        await asyncio.Event().wait()
        return Ack()

    subscription = Subscription(destination, "readers", workers=2)
    async with made(url) as dead, made(url) as alive:
        doomed = await dead.subscribe(subscription, never)
        await dead.publish([message(number, destination) for number in range(3)])
        async with asyncio.timeout(WITHIN):
            await started.wait()
            while doomed.health()["in_flight"] < 3:
                await asyncio.sleep(0.01)
        await asyncio.sleep(2)  # they are renewed for as long as it lives
        seen = Seen()
        subscribed = await alive.subscribe(subscription, seen)
        await asyncio.sleep(1.5)
        assert not seen.messages
        await die(doomed)
        await seen.wait(3)
        assert sorted(ids(seen.messages)) == ["m0", "m1", "m2"]
        assert {each.deliveries for each in seen.messages} == {2}
        await subscribed.aclose()
