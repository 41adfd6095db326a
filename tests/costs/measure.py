"""Counts what afresh's operations cost, in a process of its own; prints one JSON object.
``test_costs`` runs it.

Nothing here looks at a clock, so the figures are the same on a busy machine. A fresh process keeps
them free of what a test run brings along (plug-ins, coverage, the objects of other tests).

- *calls*: functions that the interpreter called, Python's and C's, as a profiler is told of them. A
  larger number of operations less a smaller one, divided: what happens once for all of them cancels
  out.
- *blocks*: memory blocks kept, by ``sys.getallocatedblocks``. *objects*: those that the garbage
  collector knows.
- *bytes*: by ``tracemalloc``, either kept or at the highest point in between.
"""

import asyncio
import functools
import gc
import json
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from types import FrameType

from afresh import ComputeService, compute_method

FIRST_KEY = 1_000_000
"""Keys start here, past the ints that the interpreter keeps anyway."""

Operations = Callable[..., Awaitable[object]]
"""Does something as often as its first argument says."""


class Sample(ComputeService):
    """What the operations are done with; its values, ``True``, weigh nothing."""

    @compute_method
    async def get(self, key: object) -> bool:
        return True

    @compute_method
    async def total(self, count: int) -> bool:
        for key in range(count):
            await self.get(key)
        return True

    @compute_method
    async def pair(self, first: int, second: int) -> bool:
        return await self.get(first) and await self.get(second)

    @compute_method
    async def hub(self) -> bool:
        return True

    @compute_method
    async def leaf(self, index: int) -> bool:
        return await self.hub()

    @compute_method
    async def link(self, index: int) -> bool:
        return await self.link(index - 1) if index else True

    @compute_method
    async def failing(self, key: int) -> bool:
        raise ValueError("wanted")


async def events(operations: Operations, count: int) -> int:
    """Function calls while so many operations run."""
    calls = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        if event in ("call", "c_call"):
            calls += 1

    sys.setprofile(profile)
    try:
        await operations(count)
    finally:
        sys.setprofile(None)
    return calls


async def calls(operations: Operations, few: int = 100, many: int = 1_100) -> float:
    """Function calls of one operation."""
    await operations(few)
    fewer = await events(operations, few)
    more = await events(operations, many)
    return max(0.0, round((more - fewer) / (many - few), 2))


async def once(operation: Callable[[], object], count: int) -> None:
    """Call something that is not a coroutine function, one time."""
    operation()


async def call_counts() -> dict[str, float]:
    """Calls of each operation."""
    service = Sample()
    fresh = iter(range(FIRST_KEY, sys.maxsize))

    async def hit(count: int) -> None:
        for _ in range(count):
            await service.get(7)

    async def hit_text(count: int) -> None:
        for _ in range(count):
            await service.get("key")

    async def hit_with_edge(count: int) -> None:
        service.total.invalidate(count)
        await service.total(count)

    async def miss(count: int) -> None:
        for _ in range(count):
            await service.get(next(fresh))

    async def recompute(count: int) -> None:
        for _ in range(count):
            service.get.invalidate(7)
            await service.get(7)

    async def capture(count: int) -> None:
        for _ in range(count):
            await service.get.capture(7)

    async def existing(count: int) -> None:
        for _ in range(count):
            service.get.existing(7)

    for key in range(1_100):
        await service.get(key)
    result = {
        "calls: hit, int key": await calls(hit),
        "calls: hit, str key": await calls(hit_text),
        "calls: hit with an edge": await calls(hit_with_edge),
        "calls: miss": await calls(miss) - 1,  # the 1 is next()
        "calls: invalidate and recompute": await calls(recompute),
        "calls: capture of a cached result": await calls(capture),
        "calls: existing": await calls(existing),
    }
    for shape, node, invalidate in (
        ("fan", service.leaf, service.hub.invalidate),
        ("chain", service.link, functools.partial(service.link.invalidate, 0)),
    ):
        totals = []
        for size in (100, 1_100):
            for index in range(size):
                await node(index)
            totals.append(await events(functools.partial(once, invalidate), 1))
        result[f"calls: cascade, each node of a {shape}"] = (totals[1] - totals[0]) / 1_000
    return result


def traced_bytes() -> int:
    """Bytes that Python's allocators have handed out since tracing started."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def hit_allocations() -> dict[str, float]:
    """What ten thousand hits keep, and what one hit needs in between."""
    service = Sample()

    async def hits(count: int, key: object) -> None:
        for _ in range(count):
            await service.get(key)

    async def nothing(count: int, key: object) -> None:
        """The same loop, and the same frame, without the call."""
        for _ in range(count):
            if key is None:
                await service.get(key)

    async def blocks_kept(operations: Operations, key: object) -> int:
        # No collection in between: it would empty the interpreter's free lists, which the
        # next loop fills again.
        await operations(10_000, key)
        before = sys.getallocatedblocks()
        await operations(10_000, key)
        return sys.getallocatedblocks() - before

    async def bytes_between(operations: Operations, key: object) -> int:
        await operations(10, key)
        tracemalloc.start()
        await operations(10, key)
        before = traced_bytes()
        tracemalloc.reset_peak()
        await operations(1_000, key)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - before

    result: dict[str, float] = {}
    for words, measurement in (
        ("blocks: kept by 10,000 hits", blocks_kept),
        ("bytes: in between for a hit", bytes_between),
    ):
        await measurement(nothing, 7)
        own = await measurement(nothing, 7)  # the measurement's own share
        for kind, key in (("int", 7), ("str", "key")):
            result[f"{words}, {kind} key"] = max(0, await measurement(hits, key) - own)
    return result


async def sizes() -> dict[str, float]:
    """Bytes of a node and of an edge."""
    nodes, sources = 5_000, 10
    service = Sample()
    for source in range(sources):
        await service.get(source)
    tracemalloc.start()
    before = traced_bytes()
    for key in range(FIRST_KEY, FIRST_KEY + nodes):
        await service.get(key)
    node = (traced_bytes() - before) / nodes

    class Users(ComputeService):
        @compute_method
        async def using(self, key: int, count: int) -> bool:
            for source in range(count):
                await service.get(source)
            return True

    totals = []
    users = Users()
    for count in (0, sources):
        await users.using(0, count)
        before = traced_bytes()
        for key in range(FIRST_KEY, FIRST_KEY + nodes):
            await users.using(key, count)
        totals.append(traced_bytes() - before)
    tracemalloc.stop()
    return {
        "bytes: a node with an int key": round(node),
        "bytes: an edge, ten a node": round((totals[1] - totals[0]) / nodes / sources),
    }


async def left_behind() -> dict[str, float]:
    """Objects and blocks that ten thousand times making and invalidating leave behind."""
    service = Sample()
    await service.hub()

    async def same_key(times: int) -> None:
        for _ in range(times):
            await service.get(7)
            service.get.invalidate(7)

    async def new_keys(times: int) -> None:
        for key in range(FIRST_KEY, FIRST_KEY + times):
            await service.get(key)
        for key in range(FIRST_KEY, FIRST_KEY + times):
            service.get.invalidate(key)

    async def with_edges(times: int) -> None:
        for key in range(FIRST_KEY, FIRST_KEY + times):
            await service.pair(key, key + 1)
        for key in range(FIRST_KEY, FIRST_KEY + times + 1):
            service.get.invalidate(key)

    async def dependants_of_a_kept_node(times: int) -> None:
        for index in range(times):
            await service.leaf(index)
            service.leaf.invalidate(index)

    async def errors(times: int) -> None:
        for key in range(times):
            try:
                await service.failing(key)
            except ValueError:
                pass
            service.failing.invalidate(key)

    async def services(times: int) -> None:
        for _ in range(times // 10):
            dropped = Sample()
            for key in range(10):
                await dropped.get(key)

    async def cancelled(times: int) -> None:
        class Slow(ComputeService):
            @compute_method
            async def get(self, key: int) -> bool:
                return await asyncio.Event().wait()

        slow = Slow()
        for key in range(times // 10):
            task = asyncio.ensure_future(slow.get(key))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])

    result: dict[str, float] = {}
    for name, cycles in {
        "one key": same_key,
        "new keys": new_keys,
        "keys with edges": with_edges,
        "dependants of a kept node": dependants_of_a_kept_node,
        "errors": errors,
        "dropped services": services,
        "cancelled computations": cancelled,
    }.items():
        await cycles(10_000)
        await asyncio.sleep(0)
        gc.collect()
        objects, blocks = len(gc.get_objects()), sys.getallocatedblocks()
        await cycles(10_000)
        await asyncio.sleep(0)
        gc.collect()
        result[f"objects: {name}"] = len(gc.get_objects()) - objects
        result[f"blocks: {name}"] = sys.getallocatedblocks() - blocks
    return result


async def main() -> None:
    """Print the interpreter, the twin, every figure, and what is left behind."""
    figures: dict[str, float] = {}
    for part in (call_counts, hit_allocations, sizes):
        figures.update(await part())
    left = await left_behind()
    version = ".".join(map(str, sys.version_info[:2]))
    twin = "compiled" if "afresh.graph._speedups" in sys.modules else "pure"
    print(json.dumps({"variant": f"{version} {twin}", "figures": figures, "left": left}))


if __name__ == "__main__":
    asyncio.run(main())
