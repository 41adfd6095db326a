"""A watcher survives whatever a library does to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import pytest

from afresh.db.watchers import ChannelConnection, ChannelWatcher
from afresh.testing import FakeClock
from tests.db.watchers.conftest import cleared


class Connection:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error
        self.closed = 0

    async def send(self, message: str) -> None:
        if self.error is not None:
            raise self.error

    async def check(self) -> None:
        await self.send("")

    async def aclose(self) -> None:
        self.closed += 1
        raise OSError("broken")


class Fragile(ChannelWatcher):
    """Connects as often as there are errors, each of which ends a connection, and once more."""

    kind: ClassVar[str] = "fragile"

    def __init__(self, *errors: BaseException | None) -> None:
        super().__init__()
        self.connections = [Connection(error) for error in errors]
        self.connected = 0
        self.lost: Callable[[str], None] = str

    async def _connect(
        self, hear: Callable[[str | bytes], None], lost: Callable[[str], None]
    ) -> ChannelConnection:
        self.lost = lost
        self.connected += 1
        return self.connections[self.connected - 1]


@pytest.mark.parametrize(
    "error", [ValueError("odd"), asyncio.CancelledError(), TimeoutError(), ConnectionError()]
)
async def test_any_error_of_a_connection_leads_to_a_new_one(error: BaseException, clock: FakeClock):
    watcher = Fragile(error, None)
    await watcher.start()
    signal = cleared(watcher)
    watcher.changed("operations")
    await clock.settle()
    assert watcher.health()["connected"] is False
    assert watcher.health()["error"]
    assert watcher.connections[0].closed == 1
    signal.clear()
    await clock.advance(1.2)
    assert watcher.health()["connected"] is True
    assert watcher.health()["sent"] == 1
    assert signal.is_set
    await watcher.aclose()
    assert watcher.connections[1].closed == 1


async def test_attempts_become_rarer_until_a_connection_lasts(clock: FakeClock):
    watcher = Fragile(*[None] * 30)
    await watcher.start()
    times = []
    for _ in range(10):
        begin = clock.now()
        watcher.lost("gone")
        await clock.settle()
        while not watcher.health()["connected"]:
            await clock.advance(clock.next_due - clock.now())
        times.append(clock.now() - begin)
    assert 0.9 <= times[0] <= 1.1
    assert all(first * 1.1 < second for first, second in pairwise(times[:6]))
    assert all(9 <= time <= 11 for time in times[-2:])
    await clock.advance(11)
    watcher.lost("gone")
    watcher.lost("and gone")
    await clock.advance(1.2)
    assert watcher.health()["connected"]
    await watcher.aclose()


async def test_a_task_that_is_cancelled_from_outside_ends(clock: FakeClock):
    watcher = Fragile(None)
    await watcher.start()
    task = watcher._task
    assert task is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert watcher.connections[0].closed == 1
    await watcher.aclose()
