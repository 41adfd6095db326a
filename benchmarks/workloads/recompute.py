"""Invalidate one key and compute it again: ``get.invalidate(7)``, then ``await get(7)``; async-lru
in its own words.
"""

from time import perf_counter

from benchmarks import loops, peers
from benchmarks.sampling import Sampler, Timed
from benchmarks.services import Cached, Plain


def _afresh() -> Timed:
    service = Cached()

    async def run(count: int) -> float:
        start = perf_counter()
        for _ in range(count):
            service.get.invalidate(7)
            await service.get(7)
        return perf_counter() - start

    return run


def _async_lru() -> Timed:
    service = peers.async_lru_method()

    async def run(count: int) -> float:
        start = perf_counter()
        for _ in range(count):
            service.get.cache_invalidate(7)
            await service.get(7)
        return perf_counter() - start

    return run


async def prepare(quick: bool) -> dict[str, Sampler]:
    """Samplers for the plain call, afresh and async-lru."""
    samplers = {
        "plain": Sampler(loops.same_key(Plain(), 7)),
        "afresh": Sampler(_afresh()),
    }
    if "async-lru" in peers.installed():
        samplers["async-lru"] = Sampler(_async_lru())
    return samplers
