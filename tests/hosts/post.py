"""`Post`: what tests see of letters on their way: both databases, the broker, and the processes."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aio_pika
import msgspec
import pytest
from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from afresh.brokers import OutboxState
from tests.servers.fixtures import fresh_database

from .hosts import PATIENCE, Host, Hosts
from .letters import Base, ReceivedRow, broker_tables

RELAY = {"poll": 0.1, "lease": 1.2, "renew": 0.3, "retries": 0.05, "pauses": 0.2}
"""Fast enough that a test sees one host take over from another."""

CONSUMER = {"retries": 0.05}


class Published(NamedTuple):
    """A letter as the broker had it."""

    message_id: str
    writer: str
    number: int


class Post:
    """Those who send letters have one database, those who receive them another one.

    Args:
        sender_url: of the database of the senders.
        reader_url: of that of the readers.
        broker_url: of the broker between them.
        folder: where the processes log to.
    """

    def __init__(self, sender_url: str, reader_url: str, broker_url: str, folder: Path) -> None:
        self.broker_url = broker_url
        self.destination = f"letters-{secrets.token_hex(4)}"
        self.hosts = Hosts(sender_url, folder)
        self._urls = {"sender": sender_url, "reader": reader_url, "listener": reader_url}
        self._engines: dict[str, AsyncEngine] = {
            role: create_async_engine(url, poolclass=NullPool) for role, url in self._urls.items()
        }
        self._published: list[Published] = []

    async def open(self) -> None:
        for role in ("sender", "reader"):
            async with self._engines[role].begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
        await self.published()

    async def aclose(self) -> None:
        await self.hosts.aclose()
        for engine in self._engines.values():
            await engine.dispose()

    # -- processes

    async def start(self, role: str, **setup: Any) -> Host:
        """Start a process; see `tests.hosts.messenger.Setup`."""
        setup.setdefault("broker", self.broker_url)
        return await self.hosts.start(
            program="tests.hosts.messenger",
            database=self._urls[role],
            role=role,
            destination=self.destination,
            relay=RELAY | setup.pop("relay", {}),
            consumer=CONSUMER | setup.pop("consumer", {}),
            **setup,
        )

    # -- what is where

    async def rows(self, role: str, statement: Any) -> Sequence[Row[Any]]:
        async with self._engines[role].connect() as connection:
            return (await connection.execute(statement)).all()

    async def run(self, role: str, statement: Any) -> None:
        async with self._engines[role].begin() as connection:
            await connection.execute(statement)

    async def outbox(self) -> Sequence[Row[Any]]:
        return await self.rows("sender", select(broker_tables.outbox).order_by("id"))

    async def received(self) -> Sequence[Row[Any]]:
        """What was received, in order."""
        return await self.rows("reader", select(ReceivedRow.__table__).order_by(ReceivedRow.id))

    async def published(self) -> list[Published]:
        """What the broker has ever confirmed, in its order: a queue of the tests' own tells."""
        async with await aio_pika.connect(self.broker_url) as connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange(
                self.destination, aio_pika.ExchangeType.TOPIC, durable=True
            )
            queue = await channel.declare_queue(f"{self.destination}.witness", durable=True)
            await queue.bind(exchange, "#")
            while (message := await queue.get(fail=False, no_ack=True)) is not None:
                body = msgspec.json.decode(message.body)
                self._published.append(
                    Published(str(message.headers["ce-id"]), body["writer"], body["number"])
                )
        return self._published

    # -- waiting

    async def all_received(self, patience: float = PATIENCE) -> None:
        """Wait until all that stands in the outbox is published and received."""
        outbox, inbox = broker_tables.outbox, broker_tables.inbox
        new = select(func.count()).where(outbox.c.state == OutboxState.NEW)
        names = select(outbox.c.message_id).where(outbox.c.state == OutboxState.PUBLISHED)
        async with asyncio.timeout(patience):
            while (await self.rows("sender", new))[0][0]:
                await asyncio.sleep(0.05)
            wanted = {name for (name,) in await self.rows("sender", names)}
            query = select(inbox.c.message_id)
            while wanted - {name for (name,) in await self.rows("reader", query)}:
                await asyncio.sleep(0.05)

    # -- whether all is well

    async def check(self, count: int) -> None:
        """See that nothing was lost, doubled in effect, or received out of order.

        Args:
            count: how many letters there must be, at least.
        """
        sent = {row.message_id: row for row in await self.outbox()}
        assert len(sent) >= count
        assert {row.state for row in sent.values()} == {OutboxState.PUBLISHED}
        received = await self.received()
        times = Counter(row.message_id for row in received)
        assert sent.keys() == times.keys(), "A letter was lost, or made up."
        assert max(times.values()) == 1, "A letter took effect twice."
        published = await self.published()
        last: dict[str, int] = defaultdict(int)
        for row in received:
            if row.number != last[row.writer] + 1:
                pytest.fail(self._disorder(row.writer, row.number, received, published))
            last[row.writer] = row.number
        assert {each.message_id for each in published} == sent.keys()
        assert len(set(published)) == len(sent), "A letter was published under two names."
        self.check_order(published)

    def _disorder(
        self, writer: str, number: int, received: Sequence[Row[Any]], published: list[Published]
    ) -> str:
        """Tell how a letter came out of order: who received those around it, how they came."""
        ours = [row for row in received if row.writer == writer]
        near = next(index for index, row in enumerate(ours) if row.number == number)
        around = [
            (r.id, r.number, r.deliveries, r.process_id) for r in ours[max(0, near - 8) :][:30]
        ]
        came = [each.number for each in published if each.writer == writer]
        return (
            f"Letter {number} of {writer} was received out of order. In that order (row, number, "
            f"deliveries, process): {around}. The broker had them as {came}."
        )

    def check_order(self, published: Sequence[Published]) -> None:
        """See that letters of a writer came to the broker in order, whatever came again."""
        last: dict[str, int] = defaultdict(int)
        for each in published:
            assert each.number <= last[each.writer] + 1, f"{each} overtook another one."
            last[each.writer] = max(last[each.writer], each.number)


@asynccontextmanager
async def post_between(postgres: str, broker: str, folder: Path) -> AsyncIterator[Post]:
    """A `Post` with two fresh databases, which ends with the block, as all its processes do."""
    async with AsyncExitStack() as stack:
        sender_url = await stack.enter_async_context(fresh_database(postgres))
        reader_url = await stack.enter_async_context(fresh_database(postgres))
        post = Post(sender_url, reader_url, broker, folder)
        stack.push_async_callback(post.aclose)
        await post.open()
        yield post
