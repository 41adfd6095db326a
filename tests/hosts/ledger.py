"""The service that worker processes of failure tests run: accounts, transfers, events.

Each change writes journal rows with the token of its command, and nothing keeps a second row of the
same token out: so a test sees what was lost, and what happened twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from sqlalchemy import MetaData, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import String

from afresh import Command, ComputeService, command_handler, compute_method, is_invalidating
from afresh.commands import EventCommand
from afresh.db import Database
from afresh.db.tables import add_log_tables

MODULUS = 1_000_003


class Base(DeclarativeBase):
    metadata = MetaData()
    type_annotation_map = {str: String(100)}


class AccountRow(Base):
    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    balance: Mapped[int] = mapped_column(default=0)


class JournalRow(Base):
    """That a handler changed an account."""

    __tablename__ = "journal"

    id: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(index=True)
    account: Mapped[int] = mapped_column(index=True)
    kind: Mapped[str]


log_tables = add_log_tables(Base.metadata)


class Deposit(Command[int], frozen=True):
    """Results in the new balance."""

    account: int
    amount: int
    token: str


class Withdraw(Command[int], frozen=True):
    """Results in the new balance."""

    account: int
    amount: int
    token: str


class Compound(Command[int], frozen=True):
    """Changes a balance in a way that depends on what it was."""

    account: int
    token: str


class Transfer(Command[bool], frozen=True):
    """Nests a deposit and a withdrawal, which fails where there is too little.

    A lenient one takes nothing then and gives only what was promised: 1. Results in whether the
    amount was moved.
    """

    source: int
    target: int
    amount: int
    token: str
    is_lenient: bool = False


class Order(Command[None], frozen=True):
    """Adds events of which each will add 1 to the balance."""

    account: int
    token: str
    count: int = 1
    delay: float = 0
    uuid: str | None = None


class Settle(Command[None], frozen=True):
    """The event of an order. Fails for good on an account that is not there."""

    account: int
    token: str


class Announce(Command[None], frozen=True):
    """Adds an event that has two handlers."""

    account: int
    token: str


class Announced(Command[None], EventCommand, frozen=True):
    """The event of an announcement."""

    account: int
    token: str


class HoldOn(Command[int], frozen=True):
    """A deposit of 1 whose transaction stays open for some seconds."""

    account: int
    seconds: float
    token: str


class TooLittle(Exception):
    """There is less than that on the account."""


class Ledger(ComputeService):
    """Accounts in a database.

    Args:
        database: where they are.
        says_what_is_stale: whether commands say it; False where the database finds it out.
    """

    def __init__(self, database: Database, *, says_what_is_stale: bool = True) -> None:
        self.database = database
        self.says_what_is_stale = says_what_is_stale
        self.entered: Counter[str] = Counter()
        """How often handlers were entered here, by token; other than the journal, with failures."""

    # -- reads

    @compute_method(keep_alive=600)
    async def balance(self, account: int) -> int:
        query = select(AccountRow.balance).where(AccountRow.id == account)
        async with self.database.read() as session:
            return (await session.scalars(query)).one()

    @compute_method(keep_alive=600)
    async def total(self) -> int:
        async with self.database.read() as session:
            return (await session.scalars(select(func.sum(AccountRow.balance)))).one()

    @compute_method(keep_alive=600)
    async def pair(self, first: int, second: int) -> list[int]:
        return [await self.balance(first), await self.balance(second)]

    @compute_method(keep_alive=600)
    async def entries(self, account: int) -> int:
        """How many journal rows an account has."""
        query = select(func.count()).where(JournalRow.account == account)
        async with self.database.read() as session:
            return (await session.scalars(query)).one()

    def _stale(self, account: int) -> None:
        """Say which results a change of an account makes stale."""
        if not self.says_what_is_stale:
            return
        self.balance(account)
        self.entries(account)
        self.total()

    # -- commands; each says what is stale in one of the ways there are

    async def _change(self, command: Any, amount: int, kind: str = "") -> tuple[Any, int]:
        """Add to an account and write the journal, in an operation or in that of the caller."""
        account: int = command.account
        self.entered[command.token] += 1
        async with self.database.operation() as op:
            row = await op.session.get_one(AccountRow, account, with_for_update=True)
            if row.balance + amount < 0:
                raise TooLittle(f"There is only {row.balance} on account {account}.")
            row.balance += amount
            kind = kind or type(command).__name__
            op.session.add(JournalRow(token=command.token, account=account, kind=kind))
            await op.session.flush()
            return op, row.balance

    @command_handler
    async def deposit(self, command: Deposit) -> int:
        return (await self._change(command, command.amount))[1]

    @deposit.invalidates
    def _(self, command: Deposit, result: int) -> None:
        self._stale(command.account)

    @command_handler
    async def withdraw(self, command: Withdraw) -> int:
        op, balance = await self._change(command, -command.amount)
        with op.invalidating():
            self._stale(command.account)
        return balance

    @command_handler
    async def compound(self, command: Compound) -> int:
        if is_invalidating():
            self._stale(command.account)
            return 0
        self.entered[command.token] += 1
        async with self.database.operation() as op:
            row = await op.session.get_one(AccountRow, command.account, with_for_update=True)
            row.balance = compounded(row.balance)
            op.session.add(
                JournalRow(token=command.token, account=command.account, kind="Compound")
            )
            await op.session.flush()
            return row.balance

    @command_handler
    async def transfer(self, command: Transfer) -> bool:
        async with self.database.operation() as op:
            # Both rows are locked in one order, so that two transfers never wait for each other.
            ids = {command.source, command.target}
            query = select(AccountRow).where(AccountRow.id.in_(ids)).order_by(AccountRow.id)
            await op.session.scalars(query.with_for_update())
            amount = command.amount
            try:
                await self.withdraw(Withdraw(command.source, amount, command.token))
            except TooLittle:
                if not command.is_lenient:
                    raise
                amount = 1
            await self.deposit(Deposit(command.target, amount, command.token))
            return amount == command.amount

    @command_handler
    async def order(self, command: Order) -> None:
        op, _ = await self._change(command, 0)
        with op.invalidating():
            self._stale(command.account)
        for number in range(command.count):
            event = Settle(command.account, f"{command.token}/{number}")
            op.add_event(event, delay=command.delay, uuid=command.uuid)

    @command_handler
    async def settle(self, command: Settle) -> None:
        await self._change(command, 1)

    @settle.invalidates
    def _(self, command: Settle, result: None) -> None:
        self._stale(command.account)

    @command_handler
    async def announce(self, command: Announce) -> None:
        op, _ = await self._change(command, 0)
        with op.invalidating():
            self._stale(command.account)
        op.add_event(Announced(command.account, command.token))

    @command_handler
    async def hear(self, command: Announced) -> None:
        await self._change(command, 1, "heard")

    @hear.invalidates
    def _(self, command: Announced, result: None) -> None:
        self._stale(command.account)

    @command_handler
    async def hear_too(self, command: Announced) -> None:
        await self._change(command, 1, "heard too")

    @hear_too.invalidates
    def _(self, command: Announced, result: None) -> None:
        self._stale(command.account)

    @command_handler
    async def hold_on(self, command: HoldOn) -> int:
        async with self.database.operation() as op:
            _, balance = await self._change(command, 1)
            with op.invalidating():
                self._stale(command.account)
            await asyncio.sleep(command.seconds)
            return balance


def compounded(balance: int) -> int:
    """What `Compound` makes of a balance."""
    return (balance * 3 + 1) % MODULUS


COMMANDS = {
    kind.__name__: kind
    for kind in (Announce, Announced, Compound, Deposit, HoldOn, Order, Settle, Transfer, Withdraw)
}


def replayed(balances: dict[int, int], commands: list[Any]) -> dict[int, int]:
    """The balances that commands lead to, handled one after another; in memory, without afresh."""
    balances = dict(balances)
    for command in commands:
        match command:
            case Deposit(account, amount):
                balances[account] += amount
            case Withdraw(account, amount):
                balances[account] -= amount
            case Compound(account):
                balances[account] = compounded(balances[account])
            case Transfer(source, target, amount):
                if amount <= balances[source]:
                    balances[source] -= amount
                else:
                    assert command.is_lenient
                    amount = 1
                balances[target] += amount
            case Settle(account) | HoldOn(account) | Announced(account):
                balances[account] += 1  # an event with two handlers is in the log once for each
            case Order() | Announce():
                pass
            case _:
                raise TypeError(f"{command!r} is unknown here.")
    return balances
