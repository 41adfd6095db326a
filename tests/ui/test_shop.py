"""The shop's services: what they compute, what an order changes, and what it leaves alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nicegui import ui

from examples.shop.contracts import Shop, ShopError, Sold
from examples.shop.data import Database
from examples.shop.page import ShopPage
from examples.shop.services import open_shop

from .conftest import Visit, another_user, texts, until


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """A shop with full shelves."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}")
    await database.open()
    yield open_shop(database)
    await database.close()


async def test_an_order_takes_the_basket_from_the_stock(shop: Shop) -> None:
    await shop.baskets.put("alice", "cake", 2)
    await shop.baskets.put("alice", "eggs", 1)
    assert await shop.baskets.total("alice") == 2 * 1400 + 490
    number = await shop.orders.place("alice", "Ring twice")
    order = await shop.orders.get(number)
    assert (order.user_id, order.note, order.amount) == ("alice", "Ring twice", 3290)
    assert await shop.orders.for_user("alice") == (number,)
    assert await shop.orders.for_user("bob") == ()
    assert await shop.baskets.lines("alice") == ()
    assert [await shop.stock.left(each) for each in ("cake", "eggs", "honey")] == [1, 29, 15]


async def test_totals_follow_orders(shop: Shop) -> None:
    assert await shop.sales.of("cake") == Sold(0, 0)
    for user in ("alice", "bob"):
        await shop.baskets.put(user, "cake", 1)
        await shop.orders.place(user)
    assert await shop.sales.of("cake") == Sold(2, 2800)
    assert await shop.sales.total() == Sold(2, 2800)


async def test_an_order_of_more_than_there_is_changes_nothing(shop: Shop) -> None:
    await shop.baskets.put("alice", "eggs", 5)
    await shop.baskets.put("alice", "cake", 4)
    with pytest.raises(ShopError, match="Lemon drizzle cake: only 3 left"):
        await shop.orders.place("alice")
    assert await shop.stock.left("eggs") == 30
    assert await shop.orders.ids() == ()
    assert len(await shop.baskets.lines("alice")) == 2


async def test_an_empty_basket_is_no_order(shop: Shop) -> None:
    with pytest.raises(ShopError, match="empty"):
        await shop.orders.place("alice")


async def test_an_order_invalidates_what_it_changed_and_nothing_else(shop: Shop) -> None:
    await shop.baskets.put("alice", "cake", 1)
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
    await shop.orders.place("alice")
    assert [each for each in changed if each.is_consistent] == []
    assert [each for each in others if not each.is_consistent] == []


async def test_a_delivery_fills_the_shelves(shop: Shop) -> None:
    assert await shop.stock.left("cake") == 3
    await shop.stock.deliver(10)
    assert await shop.stock.left("cake") == 13


async def test_a_shop_that_was_open_before_keeps_its_orders_unless_reset(
    shop: Shop, tmp_path: Path
) -> None:
    await shop.baskets.put("alice", "cake", 1)
    await shop.orders.place("alice")
    for reset, orders, cakes in [(False, 1, 2), (True, 0, 3)]:
        database = Database(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}")
        await database.open(reset=reset)
        again = open_shop(database)
        assert len(await again.orders.ids()) == orders
        assert await again.stock.left("cake") == cakes
        await database.close()


async def test_two_visitors_see_each_others_orders(visit: Visit, shop: Shop) -> None:
    def page() -> None:
        user = ui.context.client.request.query_params.get("user", "alice")
        ShopPage(shop, user).build()

    async with visit(page) as alice:
        bob = another_user()
        await bob.open("/?user=bob")
        await until(lambda: "Lemon drizzle cake" in texts(bob))
        await alice.should_see(marker="add-cake")
        alice.find(marker="add-cake").click()
        await alice.should_see("Place order")
        alice.find("Place order").click()
        await alice.should_see("Thank you! Order #1 is placed.")
        await until(lambda: "Order #1" in texts(alice))
        await until(lambda: "Only 2 left" in texts(bob))
        await until(lambda: texts(bob).count("€14.00") == 3)  # the price, the total, all totals
        assert "Order #1" not in texts(bob)
