"""Calls, a stream and a live result at the same time, to be disturbed by a test."""

from __future__ import annotations

import asyncio
from typing import Any

from afresh.errors import PeerChangedError
from afresh.rpc.hub import RpcHub
from afresh.rpc.peer import Peer
from tests.remote.services import Counters, MemoryCounters
from tests.rpc.workshop import OpenWorkshop, Workshop


class Scenario:
    """What a client does with a server, and what must come of it however often it is cut off.

    Args:
        hub: the server's.
    """

    def __init__(self, hub: RpcHub) -> None:
        self.workshop = OpenWorkshop()
        self.counters = MemoryCounters()
        self.serve(hub)

    def serve(self, hub: RpcHub) -> None:
        """Let a hub serve it; another one does after a restart."""
        hub.serve(Workshop, self.workshop)
        hub.serve(Counters, self.counters)

    async def run(self, peer: Peer) -> None:
        """Use all of it, and check what comes of it."""
        workshop, counters = peer.service(Workshop), peer.service(Counters)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._call(workshop))
            group.create_task(self._read(workshop))
            group.create_task(self._send(workshop))
            group.create_task(self._follow(counters))

    async def _call(self, workshop: Workshop) -> None:
        work = asyncio.create_task(workshop.work("long"))
        assert await workshop.add(1, 2) == 3
        while not self.workshop.running:
            await asyncio.sleep(0)
        self.workshop.gate.set()
        assert await work == "long"

    async def _read(self, workshop: Workshop) -> None:
        while True:
            try:
                stream = await workshop.count_to(80)
                assert [number async for number in stream] == list(range(80))
            except PeerChangedError:
                continue
            return

    async def _send(self, workshop: Workshop) -> None:
        assert await workshop.weigh(bytes(300)) == 300

    async def _follow(self, counters: Counters) -> None:
        seen: list[int] = []
        for value in range(1, 5):
            node = await counters.get.capture("a")
            seen.append(node.value)
            await self.counters.set("a", value)
            await node.when_invalidated()
        seen.append(await counters.get("a"))
        assert seen == [0, 1, 2, 3, 4]


def leftovers(*peers: Peer) -> list[Any]:
    """What peers hold beyond live results."""
    found: list[Any] = []
    for peer in peers:
        found += [
            call for call in peer.outbound.values() if not getattr(call, "is_answered", False)
        ]
        found += [call for call in peer.inbound.values() if call.task is not None]
        found += peer.streams._remote.values()
    return found
