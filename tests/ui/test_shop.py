"""The shop's page, to simulated visitors: what one does, others see."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nicegui import ui

from afresh import App
from examples.shop.contracts import Shop
from examples.shop.data import shop_database
from examples.shop.page import ShopPage
from examples.shop.server import start
from examples.shop.services import open_shop

from .conftest import Visit, another_user, texts, until


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """A shop with full shelves."""
    app = App(database=shop_database(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}"))
    shop = open_shop(app, packing_seconds=0.2)
    await start(app)
    yield shop
    await app.aclose()


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
        await until(lambda: "Packed" in texts(alice))
