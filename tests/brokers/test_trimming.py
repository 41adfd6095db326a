"""What is kept of messages, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import MetaData, func, insert, select

from afresh.brokers.inbox import InboxTrimmer, OutboxTrimmer
from afresh.brokers.tables import BrokerTables, OutboxState, add_broker_tables
from afresh.db.shards import Shard, open_shard


async def made(url: str) -> tuple[Shard, BrokerTables]:
    metadata = MetaData()
    tables = add_broker_tables(metadata)
    shard = open_shard("", url)
    async with shard.write.begin() as connection:
        await connection.run_sync(metadata.create_all)
    return shard, tables


async def test_the_inbox_forgets_what_was_handled_long_ago(any_database: str) -> None:
    shard, tables = await made(any_database)
    now = datetime.now(UTC)
    rows = [
        {"group": "g", "source": "/s", "message_id": f"m{n}", "handled_at": now - timedelta(days=n)}
        for n in range(10)
    ]
    async with shard.write.begin() as connection:
        await connection.execute(insert(tables.inbox), rows)
    trimmer = InboxTrimmer(shard, tables, keep=4.5 * 86400)
    assert not await trimmer.trim_batch()
    async with shard.read.connect() as connection:
        left = set(await connection.scalars(select(tables.inbox.c.message_id)))
    assert left == {"m0", "m1", "m2", "m3", "m4"}
    assert trimmer.trimmed == 5
    await shard.aclose()


async def test_the_outbox_forgets_what_was_published_long_ago_and_nothing_else(
    any_database: str,
) -> None:
    shard, tables = await made(any_database)
    old = datetime.now(UTC) - timedelta(days=3)
    rows = [
        {
            "message_id": f"m{n}",
            "destination": "d",
            "key": None,
            "bucket": 0,
            "type": "t",
            "content_type": "application/json",
            "headers": "{}",
            "body": b"{}",
            "operation_uuid": "u",
            "created_at": old,
            "state": state,
            "published_at": published_at,
        }
        for n, (state, published_at) in enumerate(
            [
                (OutboxState.NEW, None),
                (OutboxState.DEAD, None),
                (OutboxState.PUBLISHED, old),
                (OutboxState.PUBLISHED, datetime.now(UTC)),
            ]
        )
    ]
    async with shard.write.begin() as connection:
        await connection.execute(insert(tables.outbox), rows)
    trimmer = OutboxTrimmer(shard, tables, keep=86400)
    assert not await trimmer.trim_batch()
    async with shard.read.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(tables.outbox)) == 3
        gone = select(tables.outbox.c.id).where(tables.outbox.c.message_id == "m2")
        assert (await connection.execute(gone)).first() is None
    await shard.aclose()
