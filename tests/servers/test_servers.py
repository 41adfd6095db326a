"""The servers that other tests stand on: they serve, they come back, and they go with the tests."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from tests.servers.fixtures import kill_connections
from tests.servers.postgresql import PostgreSQL


async def answer(url: str, query: str) -> object:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            result = await connection.execute(text(query))
            return result.scalar() if result.returns_rows else None
    finally:
        await engine.dispose()


async def test_each_test_has_an_empty_database_of_its_own(any_database: str) -> None:
    await answer(any_database, "CREATE TABLE things (name VARCHAR(20))")
    await answer(any_database, "INSERT INTO things VALUES ('grüße')")
    assert await answer(any_database, "SELECT name FROM things") == "grüße"


async def test_valkey_passes_messages_on(valkey: str) -> None:
    async with Redis.from_url(valkey) as client, client.pubsub() as subscription:
        await subscription.subscribe("news")
        await client.publish("news", "hello")
        while (message := await subscription.get_message(timeout=5)) is not None:
            if message["type"] == "message":
                break
        assert message is not None
        assert message["data"] == b"hello"


async def test_nats_passes_messages_on(nats: str) -> None:
    client = NatsClient()
    await client.connect(nats)
    subscription = await client.subscribe("news")
    await client.publish("news", b"hello")
    assert (await subscription.next_msg(timeout=5)).data == b"hello"
    await client.close()


async def test_a_restarted_server_has_its_data_and_its_port(postgres_server: PostgreSQL) -> None:
    await answer(postgres_server.url, "CREATE TABLE things (name TEXT)")
    postgres_server.restart()
    await answer(postgres_server.url, "INSERT INTO things VALUES ('kept')")
    postgres_server.kill()
    with pytest.raises(OSError):
        await answer(postgres_server.url, "SELECT name FROM things")
    postgres_server.start()
    assert await answer(postgres_server.url, "SELECT name FROM things") == "kept"


async def test_cut_connections_are_gone(postgres_server: PostgreSQL) -> None:
    engine = create_async_engine(postgres_server.url)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        assert await kill_connections(postgres_server.url) == 1
        with pytest.raises(DBAPIError) as caught:
            await connection.execute(text("SELECT 1"))
        assert caught.value.connection_invalidated
    await engine.dispose()


PROGRAM = """
import sys, time
sys.path[:] = sys.argv[1:]
from tests.servers.valkey import Valkey
server = Valkey()
server.start()
print(server.port, server.folder, flush=True)
time.sleep(60)
"""


def test_servers_and_their_data_go_when_the_tests_are_killed(valkey: str) -> None:
    del valkey  # no server, no test
    tests = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *sys.path],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert tests.stdout is not None
    port, folder = tests.stdout.readline().split()
    assert Path(folder).exists()
    tests.send_signal(signal.SIGKILL)
    tests.communicate()
    until = time.monotonic() + 10
    while Path(folder).exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not Path(folder).exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(port))) != 0
