"""After any history of changes and restarts, a cache in a file holds what a dictionary would."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from afresh.remote.cache import SqliteCache
from afresh.remote.cache.entry import CacheKey

from .entries import entry, key

names = st.sampled_from("abcde")
steps = st.one_of(
    st.tuples(st.just("set"), names, st.binary(max_size=20)),
    st.tuples(st.sampled_from(["remove", "get"]), names, st.just(b"")),
    st.tuples(
        st.sampled_from(["flush", "begin to flush", "clear", "restart", "give way"]),
        st.just(""),
        st.just(b""),
    ),
)


@given(st.lists(steps, max_size=30))
def test_a_cache_in_a_file_agrees_with_a_dictionary(history: list[tuple[str, str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(replay(history, Path(directory) / "client.db"))


async def replay(history: list[tuple[str, str, bytes]], path: Path) -> None:
    model: dict[CacheKey, bytes] = {}
    cache = SqliteCache(path, flush_delay=0.001)
    flushes: list[asyncio.Future[None]] = []
    for step, name, data in history:
        if step == "set":
            cache.set(entry(name, data))
            model[key(name)] = data
        elif step == "remove":
            cache.remove(key(name))
            model.pop(key(name), None)
        elif step == "get":
            found = await cache.get(key(name))
            assert (found and found.data) == model.get(key(name))
        elif step == "flush":
            await cache.flush()
        elif step == "begin to flush":
            flushes.append(asyncio.ensure_future(cache.flush()))
        elif step == "clear":
            await cache.clear()
            model.clear()
        elif step == "restart":
            await cache.aclose()
            cache = SqliteCache(path, flush_delay=0.001)
        else:
            await asyncio.sleep(0.0005)
    for name in "abcde":
        found = await cache.get(key(name))
        assert (found and found.data) == model.get(key(name))
    await asyncio.gather(*flushes)
    await cache.aclose()
