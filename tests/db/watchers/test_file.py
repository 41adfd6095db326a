"""Processes on one machine tell each other by a file."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from afresh.db.watchers import FileWatcher, Signal
from afresh.testing import FakeClock
from tests.db.watchers.conftest import cleared

PERIOD = 0.05


async def started(path: Path) -> tuple[FileWatcher, Signal]:
    watcher = FileWatcher(path, period=PERIOD)
    await watcher.start()
    return watcher, cleared(watcher)


def remove(path: Path) -> None:
    path.unlink()


def size(path: Path) -> int:
    return path.stat().st_size


def put_another_in_place(path: Path) -> None:
    other = path.with_suffix(".other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def opened() -> set[Path]:
    """The files that this process holds."""
    return {link.resolve() for link in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db-afresh"


async def test_a_change_wakes_up_the_others_within_a_period(path: Path, clock: FakeClock):
    here, own = await started(path)
    there, foreign = await started(path)
    events, shard = cleared(there, "events"), cleared(there, "operations", "north")
    here.changed("operations")
    assert own.is_set
    own.clear()
    await clock.advance(PERIOD)
    assert all(signal.is_set for signal in (foreign, events, shard))
    assert not own.is_set
    foreign.clear()
    await clock.advance(1)
    assert not foreign.is_set
    assert not own.is_set
    await here.aclose()
    await there.aclose()
    await there.aclose()
    assert clock.timers == 0


async def test_changes_of_both_sides_between_two_looks_are_not_taken_for_ones_own(
    path: Path, clock: FakeClock
):
    here, own = await started(path)
    there, foreign = await started(path)
    here.changed("operations")
    there.changed("operations")
    await clock.settle()
    own.clear()
    foreign.clear()
    await clock.advance(PERIOD)
    assert own.is_set
    assert foreign.is_set
    await here.aclose()
    await there.aclose()


async def test_a_burst_of_changes_is_one_change_for_the_others(path: Path, clock: FakeClock):
    here, _ = await started(path)
    for _ in range(1_000):
        here.changed("operations")
        here.changed("events")
    await clock.settle()
    assert size(path) == 1
    assert here.health()["sent"] == 1
    await here.aclose()


async def test_what_was_committed_last_is_told_before_the_end(path: Path, clock: FakeClock):
    here, _ = await started(path)
    there, foreign = await started(path)
    here.changed("operations")
    await here.aclose()
    await clock.advance(PERIOD)
    assert foreign.is_set
    await there.aclose()


async def test_a_change_before_the_start_or_after_the_end_is_told_to_nobody(
    path: Path, clock: FakeClock
):
    there, foreign = await started(path)
    here = FileWatcher(path)
    here.changed("operations")
    await clock.advance(PERIOD)
    assert not foreign.is_set
    await there.aclose()


@pytest.fixture
def long_file(path: Path) -> Path:
    path.write_bytes(b"." * 65_536)
    return path


async def test_the_file_does_not_grow_without_end(long_file: Path, clock: FakeClock):
    path = long_file
    here, own = await started(path)
    there, foreign = await started(path)
    for _ in range(3):
        here.changed("operations")
        await clock.advance(PERIOD)
        assert foreign.is_set
        assert size(path) < 10
        foreign.clear()
    own.clear()
    there.changed("operations")
    await clock.advance(PERIOD)
    assert own.is_set
    await here.aclose()
    await there.aclose()


async def test_a_file_that_is_removed_or_replaced_is_made_and_found_again(
    path: Path, clock: FakeClock
):
    here, own = await started(path)
    there, foreign = await started(path)
    remove(path)
    await clock.advance(3 * PERIOD)
    assert size(path) == 0
    for kept in (own, foreign):
        kept.clear()
    here.changed("operations")
    await clock.advance(PERIOD)
    assert foreign.is_set
    foreign.clear()
    put_another_in_place(path)
    await clock.advance(PERIOD)
    assert foreign.is_set
    await here.aclose()
    await there.aclose()


async def test_a_file_that_cannot_be_used_is_told_of_once_and_tried_again(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "folder" / "shop.db-afresh"
    here, own = await started(path)
    here.changed("operations")
    assert own.is_set
    own.clear()
    await clock.advance(1)
    assert here.health()["connected"] is False
    assert "folder" in str(here.health()["error"])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    path.parent.mkdir()
    await clock.advance(2 * PERIOD)
    assert here.health()["connected"] is True
    assert here.health()["error"] is None
    assert own.is_set  # nobody knows what others did meanwhile
    await here.aclose()


async def test_another_process_is_heard(path: Path, clock: FakeClock):
    here, own = await started(path)
    program = (
        "import asyncio, sys\n"
        "from afresh.db.watchers import FileWatcher\n"
        "async def main():\n"
        "    watcher = FileWatcher(sys.argv[1])\n"
        "    await watcher.start()\n"
        "    watcher.changed('operations')\n"
        "    await watcher.aclose()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    await asyncio.to_thread(subprocess.run, command, check=True)
    await clock.advance(PERIOD)
    assert own.is_set
    await here.aclose()


async def test_no_file_is_held_open(path: Path, clock: FakeClock):
    here, _ = await started(path)
    here.changed("operations")
    await clock.advance(1)
    assert path not in opened()
    await here.aclose()


@pytest.mark.parametrize("period", [0, -1, float("nan")])
def test_a_period_that_is_none_is_refused(path: Path, period: float):
    with pytest.raises(ValueError, match="more than 0 seconds"):
        FileWatcher(path, period=period)
