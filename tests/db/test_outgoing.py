"""Events are stored with the operation that adds them, and those of one name meet as they say."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from afresh.commands import Command
from afresh.errors import EventConflictError, InvalidStateError
from afresh.operations import current_operation
from tests.db.desk import Host, Noted, NoteRow


async def add(host: Host, name: str = "a", **options: Any) -> None:
    """Add an event in an operation of its own, with a note beside it."""
    async with host.database.operation() as op:
        op.session.add(NoteRow(key=name))
        op.add_event(Noted(name), **options)


async def names(host: Host) -> dict[str, str]:
    """The events that are stored: what is handled by their names."""
    decode = host.operations.codec.decode
    rows = await host.events()
    return {row.uuid: decode(row.value).name for row in rows}  # type: ignore[attr-defined]


async def test_an_event_is_stored_with_the_operation_or_not_at_all(host: Host) -> None:
    async with host.database.operation() as op:
        op.add_event(Noted("good"))

    async def fail() -> None:
        async with host.database.operation() as op:
            op.add_event(Noted("bad"))
            raise ValueError

    with suppress(ValueError):
        await fail()
    (row,) = await host.events()
    assert (row.state, row.attempts, row.version, row.chain, row.lease_owner) == (
        *(0, 0, 0),
        None,
        None,
    )
    assert host.operations.codec.decode(row.value) == Noted("good")
    assert len(row.uuid) == 32


async def test_an_event_is_due_at_once_or_when_it_says(host: Host) -> None:
    before = datetime.now(UTC)
    later = before + timedelta(days=1)
    await add(host, uuid="now")
    await add(host, uuid="soon", delay=60)
    await add(host, uuid="at", due_at=later)
    await add(host, uuid="past", due_at=before - timedelta(days=1))
    due = {row.uuid: row.due_at for row in await host.events()}
    logged = {row.uuid: row.logged_at for row in await host.events()}
    assert due["now"] == logged["now"] >= before
    assert due["soon"] == logged["soon"] + timedelta(seconds=60)
    assert due["at"] == later
    assert due["past"] == logged["past"]


async def test_events_of_one_name_in_one_operation_are_the_last_one(host: Host) -> None:
    async with host.database.operation() as op:
        for name in ("first", "second", "last"):
            op.add_event(Noted(name), uuid="same")
    assert await names(host) == {"same": "last"}


async def test_nested_commands_replace_events_of_that_name_if_they_succeed(host: Host) -> None:
    desk = host.desk

    @desk.on("outer")
    async def outer() -> None:
        async with desk.database.operation() as op:
            op.add_event(Noted("outer"), uuid="same")
            op.add_event(Noted("outer"), uuid="other")
        with suppress(ValueError):
            await desk.call("bad")
        await desk.call("good")

    @desk.on("bad")
    async def bad() -> None:
        async with desk.database.operation() as op:
            op.add_event(Noted("bad"), uuid="other")
        raise ValueError

    @desk.on("good")
    async def good() -> None:
        async with desk.database.operation() as op:
            op.add_event(Noted("good"), uuid="same")

    await desk.call("outer")
    assert await names(host) == {"same": "good", "other": "outer"}


# -- conflicts


async def test_an_event_of_a_name_that_is_taken_fails_the_whole_operation(host: Host) -> None:
    await add(host, "first", uuid="same")

    async def fail() -> None:
        async with host.database.operation() as op:
            op.session.add(NoteRow(key="second"))
            op.add_event(Noted("second"), uuid="same")
            op.add_event(Noted("beside"), uuid="beside")
            op.add_event(Noted("skipped"), uuid="skipped", on_conflict="skip")

    with pytest.raises(EventConflictError, match="beside, same"):
        await fail()
    assert await names(host) == {"same": "first"}
    assert await host.notes() == [("first", "")]


async def test_an_event_that_is_skipped_leaves_the_first_one(host: Host) -> None:
    await add(host, "first", uuid="same", on_conflict="skip")
    await add(host, "second", uuid="same", on_conflict="skip")
    assert await names(host) == {"same": "first"}
    assert [key for key, _ in await host.notes()] == ["first", "second"]


@pytest.mark.parametrize("state", [1, 2])
async def test_an_event_that_is_skipped_is_not_handled_anew(host: Host, state: int) -> None:
    await add(host, "first", uuid="same")
    await set_state(host, state)
    await add(host, "second", uuid="same", on_conflict="skip")
    assert await names(host) == {"same": "first"}


async def set_state(host: Host, state: int) -> None:
    async with host.database.shard().write.begin() as connection:
        await connection.execute(update(host.database.tables.events).values(state=state))


async def test_an_event_that_updates_takes_the_place_of_the_one_that_waits(host: Host) -> None:
    await add(host, "first", uuid="same", on_conflict="update")
    await add(host, "second", uuid="same", on_conflict="update", delay=60)
    assert await names(host) == {"same": "second"}
    (row,) = await host.events()
    assert row.due_at == row.logged_at + timedelta(seconds=60)
    assert (row.version, row.attempts) == (1, 0)


@pytest.mark.parametrize("state", [1, 2])
async def test_an_event_that_was_handled_is_not_updated(host: Host, state: int) -> None:
    await add(host, "first", uuid="same")
    await set_state(host, state)
    with pytest.raises(EventConflictError, match="can't be changed any more"):
        await add(host, "second", uuid="same", on_conflict="update")
    assert await names(host) == {"same": "first"}
    assert [key for key, _ in await host.notes()] == ["first"]


@pytest.mark.parametrize("on_conflict", ["skip", "update"])
async def test_eight_producers_of_one_event_at_once_all_succeed(
    host: Host, on_conflict: str
) -> None:
    async with asyncio.timeout(30):
        await asyncio.gather(
            *(add(host, str(n), uuid="same", on_conflict=on_conflict) for n in range(8))
        )
    assert len(await host.events()) == 1
    assert len(await host.notes()) == 8


async def test_of_eight_producers_of_an_event_that_must_be_new_one_succeeds(host: Host) -> None:
    async with asyncio.timeout(30):
        results = await asyncio.gather(
            *(add(host, str(n), uuid="same") for n in range(8)), return_exceptions=True
        )
    assert [type(each) for each in results if each is not None] == [EventConflictError] * 7
    assert len(await host.notes()) == len(await host.events()) == 1


async def test_producers_of_the_same_events_in_another_order_do_not_block_each_other(
    host: Host,
) -> None:
    async def produce(order: list[str]) -> None:
        async with host.database.operation() as op:
            for uuid in order:
                op.add_event(Noted(uuid), uuid=uuid, on_conflict="update")

    uuids = [f"event-{number}" for number in range(10)]
    async with asyncio.timeout(30):
        await asyncio.gather(*(produce(uuids[:: 1 - 2 * (n % 2)]) for n in range(8)))
    assert list(await names(host)) == uuids
    assert host.operations.retried == 0


# -- quanta


async def test_events_of_one_quantum_are_one(host: Host) -> None:
    for name in ("first", "second"):
        await add(host, name, quantum=3600 * 24 * 365 * 100)
    await add(host, "other", quantum=3600 * 24 * 365 * 100, uuid="other")
    found = await names(host)
    assert sorted(found.values()) == ["first", "other"]
    assert {uuid.rpartition("-at-")[0] for uuid in found} == {"Noted", "other"}
    assert all(row.due_at.timestamp() % (3600 * 24 * 365 * 100) == 0 for row in await host.events())


async def test_the_due_time_is_rounded_up_to_the_quantum(lone_host: Host) -> None:
    at = datetime(2100, 1, 1, 12, 0, 1, tzinfo=UTC)
    async with lone_host.database.operation() as op:
        late = op.add_event(Noted("a"), due_at=at, quantum=60)
        sharp = op.add_event(Noted("a"), due_at=at - timedelta(seconds=1), quantum=60)
    assert late.due_at == datetime(2100, 1, 1, 12, 1, tzinfo=UTC)
    assert sharp.due_at == datetime(2100, 1, 1, 12, 0, tzinfo=UTC)
    assert int(late.uuid.rpartition("-")[2], 16) - int(sharp.uuid.rpartition("-")[2], 16) == 1
    assert (late.on_conflict, sharp.on_conflict) == ("skip", "skip")


async def test_an_event_of_a_quantum_may_update(host: Host) -> None:
    quantum = 3600 * 24 * 365 * 100
    await add(host, "first", quantum=quantum, on_conflict="update")
    await add(host, "second", quantum=quantum, on_conflict="update")
    assert list((await names(host)).values()) == ["second"]


# -- what is refused


async def test_an_event_is_a_command(lone_host: Host) -> None:
    async with lone_host.database.operation() as op:
        with pytest.raises(TypeError, match=r"Derive str from Command\[None\]"):
            op.add_event("no command")  # type: ignore[arg-type]


async def test_an_event_of_an_unknown_type_fails_the_operation(host: Host) -> None:
    class Unknown(Command[None], frozen=True):
        pass

    async def fail() -> None:
        async with host.database.operation() as op:
            op.session.add(NoteRow(key="a"))
            op.add_event(Unknown())

    with pytest.raises(TypeError, match="does not know it"):
        await fail()
    assert await host.notes() == []


@pytest.mark.parametrize(
    "options",
    [
        {"delay": -1},
        {"delay": float("inf")},
        {"delay": float("nan")},
        {"quantum": 0},
        {"quantum": -1.5},
        {"quantum": float("inf")},
        {"due_at": datetime(2100, 1, 1)},  # noqa: DTZ001
        {"uuid": ""},
        {"uuid": "x" * 129},
        {"uuid": "x" * 128, "quantum": 60},
        {"uuid": "~op-1"},
        {"uuid": "name "},
        {"on_conflict": "replace"},
        {"delay": 1, "due_at": datetime(2100, 1, 1, tzinfo=UTC)},
    ],
)
async def test_arguments_that_make_no_sense_are_refused(
    lone_host: Host, options: dict[str, Any]
) -> None:
    async with lone_host.database.operation() as op:
        with pytest.raises(ValueError):
            op.add_event(Noted("a"), **options)
    assert await lone_host.events() == []


async def test_an_operation_in_memory_takes_no_events(lone_host: Host) -> None:
    @lone_host.desk.on("a")
    async def work() -> None:
        with pytest.raises(InvalidStateError, match=r"add events inside 'async with"):
            current_operation().add_event(Noted("a"))

    await lone_host.desk.call("a")
    assert await lone_host.events() == []


async def test_names_of_events_are_compared_as_they_are_written(host: Host) -> None:
    for uuid in ("name", "Name", "näme", "na me"):
        await add(host, uuid, uuid=uuid)
    assert await names(host) == {uuid: uuid for uuid in ("name", "Name", "näme", "na me")}
