"""Changes wait, go together, and are found meanwhile."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import AsyncIterator, Collection, Iterator

import pytest

from afresh.primitives.clock import LoopClock, use_clock
from afresh.primitives.tasks import background_tasks
from afresh.remote.cache.entry import CacheKey
from afresh.remote.cache.write_behind import UNCHANGED, Changes, WriteBehind
from afresh.testing import FakeClock

from .entries import entry, key


class Place:
    """Where changes are written: a dictionary that can be slow, and out of reach."""

    def __init__(self) -> None:
        self.entries: dict[CacheKey, bytes] = {}
        self.batches: list[list[str]] = []
        self.used: list[list[str]] = []
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.is_reachable = True
        self.writers = 0

    async def write(self, changes: Changes, used: Collection[CacheKey]) -> bool:
        self.writers += 1
        assert self.writers == 1
        try:
            await self.is_open.wait()
        finally:
            self.writers -= 1
        self.batches.append([each.arguments.decode() for each in changes])
        self.used.append([each.arguments.decode() for each in used])
        if not self.is_reachable:
            return False
        for each, change in changes.items():
            if change is None:
                self.entries.pop(each, None)
            else:
                self.entries[each] = change.data
        return True


@pytest.fixture(autouse=True)
def clock() -> Iterator[FakeClock]:
    with use_clock(FakeClock()) as clock:
        yield clock


@pytest.fixture(autouse=True)
async def nothing_runs_on() -> AsyncIterator[None]:
    yield
    assert background_tasks() == frozenset()


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture
def changes(place: Place) -> WriteBehind:
    return WriteBehind(place.write, 0.25, 1000)


class TestWaiting:
    async def test_changes_go_together_a_quarter_of_a_second_after_the_first(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        changes.add(key("a"), entry("a"))
        await clock.advance(0.2)
        changes.add(key("b"), entry("b"))
        assert place.batches == []
        await clock.advance(0.05)
        assert place.batches == [["a", "b"]]
        await clock.advance(10)
        assert len(place.batches) == 1
        assert clock.timers == 0

    async def test_the_newest_change_of_a_key_goes_and_the_others_never_do(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        changes.add(key(), entry(data=b"1"))
        changes.add(key(), None)
        changes.add(key(), entry(data=b"2"))
        await clock.advance(0.25)
        assert place.batches == [["a"]]
        assert place.entries == {key(): b"2"}

    async def test_uses_go_with_the_next_changes(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        changes.note_use(key("a"))
        await clock.advance(1)
        changes.add(key("b"), entry("b"))
        await clock.advance(0.25)
        assert (place.batches, place.used) == ([["b"]], [["a"]])

    async def test_uses_alone_go_after_five_seconds(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        changes.note_use(key("a"))
        changes.note_use(key("a"))
        await clock.advance(4.9)
        changes.note_use(key("b"))
        assert place.used == []
        await clock.advance(0.1)
        assert place.used == [["a", "b"]]
        assert clock.timers == 0

    async def test_uses_beyond_ten_thousand_are_not_noted(
        self, changes: WriteBehind, place: Place
    ) -> None:
        for number in range(10_100):
            changes.note_use(key(str(number)))
        await changes.flush()
        assert len(place.used[0]) == 10_000

    async def test_when_there_are_too_many_the_oldest_are_dropped(
        self, changes: WriteBehind, place: Place
    ) -> None:
        for name in "abcde":
            changes.add(key(name), entry(name, b"x" * 280))
        changes.add(key("c"), entry("c", b"y" * 280))
        changes.add(key("f"), entry("f", b"x" * 280))
        assert changes.find(key("a")) is UNCHANGED
        assert changes.find(key("d")) is UNCHANGED
        await changes.flush()
        assert place.batches == [["e", "c", "f"]]


class TestFinding:
    async def test_a_change_is_found_until_it_is_written(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        place.is_open.clear()
        changes.add(key("a"), entry("a"))
        changes.add(key("b"), None)
        assert changes.find(key("a")) == entry("a")
        assert changes.find(key("b")) is None
        assert changes.find(key("c")) is UNCHANGED
        await clock.advance(0.25)
        assert place.writers == 1
        assert changes.find(key("a")) == entry("a")
        assert changes.find(key("b")) is None
        place.is_open.set()
        await clock.advance(0)
        assert changes.find(key("a")) is UNCHANGED
        assert changes.find(key("b")) is UNCHANGED

    async def test_a_change_that_waits_hides_the_one_being_written(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        place.is_open.clear()
        changes.add(key(), entry(data=b"1"))
        await clock.advance(0.25)
        changes.add(key(), None)
        assert changes.find(key()) is None
        changes.add(key(), entry(data=b"2"))
        assert changes.find(key()) == entry(data=b"2")
        place.is_open.set()
        await changes.flush()
        assert place.entries == {key(): b"2"}


class TestOneAtATime:
    async def test_what_comes_while_a_batch_is_written_waits_for_its_end_and_the_delay(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        place.is_open.clear()
        changes.add(key("a"), entry("a"))
        await clock.advance(0.25)
        changes.add(key("b"), entry("b"))
        changes.note_use(key("c"))
        await clock.advance(60)
        place.is_open.set()
        await clock.advance(0.2)
        assert place.batches == [["a"]]
        await clock.advance(0.05)
        assert place.batches == [["a"], ["b"]]
        assert place.used == [[], ["c"]]

    async def test_uses_that_come_while_a_batch_is_written_go_later_by_themselves(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        place.is_open.clear()
        changes.add(key("a"), entry("a"))
        await clock.advance(0.25)
        changes.note_use(key("c"))
        place.is_open.set()
        await clock.advance(5)
        assert place.used == [[], ["c"]]
        assert clock.timers == 0


class TestFlushing:
    async def test_it_writes_now(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        changes.add(key(), entry())
        await changes.flush()
        assert place.batches == [["a"]]
        assert clock.timers == 0

    async def test_nothing_to_write_is_nothing_to_do(
        self, changes: WriteBehind, place: Place
    ) -> None:
        await changes.flush()
        assert place.batches == []

    async def test_it_waits_for_the_batch_being_written_and_writes_what_came_since(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        place.is_open.clear()
        changes.add(key("a"), entry("a"))
        await clock.advance(0.25)
        changes.add(key("b"), entry("b"))
        flushes = [asyncio.ensure_future(changes.flush()) for _ in range(3)]
        await clock.advance(0)
        assert not any(each.done() for each in flushes)
        place.is_open.set()
        await asyncio.gather(*flushes)
        assert place.batches == [["a"], ["b"]]

    async def test_cancelling_it_does_not_stop_the_writing(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        place.is_open.clear()
        changes.add(key(), entry())
        flush = asyncio.ensure_future(changes.flush())
        await clock.advance(0)
        flush.cancel()
        await clock.advance(0)
        place.is_open.set()
        await clock.advance(0)
        assert flush.cancelled()
        assert place.entries == {key(): b"data"}


class TestFailing:
    async def test_changes_are_tried_again_with_growing_delays(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        place.is_reachable = False
        changes.add(key("a"), entry("a", b"1"))
        await clock.advance(0.25)
        moments = []
        for _ in range(600):
            before = len(place.batches)
            await clock.advance(0.1)
            if len(place.batches) > before:
                moments.append(clock.now())
            changes.add(key("b"), entry("b"))  # hastens nothing
        pauses = [later - sooner for sooner, later in itertools.pairwise(moments)]
        assert pauses[:4] == pytest.approx([0.5, 1, 2, 4], rel=0.3)
        assert pauses[-1] == pytest.approx(10, rel=0.15)
        assert changes.find(key("a")) == entry("a", b"1")
        place.is_reachable = True
        await clock.advance(12)
        assert place.entries == {key("a"): b"1", key("b"): b"data"}
        assert changes.find(key("a")) is UNCHANGED
        changes.add(key("a"), None)
        await clock.advance(0.25)
        assert place.entries == {key("b"): b"data"}

    async def test_what_came_later_wins_over_what_is_tried_again(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        place.is_reachable = False
        place.is_open.clear()
        for name in "abc":
            changes.add(key(name), entry(name, b"old"))
        await clock.advance(0.25)
        changes.add(key("a"), entry("a", b"new"))
        changes.add(key("b"), None)
        place.is_open.set()
        await clock.advance(0)
        place.is_reachable = True
        await changes.flush()
        assert place.entries == {key("a"): b"new", key("c"): b"old"}

    async def test_what_waits_stays_bounded(self, changes: WriteBehind, place: Place) -> None:
        place.is_reachable = False
        for number in range(100):
            changes.add(key(str(number)), entry(str(number), b"x" * 80))
            await changes.flush()
        place.is_reachable = True
        await changes.flush()
        assert place.batches[-1][-1] == "99"
        assert 5 <= len(place.batches[-1]) <= 12
        changes.clear()

    async def test_an_error_counts_as_a_failure(
        self, place: Place, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def write(batch: Changes, used: Collection[CacheKey]) -> bool:
            if not attempts:
                attempts.append(1)
                raise ValueError("no good")
            return await place.write(batch, used)

        attempts: list[int] = []
        changes = WriteBehind(write, 0.25, 1000)
        changes.add(key(), entry())
        await clock.advance(0.25)
        assert "no good" in caplog.text
        await clock.advance(1)
        assert place.entries == {key(): b"data"}


class TestClearing:
    async def test_nothing_that_waited_is_written(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        changes.add(key(), entry())
        changes.note_use(key())
        changes.clear()
        assert changes.find(key()) is UNCHANGED
        await clock.advance(10)
        assert place.batches == []
        assert clock.timers == 0

    async def test_a_batch_that_is_about_to_be_written_is_not(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        changes.add(key(), entry())
        clock.advance_sync(0.25)
        changes.clear()
        await clock.advance(10)
        assert place.entries == {}

    async def test_a_batch_that_could_not_be_written_is_not_tried_again(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        place.is_open.clear()
        place.is_reachable = False
        changes.add(key(), entry())
        await clock.advance(0.25)
        changes.clear()
        assert changes.find(key()) is UNCHANGED
        place.is_open.set()
        await clock.advance(0)
        place.is_reachable = True
        await clock.advance(60)
        assert place.batches == [["a"]]
        assert place.entries == {}

    async def test_closing_writes_what_waits(self, changes: WriteBehind, place: Place) -> None:
        changes.add(key(), entry())
        await changes.close()
        assert place.entries == {key(): b"data"}

    async def test_closing_tries_for_a_moment_and_gives_up(
        self, changes: WriteBehind, place: Place, clock: FakeClock
    ) -> None:
        place.is_reachable = False
        changes.add(key(), entry())
        closing = asyncio.ensure_future(changes.close())
        await clock.advance(2)
        assert closing.done()
        assert 2 <= len(place.batches) <= 5
        await clock.advance(60)
        assert len(place.batches) <= 5
        assert clock.timers == 0


class TestLoops:
    def test_what_a_loop_left_unwritten_is_written_in_the_next(self) -> None:
        async def leave() -> None:
            place.is_open.clear()
            changes.add(key("a"), entry("a"))
            changes.add(key("b"), entry("b"))
            flush = asyncio.ensure_future(changes.flush())
            await asyncio.sleep(0.01)
            assert place.writers == 1
            changes.add(key("b"), None)
            flush.cancel()

        async def go_on() -> None:
            place.is_open = asyncio.Event()
            place.is_open.set()
            place.writers = 0
            changes.add(key("c"), entry("c"))
            await changes.flush()

        with use_clock(LoopClock()):
            place = Place()
            changes = WriteBehind(place.write, 0.25, 1000)
            loop = asyncio.new_event_loop()
            loop.run_until_complete(leave())
            loop.close()  # in the midst of it: the task never ends
            assert changes.find(key("a")) == entry("a")
            asyncio.run(go_on())
        assert place.entries == {key("a"): b"data", key("c"): b"data"}
        assert changes.find(key("a")) is UNCHANGED

    def test_a_batch_whose_task_was_cancelled_is_tried_again(self) -> None:
        async def leave() -> None:
            place.is_open.clear()
            changes.add(key("a"), entry("a"))
            flush = asyncio.ensure_future(changes.flush())
            await asyncio.sleep(0.01)
            assert not flush.done()

        async def wait() -> None:
            place.is_open.set()
            while not place.entries:
                await asyncio.sleep(0.01)

        with use_clock(LoopClock()):
            place = Place()
            changes = WriteBehind(place.write, 0.05, 1000)
            asyncio.run(leave())
            asyncio.run(asyncio.wait_for(_with_clock(wait), 5))
        assert place.entries == {key("a"): b"data"}


async def _with_clock(wait) -> None:
    from afresh.primitives.clock import current_clock

    current_clock().attach()
    await wait()


async def test_nothing_is_kept_alive_when_all_is_written(place: Place) -> None:
    changes = WriteBehind(place.write, 0.25, 1000)
    changes.add(key(), entry())
    await changes.flush()
    gone = weakref.ref(changes)
    del changes
    gc.collect()
    assert gone() is None
