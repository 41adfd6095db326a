"""A cached call inside another compute method, where the graph records an edge.

A body awaits a thousand cached keys. Invalidating it beforehand is not timed; running it,
completing it and linking its edges is, and all of it is divided by the number of calls. Beside it,
the same loop outside of any compute method.
"""

from time import perf_counter
from typing import Any

from benchmarks import loops
from benchmarks.sampling import Sampler, Timed
from benchmarks.services import Cached, Plain

CALLS = 1_000
"""Cached calls in one body."""


def _bodies(method: Any) -> Timed:
    """Times ``await method(CALLS)`` , whose result was invalidated just before."""

    async def loop(passes: int) -> float:
        elapsed = 0.0
        for _ in range(passes):
            method.invalidate(CALLS)
            start = perf_counter()
            await method(CALLS)
            elapsed += perf_counter() - start
        return elapsed

    async def run(count: int) -> float:
        passes = -(-count // CALLS)
        return await loop(passes) * count / (passes * CALLS)

    return run


def _plain_bodies(service: Plain) -> Timed:
    """Times the same body where nothing is cached."""

    async def run(count: int) -> float:
        passes = -(-count // CALLS)
        start = perf_counter()
        for _ in range(passes):
            await service.total(CALLS)
        return (perf_counter() - start) * count / (passes * CALLS)

    return run


async def prepare(quick: bool) -> dict[str, Sampler]:
    """Samplers for a thousand keys and for one key, inside a compute method and outside."""
    service = Cached()
    for key in range(CALLS):
        await service.get(key)
    await service.total(CALLS)
    await service.repeated(CALLS)
    return {
        "plain": Sampler(_plain_bodies(Plain())),
        "outside, each key": Sampler(loops.each_key(service, range(CALLS))),
        "inside, each key": Sampler(_bodies(service.total)),
        "outside, one key": Sampler(loops.same_key(service, 7)),
        "inside, one key": Sampler(_bodies(service.repeated)),
    }
