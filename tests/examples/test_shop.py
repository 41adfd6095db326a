"""The shop's services: what they compute, what a command changes, and what it leaves alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from afresh import App
from examples.shop.contracts import (
    USERS,
    Deliver,
    Order,
    PlaceOrder,
    PutIntoBasket,
    Shop,
    ShopError,
    Sold,
)
from examples.shop.data import shop_database
from examples.shop.server import start
from examples.shop.services import open_shop


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


async def read_everything(shop: Shop) -> None:
    """Have every result of the shop in the cache."""
    for product_id in await shop.products.ids():
        await shop.products.get(product_id)
        await shop.stock.left(product_id)
        await shop.sales.of(product_id)
        for user in USERS:
            await shop.baskets.quantity(user, product_id)
    for user in USERS:
        await shop.baskets.total(user)
        for order_id in await shop.orders.for_user(user):
            await shop.orders.get(order_id)
            await shop.orders.status(order_id)
    await shop.sales.total()
    await shop.worker.pid()


async def audited(app: App) -> list[object]:
    """What the app's cache holds that is no longer true."""
    return list((await app.audit()).stale)


async def test_an_order_takes_the_basket_from_the_stock(app: App, shop: Shop) -> None:
    await shop.baskets.put(PutIntoBasket("alice", "cake", 2))
    await app.call(PutIntoBasket("alice", "eggs", 1))
    assert await shop.baskets.total("alice") == 2 * 1400 + 490
    order = await app.call(PlaceOrder("alice", "Ring twice"))
    assert (order.user_id, order.note, order.amount) == ("alice", "Ring twice", 3290)
    assert await shop.orders.get(order.id) == order
    assert await shop.orders.for_user("alice") == (order.id,)
    assert await shop.orders.for_user("bob") == ()
    assert await shop.baskets.lines("alice") == ()
    assert [await shop.stock.left(each) for each in ("cake", "eggs", "honey")] == [1, 29, 15]


async def test_totals_follow_orders(shop: Shop) -> None:
    assert await shop.sales.of("cake") == Sold(0, 0)
    for user in ("alice", "bob"):
        await shop.baskets.put(PutIntoBasket(user, "cake", 1))
        await shop.orders.place(PlaceOrder(user))
    assert await shop.sales.of("cake") == Sold(2, 2800)
    assert await shop.sales.total() == Sold(2, 2800)


async def test_an_order_of_more_than_there_is_changes_nothing(app: App, shop: Shop) -> None:
    await shop.baskets.put(PutIntoBasket("alice", "eggs", 5))
    await shop.baskets.put(PutIntoBasket("alice", "cake", 4))
    with pytest.raises(ShopError, match="Lemon drizzle cake: only 3 left"):
        await shop.orders.place(PlaceOrder("alice"))
    assert await shop.stock.left("eggs") == 30
    assert await shop.orders.ids() == ()
    assert len(await shop.baskets.lines("alice")) == 2
    assert await audited(app) == []


async def test_an_empty_basket_is_no_order(shop: Shop) -> None:
    with pytest.raises(ShopError, match="empty"):
        await shop.orders.place(PlaceOrder("alice"))


async def test_an_order_that_is_sent_again_is_placed_once(app: App, shop: Shop) -> None:
    await shop.baskets.put(PutIntoBasket("alice", "cake", 1))
    command = PlaceOrder("alice")
    first, second = await asyncio.gather(shop.orders.place(command), shop.orders.place(command))
    await shop.baskets.put(PutIntoBasket("alice", "cake", 1))
    third = await shop.orders.place(command)
    assert first == second == third
    assert await shop.orders.ids() == (first.id,)
    assert await shop.stock.left("cake") == 2
    assert await shop.baskets.quantity("alice", "cake") == 1
    assert await audited(app) == []


async def test_an_order_invalidates_what_it_changed_and_nothing_else(shop: Shop) -> None:
    await shop.baskets.put(PutIntoBasket("alice", "cake", 1))
    changed = [
        await shop.stock.left.capture("cake"),
        await shop.baskets.total.capture("alice"),
        await shop.baskets.quantity.capture("alice", "cake"),
        await shop.orders.for_user.capture("alice"),
        await shop.sales.of.capture("eggs"),
        await shop.sales.total.capture(),
    ]
    others = [
        await shop.stock.left.capture("eggs"),
        await shop.baskets.lines.capture("bob"),
        await shop.orders.for_user.capture("bob"),
        await shop.products.get.capture("cake"),
    ]
    await shop.orders.place(PlaceOrder("alice"))
    assert [each for each in changed if each.is_consistent] == []
    assert [each for each in others if not each.is_consistent] == []


async def test_each_command_leaves_nothing_stale(app: App, shop: Shop) -> None:
    for command in (
        PutIntoBasket("alice", "cake", 2),
        PutIntoBasket("alice", "eggs", 1),
        PutIntoBasket("alice", "eggs", 4),
        PutIntoBasket("alice", "cake", 0),
        PlaceOrder("alice", "Ring twice"),
        Deliver(10),
    ):
        await read_everything(shop)
        await app.call(command)
        assert await audited(app) == [], command


async def test_a_delivery_fills_the_shelves(shop: Shop) -> None:
    assert await shop.stock.left("cake") == 3
    await shop.stock.deliver(Deliver(10))
    assert await shop.stock.left("cake") == 13


async def test_one_of_many_gets_the_last_cake(app: App, shop: Shop) -> None:
    users = [f"user{number}" for number in range(8)]
    for user in users:
        await shop.baskets.put(PutIntoBasket(user, "cake", 3))
    results = await asyncio.gather(
        *(shop.orders.place(PlaceOrder(user)) for user in users), return_exceptions=True
    )
    assert len([each for each in results if isinstance(each, Order)]) == 1
    refused = [str(each) for each in results if isinstance(each, ShopError)]
    assert refused == ["Sorry, Lemon drizzle cake: sold out"] * 7
    assert await shop.stock.left("cake") == 0
    assert len(await shop.orders.ids()) == 1
    assert await audited(app) == []


async def test_windows_that_fill_one_basket_at_the_same_time_agree_in_the_end(
    app: App, shop: Shop
) -> None:
    quantities = range(1, 9)
    await asyncio.gather(
        *(shop.baskets.put(PutIntoBasket("alice", "eggs", each)) for each in quantities)
    )
    assert await shop.baskets.quantity("alice", "eggs") in quantities
    assert await audited(app) == []


async def test_an_order_is_packed_by_itself(app: App, shop: Shop) -> None:
    await shop.baskets.put(PutIntoBasket("alice", "cake", 1))
    order = await shop.orders.place(PlaceOrder("alice"))
    totals = await shop.sales.total.capture()

    async def is_packed() -> bool:
        return await shop.orders.status(order.id) == "packed"

    await until(is_packed)
    assert totals.is_consistent
    assert await audited(app) == []


async def test_a_shop_that_was_open_before_keeps_its_orders_unless_reset(
    app: App, shop: Shop, any_database: str
) -> None:
    await shop.baskets.put(PutIntoBasket("alice", "cake", 1))
    await shop.orders.place(PlaceOrder("alice"))
    await app.aclose()
    for reset, orders, cakes in [(False, 1, 2), (True, 0, 3)]:
        app = App(database=shop_database(any_database))
        again = open_shop(app)
        await start(app, reset=reset)
        assert len(await again.orders.ids()) == orders
        assert await again.stock.left("cake") == cakes
        await app.aclose()


async def test_workers_that_start_at_once_fill_the_shelves_once(any_database: str) -> None:
    apps = [App(database=shop_database(any_database)) for _ in range(4)]
    shops = [open_shop(app) for app in apps]
    await asyncio.gather(*map(start, apps))
    for app, shop in zip(apps, shops, strict=True):
        assert len(await shop.products.ids()) == 8
        assert await shop.stock.left("cake") == 3
        assert await shop.worker.pid() == os.getpid()
        await app.aclose()


async def test_another_worker_learns_of_each_change(
    app: App, shop: Shop, any_database: str
) -> None:
    other = App(database=shop_database(any_database))
    there = open_shop(other, packing_seconds=0)
    await start(other)
    await read_everything(there)
    assert await there.stock.left("cake") == 3

    await shop.baskets.put(PutIntoBasket("alice", "cake", 1))
    order = await shop.orders.place(PlaceOrder("alice"))
    await there.stock.deliver(Deliver(10))

    async def is_known_everywhere() -> bool:
        for each in (shop, there):
            await read_everything(each)
            if await each.orders.for_user("alice") != (order.id,):
                return False
            if await each.orders.status(order.id) != "packed":
                return False
            if await each.stock.left("cake") != 12:
                return False
        return True

    await until(is_known_everywhere)
    for each in (app, other):
        assert await audited(each) == []
    await other.aclose()


async def test_a_refusal_is_an_answer_and_no_failure(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ShopError):
        await shop.orders.place(PlaceOrder("alice"))
    assert caplog.records == []
