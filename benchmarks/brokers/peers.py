"""The same by hand: aio-pika, and asyncpg or SQLAlchemy, as their documentation shows them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import aio_pika
import asyncpg
import msgspec
from aio_pika.abc import AbstractIncomingMessage
from sqlalchemy import column, insert, make_url, table
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.brokers.cases import BODY_BYTES, KEYS, WINDOW, WORKERS
from benchmarks.brokers.services import NoteRow

TYPE = "bench.order_placed.v1"

HANDLED = """
INSERT INTO _inbox ("group", source, message_id, handled_at) VALUES ('notes', '/bench', $1, $2)
ON CONFLICT DO NOTHING
"""
NOTE = "INSERT INTO bench_notes (number, text) VALUES ($1, $2)"
INBOX = table("_inbox", *[column(name) for name in ("group", "source", "message_id", "handled_at")])


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
    """Notes each message and writes a row, in a transaction by asyncpg; then it is acknowledged."""

    def __init__(self, publisher: PlainPublisher, url: str) -> None:
        self.publisher = publisher
        self.url = make_url(url)
        self.pool: Any = None

    async def start(self) -> None:
        """Connect to the database."""
        dsn = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self.pool = await asyncpg.create_pool(dsn, min_size=WORKERS, max_size=WORKERS)

    async def write(self, name: str, number: int, text: str) -> None:
        """Write what a message says, unless it was handled before."""
        async with self.pool.acquire() as connection, connection.transaction():
            if (await connection.execute(HANDLED, name, datetime.now(UTC))).endswith("1"):
                await connection.execute(NOTE, number, text)

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
                assert came.message_id is not None
                await self.write(came.message_id, event["number"], event["text"])
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


class SQLAlchemyConsumer(PlainConsumer):
    """The same in a session of SQLAlchemy."""

    async def start(self) -> None:
        engine = create_async_engine(self.url, pool_size=WORKERS, max_overflow=0)
        self.sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def write(self, name: str, number: int, text: str) -> None:
        noted = postgresql.insert(INBOX).on_conflict_do_nothing()
        message = {"group": "notes", "source": "/bench", "message_id": name}
        async with self.sessions.begin() as session:
            result: Any = await session.execute(noted, message | {"handled_at": datetime.now(UTC)})
            if result.rowcount:
                await session.execute(insert(NoteRow).values(number=number, text=text))
