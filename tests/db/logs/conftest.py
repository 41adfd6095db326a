from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from afresh.db.logs import OperationLogOptions
from afresh.db.shards import open_shard
from afresh.primitives.clock import use_clock
from afresh.testing import FakeClock
from tests.db.logs.world import Host, Log, idle


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with use_clock(FakeClock()) as clock:
        yield clock


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Log]:
    shard = open_shard("", url)
    log = Log(shard)
    await log.create()
    try:
        yield log
    finally:
        await shard.aclose()


@pytest.fixture
async def log(sqlite_database: str) -> AsyncIterator[Log]:
    """The logs of a fresh SQLite file."""
    async with opened(sqlite_database) as log:
        yield log


@pytest.fixture
async def any_log(any_database: str) -> AsyncIterator[Log]:
    """The logs of a fresh database: SQLite, PostgreSQL and MariaDB, one after the other."""
    async with opened(any_database) as log:
        yield log


@pytest.fixture(params=["postgres", "mariadb"])
def server_database(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh database with more than one writer at a time."""
    url: str = request.getfixturevalue(f"{request.param}_database")
    return url


@pytest.fixture
async def server_log(server_database: str) -> AsyncIterator[Log]:
    """The logs of a fresh database with more than one writer at a time."""
    async with opened(server_database) as log:
        yield log


@pytest.fixture
async def postgres_log(postgres_database: str) -> AsyncIterator[Log]:
    """The logs of a fresh database on PostgreSQL."""
    async with opened(postgres_database) as log:
        yield log


@pytest.fixture
async def start_host() -> AsyncIterator[Callable[..., object]]:
    """Makes hosts that follow a log, and stops them in the end."""
    hosts: list[Host] = []

    async def start(log: Log, name: str = "B", options: OperationLogOptions | None = None) -> Host:
        host = Host(log, name, options)
        hosts.append(host)
        await host.reader.start()
        await idle(host.reader)  # or its first round would take in some of what a test adds
        return host

    yield start
    for host in hosts:
        for event in host.blocked.values():
            event.set()
        await host.reader.aclose()
