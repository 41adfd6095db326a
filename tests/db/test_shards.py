"""Shards come and go while they are in use, and leave no connection and no file behind."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import create_async_engine

from afresh import ComputeService, capture, compute_method
from afresh.db.read_only import read_session
from afresh.db.shard_registry import ShardRegistry
from afresh.db.shards import Shard, open_shard
from afresh.errors import InvalidStateError
from tests.db.shop import ItemRow, shard_with_items

MEMORY = "sqlite+aiosqlite://"


def folder_of(shard: Shard) -> Path:
    return Path(shard.write.url.database or "").parent


async def ask(shard: Shard) -> int:
    async with read_session(shard) as session:
        number: int = (await session.execute(text("SELECT 42"))).scalar_one()
        return number


# --- One shard ---------------------------------------------------------------


async def test_a_database_in_memory_is_a_temporary_file_that_goes_when_it_is_closed():
    async with shard_with_items(MEMORY) as shard:
        folder = folder_of(shard)
        assert folder.is_dir()
        async with read_session(shard) as session:  # another connection, and the same data
            assert len((await session.scalars(select(ItemRow))).all()) == 3
    assert not folder.exists()


async def test_databases_in_memory_have_nothing_to_do_with_each_other():
    async with shard_with_items(MEMORY, 1) as one, shard_with_items(MEMORY, 2) as two:
        async with read_session(one) as session:
            assert len((await session.scalars(select(ItemRow))).all()) == 1
        assert folder_of(one) != folder_of(two)


def test_a_temporary_file_goes_with_its_shard_though_nobody_closes_it():
    shard = open_shard("", MEMORY)
    folder = folder_of(shard)
    assert folder.is_dir()
    del shard
    gc.collect()
    assert not folder.exists()


async def test_a_file_stays_when_its_shard_is_closed(sqlite_database: str):
    async with shard_with_items(sqlite_database):
        pass
    async with shard_with_items(sqlite_database, 0) as shard, read_session(shard) as session:
        assert len((await session.scalars(select(ItemRow))).all()) == 3


async def test_a_closed_shard_gives_no_connections_and_can_be_closed_again(any_database: str):
    async with shard_with_items(any_database) as shard:
        assert not shard.is_closed
    await shard.aclose()
    assert shard.is_closed
    with pytest.raises(InvalidStateError, match="closed"):
        await shard.connect()


async def test_closing_waits_for_connections_in_use(any_database: str):
    async with shard_with_items(any_database) as shard:
        async with aclosing(await shard.connect()) as connection:
            await connection.execute(text("SELECT 1"))
            closing = asyncio.ensure_future(shard.aclose())
            await asyncio.sleep(0.05)
            assert not closing.done()
            assert await connection.scalar(text("SELECT 2")) == 2
        await closing


async def test_closing_gives_up_on_connections_that_do_not_come_back(
    caplog: pytest.LogCaptureFixture,
):
    shard = open_shard("", MEMORY)
    async with aclosing(await shard.connect()):
        with caplog.at_level(logging.WARNING, "afresh.db"):
            await shard.aclose(patience=0.05)
        assert "are in use" in caplog.text
        assert not folder_of(shard).exists()
    # What came back late is closed with the pool that it came back to.


async def test_closing_that_is_cancelled_closes_nevertheless(sqlite_database: str):
    shard = open_shard("", sqlite_database)
    async with aclosing(await shard.connect()) as connection:
        closing = asyncio.ensure_future(shard.aclose())
        await asyncio.sleep(0.01)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await connection.invalidate()
    with pytest.raises(InvalidStateError):
        await shard.connect()


def test_an_unknown_database_is_refused_at_once():
    with pytest.raises(ValueError, match="doesn't know"):
        open_shard("", "mssql+aioodbc://localhost/shop")


def test_a_shard_shows_no_password():
    shard = open_shard("", "postgresql+asyncpg://me:secret@localhost/shop")
    assert "secret" not in repr(shard)


# --- The registry ------------------------------------------------------------


@pytest.fixture
async def shards() -> AsyncIterator[ShardRegistry]:
    shards = ShardRegistry(database_name="shop")
    yield shards
    await shards.aclose()


async def test_a_shard_is_made_when_it_is_first_used_and_then_kept(shards: ShardRegistry):
    shards.add("berlin", MEMORY)
    assert shards.names.value == {"berlin"}
    assert shards.used_names.value == frozenset()
    shard = shards.use("berlin")
    assert (shard.name, shard.database_name) == ("berlin", "shop")
    assert shards.used_names.value == {"berlin"}
    assert shards.use("berlin") is shard
    assert await ask(shard) == 42


async def test_a_shard_that_is_not_there_is_refused_and_leaves_no_trace(shards: ShardRegistry):
    shards.add("berlin", MEMORY)
    for _ in range(3):
        with pytest.raises(LookupError, match=r"'paris'.*add it"):
            shards.use("paris")
    assert not shards.can_use("paris")
    assert list(shards) == ["berlin"]
    assert shards.names.value == {"berlin"}
    assert shards.used_names.value == frozenset()
    assert not shards._used


async def test_a_second_shard_of_the_same_name_is_refused(shards: ShardRegistry):
    shards.add("berlin", MEMORY)
    with pytest.raises(ValueError, match="already"):
        shards.add("berlin", MEMORY)
    with pytest.raises(ValueError, match="doesn't know"):
        shards.add("paris", "mssql+aioodbc://localhost/shop")
    assert len(shards) == 1


async def test_first_uses_at_the_same_time_get_the_same_shard(shards: ShardRegistry):
    shards.add("berlin", MEMORY)

    async def use() -> Shard:
        shard = shards.use("berlin")
        assert await ask(shard) == 42
        return shard

    assert len(set(await asyncio.gather(*(use() for _ in range(20))))) == 1


async def test_a_shard_that_was_removed_is_closed_and_refused(shards: ShardRegistry):
    shards.add("berlin", MEMORY)
    shard = shards.use("berlin")
    assert await ask(shard) == 42
    assert await shards.remove("berlin")
    assert shard.is_closed
    assert not folder_of(shard).exists()
    assert shards.names.value == shards.used_names.value == frozenset()
    with pytest.raises(LookupError):
        shards.use("berlin")
    assert not await shards.remove("berlin")


async def test_a_shard_that_was_never_used_is_removed_without_being_made(shards: ShardRegistry):
    shards.add("berlin", "postgresql+nosuchdriver://localhost/shop")
    assert await shards.remove("berlin")


async def test_a_shard_is_refused_from_the_moment_it_is_removed_though_it_is_still_in_use(
    shards: ShardRegistry,
):
    shards.add("berlin", MEMORY)
    shard = shards.use("berlin")
    async with aclosing(await shard.connect()) as connection:
        removing = asyncio.ensure_future(shards.remove("berlin"))
        await asyncio.sleep(0.01)
        assert not removing.done()
        with pytest.raises(LookupError):
            shards.use("berlin")
        with pytest.raises(InvalidStateError):
            read_session(shard)
        assert await connection.scalar(text("SELECT 1")) == 1
    await removing


async def test_a_shard_can_be_added_anew_while_the_old_one_closes(shards: ShardRegistry):
    shards.add("berlin", MEMORY)
    old = shards.use("berlin")
    async with aclosing(await old.connect()):
        removing = asyncio.ensure_future(shards.remove("berlin"))
        await asyncio.sleep(0.01)
        shards.add("berlin", MEMORY)
        new = shards.use("berlin")
        assert new is not old
        assert await ask(new) == 42
    await removing
    assert shards.use("berlin") is new
    assert await ask(new) == 42
    assert folder_of(new).exists()


async def test_a_shard_that_is_removed_twice_at_once_goes_once(shards: ShardRegistry):
    shards.add("berlin", MEMORY)
    shards.use("berlin")
    assert await asyncio.gather(shards.remove("berlin"), shards.remove("berlin")) == [True, False]


async def test_closing_closes_all_shards_and_those_that_are_being_removed(shards: ShardRegistry):
    for name in ("berlin", "paris", "rome"):
        shards.add(name, MEMORY)
    berlin, paris = shards.use("berlin"), shards.use("paris")
    connection = await berlin.connect()
    removing = asyncio.ensure_future(shards.remove("berlin"))
    await asyncio.sleep(0.01)
    closing = asyncio.ensure_future(shards.aclose())
    await asyncio.sleep(0.05)
    assert not closing.done()
    await connection.close()
    await closing
    await removing
    for shard in (berlin, paris):
        assert not folder_of(shard).exists()
    assert shards.names.value == frozenset()
    with pytest.raises(InvalidStateError, match="closed"):
        shards.use("rome")
    with pytest.raises(InvalidStateError, match="closed"):
        shards.add("oslo", MEMORY)
    await shards.aclose()


async def test_a_shard_that_fails_to_close_keeps_no_other_open(
    shards: ShardRegistry, monkeypatch: pytest.MonkeyPatch
):
    for name in ("berlin", "paris"):
        shards.add(name, MEMORY)
        await ask(shards.use(name))
    berlin, paris = shards.use("berlin"), shards.use("paris")
    pool: Any = berlin.read.sync_engine.pool
    dispose = pool.dispose

    def fail() -> None:
        dispose()
        raise OSError("no")

    monkeypatch.setattr(pool, "dispose", fail)
    with pytest.raises(ExceptionGroup, match="could not be closed"):
        await shards.aclose()
    for shard in (berlin, paris):
        assert not folder_of(shard).exists()


async def test_an_engine_of_the_users_own_outlives_its_shard(
    shards: ShardRegistry, sqlite_database: str
):
    engine = create_async_engine(sqlite_database)
    shards.add("berlin", engine)
    assert await ask(shards.use("berlin")) == 42
    await shards.remove("berlin")
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 42")) == 42
    await engine.dispose()


async def test_a_filter_chooses_the_shards_whose_events_are_handled(shards: ShardRegistry):
    for name in ("a-1", "a-2", "b-1"):
        shards.add(name, MEMORY)
    assert shards.event_names.value == {"a-1", "a-2", "b-1"}
    shards.set_event_filter(lambda name: name.startswith("a-"))
    assert shards.event_names.value == {"a-1", "a-2"}
    shards.add("a-3", MEMORY)
    await shards.remove("a-1")
    assert shards.event_names.value == {"a-2", "a-3"}


class Tenants(ComputeService):
    def __init__(self, shards: ShardRegistry) -> None:
        self.shards = shards

    @compute_method
    async def names(self) -> list[str]:
        return sorted(self.shards.names.use())

    @compute_method
    async def answer(self, name: str) -> int:
        return await ask(self.shards.use(name))


async def test_what_is_computed_from_the_shards_goes_stale_when_they_come_and_go(
    shards: ShardRegistry,
):
    tenants = Tenants(shards)
    assert await tenants.names() == []
    shards.add("berlin", MEMORY)
    assert await tenants.names() == ["berlin"]
    computed = await capture(tenants.names)
    shards.use("berlin")
    assert computed.is_consistent
    await shards.remove("berlin")
    assert not computed.is_consistent
    assert await tenants.names() == []


async def test_a_cached_error_about_a_shard_that_is_missing_goes_when_it_is_added(
    shards: ShardRegistry,
):
    tenants = Tenants(shards)
    with pytest.raises(LookupError):
        await tenants.answer("berlin")
    shards.add("berlin", MEMORY)
    assert await tenants.answer("berlin") == 42
