"""The loops that are timed: for each workload a coroutine function that sets them up."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter

import asyncpg
from sqlalchemy import make_url

from afresh import App
from benchmarks.brokers.cases import (
    BODY_BYTES,
    CONSUMER,
    FURTHER,
    KEYS,
    LONG,
    OUTBOX,
    RELAY,
    SHORT,
)
from benchmarks.brokers.peers import TYPE, PlainConsumer, PlainPublisher, SQLAlchemyConsumer
from benchmarks.brokers.services import Notes, app_on
from benchmarks.db.places import new_database
from benchmarks.sampling import Sampler, Timed
from benchmarks.workloads.memory import resident

FILL = f"""
INSERT INTO _outbox (message_id, destination, key, bucket, type, content_type, headers, body,
    operation_uuid, created_at)
SELECT name, $1, key, abs(hashtext(key)) % 64, '{TYPE}', 'application/json',
    json_build_object('specversion', '1.0', 'id', name, 'source', '/bench', 'type', '{TYPE}',
        'subject', key, 'time', '2026-01-01T00:00:00Z', 'causationid', repeat('0', 32),
        'partitionkey', key)::text,
    convert_to(json_build_object('number', n, 'text', repeat('x', {BODY_BYTES - 40}))::text,
        'UTF8'),
    repeat('0', 32), now()
FROM (SELECT n, $2::text || n AS name, 'u' || (n % {KEYS}) AS key
    FROM generate_series(1, $3::bigint) AS n) AS numbers
"""

_numbers = itertools.count()


@dataclass(frozen=True)
class Servers:
    """Where the servers are, and how much is asked of them."""

    postgresql: str
    rabbitmq: str
    quick: bool


Prepare = Callable[[Servers], Awaitable[dict[str, Sampler]]]


async def database_with_tables(servers: Servers) -> str:
    """The URL of a new database that an app has been on."""
    url = await new_database(servers.postgresql)
    async with app_on(url, servers.rabbitmq):
        return url


async def fill(url: str, destination: str, count: int) -> None:
    """Put messages into the outbox, all at once."""
    plain = make_url(url).set(drivername="postgresql")
    connection = await asyncpg.connect(plain.render_as_string(hide_password=False))
    await connection.execute(FILL, destination, f"m{next(_numbers)}-", count, timeout=600)
    await connection.close()


async def _publisher(servers: Servers, destination: str) -> PlainPublisher:
    publisher = PlainPublisher(servers.rabbitmq, destination)
    await publisher.start(f"{destination}.all")
    return publisher


async def relay(servers: Servers) -> dict[str, Sampler]:
    """Messages that are in the outbox already, until all are published and noted; and the same
    messages by aio-pika, with no outbox.
    """
    destination = f"bench-{next(_numbers)}"
    publisher = await _publisher(servers, destination)
    url = await database_with_tables(servers)
    app = app_on(url, servers.rabbitmq)
    await app.start()

    async def afresh(count: int) -> float:
        await publisher.queue.purge()
        await fill(url, destination, count)
        relay = app.broker.relay()
        before = relay.published
        start = perf_counter()
        app.database.watcher.changed("outbox", "")
        while relay.published < before + count or relay.health()["in_hand"]:
            await asyncio.sleep(0.001)
        return perf_counter() - start

    async def peer(count: int) -> float:
        await publisher.queue.purge()
        start = perf_counter()
        await publisher.publish(range(count), f"p{next(_numbers)}-")
        return perf_counter() - start

    count = 1_000 if servers.quick else 5_000
    return {
        "afresh": Sampler(afresh, count, loops=1, is_collected=True),
        "aio-pika": Sampler(peer, count, loops=1, is_collected=True),
    }


class Times:
    """The moments at which messages came."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.moments: list[float] = []
        self.are_there = asyncio.Event()

    def tell(self, *_: object) -> None:
        """One came."""
        self.moments.append(perf_counter())
        if len(self.moments) == self.count:
            self.are_there.set()

    async def elapsed(self) -> float:
        """Wait for all; seconds that so many took, from the first to the last."""
        async with asyncio.timeout(120):
            await self.are_there.wait()
        moments = self.moments[: self.count]
        return (moments[-1] - moments[0]) * self.count / (self.count - 1)


async def consumer(servers: Servers) -> dict[str, Sampler]:
    """Messages that are in the queue already: each is noted, and writes a row."""
    url = await database_with_tables(servers)
    peers = {"by hand": PlainConsumer, "by hand, SQLAlchemy": SQLAlchemyConsumer}

    def subscribed(times: Times) -> App:
        app = app_on(url, servers.rabbitmq)
        app.add(Notes(app.database, times.tell), is_served=False)
        return app

    async with subscribed(Times(1)):
        ours = PlainPublisher(servers.rabbitmq, "bench")
        await ours.start("bench.notes", is_there=True)

    async def afresh(count: int) -> float:
        times = Times(count)
        await ours.publish(range(count), f"c{next(_numbers)}-")
        async with subscribed(times):
            return await times.elapsed()

    async def by_hand(kind: type[PlainConsumer]) -> Timed:
        publisher = await _publisher(servers, f"bench-{next(_numbers)}")
        consumer = kind(publisher, url)
        await consumer.start()

        async def run(count: int) -> float:
            times = Times(count)
            await publisher.publish(range(count), f"c{next(_numbers)}-")
            end = await consumer.consume(times.tell)
            try:
                return await times.elapsed()
            finally:
                await end()

        return run

    count = 500 if servers.quick else 2_000
    timed = {"afresh": afresh} | {name: await by_hand(kind) for name, kind in peers.items()}
    return {name: Sampler(run, count, loops=1, is_collected=True) for name, run in timed.items()}


async def outbox(servers: Servers) -> dict[str, Sampler]:
    """The first thousand messages of a short outbox, and of a long one."""
    destination = f"bench-{next(_numbers)}"
    publisher = await _publisher(servers, destination)
    urls = {words: await database_with_tables(servers) for words in ("short", "long")}
    await fill(urls["long"], destination, LONG // 10 if servers.quick else LONG)

    def sampling(words: str) -> Timed:
        async def run(count: int) -> float:
            await publisher.queue.purge()
            if words == "short":
                await fill(urls[words], destination, SHORT)
            times = Times(count)
            app = app_on(urls[words], servers.rabbitmq)
            app.broker.on_published(times.tell)
            async with app:
                return await times.elapsed()

        return run

    return {
        words: Sampler(sampling(words), SHORT, loops=1, is_collected=True)
        for words in ("short", "long")
    }


async def weigh(servers: Servers) -> dict[str, float]:
    """What the process grows by as it publishes from a long outbox."""
    destination = f"bench-{next(_numbers)}"
    await _publisher(servers, destination)
    url = await database_with_tables(servers)
    await fill(url, destination, 2 * FURTHER)
    app = app_on(url, servers.rabbitmq)
    first, last = Times(FURTHER // 4), Times(FURTHER)
    for times in (first, last):
        app.broker.on_published(times.tell)
    async with app:
        await first.elapsed()
        before = resident()
        await last.elapsed()
        return {"outbox, bytes grown": resident() - before}


WORKLOADS: dict[str, Prepare] = {RELAY: relay, CONSUMER: consumer, OUTBOX: outbox}
"""Workload name to the coroutine function that sets it up."""
