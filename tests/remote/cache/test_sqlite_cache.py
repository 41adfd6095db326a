"""What a cache in a file does beyond what every cache does."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from afresh.primitives.clock import use_clock
from afresh.primitives.tasks import background_tasks
from afresh.remote.cache import SqliteCache
from afresh.testing import FakeClock

from .entries import entry, key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client.db"


async def names(cache: SqliteCache, candidates: str) -> str:
    """Which of these entries are found."""
    return "".join([name for name in candidates if await cache.get(key(name))])


class TestRestarting:
    async def test_entries_are_there_again(self, path: Path) -> None:
        first = SqliteCache(path)
        first.set(entry("a", b"1", "hash"))
        first.set(entry("b"))
        first.remove(key("b"))
        await first.aclose()
        second = SqliteCache(str(path))
        assert await second.get(key("a")) == entry("a", b"1", "hash")
        assert await second.get(key("b")) is None
        await second.aclose()

    async def test_nothing_but_the_file_is_left_and_nothing_runs_on(self, path: Path) -> None:
        threads = threading.active_count()
        cache = SqliteCache(path)
        cache.set(entry())
        await cache.aclose()
        assert [each.name for each in path.parent.iterdir()] == ["client.db"]
        deadline = time.monotonic() + 5
        while threading.active_count() > threads and time.monotonic() < deadline:
            await asyncio.sleep(0.001)
        assert threading.active_count() == threads
        assert background_tasks() == frozenset()

    async def test_after_closing_it_finds_nothing_and_keeps_nothing(self, path: Path) -> None:
        cache = SqliteCache(path)
        cache.set(entry("a"))
        await cache.aclose()
        cache.set(entry("b"))
        cache.remove(key("a"))
        assert await names(cache, "ab") == ""
        await cache.flush()
        await cache.clear()
        await cache.aclose()
        await cache.when_initialized()
        again = SqliteCache(path)
        assert await names(again, "ab") == "a"
        await again.aclose()

    async def test_what_was_read_counts_as_used_after_a_restart(self, path: Path) -> None:
        for doing in ("set", "get", "set more"):
            cache = SqliteCache(path, max_bytes=10_000)
            if doing == "set":
                for name in "abcd":
                    cache.set(entry(name, b"x" * 2000))
                    await cache.flush()
            elif doing == "get":
                assert await names(cache, "ac") == "ac"
            else:
                cache.set(entry("e", b"x" * 2000))
                await cache.flush()
                assert await names(cache, "abcde") == "acde"
            await cache.aclose()

    async def test_it_makes_the_directory(self, tmp_path: Path) -> None:
        cache = SqliteCache(tmp_path / "some" / "where" / "client.db")
        cache.set(entry())
        await cache.aclose()
        assert (tmp_path / "some" / "where" / "client.db").exists()

    async def test_a_tilde_is_the_home_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        cache = SqliteCache("~/client.db")
        assert cache.path == tmp_path / "client.db"
        await cache.aclose()

    async def test_a_change_of_directory_does_not_change_the_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        cache = SqliteCache("client.db")
        monkeypatch.chdir("/")
        cache.set(entry())
        await cache.aclose()
        assert (tmp_path / "client.db").exists()

    @pytest.mark.skipif(os.name != "posix", reason="there are no such rights")
    async def test_only_the_owner_may_read_it(self, path: Path) -> None:
        cache = SqliteCache(path)
        cache.set(entry())
        await cache.flush()
        for each in path.parent.iterdir():
            assert stat.S_IMODE(each.stat().st_mode) == 0o600
        await cache.aclose()

    @pytest.mark.parametrize("delay", [-1, float("nan"), float("inf")])
    def test_a_delay_that_is_none_is_refused(self, path: Path, delay: float) -> None:
        with pytest.raises(ValueError, match="flush_delay"):
            SqliteCache(path, flush_delay=delay)
        assert not path.exists()


class TestVersions:
    @pytest.mark.parametrize(
        ("first", "second", "found"),
        [
            ("", "", "a"),
            ("1", "1", "a"),
            ("1", "", "a"),
            ("1", "2", ""),
            ("", "1", ""),
        ],
    )
    async def test_entries_of_another_version_are_dropped(
        self, path: Path, first: str, second: str, found: str
    ) -> None:
        cache = SqliteCache(path, first)
        cache.set(entry("a"))
        await cache.aclose()
        cache = SqliteCache(path, second)
        cache.set(entry("b"))
        assert await names(cache, "ab") == found + "b"
        await cache.aclose()
        cache = SqliteCache(path, second or first)
        assert await names(cache, "ab") == found + "b"
        await cache.aclose()

    async def test_an_older_schema_is_replaced(self, path: Path) -> None:
        cache = SqliteCache(path)
        cache.set(entry("a"))
        await cache.aclose()
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 0")
            connection.execute("ALTER TABLE entries RENAME TO rows")
        connection.close()
        cache = SqliteCache(path)
        assert await cache.get(key("a")) is None
        cache.set(entry("a"))
        await cache.flush()
        assert await names(cache, "a") == "a"
        await cache.aclose()


class TestWriting:
    async def test_changes_are_written_after_the_delay(self, path: Path) -> None:
        with use_clock(FakeClock()) as clock:
            cache = SqliteCache(path)
            cache.set(entry())
            await clock.advance(0.2)
            other = SqliteCache(path)
            assert await other.get(key()) is None
            await clock.advance(0.05)
            while clock.timers == 0 and background_tasks():
                await asyncio.sleep(0.001)
            assert await other.get(key()) == entry()
            await other.aclose()
            await cache.aclose()
            assert clock.timers == 0

    async def test_two_share_a_file(self, path: Path) -> None:
        first, second = SqliteCache(path), SqliteCache(path)
        for number in range(20):
            cache = first if number % 2 else second
            cache.set(entry(str(number)))
            await asyncio.gather(first.flush(), second.flush())
        for number in range(20):
            assert await first.get(key(str(number))) == entry(str(number))
            assert await second.get(key(str(number))) == entry(str(number))
        await first.clear()
        assert await second.get(key("1")) is None
        await first.aclose()
        await second.aclose()

    async def test_many_may_begin_a_file_at_the_same_moment(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caches = [SqliteCache(path, "1") for _ in range(8)]
        for name, cache in zip("abcdefgh", caches, strict=True):
            cache.set(entry(name))
        await asyncio.gather(*(cache.aclose() for cache in caches))
        cache = SqliteCache(path, "1")
        assert await names(cache, "abcdefgh") == "abcdefgh"
        await cache.aclose()
        assert "something else" not in caplog.text

    async def test_a_batch_of_any_length_is_written_in_full(self, path: Path) -> None:
        cache = SqliteCache(path)
        for count in (1, 99, 100, 101, 250):
            for number in range(count):
                cache.set(entry(f"{count}-{number}"))
                cache.remove(key(f"{count}-{number}-gone"))
            await cache.flush()
        await cache.aclose()
        cache = SqliteCache(path)
        for count in (1, 99, 100, 101, 250):
            for number in range(count):
                assert await cache.get(key(f"{count}-{number}"))
        await cache.aclose()


class TestDropping:
    async def test_one_that_is_not_closed_goes_without_a_complaint(self, path: Path) -> None:
        cache = SqliteCache(path)
        cache.set(entry())
        await cache.flush()
        gone = weakref.ref(cache)
        del cache
        gc.collect()
        assert gone() is None
        again = SqliteCache(path)
        assert await again.get(key()) == entry()
        await again.aclose()

    def test_one_cache_serves_one_loop_after_another(self, path: Path) -> None:
        async def write(name: str) -> None:
            cache.set(entry(name))
            under_way.append(asyncio.ensure_future(cache.flush()))
            under_way.append(asyncio.ensure_future(cache.get(key("missing"))))
            await asyncio.sleep(0)

        async def read() -> None:
            assert await names(cache, "abc") == "abc"
            await cache.aclose()

        under_way: list[asyncio.Future[object]] = []
        cache = SqliteCache(path)
        for name in "abc":
            asyncio.run(write(name))
        asyncio.run(read())


def test_a_client_without_a_file_does_not_load_sqlite() -> None:
    script = "import sys, afresh.remote.cache; assert 'sqlite3' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
