"""How many statements a message costs on its way out, and in: counted, as no clock is reliable."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from afresh.brokers.relay import Relay
from afresh.db import Database
from tests.brokers.scripted import ScriptedTransport, shop_on, until
from tests.brokers.shop import NoteRow, PlaceOrder, World, world

MANY = 300


class Statements:
    """What is sent to PostgreSQL on the connections of an engine, by SQLAlchemy or past it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.texts: list[str] = []
        event.listen(engine.sync_engine, "before_cursor_execute", self._note)
        event.listen(engine.sync_engine, "checkout", self._listen)

    def _note(self, connection: Any, cursor: Any, statement: str, *_: object) -> None:
        self.texts.append(statement)

    def _listen(self, connection: Any, *_: object) -> None:
        connection.driver_connection.add_query_logger(self._note_past_sqlalchemy)

    def _note_past_sqlalchemy(self, query: Any) -> None:
        self.texts.append(query.query)


def engine_of(database: Database) -> AsyncEngine:
    return database.shard().write


async def delivered(w: World, count: int) -> None:
    """Place orders, and wait until each is handled and settled."""
    before = w.notes.health()["broker"]["subscriptions"][0]["handled"]
    for number in range(count):
        await w.shop.call(PlaceOrder(f"u{number}", f"n{number}"))
    await until(lambda: w.notes.health()["broker"]["subscriptions"][0]["handled"] == before + count)


async def test_a_delivery_is_one_transaction_of_three_inserts(postgres_database: str) -> None:
    async with world(notes_url=postgres_database) as w:
        await delivered(w, 1)  # statements are prepared once
        statements = Statements(engine_of(w.notes.database))
        await delivered(w, 10)
        inserts = Counter(text.split()[2] for text in statements.texts if "INSERT" in text)
        assert inserts == {NoteRow.__tablename__: 10, "_inbox": 10, "_operations": 10}
        assert not [text for text in statements.texts if text.startswith("SELECT")]


async def test_a_batch_is_read_and_noted_by_a_few_statements(postgres_database: str) -> None:
    transport = ScriptedTransport()
    transport.is_away = True
    async with shop_on(transport, postgres_database, poll=30.0) as app:
        for number in range(MANY):
            await app.call(PlaceOrder(f"u{number}", f"n{number}"))
        await until(lambda: app.broker.relay().unavailable)
        read = Statements(app.database.shard().read)
        written = Statements(engine_of(app.database))
        transport.is_away = False
        relay = app.broker.relay()
        await until(lambda: relay.published == MANY and not relay.health()["in_hand"])
        marks = [text for text in written.texts if text.startswith("UPDATE _outbox SET state")]
        fetches = [text for text in read.texts if "body" in text]
        assert 1 <= len(marks) <= 1 + MANY // relay.options.window + 2
        assert 2 <= len(fetches) <= 1 + MANY // relay.options.fetch + 3
        assert len(set(marks)) == 1, "One statement for any number, so that it is prepared once."


async def test_nothing_is_read_while_nothing_happens(postgres_database: str) -> None:
    transport = ScriptedTransport()
    async with shop_on(transport, postgres_database, poll=30.0) as app:
        await app.call(PlaceOrder("u", "n"))
        relay: Relay = app.broker.relay()
        await until(lambda: relay.published == 1 and not relay.health()["in_hand"])
        await asyncio.sleep(0.5)
        statements = Statements(app.database.shard().read)
        await asyncio.sleep(1.0)
        assert [text for text in statements.texts if "_outbox" in text] == []
