"""Several processes and one file; and processes that are killed in the midst of it."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from afresh.remote.cache import SqliteCache

from .entries import entry, key

WRITER = """
import asyncio, sys
from afresh.remote.cache import CacheEntry, CacheKey, SqliteCache

async def write(path, name, rounds):
    cache = SqliteCache(path, flush_delay=0.001)
    for number in range(rounds):
        for part in range(50):
            key = CacheKey("Orders.for_user:1", f"{name}{part}".encode(), "msgpack6c")
            cache.set(CacheEntry(key, b"%d," % number * 200))
        await cache.flush()
        print(number, flush=True)
    await cache.aclose()

asyncio.run(write(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def start_writer(path: Path, name: str, rounds: int) -> subprocess.Popen[str]:
    """Start a process that writes fifty entries, again and again, all of a round in one batch."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(rounds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_two_processes_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "client.db"
    writers = [start_writer(path, name, 30) for name in "ab"]
    for writer in writers:
        _, errors = await asyncio.to_thread(writer.communicate, timeout=60)
        assert writer.returncode == 0, errors
    cache = SqliteCache(path)
    for name in "ab":
        for part in range(50):
            assert await cache.get(key(f"{name}{part}")) == entry(f"{name}{part}", b"29," * 200)
    await cache.aclose()
    assert not path.with_name("client.db.damaged").exists()


@pytest.mark.parametrize("seed", range(3))
async def test_a_process_that_is_killed_loses_at_most_what_it_was_writing(
    tmp_path: Path, seed: int
) -> None:
    path = tmp_path / "client.db"
    chance = random.Random(seed)
    writer = start_writer(path, "a", 100_000)
    assert writer.stdout is not None
    last = -1
    for _ in range(20 + seed * 7):
        last = int(await asyncio.to_thread(writer.stdout.readline))
    await asyncio.sleep(chance.uniform(0, 0.01))
    writer.send_signal(signal.SIGKILL)
    rest, _ = await asyncio.to_thread(writer.communicate, timeout=60)
    last = max([last, *map(int, rest.split("\n")[:-1])])
    cache = SqliteCache(path)
    found = {
        (await cache.get_value(key(f"a{part}"), lambda data: int(data.split(b",")[0])) or [None])[
            -1
        ]
        for part in range(50)
    }
    await cache.aclose()
    assert len(found) == 1  # a batch is there as a whole
    assert found <= {last, last + 1}
    assert not path.with_name("client.db.damaged").exists()
