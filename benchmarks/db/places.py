"""Where items are kept: databases for plain SQLAlchemy and for afresh, side by side."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from afresh import App
from afresh.db import Database
from benchmarks.db.services import Base, Items, PlainItems

CONNECTIONS = 20
"""Connections of a pool: afresh has ten for commands and ten for reads."""

_numbers = itertools.count()


@dataclass(frozen=True)
class Place:
    """A kind of database with the services on it."""

    name: str
    plain: PlainItems
    app: App
    items: Items


class Places:
    """The kinds of databases that there are: SQLite, and PostgreSQL if it runs.

    Arguments:
        postgresql: URL of a database whose user may create others.
    """

    def __init__(self, postgresql: str | None) -> None:
        self.postgresql = postgresql
        self.folder = tempfile.TemporaryDirectory(prefix="afresh-bench-")

    async def open(self) -> list[Place]:
        """Set everything up anew."""
        return [await self._open(name) for name in ("SQLite", "PostgreSQL") if self._has(name)]

    def _has(self, name: str) -> bool:
        return name == "SQLite" or self.postgresql is not None

    async def url(self, name: str) -> str:
        """The URL of a new, empty database."""
        if name == "SQLite":
            return f"sqlite+aiosqlite:///{Path(self.folder.name, _unused_name())}.db"
        assert self.postgresql is not None
        return await new_database(self.postgresql)

    async def _open(self, name: str) -> Place:
        engine = plain_engine(await self.url(name))
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        plain = PlainItems(async_sessionmaker(engine, expire_on_commit=False))
        app = App(database=Database(await self.url(name), create_tables=True))
        async with app.database.shard().write.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await app.start()
        return Place(name, plain, app, app.add(Items(app.database)))


def _unused_name() -> str:
    return f"bench_{os.getpid()}_{next(_numbers)}"


async def new_database(postgresql: str) -> str:
    """The URL of a new database of PostgreSQL, made by a user who may do that."""
    url = make_url(postgresql)
    server = await asyncpg.connect(
        url.set(drivername="postgresql").render_as_string(hide_password=False)
    )
    name = _unused_name()
    await server.execute(f"CREATE DATABASE {name}")
    await server.close()
    return url.set(database=name).render_as_string(hide_password=False)


async def close(places: list[Place]) -> None:
    """Let go of all connections."""
    for place in places:
        await place.app.aclose()
        engine: Any = place.plain.sessions.kw["bind"]
        await engine.dispose()
    await asyncio.sleep(0)


def plain_engine(url: str) -> AsyncEngine:
    """An engine as SQLAlchemy's documentation makes one, with write-ahead mode for SQLite."""
    engine = create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine.sync_engine, "connect")
        def connect(connection: Any, record: object) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.close()

    return engine
