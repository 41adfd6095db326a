"""What the shop can be asked and told: the contracts that server and clients share.

A client imports this module and nothing of the server's: no tables, no SQL.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import uuid4

from msgspec import field

from afresh import Client, Command, ComputeService, command_handler, compute_method, rpc_error
from afresh.errors import DisconnectedError
from afresh.rpc import rpc_method

USERS = {"alice": "Alice", "bob": "Bob", "carol": "Carol"}


@rpc_error
class ShopError(Exception):
    """Something the customer should know, in words for the customer."""

    is_expected = True  # an answer, and not for the log of errors


def describe(error: BaseException) -> str:
    """What customers read about an error; the rest is for the log."""
    if isinstance(error, ShopError):
        return str(error)
    if isinstance(error, (DisconnectedError, TimeoutError)):
        return "The connection was lost, please look whether it was done"
    return "Something went wrong, please try again"


@dataclass(frozen=True, slots=True)
class Product:
    """Something to buy; prices are in cents."""

    id: str
    name: str
    unit: str
    icon: str
    hue: int
    price: int


@dataclass(frozen=True, slots=True)
class Line:
    """So many of one product, in a basket or an order; the price of one is in cents."""

    product_id: str
    quantity: int
    price: int

    @property
    def amount(self) -> int:
        return self.quantity * self.price


@dataclass(frozen=True, slots=True)
class Order:
    id: int
    user_id: str
    note: str
    placed_at: datetime
    lines: tuple[Line, ...]

    @property
    def amount(self) -> int:
        return sum(line.amount for line in self.lines)


Status = Literal["placed", "packed"]
"""How far an order is."""


@dataclass(frozen=True, slots=True)
class Sold:
    """What was sold of something: pieces, and cents taken."""

    pieces: int
    amount: int


class Deliver(Command[None], frozen=True):
    """A delivery arrives: so many pieces of each product."""

    pieces: int


class PutIntoBasket(Command[None], frozen=True):
    """Have so many pieces of a product in the basket; none takes it out."""

    user_id: str
    product_id: str
    quantity: int


class PlaceOrder(Command[Order], frozen=True):
    """Turn the user's basket into an order.

    The id is for this one wish: sent again, as a client does whose server was gone before it
    answered, the command gives the order that is there already.
    """

    user_id: str
    note: str = ""
    id: str = field(default_factory=lambda: uuid4().hex)


class Products(ComputeService):
    @compute_method
    @abstractmethod
    async def ids(self) -> tuple[str, ...]: ...

    @compute_method
    @abstractmethod
    async def get(self, product_id: str) -> Product: ...


class Stock(ComputeService):
    @compute_method
    @abstractmethod
    async def left(self, product_id: str) -> int:
        """How many pieces are left."""

    @rpc_method(survive_reconnect=False)  # rather no delivery than two
    @command_handler
    @abstractmethod
    async def deliver(self, command: Deliver) -> None: ...


class Baskets(ComputeService):
    @compute_method
    @abstractmethod
    async def lines(self, user_id: str) -> tuple[Line, ...]:
        """What is in a user's basket, at today's prices."""

    @compute_method
    @abstractmethod
    async def quantity(self, user_id: str, product_id: str) -> int: ...

    @compute_method
    @abstractmethod
    async def total(self, user_id: str) -> int:
        """The sum in cents."""

    @command_handler
    @abstractmethod
    async def put(self, command: PutIntoBasket) -> None: ...


class Orders(ComputeService):
    @compute_method
    @abstractmethod
    async def ids(self) -> tuple[int, ...]: ...

    @compute_method
    @abstractmethod
    async def for_user(self, user_id: str) -> tuple[int, ...]:
        """The user's orders, newest first."""

    @compute_method
    @abstractmethod
    async def get(self, order_id: int) -> Order: ...

    @compute_method
    @abstractmethod
    async def status(self, order_id: int) -> Status: ...

    @command_handler
    @abstractmethod
    async def place(self, command: PlaceOrder) -> Order:
        """Take what the basket holds from the stock.

        Raises:
            ShopError: the basket is empty, or holds more than there is.
        """


class Sales(ComputeService):
    @compute_method
    @abstractmethod
    async def of(self, product_id: str) -> Sold: ...

    @compute_method
    @abstractmethod
    async def total(self) -> Sold: ...


class Worker(ComputeService):
    @compute_method
    @abstractmethod
    async def pid(self) -> int:
        """Which process serves the client; another one when that was replaced."""


@dataclass(frozen=True, slots=True)
class Shop:
    """The shop's services, wherever they run."""

    products: Products
    stock: Stock
    baskets: Baskets
    orders: Orders
    sales: Sales
    worker: Worker


def shop_of(client: Client) -> Shop:
    """The shop of the server that a client is connected to."""
    return Shop(
        client.service(Products),
        client.service(Stock),
        client.service(Baskets),
        client.service(Orders),
        client.service(Sales),
        client.service(Worker),
    )
