"""What is Redis's own: consumers of hosts that are gone."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from afresh.brokers import Ack, Disposition, IncomingMessage, Subscription
from afresh.brokers.transports import redis_subscribed
from afresh.brokers.transports.redis import RedisTransport
from tests.brokers.test_transports import WITHIN, message


async def test_consumers_that_are_gone_and_hold_nothing_leave_their_group(
    valkey: str, destination: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_subscribed, "IDLE_SECONDS", 0.6)
    monkeypatch.setattr(redis_subscribed, "GONE_SECONDS", 1.5)
    started, release = asyncio.Event(), asyncio.Event()

    async def slow(came: IncomingMessage) -> Disposition:
        started.set()
        await release.wait()
        return Ack()

    async with RedisTransport(valkey) as transport, Redis.from_url(valkey) as redis:
        subscription = Subscription(destination, "readers", workers=1, prefetch=1)
        busy = await transport.subscribe(subscription, slow)
        await transport.publish([message(0, destination)])
        async with asyncio.timeout(WITHIN):
            await started.wait()
        idle = await transport.subscribe(subscription, slow)
        await redis.xgroup_createconsumer(destination, "readers", "crashed")

        async def consumers() -> dict[bytes, int]:
            found = await redis.xinfo_consumers(destination, "readers")
            return {each["name"]: each["pending"] for each in found}

        assert len(await consumers()) == 3
        async with asyncio.timeout(WITHIN):
            while b"crashed" in await consumers():
                await asyncio.sleep(0.05)
        assert sorted((await consumers()).values()) == [0, 1], "who is there stays"
        release.set()
        await busy.aclose()
        await idle.aclose()
