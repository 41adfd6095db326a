"""Indexes that are missing: taken by transactions that commit late, or never."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeAlias

import pytest

from afresh.db.logs import OperationLogOptions
from afresh.db.logs.backlog import Backlog
from afresh.operations.logged import LoggedOperation
from afresh.testing import FakeClock
from tests.db.logs.world import Host, Log, Transaction, idle, until

Start: TypeAlias = Callable[..., Awaitable[Host]]


def logged(index: int) -> LoggedOperation:
    return LoggedOperation(index, f"{index}", "A", datetime.now(UTC), None, None)


# --- What is due when ---------------------------------------------------------


def looks(backlog: Backlog, clock: FakeClock, seconds: float, step: float = 0.1) -> list[float]:
    """When a gap is looked for, and stays missing, in the next seconds."""
    times = []
    end = clock.now() + seconds
    while clock.now() < end:
        for gap in backlog.due_gaps():
            backlog.still_missing(gap)
            times.append(clock.now())
        clock.advance_sync(step)
    return times


def test_a_gap_is_looked_for_each_second_then_less_often_and_at_last_not_any_more(
    clock: FakeClock,
):
    backlog = Backlog(OperationLogOptions(), clock.now)
    backlog.add_gaps(7, 8)
    young = looks(backlog, clock, 60)
    assert 50 <= len(young) <= 66
    old = looks(backlog, clock, 600, 0.5)
    assert 105 <= len(old) <= 135
    looks(backlog, clock, 1800 - 660 + 10, 1)
    assert not backlog.gaps
    assert backlog.expired == 1
    assert backlog.next_due() == float("inf")


def test_a_signal_makes_young_gaps_due_and_no_others(clock: FakeClock):
    backlog = Backlog(OperationLogOptions(), clock.now)
    backlog.add_gaps(1, 2)
    clock.advance_sync(61)
    (old,) = backlog.due_gaps()
    backlog.still_missing(old)
    backlog.add_gaps(5, 6)
    backlog.failed(logged(9), ValueError())
    assert backlog.due_gaps() == []
    assert [gap.index for gap in backlog.due_gaps(signalled=True)] == [5]
    assert backlog.take_due_failures() == []


def test_those_who_wait_for_an_index_make_all_gaps_up_to_it_due(clock: FakeClock):
    backlog = Backlog(OperationLogOptions(), clock.now)
    backlog.add_gaps(1, 2)
    clock.advance_sync(61)
    for gap in backlog.due_gaps():
        backlog.still_missing(gap)
    backlog.add_gaps(5, 8)
    assert [gap.index for gap in backlog.due_gaps(up_to=6)] == [1, 5, 6]


def test_there_are_never_more_than_the_limit(clock: FakeClock):
    backlog = Backlog(OperationLogOptions(gap_limit=10), clock.now)
    assert backlog.add_gaps(1, 9) == 0
    assert backlog.add_gaps(10, 20) == 8
    assert list(backlog.gaps) == [1, 2, 3, 4, 5, 6, 7, 8, 18, 19]
    assert backlog.dropped == 8
    assert not backlog.failed(logged(30), ValueError())
    assert len(backlog) == 10


def test_gaps_of_any_width_cost_no_more_than_the_limit(clock: FakeClock):
    backlog = Backlog(OperationLogOptions(), clock.now)
    assert backlog.add_gaps(1, 10**15) == 10**15 - 1 - 16_384
    assert len(backlog) == 16_384


def test_on_postgresql_a_gap_is_closed_when_all_who_could_fill_it_have_ended(clock: FakeClock):
    backlog = Backlog(OperationLogOptions(), clock.now)
    backlog.add_gaps(1, 2)
    (gap,) = backlog.due_gaps(signalled=True)
    backlog.still_missing(gap, oldest=100, horizon=100)
    assert gap.horizon is None  # whoever took the index may have no number yet
    clock.advance_sync(1.2)
    backlog.still_missing(gap, oldest=100, horizon=105)
    backlog.still_missing(gap, oldest=104, horizon=110)
    assert backlog.gaps
    backlog.still_missing(gap, oldest=105, horizon=111)
    assert not backlog.gaps


# --- What the reader does -----------------------------------------------------


async def test_a_late_commit_is_applied_when_it_is_signalled(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log)
    gap, index = await log.skip(), await log.add()
    await host.look()
    assert (host.applied, host.health["missing"]) == ([index], 1)
    await log.add(index=gap)
    await host.look()
    assert (host.applied, host.health["missing"]) == ([index, gap], 0)


async def test_a_late_commit_is_applied_without_a_signal(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log)
    gap, index = await log.skip(), await log.add()
    await host.look()
    await log.add(index=gap)
    await clock.advance(1.2)
    await idle(host.reader)
    assert host.applied == [index, gap]


async def test_an_own_late_commit_fills_the_gap_and_is_not_applied(log: Log, start_host: Start):
    host = await start_host(log, "B")
    gap, index = await log.skip(), await log.add()
    await host.look()
    await log.add("B", index=gap)
    await host.look()
    assert (host.applied, host.health["missing"]) == ([index], 0)


async def test_a_late_commit_that_fails_is_tried_again(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log)
    gap, index = await log.skip(), await log.add()
    await host.look()
    host.failing = lambda logged: ValueError("no")
    await log.add(index=gap)
    await host.look()
    assert (host.health["missing"], host.health["failing"]) == (0, 1)
    host.failing = lambda logged: None
    await clock.advance(0.5)
    await idle(host.reader)
    assert host.applied == [index, gap]


async def test_gaps_are_looked_for_in_a_log_that_grows_as_fast_as_it_is_read(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log, options=OperationLogOptions(batch=2, largest_batch=2))
    gap, first = await log.skip(), await log.add()
    await host.look()
    await clock.advance(0.8)
    # Each operation that is applied is followed by two more, so no read finds the end of the log.
    grown = 0

    async def grow() -> None:
        nonlocal grown
        while gap not in host.applied:
            await log.add_many(2)
            grown += 2
            log.changed()
            if grown == 10:
                await log.add(index=gap)
                await clock.advance(0.5)

    await asyncio.wait_for(grow(), 20)
    await idle(host.reader)
    assert host.applied[0] == first
    assert sorted(host.applied) == await log.indexes()


async def test_many_gaps_are_looked_for_in_chunks(clock: FakeClock, log: Log, start_host: Start):
    host = await start_host(log)
    await log.add(index=601)
    await host.look()
    assert host.health["missing"] == 600
    for index in (1, 300, 600):
        await log.add(index=index)
    await host.look()
    assert host.applied == [601, 1, 300, 600]
    assert host.health["missing"] == 597


async def test_too_many_gaps_are_warned_of_once(
    log: Log, start_host: Start, caplog: pytest.LogCaptureFixture
):
    host = await start_host(log, options=OperationLogOptions(gap_limit=5))
    await log.add(index=100)
    await log.add(index=200)
    await host.look()
    assert caplog.text.count("more gaps than are kept track of") == 1
    assert host.applied == [100, 200]
    assert host.health["missing"] == 5


# --- Rows that were deleted before they were read --------------------------------


async def test_a_gap_at_the_front_is_no_loss_while_older_rows_are_there(
    log: Log, start_host: Start
):
    await log.add()
    host = await start_host(log)
    await idle(host.reader)
    gap, index = await log.skip(), await log.add()
    await host.look()
    assert host.losses == []
    assert host.applied[-1] == index
    await log.add(index=gap)
    await host.look()
    assert host.applied[-1] == gap


async def test_rows_that_were_deleted_before_they_were_read_are_a_loss(
    clock: FakeClock, log: Log, start_host: Start, caplog: pytest.LogCaptureFixture
):
    await log.add()
    host = await start_host(log)
    await host.look()
    last = max([await log.add() for _ in range(5)])
    index = await log.add()
    await log.remove_up_to(last)
    await host.look()
    (loss,) = host.losses
    assert str(last) in loss
    assert host.health["lost"] == 1
    assert host.applied[-1] == index
    assert [each.levelno for each in caplog.records] == [logging.ERROR]
    # Once for each loss; and what is committed only now, right before the first row, is no loss.
    await log.add(index=last)
    await log.add()
    await host.look()
    assert len(host.losses) == 1
    assert host.applied[-2:] == [last, index + 1]


async def test_the_first_rows_of_a_log_are_no_loss_even_if_the_very_first_was_rolled_back(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log)
    await idle(host.reader)
    gap, index = await log.skip(), await log.add()
    await host.look()
    assert (host.losses, host.applied) == ([], [index])
    await log.add(index=gap)
    await host.look()
    assert host.applied == [index, gap]


# --- Real transactions --------------------------------------------------------


async def test_long_transactions_that_commit_late_are_applied(server_log: Log, start_host: Start):
    log = server_log
    host = await start_host(log)
    await idle(host.reader)
    late: list[Transaction] = [await log.begin() for _ in range(3)]
    index = await log.add()
    await host.look()
    assert host.applied == [index]
    assert host.health["missing"] == 3
    for each in reversed(late):
        await each.commit()
        await host.look()
    assert host.applied == [index, *(each.index for each in reversed(late))]
    assert host.health["missing"] == 0


async def test_a_rollback_leaves_a_gap_that_nobody_waits_for(server_log: Log, start_host: Start):
    host = await start_host(server_log)
    gap, index = await server_log.skip(), await server_log.add()
    assert gap < index
    assert await host.reader.wait_for(index, 5)
    assert host.applied == [index]


async def test_waiting_does_not_include_what_is_not_committed(server_log: Log, start_host: Start):
    host = await start_host(server_log)
    late = await server_log.begin()
    index = await server_log.add()
    assert await host.reader.wait_for(index, 5)
    assert host.applied == [index]
    await late.commit()
    assert await host.reader.wait_for(index, 5)
    assert host.applied == [index, late.index]


async def test_a_transaction_in_flight_when_a_host_starts_is_applied(
    server_log: Log, start_host: Start
):
    first = await server_log.add()
    late = await server_log.begin()
    last = await server_log.add()
    await server_log.age_operations(60, first, last)
    host = await start_host(server_log)
    await idle(host.reader)
    await late.commit()
    await host.look()
    assert host.applied == [late.index]


async def test_postgresql_tells_that_a_gap_will_never_be_filled(
    postgres_log: Log, start_host: Start
):
    log = postgres_log
    options = OperationLogOptions(gap_check=0.05)
    host = await start_host(log, options=options)
    still_open = await log.begin()
    await log.skip()
    await log.add()
    await host.look()
    assert host.health["missing"] == 2
    await asyncio.sleep(0.5)
    # One that is older than the gap could still fill it, for all that anybody knows.
    assert host.health["missing"] == 2
    await still_open.commit()
    await until(lambda: host.health["missing"] == 0 and still_open.index in host.applied, 5)
