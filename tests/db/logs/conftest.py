from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from afresh.db.logs import OperationLogOptions
from afresh.db.shards import open_shard
from afresh.primitives.clock import use_clock
from afresh.testing import FakeClock
from tests.db.logs.world import Host, Log


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with use_clock(FakeClock()) as clock:
        yield clock


@pytest.fixture
async def log(sqlite_database: str) -> AsyncIterator[Log]:
    """The logs of a fresh SQLite file."""
    shard = open_shard("", sqlite_database)
    made = Log(shard)
    await made.create()
    yield made
    await shard.aclose()


@pytest.fixture
async def any_log(any_database: str) -> AsyncIterator[Log]:
    """The logs of a fresh database: SQLite, PostgreSQL and MariaDB, one after the other."""
    shard = open_shard("", any_database)
    made = Log(shard)
    await made.create()
    yield made
    await shard.aclose()


@pytest.fixture
async def start_host() -> AsyncIterator[Callable[..., object]]:
    """Makes hosts that follow a log, and stops them in the end."""
    hosts: list[Host] = []

    async def start(log: Log, name: str = "B", options: OperationLogOptions | None = None) -> Host:
        host = Host(log, name, options)
        hosts.append(host)
        await host.reader.start()
        return host

    yield start
    for host in hosts:
        for event in host.blocked.values():
            event.set()
        await host.reader.aclose()
