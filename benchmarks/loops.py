"""The loops that are timed. All cases of a workload run the same one, each its own copy (see
``sampling.own_copy``).
"""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from benchmarks.sampling import Timed, own_copy


async def _nothing(count: int) -> float:
    start = perf_counter()
    for _ in range(count):
        pass
    return perf_counter() - start


async def _same_key(service: Any, key: object, count: int) -> float:
    start = perf_counter()
    for _ in range(count):
        await service.get(key)
    return perf_counter() - start


async def _each_key(service: Any, keys: Sequence[object]) -> float:
    start = perf_counter()
    for key in keys:
        await service.get(key)
    return perf_counter() - start


def nothing() -> Timed:
    """The empty loop, for scale."""
    return own_copy(_nothing)


def same_key(service: Any, key: object) -> Timed:
    """``await service.get(key)`` with one key, so many times."""
    loop = own_copy(_same_key)

    async def run(count: int) -> float:
        return await loop(service, key, count)

    return run


def each_key(service: Any, keys: Sequence[object]) -> Timed:
    """``await service.get(key)`` once a key, over all of ``keys`` again and again until the count
    is reached.

    The count is rounded up to whole passes, and the seconds are scaled back to it.
    """
    loop = own_copy(_each_key)

    async def run(count: int) -> float:
        passes = -(-count // len(keys))
        elapsed = 0.0
        for _ in range(passes):
            elapsed += await loop(service, keys)
        return elapsed * count / (passes * len(keys))

    return run


def fresh_keys(make_service: Any) -> Timed:
    """``await service.get(key)`` once for each of so many keys that the service has never seen.

    ``make_service`` gives an empty service each time; making and dropping it is not timed.
    """
    loop = own_copy(_each_key)

    async def run(count: int) -> float:
        service = make_service()
        keys = range(count)
        return await loop(service, keys)

    return run
