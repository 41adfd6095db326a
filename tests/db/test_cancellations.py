"""Operations that are cancelled, at whichever of their awaits, happen wholly or not at all.

Commands of one handler are in `tests/operations/test_cancelled_commands.py`; here are those that
call others, at the same time too, and blocks outside of commands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.db.desk import Host, Noted, NoteRow
from tests.operations.test_cancelled_commands import outcome

KEYS = ("outer", "left", "right")


async def nested(host: Host) -> None:
    await host.desk.call("outer")


async def alone(host: Host) -> None:
    desk = host.desk
    async with desk.database.operation() as op:
        for key in KEYS:
            await desk.note(key)
        op.add_event(Noted("event"))
        with op.invalidating():
            for key in KEYS:
                desk.texts(key)


def write_down(host: Host) -> None:
    desk = host.desk

    @desk.on("outer")
    async def outer() -> None:
        async with desk.database.operation() as op:
            op.session.add(NoteRow(key="outer"))
            op.add_event(Noted("event"))
        await asyncio.gather(desk.call("left"), desk.call("right"))

    @desk.on("left")
    async def left() -> None:
        await desk.note("left")

    @desk.on("right")
    async def right() -> None:
        await desk.note("right")


@pytest.mark.parametrize("run", [nested, alone])
async def test_what_is_cancelled_at_any_await_happens_wholly_or_not_at_all(
    host: Host, run: Callable[[Host], Coroutine[Any, Any, None]]
) -> None:
    write_down(host)
    await run(host)
    happened: list[bool] = []
    count = 1
    pool: Any = host.database.shard().write.pool
    async with asyncio.timeout(60):
        ended = ""
        while ended != "done":
            for key in KEYS:
                await host.desk.texts(key)
            ended = await outcome(len(happened) + 1, run(host))
            while pool.checkedout():  # by tasks that gather() has left behind
                await asyncio.sleep(0.001)
            there = [len(await host.desk.texts(key)) for key in KEYS]
            rows = [key for key, _ in await host.notes()]
            assert there == [rows.count(key) for key in KEYS], "A result is stale."
            assert len(set(there)) == 1, "A part of it happened."
            happened.append(there[0] > count)
            count = there[0]
            assert len(await host.events()) == len(await host.log()) == count
    assert len(happened) > 5
    assert happened == sorted(happened)
    assert happened[-1]
    assert not happened[0]
