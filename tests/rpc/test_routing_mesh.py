"""Hosts that come and go, and services whose shards wander among them.

What the reference's mesh sample does, on a clock that a test moves: nobody hears of a change at
once, hosts die in the midst of calls, and still every read catches up with the truth in a few
steps, and nothing is left over.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from abc import abstractmethod
from collections import Counter as Tally
from typing import Any

import pytest

from afresh import Computed, ComputeService, compute_method
from afresh.graph.synchronizer import PRECISE
from afresh.primitives.clock import current_clock
from afresh.primitives.tasks import background_tasks
from afresh.remote import ComputeCalls, MemoryCache
from afresh.rpc.hub import RpcHub
from afresh.rpc.routing import ShardTargets, Target, hosted
from afresh.rpc.transports.memory import MemoryConnector
from afresh.testing import FakeClock

SHARDS = 12
KEYS = 20
WORKERS = 5
PATIENCE = 30.0
"""Seconds after which a call that should have ended elsewhere is taken for stuck."""


class Counters(ComputeService):
    """What the mesh serves."""

    @compute_method
    @abstractmethod
    async def get(self, key: int) -> int: ...

    @abstractmethod
    async def increment(self, key: int) -> int: ...


class Store(ComputeService):
    """What all hosts keep their data in."""

    def __init__(self) -> None:
        self.values: Tally[int] = Tally()

    @compute_method
    async def get(self, key: int) -> int:
        return self.values[key]

    def increment(self, key: int) -> int:
        self.values[key] += 1
        self.get.invalidate(key)
        return self.values[key]


class HostedCounters(Counters):
    """What a host does for its shards."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    async def get(self, key: int) -> int:
        await self.mesh.pause(0.1)
        return await self.mesh.store.get(key)

    async def increment(self, key: int) -> int:
        await self.mesh.pause(0.3)
        return self.mesh.store.increment(key)


class Member:
    """A process that calls the service, and perhaps serves some of its shards.

    Args:
        mesh: what it is part of.
        name: what others know it by.
        is_host: whether it serves.
        has_cache: whether it shares a cache of results with others.
    """

    def __init__(self, mesh: Mesh, name: str, *, is_host: bool, has_cache: bool) -> None:
        self.mesh = mesh
        self.name = name
        self.shards = ShardTargets(
            SHARDS, mesh.names, peer_url=self._url, settling=1.0 if is_host else 0.0
        )
        self.hub = RpcHub(
            kinds=[ComputeCalls(mesh.cache if has_cache else None)],
            middleware=[hosted(self.route)] if is_host else [],
            connectors=mesh.connector,
        )
        local = HostedCounters(mesh) if is_host else None
        if local is not None:
            self.hub.serve(Counters, local)  # type: ignore[type-abstract]
        self.counters = self.hub.service(Counters, self.route, local=local)  # type: ignore[type-abstract]
        self.busy_since: dict[int, float] = {}
        self.workers = [asyncio.ensure_future(self._work(number)) for number in range(WORKERS)]

    def _url(self, name: str) -> str | None:
        return None if name == self.name else name

    def route(self, method: Any, arguments: tuple[Any, ...]) -> Target:
        return self.shards.target(arguments[0] % SHARDS)

    async def _work(self, number: int) -> None:
        while True:
            self.busy_since[number] = current_clock().now()
            key = self.mesh.random.randrange(KEYS)
            if self.mesh.random.random() < 0.25:
                await self.counters.increment(key)
            else:
                await self._read(key)
            self.mesh.done += 1
            await self.mesh.pause(0.5)

    async def _read(self, key: int) -> None:
        computed = await self.counters.get.capture(key)
        truth = self.mesh.store.values[key]
        steps = 0
        while computed.value < truth:
            if computed.is_consistent and PRECISE.is_synchronized(computed):
                steps += 1
            assert steps <= 5, f"{self.name} reads {computed} of {key}, and {truth} is true"
            await current_clock().sleep(0.2)
            await confirmed_or_stale(computed)
            computed = await computed.update()

    def check(self) -> None:
        """Make sure that no worker failed or waits for something that never comes."""
        for worker in self.workers:
            if worker.done():
                worker.result()
        now = current_clock().now()
        for number, since in self.busy_since.items():
            assert now - since < PATIENCE, f"{self.name}: worker {number} is stuck since {since}"

    async def rest(self) -> None:
        """Call nobody any more."""
        for worker in self.workers:
            worker.cancel()
        await asyncio.gather(*self.workers, return_exceptions=True)
        self.workers.clear()  # what they held in the end, they hold as long as they are there

    async def die(self) -> None:
        for worker in self.workers:
            worker.cancel()
        await self.hub.aclose()
        await self.rest()


async def confirmed_or_stale(computed: Computed[Any]) -> None:
    """Return when a result is known to be right, or wrong."""
    tasks = {
        asyncio.ensure_future(PRECISE.when_synchronized(computed)),
        asyncio.ensure_future(computed.when_invalidated()),
    }
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


class Mesh:
    """All members, and who knows of whom."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.store = Store()
        self.cache = MemoryCache()
        self.names: list[str] = []
        self.hosts: dict[str, Member] = {}
        self.connectors: dict[str, MemoryConnector] = {}
        self.done = 0
        self.moves = 0
        self.deaths = 0
        self._last = 0
        self._news: set[asyncio.Task[None]] = set()
        self.client = Member(self, "client", is_host=False, has_cache=True)

    async def pause(self, longest: float) -> None:
        await current_clock().sleep(self.random.uniform(0, longest))

    def connector(self, name: str) -> MemoryConnector:
        return self.connectors[name]

    def members(self) -> list[Member]:
        return [self.client, *self.hosts.values()]

    async def run(self, seconds: float) -> None:
        """Start hosts, each of which lives for a while."""
        clock = current_clock()
        until = clock.now() + seconds
        lives: set[asyncio.Task[None]] = set()
        try:
            while clock.now() < until:
                if len(self.hosts) < 8:
                    lives.add(asyncio.ensure_future(self._live()))
                await clock.sleep(self.random.uniform(0.5, 1.5))
                for member in self.members():
                    member.check()
        finally:
            for task in lives | self._news:
                task.cancel()
            await asyncio.gather(*lives, *self._news, return_exceptions=True)

    async def _live(self) -> None:
        self._last += 1
        name = f"host-{self._last}"
        host = Member(self, name, is_host=True, has_cache=self._last % 2 == 0)
        self.connectors[name] = MemoryConnector(host.hub)
        self.hosts[name] = host
        self.tell([*self.names, name])
        await current_clock().sleep(self.random.uniform(1.25, 8.75))
        self.connectors[name].error = OSError("nobody is there")
        del self.hosts[name]
        self.deaths += 1
        await host.die()
        self.tell([each for each in self.names if each != name])

    def tell(self, names: list[str]) -> None:
        """Spread the word of who is there; it takes its time."""
        self.names = names
        for member in self.members():
            task = asyncio.ensure_future(self._hear(member))
            self._news.add(task)
            task.add_done_callback(self._news.discard)

    async def _hear(self, member: Member) -> None:
        await self.pause(0.5)
        self.moves += len(member.shards.set_nodes(self.names))

    def left_over(self) -> list[object]:
        """Calls that somebody still waits for, or is to be told of."""
        return [
            call
            for member in self.members()
            for peer in member.hub.peers
            for call in (*peer.outbound.values(), *peer.inbound.values())
        ]

    async def aclose(self) -> None:
        for member in self.members():
            await member.die()


@pytest.mark.parametrize("seed", range(2))
async def test_reads_keep_up_with_a_mesh_whose_hosts_come_and_go(
    clock: FakeClock, seed: int
) -> None:
    mesh = Mesh(seed)
    running = asyncio.ensure_future(mesh.run(30))
    try:
        while not running.done():
            await clock.advance(1)
        await running
        for member in mesh.members():
            await member.rest()
        for _ in range(3):  # what is held by nothing but garbage goes, at some later sweep
            gc.collect()
            await clock.advance(300)
        assert mesh.left_over() == []
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await mesh.aclose()
    await clock.advance(10)  # whoever waits to try again finds everything closed
    assert mesh.done > 600
    assert mesh.deaths > 10
    assert mesh.moves > 500
    assert background_tasks() == frozenset()
