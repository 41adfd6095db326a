"""Notification: "sends" a mail for whatever customers and the buyer should know."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, cast

from sqlalchemy import String, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afresh import compute_method
from afresh.brokers import current_event, on_event
from afresh.db import Database, UtcTimestamp

from ..events import OrderPacked, OrderPlaced, RunningLow
from .contracts import Notification, Notifications

Kind = Literal["placed", "packed", "low"]


class Base(DeclarativeBase):
    type_annotation_map = {str: String(200), datetime: UtcTimestamp}  # noqa: RUF012


class NotificationRow(Base):
    __tablename__ = "notifications"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    kind: Mapped[str]
    recipient: Mapped[str]
    subject: Mapped[str]
    text: Mapped[str]
    correlation: Mapped[str]


class DbNotifications(Notifications):
    def __init__(self, database: Database) -> None:
        self._database = database

    @compute_method
    async def count(self) -> int:
        async with self._database.read() as session:
            return await session.scalar(select(func.count(NotificationRow.id))) or 0

    @compute_method
    async def latest(self, limit: int) -> tuple[Notification, ...]:
        await self.count()  # goes stale with it
        newest = select(NotificationRow).order_by(NotificationRow.id.desc()).limit(limit)
        async with self._database.read() as session:
            return tuple(
                Notification(
                    row.id,
                    row.at,
                    cast(Kind, row.kind),
                    row.recipient,
                    row.subject,
                    row.text,
                    row.correlation,
                )
                for row in await session.scalars(newest)
            )

    async def orders(self) -> int:
        """How many customers were thanked for an order."""
        placed = select(func.count(NotificationRow.id)).where(NotificationRow.kind == "placed")
        async with self._database.read() as session:
            return await session.scalar(placed) or 0

    @on_event(OrderPlaced, group="notification")
    async def thank(self, event: OrderPlaced) -> None:
        what = ", ".join(
            f"{line.quantity} \N{MULTIPLICATION SIGN} {line.product}" for line in event.lines
        )
        await self._send(
            "placed",
            event.customer,
            f"Thank you for order #{event.order_id}",
            f"We pack {what} for you. The sum is €{event.amount / 100:,.2f}.",
        )

    @thank.invalidates
    def _(self, event: OrderPlaced) -> None:
        self.count()

    @on_event(OrderPacked, group="notification")
    async def tell_packed(self, event: OrderPacked) -> None:
        await self._send(
            "packed",
            event.customer,
            f"Order #{event.order_id} is on its way",
            "It is packed, and leaves our house today.",
        )

    @tell_packed.invalidates
    def _(self, event: OrderPacked) -> None:
        self.count()

    @on_event(RunningLow, group="notification")
    async def warn(self, event: RunningLow) -> None:
        left = f"Only {event.left} are left" if event.left > 0 else "None is left"
        await self._send(
            "low", "Purchasing", f"{event.product}: running low", f"{left}, please order more."
        )

    @warn.invalidates
    def _(self, event: RunningLow) -> None:
        self.count()

    async def _send(self, kind: Kind, to: str, subject: str, text: str) -> None:
        async with self._database.operation() as op:
            op.session.add(
                NotificationRow(
                    at=datetime.now(UTC),
                    kind=kind,
                    recipient=to,
                    subject=subject,
                    text=text[:200],
                    correlation=current_event().id,
                )
            )
