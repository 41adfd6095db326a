"""Look-ups go together."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

from afresh.primitives.tasks import background_tasks
from afresh.remote.cache.entry import CacheEntry, CacheKey
from afresh.remote.cache.lookups import Lookups

from .entries import entry, key


class Place:
    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def read(self, keys: Sequence[CacheKey]) -> list[CacheEntry | None]:
        self.batches.append([each.arguments.decode() for each in keys])
        await self.is_open.wait()
        return [
            None if each.arguments == b"missing" else CacheEntry(each, b"data") for each in keys
        ]


async def test_those_of_one_moment_go_together() -> None:
    place = Place()
    lookups = Lookups(place.read)
    found = await asyncio.gather(*(lookups.get(key(name)) for name in ("a", "missing", "b")))
    assert found == [entry("a"), None, entry("b")]
    assert place.batches == [["a", "missing", "b"]]
    await asyncio.sleep(0)
    assert background_tasks() == frozenset()


async def test_those_asked_for_meanwhile_go_next() -> None:
    place = Place()
    place.is_open.clear()
    lookups = Lookups(place.read)
    asked = [asyncio.ensure_future(lookups.get(key("a")))]
    await asyncio.sleep(0.01)
    asked += [asyncio.ensure_future(lookups.get(key(name))) for name in "bc"]
    await asyncio.sleep(0.01)
    assert place.batches == [["a"]]
    place.is_open.set()
    assert await asyncio.gather(*asked) == [entry("a"), entry("b"), entry("c")]
    assert place.batches == [["a"], ["b", "c"]]


async def test_thousands_go_in_several_parts() -> None:
    place = Place()
    lookups = Lookups(place.read)
    names = [str(number) for number in range(1000)]
    assert await asyncio.gather(*(lookups.get(key(name)) for name in names)) == [*map(entry, names)]
    assert [len(batch) for batch in place.batches] == [256, 256, 256, 232]


async def test_one_that_is_cancelled_does_not_stop_the_others() -> None:
    place = Place()
    place.is_open.clear()
    lookups = Lookups(place.read)
    first, second = (asyncio.ensure_future(lookups.get(key(name))) for name in "ab")
    await asyncio.sleep(0.01)
    first.cancel()
    place.is_open.set()
    assert await second == entry("b")
    assert first.cancelled()
    assert await lookups.get(key("c")) == entry("c")


async def test_a_place_that_fails_tells_all_who_wait() -> None:
    async def read(keys: Sequence[CacheKey]) -> list[CacheEntry | None]:
        if len(keys) == 2:
            raise ValueError("no good")
        return [None for _ in keys]

    lookups = Lookups(read)
    found = await asyncio.gather(*(lookups.get(key(name)) for name in "ab"), return_exceptions=True)
    assert [str(each) for each in found] == ["no good", "no good"]
    assert await lookups.get(key("a")) is None


def test_a_loop_that_was_closed_in_the_midst_of_one_does_not_stop_the_next() -> None:
    async def leave() -> None:
        place.is_open.clear()
        waiting.append(asyncio.ensure_future(lookups.get(key("a"))))
        await asyncio.sleep(0.01)
        waiting.append(asyncio.ensure_future(lookups.get(key("b"))))
        await asyncio.sleep(0.01)

    async def go_on() -> CacheEntry | None:
        place.is_open = asyncio.Event()
        place.is_open.set()
        return await lookups.get(key("c"))

    waiting: list[asyncio.Future[CacheEntry | None]] = []
    place = Place()
    lookups = Lookups(place.read)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    left = asyncio.all_tasks(loop)
    loop.close()
    assert asyncio.run(go_on()) == entry("c")
    for task in left:
        task._log_destroy_pending = False
    del left, task
    waiting.clear()
    gc.collect()
    assert asyncio.run(go_on()) == entry("c")
