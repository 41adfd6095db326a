"""Transports of every broker, each connected to the real thing."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from afresh.brokers import MemoryTransport, Transport, open_transport
from afresh.brokers.transports import kafka_subscribed
from afresh.brokers.transports.memory import MemoryBroker
from tests.hosts.post import Post, post_between

TRANSPORTS = ["memory", "rabbitmq", "nats", "redis", "kafka", "servicebus"]
_SERVERS = {"redis": "valkey"}
_OPTIONS: dict[str, dict[str, Any]] = {"kafka": {"idempotent": False}}  # Tansu can't


@pytest.fixture(autouse=True)
def short_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tansu lets nobody into a group before the session of who left it would have ended."""
    monkeypatch.setattr(kafka_subscribed, "SESSION_SECONDS", 2.0)


@pytest.fixture(params=TRANSPORTS)
async def connect_transport(
    request: pytest.FixtureRequest,
) -> AsyncIterator[Callable[[], Transport]]:
    """Makes transports that are connected to one broker; they are closed at the end."""
    made: list[Transport] = []
    if request.param == "memory":
        broker = MemoryBroker()
        url = "memory://"
    else:
        url = request.getfixturevalue(_SERVERS.get(request.param, request.param))

    def make() -> Transport:
        if url == "memory://":
            made.append(MemoryTransport(broker=broker))
        else:
            made.append(open_transport(url, **_OPTIONS.get(request.param, {})))
        return made[-1]

    yield make
    for transport in made:
        await transport.aclose()


@pytest.fixture
async def any_transport(connect_transport: Callable[[], Transport]) -> Transport:
    """A transport that is started."""
    transport = connect_transport()
    await transport.start()
    return transport


@pytest.fixture
async def post(postgres: str, rabbitmq: str, tmp_path: Path) -> AsyncIterator[Post]:
    """Processes that send and receive letters, on PostgreSQL and RabbitMQ."""
    async with post_between(postgres, rabbitmq, tmp_path) as post:
        yield post


@pytest.fixture
def destination() -> str:
    """A name that no other test uses."""
    return f"test-{secrets.token_hex(6)}"
