"""What the departments can be asked: the contracts that their pages read."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from afresh import Command, ComputeService, command_handler, compute_method
from afresh.rpc import rpc_method

DEPARTMENTS = ("notification", "analytics", "inventory")

# -- notification


@dataclass(frozen=True, slots=True)
class Notification:
    """A mail that was "sent": `correlation` is the id of the event that it was sent for."""

    id: int
    at: datetime
    kind: Literal["placed", "packed", "low"]
    to: str
    subject: str
    text: str
    correlation: str


class Notifications(ComputeService):
    @compute_method
    @abstractmethod
    async def latest(self, limit: int) -> tuple[Notification, ...]:
        """The newest first."""

    @compute_method
    @abstractmethod
    async def count(self) -> int: ...


# -- analytics


@dataclass(frozen=True, slots=True)
class Summary:
    """What was sold in all; the amount is in cents."""

    orders: int
    pieces: int
    amount: int
    customers: int
    packed: int = 0


@dataclass(frozen=True, slots=True)
class ProductFigures:
    """What was sold of one product."""

    product_id: str
    product: str
    pieces: int
    amount: int


@dataclass(frozen=True, slots=True)
class CustomerFigures:
    """What one customer ordered."""

    user_id: str
    customer: str
    orders: int
    amount: int


@dataclass(frozen=True, slots=True)
class MinuteFigures:
    """What was ordered within a minute, which begins at `at`."""

    at: datetime
    orders: int
    amount: int


class Analytics(ComputeService):
    @compute_method
    @abstractmethod
    async def summary(self) -> Summary: ...

    @compute_method
    @abstractmethod
    async def by_product(self) -> tuple[ProductFigures, ...]:
        """What brought most first."""

    @compute_method
    @abstractmethod
    async def by_customer(self) -> tuple[CustomerFigures, ...]:
        """Who spent most first."""

    @compute_method
    @abstractmethod
    async def by_minute(self) -> tuple[MinuteFigures, ...]:
        """Those of the last 30 minutes with orders in them, the oldest first."""


# -- inventory


@dataclass(frozen=True, slots=True)
class Shelf:
    """What the warehouse has of a product, and how much of that is promised to customers."""

    product_id: str
    product: str
    there: int
    reserved: int
    is_low: bool

    @property
    def left(self) -> int:
        return self.there - self.reserved


@dataclass(frozen=True, slots=True)
class Movement:
    """Pieces that were reserved, left the house, or came in."""

    id: int
    at: datetime
    kind: Literal["reserved", "shipped", "refilled"]
    product_id: str
    product: str
    pieces: int
    order_id: int | None


class Refill(Command[None], frozen=True):
    """So many pieces of a product come in."""

    product_id: str
    pieces: int


class Inventory(ComputeService):
    @compute_method
    @abstractmethod
    async def stock(self) -> tuple[Shelf, ...]:
        """All products, by name."""

    @compute_method
    @abstractmethod
    async def movements(self, limit: int) -> tuple[Movement, ...]:
        """The newest first."""

    @rpc_method(survive_reconnect=False)  # rather none than two
    @command_handler
    @abstractmethod
    async def refill(self, command: Refill) -> None: ...
