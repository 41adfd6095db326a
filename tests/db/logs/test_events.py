"""Durable events are processed when they are due: at least once, with the effects of once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
from sqlalchemy import Column, MetaData, String, Table, insert, select, text

from afresh.commands import (
    Command,
    Commander,
    EventCommand,
    command,
    command_handler,
    current_context,
)
from afresh.db.logs import EventLogOptions, EventLogReader
from afresh.db.logs.event_log import EventLog
from afresh.db.tables import EventState
from afresh.operations.codec import LogCodec
from afresh.operations.pipeline import COMMIT_GUARD
from afresh.testing import FakeClock
from tests.db.logs.world import Log, idle, until

QUICK = EventLogOptions(retry=0.02, longest_retry=0.05, attempts=3, unknown_retry=0.05)


class Say(Command[None], frozen=True):
    text: str


class Note(Command[None], frozen=True):
    """Writes to the database."""

    text: str


@command("Paid")
class Paid(Command[None], EventCommand, frozen=True):
    order: str


class Ignored(Command[None], EventCommand, frozen=True):
    """An event that nobody takes."""


class Unhandled(Command[None], frozen=True):
    """A command that this host knows, and has no handler for."""


class Unknown(Command[None], frozen=True):
    """A command that this host has never heard of."""


class Service:
    """Handles commands, as another one behind `fail` and `wait` decides."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.notes = Table("notes", MetaData(), Column("text", String(200)))
        self.begun: list[str] = []
        self.said: list[str] = []
        self.fail: Callable[[str], BaseException | None] = lambda text: None
        self.gates: dict[str, asyncio.Event] = {}

    async def _take(self, text: str) -> None:
        self.begun.append(text)
        if text in self.gates:
            await self.gates[text].wait()
        error = self.fail(text)
        if error is not None:
            raise error
        self.said.append(text)

    @command_handler
    async def say(self, command: Say) -> None:
        await self._take(command.text)

    @command_handler
    async def note(self, command: Note) -> None:
        guard = current_context().items[COMMIT_GUARD]
        assert (guard.database, guard.shard) == ("default", "")
        async with self.log.shard.write.begin() as connection:
            await connection.execute(insert(self.notes).values(text=command.text))
            await self._take(command.text)
            await guard(connection)
        guard.is_used = True

    @command_handler
    async def ship(self, command: Paid) -> None:
        await self._take(f"ship {command.order}")

    @command_handler
    async def thank(self, command: Paid) -> None:
        await self._take(f"thank {command.order}")

    async def noted(self) -> list[str]:
        async with self.log.shard.read.connect() as connection:
            return list(await connection.scalars(select(self.notes.c.text)))


class World:
    """Hosts that process the events of a log, and what becomes of those."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.readers: list[EventLogReader] = []
        self.service = Service(log)
        self.commander = Commander()
        self.commander.add(self.service)
        self.commander.registry.add(Ignored, Unhandled)
        self.codec = LogCodec(self.commander.registry)
        other = Commander()
        other.registry.add(Unknown)
        self.other_codec = LogCodec(other.registry)

    async def start(
        self, name: str = "B", options: EventLogOptions | None = QUICK
    ) -> EventLogReader:
        reader = EventLogReader(
            self.log.shard,
            self.log.tables,
            self.commander,
            self.codec,
            host_id=name,
            watcher=self.log.watcher,
            options=options,
        )
        self.readers.append(reader)
        await reader.start()
        return reader

    async def add(self, command: Command[Any], **values: Any) -> str:
        return await self.log.add_event(self.codec.encode(command), **values)

    async def process(self) -> None:
        """Tell the hosts to look, and wait until they have nothing to do."""
        self.log.events_changed()
        await until(
            lambda: (
                not any(
                    each.is_working or each.signal.is_set or each.health()["processing"]
                    for each in self.readers
                )
            )
        )

    async def becomes(self, uuid: str, state: EventState) -> Any:
        """Wait until an event has a state, and return its row."""
        async with asyncio.timeout(20):
            while (row := await self.log.event(uuid)).state != state:
                await asyncio.sleep(0.002)
        return row


async def opened(log: Log) -> World:
    world = World(log)
    async with log.shard.write.begin() as connection:
        await connection.run_sync(world.service.notes.create)
    return world


async def closed(world: World) -> None:
    for gate in world.service.gates.values():
        gate.set()
    for reader in world.readers:
        await reader.aclose()


@pytest.fixture
async def world(log: Log) -> AsyncIterator[World]:
    world = await opened(log)
    yield world
    await closed(world)


@pytest.fixture
async def any_world(any_log: Log) -> AsyncIterator[World]:
    world = await opened(any_log)
    yield world
    await closed(world)


Start: TypeAlias = Callable[..., Awaitable[EventLogReader]]


# --- Processing ----------------------------------------------------------------


async def test_an_event_is_processed_and_stays_as_processed(any_world: World):
    world = any_world
    uuid = await world.add(Say("hello"))
    reader = await world.start()
    row = await world.becomes(uuid, EventState.PROCESSED)
    assert world.service.said == ["hello"]
    assert (row.attempts, row.lease_owner, row.lease_until, row.last_error) == (1, None, None, None)
    await world.process()
    assert world.service.said == ["hello"]
    assert reader.health()["processed"] == 1


async def test_what_a_handler_writes_is_written_with_the_mark(any_world: World):
    world = any_world
    uuid = await world.add(Note("hello"))
    await world.start()
    await world.becomes(uuid, EventState.PROCESSED)
    assert await world.service.noted() == ["hello"]
    assert world.service.said == ["hello"]


async def test_events_are_processed_as_soon_as_they_are_signalled(clock: FakeClock, world: World):
    await world.start()
    await world.process()
    uuid = await world.add(Say("now"))
    await world.process()
    assert (await world.log.event(uuid)).state == EventState.PROCESSED


async def test_events_are_found_without_a_signal(clock: FakeClock, world: World):
    await world.start()
    await world.process()
    uuid = await world.add(Say("now"))
    await clock.advance(6)
    await world.becomes(uuid, EventState.PROCESSED)


async def test_an_event_waits_until_it_is_due_and_no_longer(any_world: World):
    world = any_world
    await world.start()
    loop = asyncio.get_running_loop()
    began = loop.time()
    uuid = await world.add(Say("later"), delay=0.4)
    world.log.events_changed()
    await world.becomes(uuid, EventState.PROCESSED)
    assert 0.4 <= loop.time() - began < 1.4


async def test_what_is_due_earlier_is_processed_earlier(world: World):
    for number in (3, 1, 2):
        await world.add(Say(f"{number}"), delay=-10 + number)
    await world.start(options=replace(QUICK, concurrency=1))
    await world.process()
    assert world.service.said == ["1", "2", "3"]


async def test_processed_events_and_markers_of_operations_are_left_alone(world: World):
    uuid = await world.log.add_event("", uuid="~op-1", state=EventState.PROCESSED)
    await world.start()
    await world.process()
    assert (await world.log.event(uuid)).attempts == 0


async def test_so_many_events_are_processed_at_once_and_no_more(clock: FakeClock, world: World):
    for number in range(5):
        world.service.gates[f"{number}"] = asyncio.Event()
        await world.add(Say(f"{number}"), delay=-10 + number)
    reader = await world.start(options=replace(QUICK, concurrency=2))
    await until(lambda: len(world.service.begun) == 2)
    await idle(reader)
    assert world.service.begun == ["0", "1"]
    assert reader.health()["processing"] == 2
    world.service.gates["1"].set()
    await until(lambda: len(world.service.begun) == 3)
    for gate in world.service.gates.values():
        gate.set()
    await until(lambda: len(world.service.said) == 5)


async def test_a_pool_of_connections_is_never_used_up(server_log: Log):
    world = await opened(server_log)
    reader = await world.start(options=EventLogOptions())
    assert reader._concurrency == 5
    await closed(world)


async def test_two_hosts_share_the_work_and_none_is_done_twice(any_world: World):
    world = any_world
    uuids = [await world.add(Note(f"{number}")) for number in range(40)]
    for name in ("B", "C"):
        await world.start(name, replace(QUICK, concurrency=4))
    for uuid in uuids:
        await world.becomes(uuid, EventState.PROCESSED)
    assert sorted(await world.service.noted()) == sorted(f"{number}" for number in range(40))
    assert sorted(world.service.begun) == sorted(f"{number}" for number in range(40))
    assert sum(reader.health()["processed"] for reader in world.readers) == 40


# --- Several handlers -----------------------------------------------------------


async def test_an_event_with_several_handlers_becomes_one_for_each(any_world: World):
    world = any_world
    uuid = await world.add(Paid("1"))
    reader = await world.start()
    await world.becomes(uuid, EventState.PROCESSED)
    for handler in ("Service.ship", "Service.thank"):
        row = await world.becomes(f"{uuid}/{handler}", EventState.PROCESSED)
        assert row.chain == handler
    assert sorted(world.service.said) == ["ship 1", "thank 1"]
    assert reader.health()["split"] == 1


async def test_the_failure_of_one_handler_repeats_only_that_one(world: World):
    world.service.fail = lambda text: ValueError("no") if text == "ship 1" else None
    uuid = await world.add(Paid("1"))
    await world.start()
    await world.becomes(uuid, EventState.PROCESSED)
    row = await world.becomes(f"{uuid}/Service.ship", EventState.DEAD)
    assert row.attempts == 3
    assert world.service.begun.count("ship 1") == 3
    assert world.service.begun.count("thank 1") == 1


async def test_splitting_twice_makes_no_more_events(world: World):
    events = EventLog(world.log.shard, world.log.tables, "B")
    uuid = await world.add(Paid("1"))
    (event,) = await events.claim(1, 30)
    assert await events.split(event, ["a", "b"])
    await world.log.change_event(uuid, state=EventState.NEW)
    (event,) = await events.claim(1, 30)
    assert event.uuid == uuid
    assert await events.split(event, ["a", "b", "c"])
    assert await world.log.count_events() == 4


async def test_long_names_of_events_and_handlers_still_make_different_ones(world: World):
    events = EventLog(world.log.shard, world.log.tables, "B")
    uuid = await world.add(Paid("1"), uuid="u" * 190)
    (event,) = await events.claim(1, 30)
    chains = ["c" * 190 + "1", "c" * 190 + "2"]
    assert await events.split(event, chains)
    assert await world.log.count_events(chain=chains[0]) == 1
    assert await world.log.count_events(chain=chains[1]) == 1
    assert (await world.log.event(uuid)).state == EventState.PROCESSED


async def test_an_event_that_nobody_takes_is_processed(world: World):
    uuid = await world.add(Ignored())
    await world.start()
    await world.becomes(uuid, EventState.PROCESSED)


# --- Failures ---------------------------------------------------------------------


async def test_an_event_that_fails_is_tried_again(any_world: World):
    world = any_world
    world.service.fail = lambda text: ValueError("no") if len(world.service.begun) == 1 else None
    uuid = await world.add(Note("hello"))
    reader = await world.start()
    row = await world.becomes(uuid, EventState.PROCESSED)
    assert row.attempts == 2
    assert await world.service.noted() == ["hello"]
    assert (reader.health()["failed"], reader.health()["processed"]) == (1, 1)


async def test_an_event_that_keeps_failing_is_dead_in_the_end(
    any_world: World, caplog: pytest.LogCaptureFixture
):
    world = any_world
    world.service.fail = lambda text: ValueError("never") if text == "bad" else None
    uuid = await world.add(Note("bad"))
    reader = await world.start()
    row = await world.becomes(uuid, EventState.DEAD)
    assert (row.attempts, row.last_error, row.lease_token) == (3, "ValueError: never", None)
    assert row.dead_at >= row.logged_at
    assert world.service.begun == ["bad"] * 3
    assert await world.service.noted() == []
    await world.process()
    assert reader.health()["dead"] == 1
    assert f"The event {uuid} is dead after 3 attempts" in caplog.text
    (dead,) = await reader.dead_events()
    assert (dead.uuid, dead.error, dead.attempts) == (uuid, "ValueError: never", 3)
    assert world.codec.decode(dead.value) == Note("bad")


async def test_pauses_between_attempts_grow(clock: FakeClock, world: World):
    world.service.fail = lambda text: ValueError("no")
    await world.add(Say("bad"))
    reader = await world.start(options=EventLogOptions())
    pauses = []
    for attempt in range(1, 5):
        await until(lambda attempt=attempt: len(world.service.begun) == attempt)  # type: ignore[misc]
        await world.process()
        (outlook,) = [await reader._log.look()]
        assert outlook.pause is not None
        pauses.append(outlook.pause)
        table = world.log.tables.events
        async with world.log.shard.write.begin() as connection:
            await connection.execute(table.update().values(due_at=table.c.logged_at))
        world.log.events_changed()
    for pause, expected in zip(pauses, (1, 2, 4, 8), strict=True):
        assert 0.85 * expected - 0.5 < pause < 1.15 * expected


async def test_an_error_may_ask_for_a_longer_pause(clock: FakeClock, world: World):
    class BusyError(Exception):
        retry_delay = 1000.0

    world.service.fail = lambda text: BusyError()
    await world.add(Say("busy"))
    reader = await world.start()
    await world.process()
    outlook = await reader._log.look()
    assert outlook.pause is not None
    assert outlook.pause > 990


async def test_long_errors_are_cut(world: World):
    world.service.fail = lambda text: ValueError("x" * 100_000)
    uuid = await world.add(Say("bad"))
    await world.start()
    row = await world.becomes(uuid, EventState.DEAD)
    assert len(row.last_error) == 4000


async def test_an_event_that_takes_too_long_has_failed(clock: FakeClock, world: World):
    world.service.gates["slow"] = asyncio.Event()
    uuid = await world.add(Note("slow"))
    await world.start(options=EventLogOptions(timeout=10, attempts=1))
    await until(lambda: world.service.begun)
    await clock.advance(10)
    row = await world.becomes(uuid, EventState.DEAD)
    assert "within 10 seconds" in row.last_error
    assert await world.service.noted() == []


async def test_a_handler_that_ends_in_a_cancellation_of_its_own_has_failed(world: World):
    world.service.fail = lambda text: asyncio.CancelledError()
    uuid = await world.add(Say("odd"))
    await world.start()
    row = await world.becomes(uuid, EventState.DEAD)
    assert row.attempts == 3


async def test_an_event_of_a_type_that_is_unknown_here_is_left_to_others(
    world: World, caplog: pytest.LogCaptureFixture
):
    uuid = await world.log.add_event(world.other_codec.encode(Unknown()))
    reader = await world.start()
    await until(lambda: reader.health()["unhandled"] >= 5)
    row = await world.log.event(uuid)
    assert (row.state, row.attempts) == (EventState.NEW, 0)
    assert "Unknown" in row.last_error
    assert caplog.text.count("is left to other hosts") == 1


async def test_an_event_without_a_handler_here_is_left_to_others(world: World):
    plain = await world.add(Unhandled())
    branch = await world.add(Paid("1"), chain="Elsewhere.ship")
    reader = await world.start()
    await until(lambda: reader.health()["unhandled"] >= 6)
    for uuid, part in ((plain, "No handler takes Unhandled"), (branch, "'Elsewhere.ship'")):
        row = await world.log.event(uuid)
        assert (row.state, row.attempts <= 1) == (EventState.NEW, True)
        assert part in row.last_error


@pytest.mark.parametrize("value", ["", "no json", "{}", '{"t":"Say","d":{}}', "[1]", "\x00"])
async def test_an_event_that_can_t_be_read_is_dead_in_the_end(world: World, value: str):
    bad = await world.log.add_event(value)
    good = await world.add(Say("good"))
    await world.start()
    row = await world.becomes(bad, EventState.DEAD)
    assert row.attempts == 3
    await world.becomes(good, EventState.PROCESSED)


async def test_an_event_at_which_hosts_die_is_dead_in_the_end(world: World):
    uuid = await world.add(Say("fatal"), attempts=3)
    await world.start()
    row = await world.becomes(uuid, EventState.DEAD)
    assert world.service.begun == []
    assert row.last_error == "Hosts ended while they processed it."


async def test_a_dead_event_is_processed_when_it_is_put_back(any_world: World):
    world = any_world
    world.service.fail = lambda text: ValueError("no") if len(world.service.begun) < 4 else None
    uuid = await world.add(Say("again"))
    reader = await world.start()
    await world.becomes(uuid, EventState.DEAD)
    assert await reader.requeue(uuid)
    row = await world.becomes(uuid, EventState.PROCESSED)
    assert (row.attempts, row.dead_at) == (1, None)
    assert not await reader.requeue(uuid)
    assert not await reader.requeue("no such event")
    await world.process()
    assert reader.health()["dead"] == 0


async def test_an_event_that_is_dead_or_waits_can_be_dropped(any_world: World):
    world = any_world
    dead = await world.add(Say("dead"), state=EventState.DEAD)
    waiting = await world.add(Say("waiting"), delay=100)
    done = await world.add(Say("done"), state=EventState.PROCESSED)
    reader = await world.start()
    assert await reader.drop(dead)
    assert await reader.drop(waiting)
    assert not await reader.drop(done)
    assert not await reader.drop(dead)
    assert await world.log.count_events() == 1


async def test_what_an_event_did_that_is_dropped_meanwhile_is_undone(postgres_log: Log):
    world = await opened(postgres_log)
    world.service.gates["slow"] = asyncio.Event()
    uuid = await world.add(Note("slow"))
    reader = await world.start()
    await until(lambda: world.service.begun)
    assert await reader.drop(uuid)
    world.service.gates["slow"].set()
    await world.process()
    assert await world.service.noted() == []
    assert await world.log.count_events() == 0
    assert reader.health()["lost"] == 1
    await closed(world)


# --- Leases -----------------------------------------------------------------------


async def test_an_event_of_a_host_that_died_is_taken_over_when_its_lease_ends(any_world: World):
    world = any_world
    uuid = await world.add(Say("hello"))
    dying = EventLog(world.log.shard, world.log.tables, "A")
    (event,) = await dying.claim(10, 0.3)
    assert (event.uuid, event.attempts) == (uuid, 1)
    await world.start(options=replace(QUICK, check_period=0.1))
    await asyncio.sleep(0.1)
    assert world.service.begun == []
    row = await world.becomes(uuid, EventState.PROCESSED)
    assert row.attempts == 2


async def test_nobody_else_gets_an_event_as_long_as_its_lease_lasts(any_world: World):
    world = any_world
    await world.add(Say("hello"))
    logs = [EventLog(world.log.shard, world.log.tables, name) for name in "ABCD"]
    claims = await asyncio.gather(*(log.claim(5, 30) for log in logs))
    assert sum(len(each) for each in claims) == 1
    for log in logs:
        assert await log.claim(5, 30) == []


async def test_no_more_events_are_claimed_than_asked_for(any_world: World):
    world = any_world
    for number in range(10):
        await world.add(Say(f"{number}"))
    log = EventLog(world.log.shard, world.log.tables, "A")
    assert [len(await log.claim(4, 30)) for _ in range(4)] == [4, 4, 2, 0]


async def test_the_lease_of_an_event_is_renewed_while_it_is_processed(
    clock: FakeClock, world: World
):
    world.service.gates["slow"] = asyncio.Event()
    uuid = await world.add(Say("slow"))
    await world.start(options=EventLogOptions(lease=30))
    await until(lambda: world.service.begun)
    first = (await world.log.event(uuid)).lease_until
    await clock.advance(17)
    assert (await world.log.event(uuid)).lease_until == first
    for _ in range(3):
        await clock.advance(18.1)
        async with asyncio.timeout(10):
            while (renewed := (await world.log.event(uuid)).lease_until) == first:
                await asyncio.sleep(0.002)
        assert renewed > first
        first = renewed
    world.service.gates["slow"].set()
    await world.becomes(uuid, EventState.PROCESSED)


async def test_a_host_that_was_taken_for_dead_changes_nothing_any_more(any_world: World):
    world = any_world
    uuid = await world.add(Say("hello"))
    slow = EventLog(world.log.shard, world.log.tables, "A")
    (event,) = await slow.claim(1, 0)
    await asyncio.sleep(0.01)
    quick = EventLog(world.log.shard, world.log.tables, "B")
    (taken,) = await quick.claim(1, 30)
    before = await world.log.event(uuid)
    assert not await slow.mark_processed(event)
    assert not await slow.renew(event, 30)
    assert not await slow.release(event)
    assert not await slow.postpone(event, "no", 10)
    assert not await slow.bury(event, "no")
    assert not await slow.split(event, ["a"])
    assert await world.log.event(uuid) == before
    assert await quick.mark_processed(taken)


async def test_a_handler_whose_event_was_taken_over_is_cancelled_and_undone(
    clock: FakeClock, server_log: Log
):
    world = await opened(server_log)
    world.service.gates["slow"] = asyncio.Event()
    uuid = await world.add(Note("slow"))
    reader = await world.start(options=EventLogOptions(lease=30))
    await until(lambda: world.service.begun)
    await world.log.change_event(uuid, lease_token="of another host")
    await clock.advance(19)
    await until(lambda: reader.health()["lost"] == 1)
    assert await world.service.noted() == []
    assert (await world.log.event(uuid)).lease_token == "of another host"
    await closed(world)


async def test_an_event_that_is_replaced_while_it_is_processed_runs_with_what_is_new(
    server_log: Log, caplog: pytest.LogCaptureFixture
):
    world = await opened(server_log)
    world.service.gates["old"] = asyncio.Event()
    uuid = await world.add(Note("old"))
    await world.start()
    await until(lambda: world.service.begun)
    value = world.codec.encode(Note("new"))
    await world.log.change_event(uuid, value=value, version=1, attempts=0)
    world.service.gates["old"].set()
    await world.becomes(uuid, EventState.PROCESSED)
    assert await world.service.noted() == ["new"]
    assert "is undone" in caplog.text
    await closed(world)


async def test_a_commit_in_doubt_that_happened_is_not_undone_by_the_next_attempt(world: World):
    """The guard runs again in the transaction of a second attempt."""
    events = EventLog(world.log.shard, world.log.tables, "B")
    uuid = await world.add(Note("x"))
    (event,) = await events.claim(1, 30)
    for _ in range(2):
        async with world.log.shard.write.begin() as connection:
            assert await events.mark_processed(event, connection)
    assert (await world.log.event(uuid)).state == EventState.PROCESSED


async def test_closing_waits_for_events_in_work(clock: FakeClock, world: World):
    world.service.gates["slow"] = asyncio.Event()
    uuid = await world.add(Say("slow"))
    reader = await world.start()
    await until(lambda: world.service.begun)
    closing = asyncio.ensure_future(reader.aclose())
    await clock.advance(1)
    assert not closing.done()
    world.service.gates["slow"].set()
    await closing
    assert (await world.log.event(uuid)).state == EventState.PROCESSED


async def test_closing_gives_back_what_takes_too_long(clock: FakeClock, any_world: World):
    world = any_world
    world.service.gates["slow"] = asyncio.Event()
    uuid = await world.add(Note("slow"))
    reader = await world.start("B")
    await until(lambda: world.service.begun)
    closing = asyncio.ensure_future(reader.aclose())
    began = clock.now()
    while not closing.done():
        await clock.advance(0.5)
        await asyncio.sleep(0.002)
    assert clock.now() - began >= 5
    row = await world.log.event(uuid)
    assert (row.state, row.attempts, row.lease_token) == (EventState.NEW, 0, None)
    world.service.gates["slow"].set()
    await world.start("C")
    await world.becomes(uuid, EventState.PROCESSED)
    assert await world.service.noted() == ["slow"]


async def test_closing_in_the_middle_of_a_claim_leaves_no_event_without_a_host(world: World):
    for delay in range(8):
        uuid = await world.add(Say(f"{delay}"))
        reader = await world.start()
        for _ in range(delay * 4):
            await asyncio.sleep(0)
        await reader.aclose()
        row = await world.log.event(uuid)
        assert row.state == EventState.PROCESSED or row.lease_token is None


# --- The database is away ------------------------------------------------------------


async def test_an_outage_is_survived(
    clock: FakeClock, world: World, caplog: pytest.LogCaptureFixture
):
    reader = await world.start()
    await world.process()
    async with world.log.shard.write.begin() as connection:
        await connection.execute(text("ALTER TABLE _events RENAME TO away"))
    world.log.events_changed()
    await until(lambda: reader.error is not None and not reader.is_working)
    async with world.log.shard.write.begin() as connection:
        await connection.execute(text("ALTER TABLE away RENAME TO _events"))
    uuid = await world.add(Say("after"))
    await clock.advance(6)
    await world.becomes(uuid, EventState.PROCESSED)
    await world.process()
    assert reader.health()["error"] is None


async def test_what_became_of_an_event_is_written_down_however_often_that_takes(
    clock: FakeClock, world: World, caplog: pytest.LogCaptureFixture
):
    world.service.gates["slow"] = asyncio.Event()
    uuid = await world.add(Say("slow"))
    await world.start()
    await until(lambda: world.service.begun)
    async with world.log.shard.write.begin() as connection:
        await connection.execute(text("ALTER TABLE _events RENAME TO away"))
    world.service.gates["slow"].set()
    await until(lambda: "written down yet" in caplog.text)
    async with world.log.shard.write.begin() as connection:
        await connection.execute(text("ALTER TABLE away RENAME TO _events"))
    await clock.advance(1)
    await world.becomes(uuid, EventState.PROCESSED)
    assert world.service.said == ["slow"]


async def test_what_became_of_an_event_is_not_known_for_ever(
    clock: FakeClock, world: World, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING)
    world.service.gates["slow"] = asyncio.Event()
    await world.add(Say("slow"))
    reader = await world.start()
    await until(lambda: world.service.begun)
    async with world.log.shard.write.begin() as connection:
        await connection.execute(text("ALTER TABLE _events RENAME TO away"))
    world.service.gates["slow"].set()
    for _ in range(200):
        await clock.advance(0.5)
        await asyncio.sleep(0.002)
        if reader.health()["lost"]:
            break
    assert reader.health()["lost"] == 1
    assert "can't be written down." in caplog.text


# --- Health ------------------------------------------------------------------------


async def test_health_tells_what_waits(world: World):
    world.service.gates["slow"] = asyncio.Event()
    await world.add(Say("slow"), delay=-100)
    await world.add(Say("later"), delay=100)
    reader = await world.start(options=replace(QUICK, concurrency=1))
    await until(lambda: world.service.begun)
    await idle(reader)
    health = reader.health()
    assert 100 <= health["lateness"] < 130
    assert health["processing"] == 1
    world.service.gates["slow"].set()
    await world.process()
    assert reader.health()["lateness"] == 0
