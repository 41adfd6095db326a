"""What tests of the examples share: a shop on a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from afresh import App
from examples.shop.contracts import Shop
from examples.shop.data import shop_database
from examples.shop.server import start
from examples.shop.services import open_shop


@pytest.fixture
async def opened(any_database: str) -> AsyncIterator[tuple[App, Shop]]:
    """A shop with full shelves, on each database, where orders are packed at once."""
    app = App(database=shop_database(any_database))
    shop = open_shop(app, packing_seconds=0)
    await start(app)
    yield app, shop
    await app.aclose()


@pytest.fixture
def app(opened: tuple[App, Shop]) -> App:
    """The app that the shop is made with."""
    return opened[0]


@pytest.fixture
def shop(opened: tuple[App, Shop]) -> Shop:
    """The shop's services."""
    return opened[1]
