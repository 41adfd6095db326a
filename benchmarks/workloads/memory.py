"""Memory of nodes and edges, and whether it comes back. Run as a program, in a fresh process, with
the name of one measurement.

Bytes are those that Python's allocators hand out (``tracemalloc`` counts Python's and the
extension's alike). The int key is part of a node's bytes, its value (``True``) is not. The resident
size is what the system says after the freed pages went back to it.
"""

import asyncio
import ctypes
import gc
import json
import os
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

from afresh import ComputeService, compute_method

FIRST_KEY = 1_000_000
"""Keys start here: small ints exist anyway and would cost nothing."""


class Weightless(ComputeService):
    """Compute methods whose value, ``True``, weighs nothing."""

    @compute_method
    async def get(self, key: int) -> bool:
        return True

    @compute_method
    async def using(self, key: int, sources: int) -> bool:
        for source in range(sources):
            await self.get(FIRST_KEY + source)
        return True


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def bytes_a_node(nodes: int = 100_000) -> dict[str, float]:
    """Bytes for a cached result of ``get(int)``, kept by the cache alone."""
    service = Weightless()
    await service.get(0)
    tracemalloc.start()
    before = _traced()
    for key in range(FIRST_KEY, FIRST_KEY + nodes):
        await service.get(key)
    return {"bytes a node": (_traced() - before) / nodes}


async def bytes_an_edge(nodes: int = 20_000, sources: int = 10) -> dict[str, float]:
    """Bytes for an edge: nodes that use ten others each, less the same nodes that use none."""
    totals = []
    service = Weightless()
    for source in range(sources):
        await service.get(FIRST_KEY + source)
    tracemalloc.start()
    for used in (0, 1, sources):
        await service.using(0, used)
        before = _traced()
        for key in range(FIRST_KEY, FIRST_KEY + nodes):
            await service.using(key, used)
        totals.append(_traced() - before)
    without, with_one, with_all = totals
    return {
        "bytes an edge, one each": (with_one - without) / nodes,
        "bytes an edge, ten each": (with_all - without) / (nodes * sources),
    }


def resident() -> int:
    """Bytes of this process in memory, after asking the C library to give free pages back; 0 where
    that is not known.
    """
    gc.collect()
    status = Path("/proc/self/statm")
    if not status.exists():
        return 0
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def dropped(nodes: int = 1_000_000) -> dict[str, float]:
    """What a million nodes leave behind once all of them are dropped, in per cent of the start.

    A service caches them all and goes away; before, the same with a tenth of them, so that what a
    first use sets up for good (the interpreter's free lists, afresh's own tables) belongs to the
    start.
    """

    async def fill(count: int) -> float:
        service = Weightless()
        for key in range(FIRST_KEY, FIRST_KEY + count):
            await service.get(key)
        return resident()

    await fill(nodes // 10)
    start_resident, start_blocks = resident(), sys.getallocatedblocks()
    peak = await fill(nodes)
    end_resident, end_blocks = resident(), sys.getallocatedblocks()
    result = {"blocks left, %": 100 * (end_blocks - start_blocks) / start_blocks}
    if start_resident:
        result["resident left, %"] = 100 * (end_resident - start_resident) / start_resident
        result["resident at the peak, MiB"] = peak / 2**20
    return result


async def peer_node(nodes: int = 100_000) -> dict[str, float]:
    """The same as ``bytes_a_node`` for async-lru."""
    from async_lru import alru_cache

    class Service:
        @alru_cache(maxsize=None)
        async def get(self, key: int) -> bool:
            return True

    service = Service()
    await service.get(0)
    tracemalloc.start()
    before = _traced()
    for key in range(FIRST_KEY, FIRST_KEY + nodes):
        await service.get(key)
    await asyncio.sleep(0)
    return {"async-lru, bytes a node": (_traced() - before) / nodes}


MEASUREMENTS: dict[str, Callable[[], Awaitable[dict[str, float]]]] = {
    "node": bytes_a_node,
    "edge": bytes_an_edge,
    "dropped": dropped,
    "peer": peer_node,
}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(MEASUREMENTS[sys.argv[1]]())))  # type: ignore[arg-type]
