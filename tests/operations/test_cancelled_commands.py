"""A command that is cancelled, at whichever of its awaits, happens wholly or not at all."""

from __future__ import annotations

import asyncio
import itertools
import types
from collections.abc import Coroutine, Generator
from typing import Any

import pytest

from afresh import App
from afresh.commands import CommandOf
from afresh.db import Database
from afresh.testing import audit
from tests.hosts.bank import bank_at
from tests.hosts.ledger import Base, Ledger, Order, Transfer


@pytest.fixture(autouse=True)
def _nothing_cached(fresh_graph: None) -> None:
    """The audit looks at all that is cached, other tests' results included."""


@types.coroutine
def cancelled_at(number: int, work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Run a coroutine, and cancel the task when it waits for the n-th time."""
    value: Any = None
    error: BaseException | None = None
    for count in itertools.count(1):
        try:
            awaited = work.send(value) if error is None else work.throw(error)
        except StopIteration as stop:
            return stop.value
        if count == number:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        value = error = None
        try:
            value = yield awaited
        except BaseException as thrown:
            error = thrown
    raise AssertionError("unreachable")


async def outcome(number: int, work: Coroutine[Any, Any, Any]) -> str:
    """How a coroutine ended: "done", or "cancelled" at its n-th await."""

    async def run() -> None:
        await cancelled_at(number, work)

    try:
        await asyncio.create_task(run())
    except asyncio.CancelledError:
        return "cancelled"
    return "done"


async def all_returned(database: Database) -> None:
    """Wait until no connection is in use; readers of logs have some for a moment, too."""
    pools: list[Any] = [database.shard().write.pool, database.shard().read.pool]
    async with asyncio.timeout(10):
        while any(pool.checkedout() for pool in pools):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("kind", ["transfer", "order"])
async def test_a_command_cancelled_at_any_await_happens_wholly_or_not_at_all(
    any_database: str, kind: str
) -> None:
    def command(token: str) -> CommandOf[Any]:
        if kind == "order":
            return Order(0, token, delay=3_600)  # not to be handled meanwhile
        return Transfer(0, 1, 1, token)

    rows = 1 if kind == "order" else 2
    database = Database(any_database, metadata=Base.metadata)
    async with bank_at(any_database) as bank, App(database=database) as app:
        ledger = app.add(Ledger(database), is_served=False)
        await app.call(command("warm"))
        outcomes: list[str] = []
        happened: list[bool] = []
        while outcomes[-1:] != ["done"]:
            await ledger.pair(0, 1)
            await ledger.total()
            await ledger.entries(0)
            token = f"token-{len(outcomes)}"
            outcomes.append(await outcome(len(outcomes) + 1, app.call(command(token))))
            await all_returned(database)
            assert (await bank.tokens())[token] in {0, rows}
            happened.append((await bank.tokens())[token] == rows)
            audited = await audit()
            assert audited, f"Cancelled at await {len(outcomes)}: {audited}"
        assert len(outcomes) > 3
        # It did not happen while its handler ran, and did from the commit on.
        assert happened == sorted(happened)
        assert not happened[0]
        assert happened[-1]
        commands = await bank.commands()
        logged = [each.token for each in commands if isinstance(each, Order | Transfer)]
        assert logged == ["warm", *(f"token-{n}" for n, it in enumerate(happened) if it)]
        if kind == "order":
            assert len(await bank.events()) == len(logged)
