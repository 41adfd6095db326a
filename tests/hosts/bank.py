"""`Bank`: the database of a `Ledger` as a test looks at it, past afresh."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from sqlalchemy import Row, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from .ledger import COMMANDS, AccountRow, Base, JournalRow, log_tables


class Bank:
    """Accounts, their journal and the logs.

    Args:
        url: of the database.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine: AsyncEngine = create_async_engine(url, poolclass=NullPool)

    async def open(self, accounts: int, balance: int) -> None:
        """Make the tables, and accounts that hold that much each."""
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            rows = [{"id": number, "balance": balance} for number in range(accounts)]
            await connection.execute(insert(AccountRow), rows)

    async def rows(self, statement: Any) -> Sequence[Row[Any]]:
        async with self.engine.connect() as connection:
            return (await connection.execute(statement)).all()

    async def run(self, statement: Any) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(statement)

    async def balances(self) -> dict[int, int]:
        return dict(map(tuple, await self.rows(select(AccountRow.id, AccountRow.balance))))

    async def journal(self) -> Counter[tuple[str, str]]:
        """How many rows there are of each token and kind."""
        return Counter(map(tuple, await self.rows(select(JournalRow.token, JournalRow.kind))))

    async def tokens(self) -> Counter[str]:
        """How many rows there are of each token."""
        return Counter(token for token, _ in (await self.journal()).elements())

    async def operations(self) -> Sequence[Row[Any]]:
        """The log of operations, in its order."""
        return await self.rows(select(log_tables.operations).order_by("index"))

    async def events(self) -> Sequence[Row[Any]]:
        """The log of events."""
        return await self.rows(select(log_tables.events))

    async def commands(self) -> list[Any]:
        """The commands in the log of operations, in its order; read without afresh's codec."""
        read = []
        for row in await self.operations():
            envelope = msgspec.json.decode(row.command)
            kind = COMMANDS[envelope["t"]]
            read.append(msgspec.convert(envelope["d"], kind))
        return read


@asynccontextmanager
async def bank_at(url: str, *, accounts: int = 4, balance: int = 1_000) -> AsyncIterator[Bank]:
    """A `Bank` that ends with the block."""
    bank = Bank(url)
    await bank.open(accounts, balance)
    try:
        yield bank
    finally:
        await bank.engine.dispose()
