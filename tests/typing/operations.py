"""What type checkers make of operations and databases. Not run: `make lint` gives it to mypy and
to pyright.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, assert_type

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afresh import App, ComputeService, compute_method, is_invalidating
from afresh.commands import Command, EventCommand, command, command_handler
from afresh.db import Database, ReadSession, WritableOperation
from afresh.operations import (
    Freshness,
    LogCodec,
    Operation,
    OperationEvent,
    RetryPolicy,
    current_operation,
)
from afresh.primitives.delays import RetryDelays


class Base(DeclarativeBase):
    pass


class OrderRow(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[str]


class PlaceOrder(Command[int], frozen=True):
    user_id: str


class SendReceipt(Command[None], EventCommand, frozen=True):
    order_id: int


def with_user(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "user_id": ""}


@command("shop.cancel", version=2, upcasters={1: with_user})
class CancelOrder(Command[None], frozen=True):
    order_id: int
    user_id: str


class Orders(ComputeService):
    def __init__(self, database: Database) -> None:
        self.database = database

    @compute_method
    async def for_user(self, user_id: str) -> tuple[int, ...]:
        async with self.database.read() as session:
            assert_type(session, ReadSession)
            found = await session.scalars(select(OrderRow.id).where(OrderRow.user_id == user_id))
            return tuple(found)

    @command_handler
    async def place(self, command: PlaceOrder) -> int:
        async with self.database.operation() as op:
            assert_type(op, WritableOperation)
            assert_type(op.session, AsyncSession)
            assert_type(op.operation, Operation)
            assert_type(op.uuid, str)
            assert_type(op.items, dict[str, Any])
            row = OrderRow(user_id=command.user_id)
            op.session.add(row)
            with op.invalidating():
                self.for_user(command.user_id)
            event = op.add_event(SendReceipt(row.id), delay=5, on_conflict="skip", quantum=60)
            assert_type(event, OperationEvent)
            op.add_event(SendReceipt(row.id), due_at=datetime.now(UTC), uuid="receipt")
            op.add_event(SendReceipt(row.id), on_conflict="maybe")  # type: ignore[arg-type]
            op.add_event("receipt")  # type: ignore[arg-type]
        return row.id

    @place.invalidates
    def _(self, command: PlaceOrder, order_id: int) -> None:
        self.for_user(command.user_id)

    @command_handler
    async def cancel(self, command: CancelOrder) -> None:
        operation = current_operation()
        assert_type(operation, Operation)
        if is_invalidating():
            self.for_user(operation.items["user_id"])
            return
        async with self.database.operation("eu", isolation="SERIALIZABLE") as op:
            await op.session.get(OrderRow, command.order_id)
        operation.items["user_id"] = command.user_id
        operation.when_done(self.note)
        operation.when_done(lambda done: None)
        assert_type(operation.freshness, Freshness)

    async def note(self, operation: Operation) -> None:
        assert_type(operation.is_committed, bool | None)
        assert_type(operation.index, int | None)
        assert_type(operation.logged_at, datetime | None)

    async def wrong(self) -> None:
        self.database.operation(isolation="ALL")  # type: ignore[arg-type]


class WrongOrders(Orders):
    @Orders.place.invalidates  # type: ignore[arg-type]
    def _(self, command: CancelOrder, order_id: int) -> None: ...


async def program() -> None:
    database = Database(
        "sqlite+aiosqlite:///shop.db",
        metadata=Base.metadata,
        isolation="SERIALIZABLE",
        create_tables=True,
        log_commands=False,
    )
    app = App(database=database, retries=RetryPolicy(3, RetryDelays.fixed(1)))
    assert_type(app.database, Database)
    orders = app.add(Orders(app.database))
    async with app as started:
        assert_type(started, App)
        assert_type(await app.call(PlaceOrder("u1")), int)
        assert_type(await orders.place(PlaceOrder("u1")), int)
        async with database.operation() as op:
            assert_type(op, WritableOperation)
    codec = LogCodec(app.commander.registry)
    assert_type(codec.encode(PlaceOrder("u1")), str)
    App(database=5)  # type: ignore[arg-type]
