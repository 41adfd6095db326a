"""A cache in a file never holds up the event loop."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from afresh.remote.cache import SqliteCache

from .entries import entry, key


async def longest_hold_up(work: asyncio.Future[object]) -> float:
    """The longest time, in seconds, for which the event loop did not come round, meanwhile."""
    longest = 0.0
    while not work.done():
        before = time.perf_counter()
        await asyncio.sleep(0.0005)
        longest = max(longest, time.perf_counter() - before - 0.0005)
    return longest


async def test_writing_ten_thousand_entries_never_holds_up_the_loop_for_5_ms(
    tmp_path: Path,
) -> None:
    cache = SqliteCache(tmp_path / "client.db")
    await cache.when_initialized()
    entries = [entry(str(number), b"x" * 200) for number in range(10_000)]
    hold_ups = []
    for _ in range(5):  # the best of them, since other programs hold up this one as well
        for each in entries:
            cache.set(each)
        hold_ups.append(await longest_hold_up(asyncio.ensure_future(cache.flush())))
    assert min(hold_ups) < 0.005
    assert await cache.get(key("9999")) == entry("9999", b"x" * 200)
    await cache.aclose()
