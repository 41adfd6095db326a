"""A worker process for failure tests: an app with a `Ledger` on a database, driven over pipes."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from typing import Any

import msgspec

from afresh import App
from afresh.db import Database
from afresh.db.logs import EventLogOptions, OperationLogOptions, TrimOptions
from afresh.testing import audit

from .clocks import skew_clocks
from .ledger import COMMANDS, Base, Ledger, TooLittle
from .loads import random_commands
from .pipes import PipeWorker, serve


class Setup(msgspec.Struct):
    """How a host is set up.

    Args:
        database: the URL.
        operation_log: `OperationLogOptions`, as far as they differ from the defaults.
        event_log: `EventLogOptions`, likewise.
        trimming: `TrimOptions` of both logs, likewise.
        is_tracked: whether the database finds out by itself what goes stale.
        skew: how many seconds its wall clock is ahead.
        notifications: whether what it tells other hosts is "sent", "lost" or "doubled".
    """

    database: str
    operation_log: dict[str, Any] = {}
    event_log: dict[str, Any] = {}
    trimming: dict[str, Any] = {}
    is_tracked: bool = False
    skew: float = 0
    notifications: str = "sent"


class Worker(PipeWorker):
    """The app of this process, and what can be asked of it."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup
        self.database = Database(
            setup.database,
            metadata=Base.metadata,
            track=setup.is_tracked,
            operation_log=OperationLogOptions(**setup.operation_log),
            event_log=EventLogOptions(**setup.event_log),
            trim_operations=TrimOptions(**setup.trimming),
            trim_events=TrimOptions(**setup.trimming),
        )
        self.app = App(database=self.database)
        self.ledger = self.app.add(
            Ledger(self.database, says_what_is_stale=not setup.is_tracked), is_served=False
        )
        self.faults.install()

    async def started(self) -> None:
        """Have the watcher lose what it tells other hosts, or say it twice."""
        watcher: Any = self.database._watcher
        say = watcher._tell
        times = {"lost": 0, "sent": 1, "doubled": 2}[self.setup.notifications]
        watcher._tell = lambda kind, shard: [say(kind, shard) for _ in range(times)]

    async def call(self, kind: str, fields: dict[str, Any]) -> Any:
        """Handle a command."""
        return await self.app.call(COMMANDS[kind](**fields))

    async def read(self, method: str, *args: int) -> Any:
        """Call a compute method, through the cache."""
        return await getattr(self.ledger, method)(*args)

    async def read_all(self, accounts: int) -> None:
        """Call the compute methods for all accounts, so that their results are cached."""
        for account in range(accounts):
            await self.ledger.pair(account, (account + 1) % accounts)
            await self.ledger.entries(account)
        await self.ledger.total()

    async def follow(self, value: Any, method: str, *args: int) -> Any:
        """Wait until a compute method gives a value, by nothing but its results going stale."""
        computed = await getattr(self.ledger, method).capture(*args)
        async for each in computed.changes():
            if each.value == value:
                return value
        return None

    async def load(
        self, seed: int, count: int, accounts: int, concurrency: int
    ) -> dict[str, list[str]]:
        """Handle random commands, and read between them.

        Returns the tokens of those that went through, and of those that did not.
        """
        commands = random_commands(random.Random(seed), f"{os.getpid()}.{seed}", count, accounts)
        done: list[str] = []
        failed: list[str] = []

        async def work() -> None:
            for command in commands:
                try:
                    await self.app.call(command)
                    done.append(command.token)
                    number = hash(command.token) % accounts
                    await self.ledger.pair(number, 0)
                    await self.ledger.entries(number)
                    await self.ledger.total()
                except TooLittle:
                    pass
                except Exception:
                    failed.append(command.token)

        await asyncio.gather(*(work() for _ in range(concurrency)))
        return {"done": done, "failed": failed}

    async def audit(self) -> dict[str, Any]:
        """Compute all that is cached once more."""
        found = await audit()
        return {"checked": found.checked, "stale": [str(finding) for finding in found.stale]}

    async def entered(self) -> dict[str, int]:
        """How often handlers were entered here, by token."""
        return dict(self.ledger.entered)


async def main(text: bytes) -> None:
    setup = msgspec.json.decode(text, type=Setup)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    skew_clocks(setup.skew)
    await serve(Worker(setup))
