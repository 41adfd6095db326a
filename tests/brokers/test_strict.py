"""Strict order on PostgreSQL: a message waits for those with lower ids that are not committed."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from afresh import App
from afresh.brokers import RelayOptions
from afresh.brokers.outbox import bucket_of
from tests.brokers.scripted import ScriptedTransport, shop_on, tables_of, until
from tests.brokers.shop import PlaceOrder
from tests.servers.fixtures import fresh_database
from tests.servers.postgresql import PostgreSQL, programs

LAST_NUMBER = 2**32 - 1


@asynccontextmanager
async def open_transaction(url: str) -> AsyncIterator[AsyncConnection]:
    """A transaction that has a number, and is committed at the end of the block."""
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.execute(text("SELECT pg_current_xact_id()"))
        yield connection
    await engine.dispose()


async def write_late(app: App, connection: AsyncConnection, note: str) -> None:
    """Write a message in a transaction that stays open; later ones have higher ids."""
    await connection.execute(
        insert(tables_of(app).outbox),
        {
            "message_id": note,
            "destination": "tests",
            "key": "a",
            "bucket": bucket_of("a"),
            "type": "tests.order_placed.v1",
            "content_type": "application/json",
            "headers": "{}",
            "body": b'{"order_id":0,"user_id":"a","note":"%s"}' % note.encode(),
            "operation_uuid": note,
            "created_at": datetime.now(UTC),
        },
    )


async def test_without_strict_order_what_is_committed_first_goes_first(
    postgres_database: str,
) -> None:
    transport = ScriptedTransport()
    async with shop_on(transport, postgres_database) as app:
        async with open_transaction(postgres_database) as connection:
            await write_late(app, connection, "first")
            await app.call(PlaceOrder("a", "second"))
            await until(lambda: transport.confirmed)
        await until(lambda: len(transport.confirmed) == 2)
    assert transport.confirmed == ["second", "first"]


async def test_what_was_committed_late_goes_before_what_its_key_wrote_then(
    postgres_database: str,
) -> None:
    transport = ScriptedTransport(seconds=0.05)
    transport.is_away = True
    others = [f"n{number:03}" for number in range(150)]
    async with shop_on(transport, postgres_database, window=4, poll=10.0) as app:
        async with open_transaction(postgres_database) as connection:
            await write_late(app, connection, "first")
            await asyncio.gather(*(app.call(PlaceOrder(note, note)) for note in others))
            transport.is_away = False
            await until(lambda: transport.confirmed)
        await app.call(PlaceOrder("a", "second"))
        await until(lambda: len(transport.confirmed) == len(others) + 2)
    assert [note for note in transport.confirmed if note in {"first", "second"}] == [
        "first",
        "second",
    ]


async def test_with_strict_order_the_order_of_ids_is_kept(postgres_database: str) -> None:
    transport = ScriptedTransport()
    async with shop_on(transport, postgres_database, strict=True) as app:
        async with open_transaction(postgres_database) as connection:
            await write_late(app, connection, "first")
            await app.call(PlaceOrder("a", "second"))
            await asyncio.sleep(0.4)
            assert transport.tried == []
        await until(lambda: len(transport.confirmed) == 2)
    assert transport.confirmed == ["first", "second"]


async def test_with_strict_order_a_long_transaction_holds_up_everything_that_came_after(
    postgres_database: str,
) -> None:
    transport = ScriptedTransport()
    async with shop_on(transport, postgres_database, strict=True) as app:
        await app.call(PlaceOrder("a", "before"))
        await until(lambda: transport.confirmed)
        async with open_transaction(postgres_database):
            await app.call(PlaceOrder("b", "after"))
            await asyncio.sleep(0.4)
            assert transport.confirmed == ["before"]
        await until(lambda: len(transport.confirmed) == 2)


async def test_strict_order_is_refused_where_the_database_can_not_tell() -> None:
    with pytest.raises(ValueError, match="PostgreSQL"):
        async with shop_on(ScriptedTransport(), strict=True):
            pass
    assert not RelayOptions().strict


async def freeze(url: str) -> None:
    """Let all that is in the databases of a server be older than any transaction."""
    for database in ("postgres", "template1"):
        engine = create_async_engine(
            make_url(url).set(database=database),
            isolation_level="AUTOCOMMIT",
            poolclass=NullPool,
        )
        async with engine.connect() as connection:
            await connection.execute(text("VACUUM FREEZE"))
        await engine.dispose()


def go_on_from(server: PostgreSQL, number: int) -> None:
    """Have a server number its next transactions from there on, as if so many had been."""
    server.stop()
    page = server.data / "pg_xact" / f"{number // (4 * 8192 * 32):04X}"
    page.write_bytes(bytes(32 * 8192))
    owner = (server.data / "PG_VERSION").stat()
    os.chown(page, owner.st_uid, owner.st_gid)
    numbers = ["-x", str(number), "-u", str(number - 10**6)]
    subprocess.run(
        [programs() / "pg_resetwal", "-f", *numbers, server.data],
        check=True,
        capture_output=True,
        user=server.user,
        cwd="/",
    )
    server.start()


async def test_strict_order_is_kept_where_the_numbers_of_transactions_begin_again(
    postgres_server: PostgreSQL,
) -> None:
    await freeze(postgres_server.url)
    await asyncio.to_thread(go_on_from, postgres_server, LAST_NUMBER - 200)
    transport = ScriptedTransport()
    async with (
        fresh_database(postgres_server.url) as url,
        shop_on(transport, url, strict=True) as app,
    ):
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)

        async def next_number() -> int:
            async with engine.connect() as connection:
                found = await connection.execute(text("SELECT pg_current_xact_id()::text::bigint"))
                return int(found.scalar_one())

        before = await next_number()
        assert before <= LAST_NUMBER - 20
        while await next_number() < LAST_NUMBER - 20:
            pass
        async with open_transaction(url) as connection:
            await write_late(app, connection, "first")
            while await next_number() <= LAST_NUMBER + 10:
                pass
            await app.call(PlaceOrder("a", "second"))
            await asyncio.sleep(0.4)
            assert transport.tried == [], "Its number is lower, and it came later."
        await until(lambda: len(transport.confirmed) == 2)
        await engine.dispose()
    assert transport.confirmed == ["first", "second"]
