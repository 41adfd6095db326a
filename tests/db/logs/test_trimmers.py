"""Old rows are deleted: never one that somebody needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
from sqlalchemy import text

from afresh.db.logs import EventTrimmer, OperationTrimmer, TrimOptions
from afresh.db.tables import EventState
from afresh.testing import FakeClock
from tests.db.logs.world import Host, Log, idle, until

Start: TypeAlias = Callable[..., Awaitable[Host]]


async def trim(trimmer: OperationTrimmer | EventTrimmer) -> int:
    """Trim until there is nothing more; returns in how many batches."""
    batches = 1
    while await trimmer.trim_batch():
        batches += 1
    return batches


async def test_old_operations_are_deleted_all_but_the_last(any_log: Log):
    indexes = [await any_log.add() for _ in range(6)]
    await any_log.age_operations(1801, *indexes[:4])
    await any_log.age_operations(1700, indexes[4])
    trimmer = OperationTrimmer(any_log.shard, any_log.tables)
    await trim(trimmer)
    assert await any_log.indexes() == indexes[3:]
    assert trimmer.health()["trimmed"] == 3
    await trim(trimmer)
    assert await any_log.indexes() == indexes[3:]


async def test_young_operations_before_old_ones_stay(log: Log):
    """A host whose clock is an hour ahead, or behind, makes no holes."""
    indexes = [await log.add() for _ in range(6)]
    await log.age_operations(4000, indexes[0], indexes[1], indexes[3], indexes[4])
    await trim(OperationTrimmer(log.shard, log.tables))
    assert await log.indexes() == indexes[1:]


async def test_an_empty_log_and_a_log_of_one_stay_as_they_are(log: Log):
    trimmer = OperationTrimmer(log.shard, log.tables)
    assert await trim(trimmer) == 1
    index = await log.add()
    await log.age_operations(10_000)
    assert await trim(trimmer) == 1
    assert await log.indexes() == [index]


async def test_operations_are_deleted_in_batches(log: Log):
    await log.add_many(25)
    await log.age_operations(10_000)
    trimmer = OperationTrimmer(log.shard, log.tables, options=TrimOptions(batch=10))
    assert await trim(trimmer) == 3
    assert await log.indexes() == [25]


async def test_indexes_are_never_given_away_again(any_log: Log):
    last = max([await any_log.add() for _ in range(3)])
    await any_log.remove_up_to(last)
    assert await any_log.add() == last + 1


async def test_a_trimmed_log_is_no_loss_to_who_has_followed_it(
    clock: FakeClock, log: Log, start_host: Start
):
    host = await start_host(log)
    await log.add_many(5)
    await host.look()
    await log.age_operations(10_000)
    await trim(OperationTrimmer(log.shard, log.tables))
    await log.skip()
    index = await log.add()
    await host.look()
    assert host.losses == []
    assert host.applied[-1] == index


async def test_a_trimmed_log_is_a_loss_to_who_has_not(
    clock: FakeClock, log: Log, start_host: Start
):
    await log.add()
    host = await start_host(log)
    await idle(host.reader)
    await log.add_many(5)
    await log.age_operations(10_000)
    await trim(OperationTrimmer(log.shard, log.tables))
    index = await log.add()
    await host.look()
    assert len(host.losses) == 1
    assert host.applied[-1] == index


async def test_processed_events_are_deleted_when_they_are_old_and_no_others(any_log: Log):
    log = any_log
    old = {
        state: await log.add_event("x", delay=-3700, state=state)
        for state in (EventState.NEW, EventState.PROCESSED, EventState.DEAD)
    }
    young = await log.add_event("x", delay=-3500, state=EventState.PROCESSED)
    later = await log.add_event("x", delay=3700, state=EventState.PROCESSED)
    trimmer = EventTrimmer(log.shard, log.tables)
    await trim(trimmer)
    assert await log.count_events() == 4
    assert await log.count_events(uuid=old[EventState.PROCESSED]) == 0
    for kept in (young, later, old[EventState.NEW], old[EventState.DEAD]):
        assert await log.count_events(uuid=kept) == 1
    assert trimmer.health()["trimmed"] == 1


async def test_events_are_deleted_in_batches(log: Log):
    for _ in range(7):
        await log.add_event("x", delay=-4000, state=EventState.PROCESSED)
    trimmer = EventTrimmer(log.shard, log.tables, options=TrimOptions(batch=3))
    assert await trim(trimmer) == 3
    assert await log.count_events() == 0


async def test_two_hosts_may_trim_at_once(server_log: Log):
    await server_log.add_many(300)
    await server_log.age_operations(10_000)
    last = (await server_log.indexes())[-1]
    for _ in range(100):
        await server_log.add_event("x", delay=-4000, state=EventState.PROCESSED)
    options = TrimOptions(batch=20)
    trimmers = [
        kind(server_log.shard, server_log.tables, options=options)
        for kind in (OperationTrimmer, OperationTrimmer, EventTrimmer, EventTrimmer)
    ]
    await asyncio.gather(*map(trim, trimmers))
    assert await server_log.indexes() == [last]
    assert await server_log.count_events() == 0


async def test_trimming_begins_soon_after_the_start_and_goes_on(clock: FakeClock, log: Log):
    await log.add_many(3)
    await log.age_operations(10_000)
    trimmer = OperationTrimmer(log.shard, log.tables, options=TrimOptions(period=1000))
    await trimmer.start()
    await idle(trimmer)
    assert trimmer.health() == {"trimmed": 0, "looked": None, "error": None}
    await clock.advance(130)
    await idle(trimmer)
    assert trimmer.trimmed == 2
    assert trimmer.health()["looked"] < 60
    await log.add_many(3)
    await log.age_operations(10_000)
    await clock.advance(700)
    await idle(trimmer)
    assert trimmer.trimmed == 2
    await clock.advance(560)
    await idle(trimmer)
    assert trimmer.trimmed == 5
    await trimmer.aclose()
    assert clock.timers == 0


async def test_a_failure_to_trim_is_tried_again_with_long_pauses(
    clock: FakeClock, log: Log, caplog: pytest.LogCaptureFixture
):
    trimmer = EventTrimmer(log.shard, log.tables)
    async with log.shard.write.begin() as connection:
        await connection.execute(text("ALTER TABLE _events RENAME TO away"))
    await trimmer.start()
    await clock.advance(120)
    await until(lambda: trimmer.error is not None and not trimmer.is_working)
    async with log.shard.write.begin() as connection:
        await connection.execute(text("ALTER TABLE away RENAME TO _events"))
    await log.add_event("x", delay=-4000, state=EventState.PROCESSED)
    await clock.advance(10)
    assert trimmer.trimmed == 0
    await clock.advance(10)
    await idle(trimmer)
    assert (trimmer.trimmed, trimmer.error) == (1, None)
    assert "trimming of the event log can't be worked at" in caplog.text
    await trimmer.aclose()


@pytest.mark.parametrize(
    "values", [{"age": 59.0}, {"age": float("inf")}, {"period": 0.0}, {"batch": 1}]
)
def test_options_that_make_no_sense_are_refused(values: dict[str, float]):
    with pytest.raises(ValueError, match="pass"):
        TrimOptions(**values)  # type: ignore[arg-type]
