"""Watchers on real servers, behind a wire that tests can cut, on a clock that stands still."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from afresh.db.watchers import ChannelWatcher, LogKind, Signal, Watcher, open_watcher
from afresh.primitives.clock import use_clock
from afresh.testing import FakeClock
from tests.db.watchers.wire import Wire


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with use_clock(FakeClock()) as clock:
        yield clock


async def until(condition: Callable[[], object], *, within: float = 20.0) -> None:
    """Wait, in real time, until this is so: servers take some."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.001)


@dataclass
class Place:
    """A server, and the watchers of hosts that meet there, by a name that other tests don't use."""

    url: str
    wire: Wire
    watchers: list[ChannelWatcher]
    name: str

    def make(self, *, behind_wire: bool = False, name: str = "") -> ChannelWatcher:
        address = urlsplit(self.url)
        if behind_wire:
            netloc = address.netloc.replace(f":{address.port}", f":{self.wire.port}")
            address = address._replace(netloc=netloc)
        database = self.url if address.scheme.startswith("postgresql") else "sqlite://"
        watcher = open_watcher(
            address.geturl(),
            database_url=database,
            host_id=f"host-{len(self.watchers)}",
            name=f"{self.name} {name}",
        )
        assert isinstance(watcher, ChannelWatcher)
        self.watchers.append(watcher)
        return watcher

    async def started(self, *, behind_wire: bool = False, name: str = "") -> ChannelWatcher:
        watcher = self.make(behind_wire=behind_wire, name=name)
        await watcher.start()
        assert watcher.health()["connected"]
        return watcher


@pytest.fixture(params=["postgres", "valkey", "nats"])
def server_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
async def place(server_url: str, clock: FakeClock) -> AsyncIterator[Place]:
    port = urlsplit(server_url).port
    assert port is not None
    async with Wire(port) as wire:
        place = Place(server_url, wire, [], secrets.token_hex(8))
        yield place
        for watcher in place.watchers:
            await watcher.aclose()
            await watcher.aclose()
        assert clock.timers == 0


def cleared(watcher: Watcher, kind: LogKind = "operations", shard: str = "") -> Signal:
    """A signal of this watcher, of a reader that has looked already."""
    signal = watcher.signal(kind, shard)
    signal.clear()
    return signal
