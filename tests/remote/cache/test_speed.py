"""A cache in a file never holds up the event loop."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from afresh.remote.cache import SqliteCache

from .entries import entry, key


async def longest_hold_up(work: asyncio.Future[object]) -> float:
    """The longest time, in seconds, for which the event loop did not come round, meanwhile.

    Counts what this process works, so that others, which hold it up as well, do not matter.
    """
    longest = 0.0
    while not work.done():
        before = time.process_time()
        await asyncio.sleep(0.0005)
        longest = max(longest, time.process_time() - before)
    return longest


async def test_writing_ten_thousand_entries_never_holds_up_the_loop_for_5_ms(
    tmp_path: Path,
) -> None:
    cache = SqliteCache(tmp_path / "client.db")
    await cache.when_initialized()
    entries = [entry(str(number), b"x" * 200) for number in range(10_000)]
    hold_ups = []
    for _ in range(5):
        for each in entries:
            cache.set(each)
        hold_ups.append(await longest_hold_up(asyncio.ensure_future(cache.flush())))
    assert min(hold_ups) < 0.005
    assert await cache.get(key("9999")) == entry("9999", b"x" * 200)
    await cache.aclose()


async def test_the_measure_sees_a_hold_up() -> None:
    def work() -> None:
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass

    async def hold_up() -> None:
        await asyncio.sleep(0.001)
        work()

    assert await longest_hold_up(asyncio.ensure_future(hold_up())) > 0.01
