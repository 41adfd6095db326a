"""A host applies what others commit: once, in time, whatever fails meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from afresh.db.logs import OperationLogOptions, worker
from afresh.db.shards import open_shard
from afresh.errors import InvalidStateError, LogDecodeError
from afresh.testing import FakeClock
from tests.db.logs.world import Host, Log, idle, until

Start: TypeAlias = Callable[..., Awaitable[Host]]


# --- Following the log -------------------------------------------------------


async def test_what_another_host_commits_is_applied_with_all_it_says(
    any_log: Log, start_host: Start
):
    host = await start_host(any_log)
    logged_at = datetime.now(UTC).replace(microsecond=123_456)
    index = await any_log.add("A", uuid="u" * 40, logged_at=logged_at, command="c", effects="e")
    await host.look()
    (logged,) = host.logged
    assert (logged.index, logged.uuid, logged.host_id) == (index, "u" * 40, "A")
    assert (logged.command, logged.effects) == ("c", "e")
    assert logged.logged_at == logged_at
    assert logged.logged_at.tzinfo is UTC


async def test_texts_of_any_length_and_script_come_through(any_log: Log, start_host: Start):
    host = await start_host(any_log)
    long = 'Ж𝄞\\"\n' * 60_000
    await any_log.add("ホスト", command=long, effects=None)
    await host.look()
    assert host.logged[0].command == long
    assert host.logged[0].effects is None
    assert host.logged[0].host_id == "ホスト"


async def test_own_operations_are_not_applied_but_passed(log: Log, start_host: Start):
    host = await start_host(log, "B")
    indexes = [await log.add("B"), await log.add("A"), await log.add("B")]
    await host.look()
    assert host.applied == [indexes[1]]
    assert host.health["cursor"] == indexes[2] + 1
    assert host.health["missing"] == 0


async def test_a_host_that_starts_begins_where_the_log_ends(
    clock: FakeClock, any_log: Log, start_host: Start
):
    for _ in range(3):
        await any_log.add()
    await any_log.age_operations(60)
    host = await start_host(any_log)
    await idle(host.reader)
    assert host.applied == []
    index = await any_log.add()
    await host.look()
    assert host.applied == [index]


async def test_a_host_that_starts_applies_the_last_few_seconds(any_log: Log, start_host: Start):
    old, new = await any_log.add(), await any_log.add()
    await any_log.age_operations(10, old)
    host = await start_host(any_log)
    await idle(host.reader)
    assert host.applied == [new]


async def test_a_host_on_an_empty_log_misses_nothing_however_late_it_looks(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log)
    await idle(host.reader)
    index = await log.add()
    await log.age_operations(4)  # outside of any window when the host looks the next time
    await clock.advance(6)
    await idle(host.reader)
    assert host.applied == [index]


async def test_an_operation_that_was_in_flight_when_a_host_started_is_applied(
    clock: FakeClock, log: Log, start_host: Start
):
    gap, _ = await log.skip(), await log.add()
    await log.age_operations(60)
    host = await start_host(log)
    await log.add(index=gap)
    await host.look()
    assert host.applied == [gap]


async def test_operations_are_found_without_being_told_of_them(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log)
    await idle(host.reader)
    index = await log.add()
    await clock.advance(4)
    await idle(host.reader)
    assert host.applied == []
    await clock.advance(2)
    await idle(host.reader)
    assert host.applied == [index]


async def test_a_signal_during_a_read_leads_to_another_read(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log)
    await idle(host.reader)
    first = await log.add()
    host.blocked[first] = asyncio.Event()
    log.changed()
    await until(lambda: host.calls == [first])
    second = await log.add()
    log.changed()
    host.blocked[first].set()
    await idle(host.reader)
    assert host.applied == [first, second]


async def test_a_long_log_is_read_in_growing_batches(log: Log, start_host: Start):
    await log.add_many(300)
    options = OperationLogOptions(batch=8, largest_batch=64)
    statements = count_statements(log, "LIMIT")
    host = await start_host(log, options=options)
    await idle(host.reader)
    assert host.applied == await log.indexes()
    # One for the start; 8, 16, 32, and 64 four times over, the last of which is not full.
    assert statements() == 1 + 7


async def test_batches_of_large_rows_stay_short(log: Log, start_host: Start):
    for _ in range(12):
        await log.add(effects="x" * 4_000_000)
    statements = count_statements(log, "LIMIT")
    host = await start_host(log, options=OperationLogOptions(batch=4))
    await idle(host.reader)
    assert len(host.applied) == 12
    assert statements() == 1 + 4  # never more than four at once; the last read finds none


async def test_long_batches_leave_the_event_loop_its_turns(log: Log, start_host: Start):
    await log.add_many(1000)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    host = Host(log, options=OperationLogOptions(batch=1000))
    between: list[int] = []
    host.failing = lambda logged: between.append(turns)  # type: ignore[func-returns-value]
    counter = asyncio.ensure_future(count())
    await host.reader.start()
    await until(lambda: len(host.applied) == 1000)
    counter.cancel()
    await host.reader.aclose()
    assert max(between.count(each) for each in set(between)) <= 64


# --- Waiting -----------------------------------------------------------------


async def test_waiting_for_what_is_applied_does_not_wait(log: Log, start_host: Start):
    host = await start_host(log)
    index = await log.add()
    await host.look()
    waiting = host.reader.wait_for(index, 0)
    with pytest.raises(StopIteration) as stop:
        waiting.send(None)
    assert stop.value.value is True


async def test_waiting_for_an_index_reads_at_once(
    clock: FakeClock, any_log: Log, start_host: Start
):
    host = await start_host(any_log)
    await idle(host.reader)
    lower, index = await any_log.add(), await any_log.add()
    assert await host.reader.wait_for(index, 5)
    assert host.applied == [lower, index]


async def test_waiting_takes_gaps_into_account(clock: FakeClock, log: Log, start_host: Start):
    host = await start_host(log)
    gap = await log.skip()
    index = await log.add()
    await host.look()
    assert host.health["missing"] == 1
    assert await host.reader.wait_for(index, 5)  # a look shows that it is still missing
    await log.add(index=gap)
    assert await host.reader.wait_for(index, 5)
    assert host.applied == [index, gap]


async def test_waiting_for_an_index_that_is_not_there_ends_with_the_time(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log)
    waiting = asyncio.ensure_future(host.reader.wait_for(10**15, 2))
    await idle(host.reader)
    await clock.advance(1.9)
    assert not waiting.done()
    await clock.advance(0.2)
    assert await waiting is False


async def test_waiting_for_an_index_that_is_seen_late_ends_when_it_is_applied(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log)
    await idle(host.reader)
    waiting = asyncio.ensure_future(host.reader.wait_for(1, 30))
    await asyncio.sleep(0)
    await idle(host.reader)
    assert not waiting.done()
    assert await log.add() == 1
    await host.look()
    assert await waiting is True


async def test_waiting_includes_what_is_being_applied_and_what_fails(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log)
    await idle(host.reader)
    index = await log.add()
    host.failing = lambda logged: ValueError("not yet")
    waiting = asyncio.ensure_future(host.reader.wait_for(index, 60))
    await until(lambda: host.calls)
    await idle(host.reader)
    assert not waiting.done()
    assert not await host.reader.wait_for(index, 0)
    host.failing = lambda logged: None
    await clock.advance(1)
    assert await waiting is True


async def test_a_read_that_goes_on_is_not_enough(clock: FakeClock, log: Log, start_host: Start):
    host = await start_host(log)
    await idle(host.reader)
    first = await log.add()
    host.blocked[first] = asyncio.Event()
    log.changed()
    await until(lambda: host.calls)
    # The read that waits here began before this one was committed.
    second = await log.add()
    waiting = asyncio.ensure_future(host.reader.wait_for(second, 60))
    await asyncio.sleep(0)
    host.blocked[first].set()
    assert await waiting is True
    assert host.applied == [first, second]


async def test_those_who_wait_when_the_reader_is_closed_are_told(log: Log, start_host: Start):
    host = await start_host(log)
    waiting = asyncio.ensure_future(host.reader.wait_for(99, 60))
    await until(lambda: host.reader._waiters)
    await host.reader.aclose()
    assert await waiting is False
    assert await host.reader.wait_for(99, 60) is False


async def test_cancelling_those_who_wait_leaves_nothing(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log)
    await idle(host.reader)
    timers = clock.timers
    waiting = asyncio.ensure_future(host.reader.wait_for(99, 60))
    await until(lambda: host.reader._waiters)
    waiting.cancel()
    await asyncio.wait([waiting])
    await idle(host.reader)
    assert not host.reader._waiters
    assert clock.timers == timers


# --- Failures ----------------------------------------------------------------


async def test_an_operation_that_fails_does_not_stop_the_others(
    clock: FakeClock, log: Log, start_host: Start, caplog: pytest.LogCaptureFixture
):
    host = await start_host(log)
    bad, good = await log.add(), await log.add()
    host.failing = lambda logged: ValueError("no") if logged.index == bad else None
    await host.look()
    assert host.applied == [good]
    assert host.health["failing"] == 1
    host.failing = lambda logged: None
    await clock.advance(0.5)
    await idle(host.reader)
    assert host.applied == [good, bad]
    assert host.health["failing"] == 0
    assert host.calls.count(bad) == 2
    assert "could not be applied, and is tried again: ValueError('no')" in caplog.text


async def test_an_operation_that_keeps_failing_is_given_up_after_its_budget(
    clock: FakeClock, log: Log, start_host: Start, caplog: pytest.LogCaptureFixture
):
    host = await start_host(log)
    host.failing = lambda logged: ValueError("never")
    index = await log.add()
    await host.look()
    for _ in range(5):  # within seconds, and not sooner for being woken up
        before = len(host.calls)
        for _ in range(3):
            await host.look()
        assert len(host.calls) == before
        await clock.advance(1.2)
        await idle(host.reader)
        assert len(host.calls) == before + 1
    for _ in range(10):
        assert host.abandoned == []
        before = len(host.calls)
        await clock.advance(4)
        await idle(host.reader)
        assert len(host.calls) == before
        await clock.advance(1.6)
        await idle(host.reader)
        assert len(host.calls) == before + 1
    assert host.abandoned == [index]
    assert len(host.calls) == 1 + 5 + 10
    assert host.health["failing"] == 0
    assert host.health["abandoned"] == 1
    errors = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert [each.getMessage()[-13:] for each in errors] == ["is given up."[-13:]] or len(
        errors
    ) == 1
    await clock.advance(60)
    await idle(host.reader)
    assert len(host.calls) == 1 + 5 + 10


async def test_what_can_t_be_read_is_given_up_at_once(log: Log, start_host: Start):
    host = await start_host(log)
    host.failing = lambda logged: LogDecodeError("unknown", tag="Unknown")
    index = await log.add()
    await host.look()
    assert host.abandoned == [index]
    assert host.calls == [index]
    assert await host.reader.wait_for(index, 0)


async def test_an_operation_that_hangs_is_left_behind_and_tried_again(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log)
    hanging, other = await log.add(), await log.add()
    host.blocked[hanging] = asyncio.Event()
    log.changed()
    await until(lambda: host.applied == [other])
    await clock.advance(1)
    await idle(host.reader)
    assert host.health["applying"] == 1
    later = await log.add()
    await host.look()
    assert host.applied == [other, later]
    assert not await host.reader.wait_for(hanging, 0)
    await clock.advance(29)
    await until(lambda: host.health["failing"] == 1)
    assert host.health["applying"] == 0
    host.blocked[hanging].set()
    await clock.advance(1)
    await idle(host.reader)
    assert host.applied == [other, later, hanging]


async def test_operations_that_wait_are_applied_side_by_side(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log, options=OperationLogOptions(concurrency=4))
    indexes = [await log.add() for _ in range(6)]
    for index in indexes:
        host.blocked[index] = asyncio.Event()
    log.changed()
    await until(lambda: len(host.calls) == 4)
    await clock.settle()
    assert len(host.calls) == 4
    host.blocked[indexes[2]].set()
    await until(lambda: len(host.calls) == 5)
    for index in indexes:
        host.blocked[index].set()
    await idle(host.reader)
    assert sorted(host.applied) == indexes
    assert host.applied[0] == indexes[2]


async def test_an_application_that_ends_itself_by_a_cancellation_is_tried_again(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log)
    host.failing = lambda logged: asyncio.CancelledError()
    index = await log.add()
    await host.look()
    host.failing = lambda logged: None
    await clock.advance(1)
    await idle(host.reader)
    assert host.applied == [index]


async def test_an_error_in_giving_up_is_logged_and_the_reader_goes_on(
    log: Log, start_host: Start, caplog: pytest.LogCaptureFixture
):
    host = await start_host(log)
    host.failing = lambda logged: LogDecodeError("unknown")
    host.abandoned = None  # type: ignore[assignment]
    await log.add()
    await host.look()
    assert "Giving up operation" in caplog.text
    host.failing = lambda logged: None
    index = await log.add()
    await host.look()
    assert host.applied == [index]


async def test_a_database_that_is_away_is_asked_again_with_growing_pauses(
    clock: FakeClock, log: Log, start_host: Start, caplog: pytest.LogCaptureFixture
):
    host = await start_host(log)
    await idle(host.reader)
    async with log.shard.write.begin() as connection:
        await connection.execute(text("ALTER TABLE _operations RENAME TO away"))
    log.changed()
    await until(lambda: host.health["error"] is not None and not host.reader.is_working)
    assert "no such table" in host.health["error"]
    statements = count_statements(log, "LIMIT")
    pauses = []
    for _ in range(10):
        before, began = statements(), clock.now()
        while statements() == before:
            log.changed()  # does not make it ask any sooner
            await clock.advance(0.05)
            await until(lambda: not host.reader.is_working)
        pauses.append(clock.now() - began)
    assert pauses[0] < 0.5
    assert 4 < pauses[-1] < 6
    async with log.shard.write.begin() as connection:
        await connection.execute(text("ALTER TABLE away RENAME TO _operations"))
    index = await log.add()
    await clock.advance(6)
    await idle(host.reader)
    assert host.applied == [index]
    assert host.health["error"] is None
    # Told of the 1st, 2nd, 4th and 8th failure.
    assert caplog.text.count("can't be worked at") <= 4


async def test_a_connection_that_died_in_silence_is_given_up(
    clock: FakeClock, log: Log, start_host: Start, monkeypatch: pytest.MonkeyPatch
):
    host = await start_host(log)
    await idle(host.reader)
    monkeypatch.setattr(worker, "_PATIENCE", 0.05)
    with monkeypatch.context() as silence:
        silence.setattr(AsyncConnection, "execute", lambda *args: asyncio.Event().wait())
        log.changed()
        await until(lambda: host.health["error"])
        assert "has not answered for" in host.health["error"]
    monkeypatch.setattr(worker, "_PATIENCE", 60)
    index = await log.add()
    await clock.advance(1)
    await idle(host.reader)
    assert host.applied == [index]


async def test_a_cancellation_out_of_nowhere_does_not_end_the_reader(
    clock: FakeClock, log: Log, start_host: Start, monkeypatch: pytest.MonkeyPatch
):
    host = await start_host(log)
    await idle(host.reader)

    async def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as broken:
        broken.setattr(AsyncConnection, "execute", cancelled)
        log.changed()
        await until(lambda: host.health["error"])
    index = await log.add()
    await clock.advance(1)
    await idle(host.reader)
    assert host.applied == [index]


def test_the_end_of_the_event_loop_ends_the_reader(sqlite_database: str):
    async def leave_behind() -> Log:
        log = Log(open_shard("", sqlite_database))
        await log.create()
        host = Host(log)
        await host.reader.start()
        index = await log.add()
        host.blocked[index] = asyncio.Event()
        log.changed()
        await until(lambda: host.calls)
        return log

    log = asyncio.run(leave_behind())
    asyncio.run(log.shard.aclose())


@pytest.mark.parametrize("error", [ValueError("connection is busy"), None])
async def test_closing_ends_though_a_driver_swallows_the_cancellation(
    clock: FakeClock,
    log: Log,
    start_host: Start,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | None,
):
    host = await start_host(log)
    await idle(host.reader)
    reading = asyncio.Event()

    async def read(*_: object, **values: object) -> list[object]:
        reading.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if error is not None:
                raise error from None
        return []

    monkeypatch.setattr(host.reader, "_fetch", read)
    log.changed()
    await reading.wait()
    await asyncio.wait_for(host.reader.aclose(), 5)
    assert not host.reader.is_running


async def test_starting_without_the_database_fails(log: Log, start_host: Start):
    async with log.shard.write.begin() as connection:
        await connection.execute(text("DROP TABLE _operations"))
    with pytest.raises(Exception, match="no such table"):
        await start_host(log)


async def test_a_reader_starts_once(log: Log, start_host: Start):
    host = await start_host(log)
    with pytest.raises(InvalidStateError, match="started already"):
        await host.reader.start()


async def test_closing_ends_everything_and_twice_is_fine(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log)
    index = await log.add()
    host.blocked[index] = asyncio.Event()
    log.changed()
    await until(lambda: host.calls)
    await host.reader.aclose()
    await host.reader.aclose()
    assert not host.reader.is_running
    assert host.health["applying"] == 0
    assert clock.timers == 0


# --- Being late --------------------------------------------------------------


async def test_late_operations_are_warned_of_once_in_ten_seconds(
    clock: FakeClock, log: Log, start_host: Start, caplog: pytest.LogCaptureFixture
):
    host = await start_host(log)
    long_ago = datetime.now(UTC) - timedelta(seconds=30)

    async def be_late(number: int, host_id: str = "A") -> None:
        for _ in range(number):
            await log.add(host_id, logged_at=long_ago)
        await host.look()

    await be_late(3, "B")
    assert "after its commit" not in caplog.text
    await be_late(3)
    assert caplog.text.count("after its commit") == 1
    assert 29 < host.health["lag"] < 60
    await clock.advance(11)
    await be_late(1)
    assert caplog.text.count("after its commit") == 2
    assert "not told of, were 2 others" in caplog.text


async def test_a_clock_that_is_ahead_does_not_disturb(log: Log, start_host: Start):
    host = await start_host(log)
    ahead = await log.add(logged_at=datetime.now(UTC) + timedelta(hours=1))
    behind = await log.add(logged_at=datetime.now(UTC) - timedelta(hours=1))
    await host.look()
    assert host.applied == [ahead, behind]
    assert host.health["lag"] > 3000


def count_statements(log: Log, part: str) -> Callable[[], int]:
    """Count the statements with a text in them that are run from now on."""
    from sqlalchemy import event

    number = 0

    @event.listens_for(log.shard.read.sync_engine, "before_cursor_execute")
    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        nonlocal number
        number += part in statement

    return lambda: number


async def test_nobody_is_warned_of_what_was_committed_before_a_host_began(
    caplog: pytest.LogCaptureFixture, log: Log, start_host: Start
):
    await log.add(logged_at=datetime.now(UTC) - timedelta(seconds=2))
    host = await start_host(log)
    await host.look()
    assert len(host.applied) == 1
    assert "after its commit" not in caplog.text
