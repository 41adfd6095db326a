"""What the shop and the departments tell each other, through the message broker.

Whoever publishes an event owns it: within a version fields are only added, with defaults. Events
say all that readers need, so that no department has to ask the shop.
"""

from __future__ import annotations

from dataclasses import dataclass

from afresh.brokers import event

LISTENERS = {
    "notification": ("shop", "warehouse"),
    "analytics": ("shop",),
    "inventory": ("shop",),
}
"""The channels that each department listens to."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """So many of one product; the price of one is in cents."""

    product_id: str
    product: str
    quantity: int
    price: int


@event("shop.order_placed")
@dataclass(frozen=True, slots=True)
class OrderPlaced:
    """Somebody ordered something; of the shop, with the customer as the key."""

    order_id: int
    user_id: str
    customer: str
    lines: tuple[Ordered, ...]
    amount: int


@event("shop.order_packed")
@dataclass(frozen=True, slots=True)
class OrderPacked:
    """An order leaves the house; of the shop, with the customer as the key."""

    order_id: int
    user_id: str
    customer: str


@event("warehouse.running_low")
@dataclass(frozen=True, slots=True)
class RunningLow:
    """Little of something is left; of the inventory, with the product as the key."""

    product_id: str
    product: str
    left: int
