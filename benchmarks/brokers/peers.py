"""The same by hand: aio-pika and asyncpg, as their documentation shows them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import aio_pika
import asyncpg
import msgspec
from aio_pika.abc import AbstractIncomingMessage
from sqlalchemy import make_url

from benchmarks.brokers.cases import BODY_BYTES, KEYS, WINDOW, WORKERS

TYPE = "bench.order_placed.v1"

TABLES = """
CREATE TABLE inbox ("group" text, source text, message_id text, handled_at timestamptz,
    PRIMARY KEY ("group", source, message_id));
CREATE INDEX ON inbox (handled_at);
CREATE TABLE notes (id serial PRIMARY KEY, number integer NOT NULL, text text NOT NULL);
"""
HANDLED = "INSERT INTO inbox VALUES ('notes', $1, $2, now()) ON CONFLICT DO NOTHING"
NOTE = "INSERT INTO notes (number, text) VALUES ($1, $2) RETURNING id"


def body(number: int) -> bytes:
    """An event of a kilobyte."""
    return msgspec.json.encode({"number": number, "text": "x" * (BODY_BYTES - 40)})


def message(number: int, name: str) -> aio_pika.Message:
    """A message with what afresh says in its headers."""
    key = f"u{number % KEYS}"
    return aio_pika.Message(
        body(number),
        headers={
            "ce-specversion": "1.0",
            "ce-id": name,
            "ce-source": "/bench",
            "ce-type": TYPE,
            "ce-subject": key,
            "ce-time": "2026-01-01T00:00:00Z",
            "ce-causationid": "0" * 32,
            "ce-partitionkey": key,
            "ce-sequence": str(number),
        },
        content_type="application/json",
        message_id=name,
        type=TYPE,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )


class PlainPublisher:
    """Publishes with confirms, so many at once, to an exchange with one queue."""

    def __init__(self, url: str, destination: str) -> None:
        self.url = url
        self.destination = destination
        self.connection: Any = None
        self.exchange: Any = None
        self.queue: Any = None

    async def start(self, queue: str, *, is_there: bool = False) -> None:
        """Connect, and declare what is published to.

        Arguments:
            queue: what it is called.
            is_there: whether afresh has declared it, and bound it to the exchange.
        """
        self.connection = await aio_pika.connect_robust(self.url)
        channel = await self.connection.channel(publisher_confirms=True, on_return_raises=True)
        self.exchange = await channel.declare_exchange(
            self.destination, aio_pika.ExchangeType.TOPIC, durable=True
        )
        if is_there:
            self.queue = await channel.get_queue(queue)
            return
        self.queue = await channel.declare_queue(
            queue, durable=True, arguments={"x-queue-type": "quorum"}
        )
        await self.queue.bind(self.exchange, "#")

    async def publish(self, numbers: Iterable[int], prefix: str) -> None:
        """Publish messages, and wait until all are confirmed."""
        remaining = iter(numbers)

        async def work() -> None:
            for number in remaining:
                await self.exchange.publish(
                    message(number, f"{prefix}{number}"), routing_key=TYPE, mandatory=True
                )

        await asyncio.gather(*(work() for _ in range(WINDOW)))


class PlainConsumer:
    """Notes each message and writes a row, in a transaction; then it is acknowledged."""

    def __init__(self, publisher: PlainPublisher, url: str) -> None:
        self.publisher = publisher
        self.url = make_url(url).set(drivername="postgresql")
        self.pool: Any = None

    async def start(self) -> None:
        """Connect to the database, and make the tables."""
        dsn = self.url.render_as_string(hide_password=False)
        self.pool = await asyncpg.create_pool(dsn, min_size=WORKERS, max_size=WORKERS)
        await self.pool.execute(TABLES)

    async def consume(self, tell: Callable[[], None]) -> Callable[[], Any]:
        """Begin; `tell` is called as each message comes to be handled. Returns what ends it."""
        channel = await self.publisher.connection.channel()
        await channel.set_qos(prefetch_count=2 * WORKERS)
        queue = await channel.get_queue(self.publisher.queue.name)
        waiting: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()

        async def work() -> None:
            while True:
                came = await waiting.get()
                tell()
                event = msgspec.json.decode(came.body)
                async with self.pool.acquire() as connection, connection.transaction():
                    name = came.message_id
                    if (await connection.execute(HANDLED, "/bench", name)).endswith("1"):
                        await connection.fetchval(NOTE, event["number"], event["text"])
                await came.ack()

        workers = [asyncio.create_task(work()) for _ in range(WORKERS)]
        tag = await queue.consume(waiting.put)

        async def end() -> None:
            await queue.cancel(tag)
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            await channel.close()

        return end
