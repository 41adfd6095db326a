"""Whatever is wrong with the file, the program goes on, and no wrong entry is found."""

# ruff: noqa: ASYNC240 (the files are small, and nothing else waits for the loop)

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from afresh.primitives.clock import LoopClock, use_clock
from afresh.remote.cache import SqliteCache, sqlite_file

from .entries import entry, key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client.db"


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the log has about caches, from warnings on."""

    def complaints() -> list[str]:
        return [
            record.getMessage()
            for record in caplog.records
            if record.name == "afresh.remote.cache" and record.levelno >= logging.WARNING
        ]

    return complaints


async def fill(path: Path, names: str = "abc", size: int = 500) -> None:
    cache = SqliteCache(path)
    for name in names:
        cache.set(entry(name, name.encode() * size))
    await cache.aclose()


async def works(cache: SqliteCache) -> bool:
    """Whether it keeps what it is given."""
    cache.set(entry("new"))
    await cache.flush()
    return await cache.get(key("new")) == entry("new")


async def is_empty(cache: SqliteCache) -> bool:
    """Whether it works as one that nothing is kept in, in every way."""
    await cache.when_initialized()
    cache.remove(key("a"))
    kept = await works(cache)
    found = await asyncio.gather(*(cache.get(key(name)) for name in "abc"))
    await cache.clear()
    await cache.aclose()
    return not kept and found == [None, None, None]


class TestMovedAside:
    @pytest.mark.parametrize("content", [b"no database at all" * 100, b"\0" * 5000, b"SQLite"])
    async def test_a_file_that_is_no_database(
        self, path: Path, content: bytes, complaints: Callable[[], list[str]]
    ) -> None:
        path.write_bytes(content)
        cache = SqliteCache(path)
        assert await works(cache)
        await cache.aclose()
        assert path.with_name("client.db.damaged").read_bytes() == content
        (complaint,) = complaints()
        assert "client.db.damaged" in complaint

    async def test_a_file_that_is_cut_off(
        self, path: Path, complaints: Callable[[], list[str]]
    ) -> None:
        await fill(path, size=20_000)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        cache = SqliteCache(path)
        for name in "abc":
            found = await cache.get(key(name))
            assert found is None or found == entry(name, name.encode() * 20_000)
        assert await works(cache)
        await cache.aclose()
        assert len(complaints()) == 1

    async def test_a_cache_file_without_our_tables(self, path: Path) -> None:
        await fill(path)
        connection = sqlite3.connect(path)
        connection.execute("DROP TABLE entries")
        connection.close()
        cache = SqliteCache(path)
        assert await cache.get(key("a")) is None
        assert await works(cache)
        await cache.aclose()

    async def test_an_entry_with_other_bytes_than_were_written(
        self, path: Path, complaints: Callable[[], list[str]]
    ) -> None:
        await fill(path)
        path.write_bytes(path.read_bytes().replace(b"b" * 500, b"b" * 499 + b"B"))
        cache = SqliteCache(path)
        assert await cache.get(key("a")) is not None
        assert await cache.get(key("b")) is None
        assert len(complaints()) == 1
        assert await works(cache)
        await cache.aclose()

    async def test_a_file_damaged_while_it_is_open(
        self, path: Path, complaints: Callable[[], list[str]]
    ) -> None:
        await fill(path, size=20_000)
        cache = SqliteCache(path)
        await cache.when_initialized()
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 60_000)
        found = [await cache.get(key(name)) for name in "abc"]
        assert [each for each in found if each] == []
        assert await works(cache)
        await cache.aclose()
        assert len(complaints()) == 1

    async def test_whatever_bytes_are_damaged_nothing_fails_and_nothing_wrong_is_found(
        self, path: Path, complaints: Callable[[], list[str]]
    ) -> None:
        await fill(path, "abcdefgh", 3000)
        sound = path.read_bytes()
        chance = random.Random(1)
        for _ in range(60):
            damaged = bytearray(sound)
            for _ in range(chance.choice([1, 5, 100])):
                start = chance.choice([chance.randrange(200), chance.randrange(len(sound))])
                length = chance.choice([1, 8, 500])
                damaged[start : start + length] = chance.randbytes(length)
            path.write_bytes(damaged[: len(sound)])
            cache = SqliteCache(path)
            for name in "abcdefgh":
                found = await cache.get(key(name))
                assert found is None or found == entry(name, name.encode() * 3000)
            cache.set(entry("new"))
            cache.remove(key("a"))
            await cache.flush()
            assert await cache.get(key("a")) is None
            await cache.aclose()
            for each in path.parent.iterdir():
                each.unlink()

    async def test_a_second_damage_ends_it(
        self, path: Path, complaints: Callable[[], list[str]]
    ) -> None:
        await fill(path)
        path.write_bytes(b"x" * 10_000)
        cache = SqliteCache(path)
        assert await works(cache)
        connection = sqlite3.connect(path)
        connection.execute("DROP TABLE entries")
        connection.close()
        assert await is_empty(cache)
        assert len(complaints()) == 2


class TestGivenUp:
    async def test_a_database_of_something_else_is_left_as_it_is(
        self, path: Path, complaints: Callable[[], list[str]]
    ) -> None:
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE orders (id INTEGER)")
        connection.commit()
        connection.close()
        content = path.read_bytes()
        assert await is_empty(SqliteCache(path))
        assert path.read_bytes() == content
        assert [each.name for each in path.parent.iterdir()] == ["client.db"]
        (complaint,) = complaints()
        assert "something else" in complaint

    async def test_a_file_of_a_newer_schema_is_left_as_it_is(
        self, path: Path, complaints: Callable[[], list[str]]
    ) -> None:
        await fill(path)
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 1000")
        connection.close()
        content = path.read_bytes()
        assert await is_empty(SqliteCache(path, "2"))
        assert path.read_bytes() == content
        (complaint,) = complaints()
        assert "newer" in complaint

    async def test_a_directory_in_its_place(
        self, path: Path, complaints: Callable[[], list[str]]
    ) -> None:
        path.mkdir()
        assert await is_empty(SqliteCache(path))
        assert len(complaints()) == 1

    async def test_a_directory_that_cant_be_made(
        self, path: Path, complaints: Callable[[], list[str]]
    ) -> None:
        path.write_text("a file where the directory should be")
        assert await is_empty(SqliteCache(path / "client.db"))
        assert len(complaints()) == 1

    async def test_a_path_that_is_none(
        self, path: Path, complaints: Callable[[], list[str]]
    ) -> None:
        assert await is_empty(SqliteCache(f"{path}\0"))
        assert len(complaints()) == 1

    async def test_a_full_disk(
        self,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        complaints: Callable[[], list[str]],
    ) -> None:
        await fill(path)
        connect_with(monkeypatch, "PRAGMA max_page_count = 10")
        cache = SqliteCache(path)
        assert await cache.get(key("a")) is not None
        cache.set(entry("b", b"x" * 100_000))
        await cache.flush()
        assert await is_empty(cache)
        (complaint,) = complaints()
        assert "full" in complaint

    async def test_a_file_that_is_read_only(
        self,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        complaints: Callable[[], list[str]],
    ) -> None:
        await fill(path)
        connect_with(monkeypatch, "PRAGMA query_only = ON")
        assert await is_empty(SqliteCache(path))
        assert len(complaints()) == 1

    async def test_a_damaged_file_that_cant_be_moved(
        self,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        complaints: Callable[[], list[str]],
    ) -> None:
        path.write_bytes(b"x" * 10_000)

        def replace(self: Path, target: object) -> None:
            raise PermissionError("the directory is read-only")

        monkeypatch.setattr(Path, "replace", replace)
        assert await is_empty(SqliteCache(path))
        assert path.read_bytes() == b"x" * 10_000
        assert len(complaints()) == 1


def connect_with(monkeypatch: pytest.MonkeyPatch, pragma: str) -> None:
    """Let connections be as the system would make them in some circumstances."""

    def connect(*args: object, **options: object) -> sqlite3.Connection:
        connection = original(*args, **options)
        connection.execute(pragma)
        return connection

    original = sqlite3.connect
    monkeypatch.setattr(sqlite_file.sqlite3, "connect", connect)


class TestLocked:
    @pytest.fixture(autouse=True)
    def little_patience(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(sqlite_file, "_BUSY_TIMEOUT", 0.01)
        monkeypatch.setattr(sqlite_file, "_PATIENCE", 0.1)
        monkeypatch.setattr(sqlite_file, "_PAUSE", 0.05)
        with use_clock(LoopClock()):
            yield

    @pytest.fixture
    def lock(self, path: Path) -> Iterator[sqlite3.Connection]:
        """Another process, as it were, in the midst of a transaction."""
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        yield connection
        connection.close()

    async def test_what_is_set_meanwhile_is_found_and_is_written_afterwards(
        self, path: Path, complaints: Callable[[], list[str]]
    ) -> None:
        await fill(path)
        cache = SqliteCache(path, flush_delay=0.01)
        await cache.when_initialized()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        cache.set(entry("new"))
        cache.remove(key("a"))
        await cache.flush()
        await cache.flush()
        assert await cache.get(key("new")) == entry("new")
        assert await cache.get(key("a")) is None
        assert await cache.get(key("b")) is not None  # reading goes on
        other.execute("COMMIT")
        await cache.aclose()
        assert other.execute("SELECT count(*) FROM entries").fetchone() == (3,)
        other.close()
        assert len(complaints()) == 1

    async def test_a_file_locked_at_the_start_is_empty_until_it_is_free(
        self, path: Path, lock: sqlite3.Connection, complaints: Callable[[], list[str]]
    ) -> None:
        lock.execute("ROLLBACK")
        await fill(path)
        lock.execute("PRAGMA locking_mode = EXCLUSIVE")
        lock.execute("BEGIN EXCLUSIVE")
        cache = SqliteCache(path, flush_delay=0.01)
        assert await cache.get(key("a")) is None
        cache.set(entry("new"))
        await cache.flush()
        assert await cache.get(key("new")) == entry("new")
        lock.close()
        deadline = asyncio.get_running_loop().time() + 5
        while await cache.get(key("a")) is None:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)
        await cache.aclose()
        again = SqliteCache(path)
        assert await again.get(key("new")) == entry("new")
        await again.aclose()
        assert len(complaints()) == 1

    async def test_opening_waits_for_a_moment(
        self, path: Path, lock: sqlite3.Connection, complaints: Callable[[], list[str]]
    ) -> None:
        cache = SqliteCache(path)
        asyncio.get_running_loop().call_later(0.03, lock.close)
        await cache.when_initialized()
        assert complaints() == []
        assert await works(cache)
        await cache.aclose()

    async def test_clearing_waits_for_the_lock(self, path: Path) -> None:
        await fill(path)
        cache = SqliteCache(path)
        await cache.when_initialized()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        clearing = asyncio.ensure_future(cache.clear())
        await asyncio.sleep(0.05)
        assert not clearing.done()
        other.execute("COMMIT")
        await clearing
        assert other.execute("SELECT count(*) FROM entries").fetchone() == (0,)
        other.close()
        await cache.aclose()

    async def test_clearing_gives_up_in_the_end_and_says_so(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, complaints: Callable[[], list[str]]
    ) -> None:
        await fill(path)
        cache = SqliteCache(path)
        await cache.when_initialized()
        monkeypatch.setattr("afresh.remote.cache.sqlite._CLEARING_ATTEMPTS", 2)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await cache.clear()
        assert "could not be cleared" in complaints()[-1]
        await cache.aclose()
        other.close()

    async def test_closing_gives_up_in_the_end(self, path: Path) -> None:
        await fill(path)
        cache = SqliteCache(path)
        await cache.when_initialized()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        cache.set(entry("new"))
        await asyncio.wait_for(cache.aclose(), 5)
        other.close()
        again = SqliteCache(path)
        assert await again.get(key("new")) is None
        await again.aclose()
