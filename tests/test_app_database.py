"""Programs with a database: put together, started, followed by others, and closed."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import String, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afresh import App, ComputeService, compute_method, connect
from afresh.commands import Command, EventCommand, command_handler
from afresh.db import Database
from afresh.errors import InvalidStateError, SchemaError
from afresh.operations import RetryPolicy
from afresh.primitives.delays import RetryDelays
from afresh.primitives.transience import Transience
from afresh.testing import eventually
from tests.rpc.transports.parties import serving


class Base(DeclarativeBase):
    pass


class ItemRow(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))


class Add(Command[int], frozen=True):
    name: str


class AddLater(Command[None], frozen=True):
    name: str


class Added(Command[None], EventCommand, frozen=True):
    name: str


class Busy(Exception):
    transience = Transience.TRANSIENT


class Items(ComputeService):
    @compute_method
    @abstractmethod
    async def names(self) -> tuple[str, ...]: ...

    @command_handler
    @abstractmethod
    async def add(self, command: Add) -> int: ...


class DbItems(Items):
    def __init__(self, database: Database) -> None:
        self.database = database
        self.failures = 0

    @compute_method
    async def names(self) -> tuple[str, ...]:
        async with self.database.read() as session:
            return tuple(await session.scalars(select(ItemRow.name).order_by(ItemRow.id)))

    @command_handler
    async def add(self, command: Add) -> int:
        async with self.database.operation() as op:
            row = ItemRow(name=command.name)
            op.session.add(row)
        if self.failures:
            self.failures -= 1
            raise Busy
        return row.id

    @add.invalidates
    def _(self, command: Add, result: int) -> None:
        self.names()

    @command_handler
    async def add_later(self, command: AddLater) -> None:
        async with self.database.operation() as op:
            op.add_event(Added(command.name))

    @command_handler
    async def on_added(self, event: Added) -> None:
        await self.add(Add(event.name))


def database_at(url: str, **options: Any) -> Database:
    return Database(url, metadata=Base.metadata, create_tables=True, **options)


@pytest.fixture
async def app(any_database: str) -> AsyncIterator[App]:
    async with App(database=database_at(any_database)) as app:
        app.add(DbItems(app.database))
        yield app


async def test_a_command_is_committed_and_seen_by_readers(app: App) -> None:
    items = app.service(Items)
    assert await items.names() == ()
    computed = await items.names.capture()
    assert await app.call(Add("tea")) == 1
    assert not computed.is_consistent
    assert await items.add(Add("cake")) == 2
    assert await items.names() == ("tea", "cake")
    assert not (await app.audit()).stale


async def test_other_hosts_see_what_one_commits(any_database: str, app: App) -> None:
    async with App(database=database_at(any_database)) as other:
        items = other.add(DbItems(other.database))
        computed = await items.names.capture()
        await app.call(Add("tea"))
        async with asyncio.timeout(15):
            await computed.when_invalidated()
        assert await items.names() == ("tea",)
        assert app.operations.host_id != other.operations.host_id


async def test_two_hosts_that_answer_each_other_see_each_other_s_changes(
    postgres_database: str,
) -> None:
    async with App(database=database_at(postgres_database)) as first:
        first.add(DbItems(first.database))
        async with App(database=database_at(postgres_database)) as second:
            second.add(DbItems(second.database))
            hosts = (first, second)
            for number in range(10):
                here, there = hosts[number % 2], hosts[1 - number % 2]
                await here.call(Add(str(number)))
                await until_there_are(there, number + 1, timeout=3)


async def until_there_are(app: App, count: int, *, timeout: float) -> None:
    items = app.service(Items)

    async def check() -> None:
        assert len(await items.names()) == count

    await eventually(check, timeout=timeout)


async def test_an_event_is_handled_once_it_is_committed(app: App) -> None:
    await app.call(AddLater("tea"))
    await until_there_are(app, 1, timeout=15)


async def test_an_app_takes_the_address_of_its_database(tmp_path: Path) -> None:
    app = App(database=f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}")
    with pytest.raises(SchemaError, match="create_tables"):
        await app.start()
    await app.database.create_tables()
    async with app:
        assert app.health()["status"] == "ok"
    assert is_file(str(tmp_path / "shop.db"))


async def test_an_app_takes_an_engine_that_stays_its_maker_s(sqlite_database: str) -> None:
    engine = create_async_engine(sqlite_database)
    async with App(database=Database(engine, metadata=Base.metadata, create_tables=True)) as app:
        app.add(DbItems(app.database))
        await app.call(Add("tea"))
    async with engine.connect() as connection:
        assert (await connection.execute(select(ItemRow.name))).scalars().all() == ["tea"]
    await engine.dispose()


def test_an_app_without_a_database_says_so() -> None:
    with pytest.raises(InvalidStateError, match=r"make it with one, App\(database="):
        _ = App().database


async def test_an_app_is_started_once(sqlite_database: str) -> None:
    app = App(database=database_at(sqlite_database))
    await app.start()
    await app.start()
    await app.aclose()
    await app.aclose()


async def test_a_database_is_for_one_app(sqlite_database: str) -> None:
    database = database_at(sqlite_database)
    app = App(database=database)
    with pytest.raises(InvalidStateError, match="belongs to another app"):
        App(database=database)
    await app.aclose()


async def test_what_goes_on_is_told_by_health(app: App) -> None:
    await app.call(Add("tea"))
    health = app.health()
    assert health["status"] == "ok"
    assert health["operations"]["own"] == 1
    assert health["database"]["name"] == "default"
    assert set(health["database"]["shards"]) == {""}


async def test_a_program_says_how_often_commands_are_tried_again(sqlite_database: str) -> None:
    policy = RetryPolicy(retries=1, delays=RetryDelays.fixed(0))
    async with App(database=database_at(sqlite_database), retries=policy) as app:
        items = app.add(DbItems(app.database))
        items.failures = 1
        await app.call(Add("tea"))
        items.failures = 2
        with pytest.raises(Busy):
            await app.call(Add("cake"))
        assert items.failures == 0
        assert await items.names() == ("tea",)
        assert app.operations.retried == 2


async def test_a_client_that_calls_a_command_reads_what_it_has_changed(app: App) -> None:
    async with serving(app.asgi()) as port, connect(f"ws://127.0.0.1:{port}/rpc/ws") as client:
        items = client.service(Items)
        assert await items.names() == ()
        assert await items.add(Add("tea")) == 1
        assert await items.names() == ("tea",)


async def test_a_temporary_database_goes_with_the_program() -> None:
    async with App(database=database_at("sqlite+aiosqlite://")) as app:
        app.add(DbItems(app.database))
        await app.call(Add("tea"))
        file = app.database.shard().write.url.database
        assert is_file(file)
    assert not is_file(file)


def is_file(name: str | None) -> bool:
    return name is not None and Path(name).is_file()
