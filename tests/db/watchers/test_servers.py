"""Watchers and what is peculiar to each server: restarts, foreign messages, wrong addresses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest
from nats.aio.client import Client as NatsClient
from redis.asyncio import Redis

from afresh.db.watchers import ChannelWatcher, open_watcher
from afresh.db.watchers.nats import NatsWatcher
from afresh.db.watchers.postgres import PostgresWatcher, connect_arguments
from afresh.db.watchers.redis import RedisWatcher
from afresh.testing import FakeClock
from tests.db.watchers.conftest import Place, cleared, until
from tests.servers.nats import Nats
from tests.servers.postgresql import PostgreSQL
from tests.servers.processes import Server
from tests.servers.valkey import Valkey


@pytest.fixture(params=[PostgreSQL, Valkey, Nats])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of this test alone."""
    fixture = {PostgreSQL: "postgres", Valkey: "valkey", Nats: "nats"}[request.param]
    request.getfixturevalue(fixture)  # skips where there is none
    server: Server = request.param()
    server.start()
    yield server
    server.close()


@pytest.mark.parametrize("end", [Server.stop, Server.kill])
async def test_a_server_that_comes_back_is_found_again(
    server: Server, end: Callable[[Server], None], clock: FakeClock
):
    watchers = [
        open_watcher(server.url, database_url="postgresql://a/b", host_id=name)
        for name in ("here", "there")
    ]
    here, there = watchers
    for watcher in watchers:
        await watcher.start()
    signal = cleared(there)
    await asyncio.to_thread(end, server)
    await until(lambda: not any(watcher.health()["connected"] for watcher in watchers))
    here.changed("operations")
    assert not signal.is_set
    for _ in range(3):
        await clock.advance(11)
        await asyncio.sleep(0.01)
    await asyncio.to_thread(server.start)
    async with asyncio.timeout(20):
        while not all(watcher.health()["connected"] for watcher in watchers):
            await clock.advance(1)
            await asyncio.sleep(0.02)
    await until(lambda: here.health()["sent"] == 1)
    assert signal.is_set
    signal.clear()
    here.changed("operations")
    assert await asyncio.wait_for(signal.wait(), 20)
    for watcher in watchers:
        await watcher.aclose()


async def publish(watcher: ChannelWatcher, url: str, *messages: bytes) -> None:
    """Say something on the channel as a stranger would."""
    match watcher:
        case PostgresWatcher():
            connection = await asyncpg.connect(**connect_arguments(url))
            for message in messages:
                text = message.decode(errors="replace").replace("\0", "")
                await connection.execute("SELECT pg_notify($1, $2)", watcher.channel, text)
            await connection.close()
        case RedisWatcher():
            async with Redis.from_url(url) as redis:
                for message in messages:
                    await redis.publish(watcher.channel, message)
        case NatsWatcher():
            nats = NatsClient()
            await nats.connect(url)
            for message in messages:
                await nats.publish(watcher.channel, message)
            await nats.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"null",
        b'["someone"]',
        b'["someone", [["parties", ""]]]',
        b"x" * 7_000,
    ],
)
async def test_what_cannot_be_read_means_that_anything_may_have_changed(
    place: Place, garbage: bytes
):
    there = await place.started()
    signals = [cleared(there), cleared(there, "events", "north")]
    await publish(there, place.url, garbage)
    await asyncio.wait_for(asyncio.gather(*(signal.wait() for signal in signals)), 20)
    assert there.health()["unreadable"] == 1
    assert there.health()["connected"]
    for signal in signals:
        signal.clear()
    here = await place.started()
    here.changed("operations")
    assert await asyncio.wait_for(signals[0].wait(), 20)
    assert not signals[1].is_set


async def test_logs_that_nobody_reads_here_wake_up_nobody(place: Place):
    there = await place.started()
    signal = cleared(there)
    await publish(there, place.url, b'["someone", [["operations", "far away"]]]')
    await until(lambda: there.health()["received"] == 1)
    assert not signal.is_set


WRONG = [
    ("postgresql+asyncpg://127.0.0.1:9/shop?no_such_option=1", "postgresql://"),
    ("redis://127.0.0.1:9", "sqlite://"),
    ("nats://127.0.0.1:9", "sqlite://"),
]


@pytest.mark.parametrize(("spec", "database"), WRONG)
async def test_a_wrong_address_never_keeps_a_host_from_starting(
    spec: str, database: str, clock: FakeClock, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING, "afresh.db")
    watcher = open_watcher(spec, database_url=database)
    await asyncio.wait_for(watcher.start(), 20)
    assert watcher.health()["connected"] is False
    assert watcher.health()["error"]
    assert len(caplog.records) == 1
    signal = cleared(watcher)
    watcher.changed("operations")
    assert signal.is_set
    await watcher.aclose()
    assert clock.timers == 0


async def test_a_session_that_the_database_ends_is_renewed(postgres: str, clock: FakeClock):
    watcher = open_watcher(database_url=postgres)
    await watcher.start()
    signal = cleared(watcher)
    connection: Any = await asyncpg.connect(**connect_arguments(postgres))
    ended = await connection.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE query LIKE 'LISTEN%' AND pid <> pg_backend_pid()"
    )
    await connection.close()
    assert ended == 1
    await until(lambda: not watcher.health()["connected"])
    await clock.advance(1.2)
    assert await asyncio.wait_for(signal.wait(), 20)
    await watcher.aclose()
