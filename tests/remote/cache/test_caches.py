"""What every cache of remote results does, whatever it keeps them in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from afresh.remote.cache import MemoryCache, RemoteCache, SqliteCache, open_cache

from .entries import entry, key

MakeCache = Callable[..., RemoteCache]


@pytest.fixture(params=["memory", "sqlite", "shared"])
async def make_cache(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeCache]:
    caches: list[RemoteCache] = []

    def make(**options: int) -> RemoteCache:
        cache: RemoteCache | None
        if request.param == "memory":
            cache = MemoryCache(**options)
        else:
            cache = SqliteCache(tmp_path / f"{len(caches)}.db", flush_delay=0.01, **options)
            if request.param == "shared":
                caches.append(cache)
                cache = open_cache(cache)
                assert cache is not None
        caches.append(cache)
        return cache

    yield make
    for cache in reversed(caches):
        await cache.aclose()


@pytest.fixture
def cache(make_cache: MakeCache) -> RemoteCache:
    return make_cache()


@pytest.fixture(params=["at once", "after a flush"])
async def settle(request: pytest.FixtureRequest, cache: RemoteCache) -> Callable[[], object]:
    """Waits for what was changed to be written, or does not."""

    async def wait() -> None:
        if request.param == "after a flush":
            await cache.flush()

    return wait


async def test_what_was_never_set_is_not_found(cache: RemoteCache) -> None:
    assert await cache.get(key()) is None


async def test_what_was_set_is_found(cache: RemoteCache, settle) -> None:
    cache.set(entry("a", b"1", "hash"))
    cache.set(entry("b", b"2"))
    await settle()
    assert await cache.get(key("a")) == entry("a", b"1", "hash")
    assert await cache.get(key("b")) == entry("b", b"2")
    assert await cache.get(key("c")) is None


async def test_the_last_one_that_was_set_counts(cache: RemoteCache, settle) -> None:
    cache.set(entry(data=b"1", hashed="1"))
    await settle()
    cache.set(entry(data=b"2", hashed="2"))
    await settle()
    assert await cache.get(key()) == entry(data=b"2", hashed="2")


async def test_what_was_removed_is_not_found(cache: RemoteCache, settle) -> None:
    cache.set(entry("a"))
    cache.set(entry("b"))
    await settle()
    cache.remove(key("a"))
    cache.remove(key("never set"))
    await settle()
    assert await cache.get(key("a")) is None
    assert await cache.get(key("b")) is not None


async def test_what_was_removed_may_be_set_again(cache: RemoteCache, settle) -> None:
    cache.set(entry(data=b"1"))
    cache.remove(key())
    await settle()
    cache.set(entry(data=b"2"))
    await settle()
    assert await cache.get(key()) == entry(data=b"2")


async def test_clearing_forgets_everything_and_what_comes_later_is_kept(
    cache: RemoteCache, settle
) -> None:
    cache.set(entry("a"))
    await settle()
    cache.set(entry("b"))
    clearing = asyncio.ensure_future(cache.clear())
    await asyncio.sleep(0)
    cache.set(entry("c"))
    await clearing
    await settle()
    assert await cache.get(key("a")) is None
    assert await cache.get(key("b")) is None
    assert await cache.get(key("c")) is not None


@pytest.mark.parametrize(
    ("data", "hashed"),
    [(b"", ""), (b"\0\xff" * 3, "\0"), (b"x" * 3_000_000, "=" * 24), (b"'; --", "ü\ud800")],
)
async def test_any_bytes_and_any_text_come_back_as_they_were(
    cache: RemoteCache, settle, data: bytes, hashed: str
) -> None:
    cache.set(entry("\0'", data, hashed))
    await settle()
    assert await cache.get(key("\0'")) == entry("\0'", data, hashed)


async def test_a_value_comes_with_its_entry(cache: RemoteCache, settle) -> None:
    cache.set(entry(data=b"42"))
    await settle()
    assert await cache.get_value(key(), int) == (entry(data=b"42"), 42)
    assert await cache.get_value(key("b"), int) is None


async def test_a_value_that_cant_be_decoded_is_logged_and_not_found(
    cache: RemoteCache, settle, caplog: pytest.LogCaptureFixture
) -> None:
    cache.set(entry(data=b"no number"))
    await settle()
    with caplog.at_level(logging.ERROR, "afresh.remote.cache"):
        assert await cache.get_value(key(), int) is None
    assert "Orders.for_user:1" in caplog.text


async def test_a_cancelled_look_up_is_cancelled_and_others_go_on(cache: RemoteCache) -> None:
    cache.set(entry())
    await cache.flush()
    first = asyncio.ensure_future(cache.get(key()))
    second = asyncio.ensure_future(cache.get(key()))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == entry()


async def test_many_look_ups_at_once_all_find_what_they_want(cache: RemoteCache, settle) -> None:
    for number in range(1000):
        cache.set(entry(str(number), b"%d" % number))
    await settle()
    names = [*map(str, range(1000)), "missing"]
    found = await asyncio.gather(*(cache.get_value(key(name), int) for name in names))
    assert [each and each[1] for each in found] == [*range(1000), None]


async def test_waiting_for_it_to_be_ready_and_flushing_nothing_is_fine(cache: RemoteCache) -> None:
    await cache.when_initialized()
    await cache.flush()
    await cache.flush()


class TestSize:
    async def test_those_leave_first_that_were_not_used_for_the_longest_time(
        self, make_cache: MakeCache
    ) -> None:
        cache = make_cache(max_bytes=20_000)
        for name in "abcdefgh":
            cache.set(entry(name, b"x" * 2000))
            await cache.flush()
        assert await cache.get(key("a")) is not None
        await cache.flush()
        for name in "ij":
            cache.set(entry(name, b"x" * 2000))
            await cache.flush()
        found = [name for name in "abcdefghij" if await cache.get(key(name))]
        assert "a" in found
        assert found[1:] == list("abcdefghij")[-len(found) + 1 :]
        assert 6 <= len(found) <= 9

    async def test_it_never_takes_much_more_than_it_may(self, make_cache: MakeCache) -> None:
        cache = make_cache(max_bytes=100_000)
        for number in range(1000):
            cache.set(entry(str(number), b"x" * 500))
            if number % 50 == 0:
                await cache.flush()
        await cache.flush()
        found = [number for number in range(1000) if await cache.get(key(str(number)))]
        assert 80 <= len(found) <= 200
        assert found == [*range(1000 - len(found), 1000)]

    async def test_an_entry_without_room_takes_the_place_of_none_and_hides_the_old_one(
        self, make_cache: MakeCache
    ) -> None:
        cache = make_cache(max_bytes=5000)
        cache.set(entry("a", b"1"))
        cache.set(entry("b", b"1"))
        await cache.flush()
        cache.set(entry("a", b"x" * 6000))
        await cache.flush()
        assert await cache.get(key("a")) is None
        assert await cache.get(key("b")) is not None

    async def test_room_for_nothing_is_refused(self, make_cache: MakeCache) -> None:
        with pytest.raises(ValueError, match="needs room"):
            make_cache(max_bytes=0)


class Unreadable(MemoryCache):
    """A cache whose place can't be reached."""

    async def read(self, key: object) -> None:
        raise ConnectionResetError("the place is gone")


async def test_an_entry_that_cant_be_read_is_logged_and_not_found(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = Unreadable()
    with caplog.at_level(logging.ERROR, "afresh.remote.cache"):
        assert await cache.get(key()) is None
    assert "the place is gone" in caplog.text


async def test_entries_in_memory_outlive_the_client_that_closed_them() -> None:
    cache = MemoryCache()
    cache.set(entry())
    await cache.aclose()
    assert await cache.get(key()) == entry()
    assert len(cache) == 1
