"""Real servers as fixtures for every test: databases, brokers, and a fresh database for each.

`tests/conftest.py` makes this a plugin. A server starts when the first test asks for it and serves
its whole process (each worker of pytest-xdist has its own); a test that stops or kills PostgreSQL
takes `postgres_server`, which is its alone. AFRESH_TEST_POSTGRES, _MARIADB, _VALKEY, _NATS,
_RABBITMQ, _KAFKA and _SERVICEBUS name servers to use in their place. A test is skipped, with a line
that says how to get it, where there is no server, and fails there under AFRESH_REQUIRE_SERVERS=1.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from .kafka import Kafka
from .mariadb import MariaDB
from .nats import Nats
from .postgresql import PostgreSQL
from .processes import Server, ServerMissing
from .rabbitmq import RabbitMQ
from .servicebus import ServiceBus
from .valkey import Valkey

AnyServer = TypeVar("AnyServer", bound=Server)


def made(server_class: type[AnyServer]) -> AnyServer:
    """A server that is yet to be started; the test is skipped, or fails, where there is none."""
    try:
        return server_class()
    except ServerMissing as error:
        message = str(error)
    if os.environ.get("AFRESH_REQUIRE_SERVERS") == "1":
        pytest.fail(message)
    pytest.skip(message)


def _served(server_class: type[Server]) -> Iterator[str]:
    """The URL that the environment names for this server, or that of a server of our own."""
    named = os.environ.get(f"AFRESH_TEST_{server_class.variable}")
    if named:
        yield named
        return
    server = made(server_class)
    server.start()
    yield server.url
    server.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL: `postgresql+asyncpg://…`, of its maintenance database."""
    yield from _served(PostgreSQL)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[str]:
    """The URL of a MariaDB: `mysql+asyncmy://…`."""
    yield from _served(MariaDB)


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The URL of a Valkey: `redis://…`."""
    yield from _served(Valkey)


@pytest.fixture(scope="session")
def nats() -> Iterator[str]:
    """The URL of a NATS: `nats://…`."""
    yield from _served(Nats)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[str]:
    """The URL of a RabbitMQ: `amqp://…`."""
    yield from _served(RabbitMQ)


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """The URL of a broker that speaks Kafka's protocol: `kafka://…`; not idempotent."""
    yield from _served(Kafka)


@pytest.fixture(scope="session")
def servicebus() -> Iterator[str]:
    """The URL of a namespace of Azure Service Bus: `servicebus://…`."""
    yield from _served(ServiceBus)


@pytest.fixture
def postgres_server() -> Iterator[PostgreSQL]:
    """A running PostgreSQL of this test alone: to be stopped, killed, restarted."""
    server = made(PostgreSQL)
    server.start()
    yield server
    server.close()


@asynccontextmanager
async def fresh_database(server_url: str) -> AsyncIterator[str]:
    """A new database on this server, by its URL; dropped at the end, whoever still uses it."""
    name = f"afresh_{secrets.token_hex(8)}"
    url = make_url(server_url)
    force = " WITH (FORCE)" if url.get_backend_name() == "postgresql" else ""
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    yield url.set(database=name).render_as_string(hide_password=False)
    async with engine.connect() as connection:
        await connection.execute(text(f"DROP DATABASE {name}{force}"))
    await engine.dispose()


@pytest.fixture
async def postgres_database(postgres: str) -> AsyncIterator[str]:
    """The URL of a fresh, empty database on PostgreSQL."""
    async with fresh_database(postgres) as url:
        yield url


@pytest.fixture
async def mariadb_database(mariadb: str) -> AsyncIterator[str]:
    """The URL of a fresh, empty database on MariaDB."""
    async with fresh_database(mariadb) as url:
        yield url


@pytest.fixture
def sqlite_database(tmp_path: Path) -> str:
    """The URL of a file that SQLite will make."""
    return f"sqlite+aiosqlite:///{tmp_path / 'database.sqlite'}"


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def any_database(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh, empty database: the test runs on SQLite, PostgreSQL and MariaDB."""
    url: str = request.getfixturevalue(f"{request.param}_database")
    return url


async def kill_connections(server_url: str) -> int:
    """Cut all other clients of a PostgreSQL from it; returns how many there were."""
    engine = create_async_engine(server_url, poolclass=NullPool)
    async with engine.connect() as connection:
        cut = await connection.execute(
            text(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        )
        number: int = cut.scalar_one()
    await engine.dispose()
    return number
