"""Desks on every database.

A database of their own for each test would take longer than the tests do, so on servers they share
one, which is emptied in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.db.desk import Host, create_tables, desk_at
from tests.servers.fixtures import fresh_database


def shared_on(server: str) -> Iterator[str]:
    """The URL of a database on a server, with the tables of a desk, for all tests."""
    with asyncio.Runner() as runner:
        context = fresh_database(server)
        url = runner.run(context.__aenter__())
        runner.run(create_tables(url))
        yield url
        runner.run(context.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def postgres_desk(postgres: str) -> Iterator[str]:
    """The URL of a database on PostgreSQL with the tables of a desk."""
    yield from shared_on(postgres)


@pytest.fixture(scope="session")
def mariadb_desk(mariadb: str) -> Iterator[str]:
    """The URL of a database on MariaDB with the tables of a desk."""
    yield from shared_on(mariadb)


@pytest.fixture
def sqlite_desk(sqlite_database: str) -> str:
    """The URL of a database for a desk on SQLite."""
    return sqlite_database


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def any_desk(request: pytest.FixtureRequest) -> str:
    """The URL of a database for a desk, on SQLite, PostgreSQL and MariaDB."""
    url: str = request.getfixturevalue(f"{request.param}_desk")
    return url


@pytest.fixture
async def host(any_desk: str) -> AsyncIterator[Host]:
    """A desk on SQLite, PostgreSQL and MariaDB."""
    async with desk_at(any_desk) as host:
        yield host


@pytest.fixture
async def lone_host(sqlite_desk: str) -> AsyncIterator[Host]:
    """A desk for what has nothing to do with the kind of database."""
    async with desk_at(sqlite_desk) as host:
        yield host
