"""Runs the shop: `python -m examples.shop --help`."""

from __future__ import annotations

import argparse

from nicegui import app, ui

from afresh.ui.nicegui import page_defaults

from .data import Database
from .page import USERS, ShopPage, describe
from .services import Shop


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="shop",
        description="A small shop whose pages update themselves. Open it in two windows, "
        "the second one with ?user=bob, and order something.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (%(default)s)")
    parser.add_argument(
        "--database",
        metavar="URL",
        default="sqlite+aiosqlite:///shop.db",
        help="where the data is kept (%(default)s)",
    )
    parser.add_argument("--reset", action="store_true", help="forget all orders and refill")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser window")
    options = parser.parse_args()

    page_defaults.describe_error = describe
    database = Database(options.database)
    shop = Shop(database)
    app.on_startup(lambda: database.open(reset=options.reset))
    app.on_shutdown(database.close)

    @ui.page("/", title="Corner Market")
    def index(user: str = "alice") -> None:
        ShopPage(shop, user if user in USERS else "alice").build()

    ui.run(
        host=options.host,
        port=options.port,
        show=not options.no_browser,
        reload=False,
        title="Corner Market",
    )


main()
