"""Watchers wake up the readers that are meant, within one process and by the clock."""

import gc

import pytest

from afresh.db.watchers import LocalWatcher, LogKind, PollingWatcher, Signal
from afresh.primitives.clock import use_clock
from afresh.testing import FakeClock


def cleared(*signals: Signal) -> None:
    for signal in signals:
        signal.clear()


def test_a_change_wakes_up_all_readers_of_that_log_and_no_others():
    watcher = LocalWatcher()
    first, second = watcher.signal("operations"), watcher.signal("operations")
    events, other = watcher.signal("events"), watcher.signal("operations", "other")
    cleared(first, second, events, other)
    watcher.changed("operations")
    assert [signal.is_set for signal in (first, second, events, other)] == [
        True,
        True,
        False,
        False,
    ]
    cleared(first, second)
    watcher.changed("operations", "other")
    assert [signal.is_set for signal in (first, second, events, other)] == [
        False,
        False,
        False,
        True,
    ]


def test_a_change_that_nobody_reads_is_nobodys_business():
    LocalWatcher().changed("events", "far away")


def test_a_reader_that_clears_does_not_clear_for_another():
    watcher = LocalWatcher()
    first, second = watcher.signal("events"), watcher.signal("events")
    watcher.changed("events")
    first.clear()
    assert second.is_set


def test_readers_and_shards_that_are_gone_are_forgotten():
    watcher = LocalWatcher()
    for number in range(100):
        watcher.signal("operations", f"shard {number}")
    gc.collect()
    kept = watcher.signal("operations", "kept")
    for number in range(100):
        watcher.changed("operations", f"shard {number}")
    assert list(watcher._signals) == [("operations", "kept")]
    assert kept.is_set


async def test_a_local_watcher_may_serve_several_databases():
    watcher = LocalWatcher()
    await watcher.start()
    await watcher.start()
    await watcher.aclose()
    signal = watcher.signal("operations")
    signal.clear()
    watcher.changed("operations")
    assert signal.is_set
    assert watcher.health() == {"kind": "local", "connected": True}


async def test_a_polling_watcher_has_every_log_read_once_in_a_period():
    with use_clock(FakeClock()) as clock:
        watcher = PollingWatcher(2)
        signals = [watcher.signal("operations"), watcher.signal("events", "other")]
        await watcher.start()
        await watcher.start()  # again does nothing
        for _ in range(3):
            cleared(*signals)
            await clock.advance(1.7)
            assert not any(signal.is_set for signal in signals)
            clock_at = clock.next_due
            await clock.advance(clock_at - clock.now())
            assert all(signal.is_set for signal in signals)
        assert watcher.health() == {"kind": "polling", "connected": True, "period": 2}
        await watcher.aclose()
        await watcher.aclose()
        assert clock.timers == 0
        assert watcher.health()["connected"] is False


async def test_a_polling_watcher_wakes_up_its_own_readers_at_once():
    watcher = PollingWatcher()
    signal = watcher.signal("operations")
    signal.clear()
    watcher.changed("operations")
    assert signal.is_set


@pytest.mark.parametrize("period", [0, -1, float("nan")])
def test_a_period_that_is_none_is_refused(period: float):
    with pytest.raises(ValueError, match="more than 0 seconds"):
        PollingWatcher(period)


def test_a_change_that_this_host_need_not_read_is_told_to_others_only():
    class Telling(LocalWatcher):
        told: tuple[str, str] | None = None

        def _tell(self, kind: LogKind, shard: str) -> None:
            self.told = kind, shard

    watcher = Telling()
    signal = watcher.signal("operations")
    signal.clear()
    watcher.changed("operations", own=False)
    assert not signal.is_set
    assert watcher.told == ("operations", "")
