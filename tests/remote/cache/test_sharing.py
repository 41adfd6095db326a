"""Clients that ask for the same file share one cache."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path

import pytest

from afresh.remote.cache import MemoryCache, RemoteCache, SqliteCache, open_cache

from .entries import entry, key


def opened(given: RemoteCache | str | Path, version: str = "") -> RemoteCache:
    cache = open_cache(given, version=version)
    assert cache is not None
    return cache


def test_none_is_none() -> None:
    assert open_cache(None) is None


async def test_memory_is_asked_for_as_sqlite_does() -> None:
    first, second = opened(":memory:"), opened(":memory:")
    first.set(entry())
    assert isinstance(first, MemoryCache)
    assert await second.get(key()) is None


async def test_a_cache_that_is_given_is_used_and_not_closed(tmp_path: Path) -> None:
    mine = SqliteCache(tmp_path / "client.db")
    client = opened(mine)
    client.set(entry())
    await client.aclose()
    assert await mine.get(key()) == entry()
    other = SqliteCache(tmp_path / "client.db")
    assert await other.get(key()) == entry()  # closing wrote it
    await other.aclose()
    await mine.aclose()


async def test_a_client_that_closed_its_part_has_none_any_more(tmp_path: Path) -> None:
    mine = MemoryCache()
    mine.set(entry("a"))
    client = opened(mine)
    await client.aclose()
    await client.aclose()
    assert await client.get(key("a")) is None
    assert await client.read(key("a")) is None
    client.remove(key("a"))
    client.set(entry("b"))
    await client.clear()
    await client.flush()
    assert await mine.get(key("a")) == entry("a")
    assert len(mine) == 1


async def test_the_same_file_is_one_cache_until_the_last_client_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = threading.active_count()
    first = opened("client.db")
    second = opened(tmp_path / "x" / ".." / "client.db")
    await first.when_initialized()
    first.set(entry("a"))
    assert await second.get(key("a")) == entry("a")  # not written yet, and known all the same
    assert await second.get_value(key("a"), bytes.decode) == (entry("a"), "data")
    assert threading.active_count() == threads + 1
    await first.aclose()
    second.set(entry("b"))
    second.remove(key("a"))
    await second.aclose()
    third = opened("client.db")
    assert await third.get(key("a")) is None
    assert await third.get(key("b")) == entry("b")
    await third.clear()
    assert await third.get(key("b")) is None
    await third.aclose()


async def test_a_client_that_opens_the_file_while_the_last_one_closes_gets_one_that_works(
    tmp_path: Path,
) -> None:
    first = opened(tmp_path / "client.db")
    first.set(entry("a"))
    closing = asyncio.ensure_future(first.aclose())
    await asyncio.sleep(0)
    second = opened(tmp_path / "client.db")
    second.set(entry("b"))
    await closing
    await second.flush()
    assert await second.get(key("a")) == entry("a")
    assert await second.get(key("b")) == entry("b")
    await second.aclose()


async def test_one_file_has_one_version(tmp_path: Path) -> None:
    path = tmp_path / "client.db"
    first = opened(path, "1")
    second, third = opened(path, "1"), opened(path)
    with pytest.raises(ValueError, match="version '1'"):
        opened(path, "2")
    for cache in (first, second, third):
        await cache.aclose()
    again = opened(path, "2")
    await again.aclose()


async def test_clients_that_are_just_dropped_leave_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "client.db"
    first = opened(path, "1")
    first.set(entry())
    await first.flush()
    del first
    gc.collect()
    second = opened(path, "2")
    assert await second.get(key()) is None
    await second.aclose()


def test_two_threads_share_the_file_and_not_the_cache(tmp_path: Path) -> None:
    async def work(name: str) -> None:
        cache = opened(tmp_path / "client.db")
        both_open.wait(5)
        for number in range(20):
            cache.set(entry(f"{name}{number}"))
            await cache.flush()
        both_done.wait(5)
        await cache.aclose()

    async def check() -> None:
        cache = opened(tmp_path / "client.db")
        for name in "ab":
            for number in range(20):
                assert await cache.get(key(f"{name}{number}")) is not None
        await cache.aclose()

    both_open, both_done = threading.Barrier(2), threading.Barrier(2)
    threads = [threading.Thread(target=asyncio.run, args=[work(name)]) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(check())
