"""Serves the Python page: with the shop in the same process, or as a client of its server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from nicegui import Client as Visitor
from nicegui import app as site
from nicegui import ui
from starlette.types import ASGIApp, Receive, Scope, Send

from afresh import App, Client, connect
from afresh.ui.nicegui import connection_status, page_defaults

from .backstage.contracts import Backstage, BackstageError
from .backstage.reporter import Reporter
from .backstage.running import PATH, RunningBackstage, Stage
from .contracts import USERS, Shop, describe, shop_of
from .data import shop_database
from .flow.page import FlowPage
from .flow.traffic import Traffic
from .flow.verdict import Ledger
from .page import ShopPage
from .places import KnownPlaces, Places
from .server import reporting, shop_app, shop_broker, start
from .services import open_shop

TITLE = "Corner Market"
SERVICES = ("Products", "Stock", "Baskets", "Orders", "Sales")
"""Whose results are counted where they are read from afar."""


def serve_everything(
    database_url: str, stage: Stage | None, *, host: str, port: int, show: bool, reset: bool
) -> None:
    """Serve both pages, and the server that terminals connect to, from one process.

    Args:
        database_url: of the shop.
        stage: what is behind the shop; None for nothing.
        host: where to listen.
        port: where all of it is.
        show: open the page in a browser.
        reset: forget all orders first.
    """
    broker = shop_broker(stage.broker) if stage is not None else None
    app = App(database=shop_database(database_url), broker=broker)
    shop = open_shop(app)
    places = app.add(KnownPlaces())
    backstage = RunningBackstage(stage) if stage is not None else None
    everything = AsyncExitStack()
    is_open = asyncio.Event()

    async def open_everything() -> None:
        try:
            if backstage is not None:
                everything.push_async_callback(backstage.aclose)
                await backstage.start()
                watched = reporting(app, shop, "shop", backstage.board)
                await everything.enter_async_context(watched)
            everything.push_async_callback(app.aclose)
            await start(app, reset=reset)
        finally:
            is_open.set()
        if backstage is not None:
            await backstage.start_departments()

    site.on_startup(open_everything)
    site.on_shutdown(see_visitors_off)
    site.on_shutdown(everything.aclose)
    site.add_middleware(Doorman, is_open=is_open)
    site.router.routes += app.asgi().routes
    site.mount("/plain", shop_app(app))
    if backstage is not None:
        site.mount(PATH, backstage.asgi())
        add_flow(backstage.services, lambda: shop)
    run(lambda: shop, lambda: places, None, host=host, port=port, show=show)


def serve_page(server_url: str, stage: Stage | None, *, host: str, port: int, show: bool) -> None:
    """Serve the Python page alone; the shop is elsewhere.

    Args:
        server_url: where the shop is.
        stage: what is behind it, which this process looks after; None for nothing.
        host: where to listen.
        port: where the page is.
        show: open the page in a browser.
    """
    client = connect(server_url)
    backstage = RunningBackstage(stage) if stage is not None else None
    everything = AsyncExitStack()

    async def open_everything() -> None:
        everything.push_async_callback(client.aclose)
        if backstage is not None:
            everything.push_async_callback(backstage.aclose)
            await backstage.start()
            reporter = Reporter("page", "page", None, SERVICES)
            await everything.enter_async_context(reporter.reporting_to(backstage.board))
            await backstage.start_departments()

    site.on_startup(open_everything)
    site.on_shutdown(see_visitors_off)
    site.on_shutdown(everything.aclose)
    if backstage is not None:
        site.mount(PATH, backstage.asgi())
        add_flow(backstage.services, lambda: shop_of(client))
    run(
        lambda: shop_of(client),
        lambda: client.service(Places),
        client,
        host=host,
        port=port,
        show=show,
    )


class Doorman:
    """Lets nobody in before the shop is open; NiceGUI answers while handlers of its start run.

    Args:
        app: what is behind the door.
        is_open: set when it is.
    """

    def __init__(self, app: ASGIApp, is_open: asyncio.Event) -> None:
        self._app = app
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._is_open.wait()
        await self._app(scope, receive, send)


def add_flow(backstage: Backstage, shop: Callable[[], Shop]) -> None:
    """Serve the page that shows what happens behind the shop, at "/flow".

    Args:
        backstage: what is known there, and what can be broken.
        shop: where the page's visitors order something.
    """
    traffic = Traffic(backstage.board)
    ledger = Ledger(backstage)

    @ui.page("/flow", title=f"Behind the shop · {TITLE}")
    def flow() -> None:
        FlowPage(backstage, shop(), traffic, ledger).build()


def words_for(error: BaseException) -> str:
    """What visitors of all Python pages read about an error."""
    return str(error) if isinstance(error, BackstageError) else describe(error)


def see_visitors_off() -> None:
    """End all pages, so that none of them asks for what is closed."""
    for visitor in list(Visitor.instances.values()):
        visitor.delete()


def run(
    shop: Callable[[], Shop],
    places: Callable[[], Places],
    client: Client | None,
    *,
    host: str,
    port: int,
    show: bool,
) -> None:
    page_defaults.describe_error = words_for

    @ui.page("/", title=TITLE)
    def index(user: str = "alice") -> None:
        ShopPage(shop(), user if user in USERS else "alice", places()).build()
        if client is not None:
            connection_status(client).classes("fixed bottom-4 left-4").style("z-index: 10")

    ui.run(
        host=host,
        port=port,
        show=show,
        reload=False,
        title=TITLE,
        ws_per_message_deflate=False,
        reconnect_timeout=10,  # seconds; the default of 3 is short for a busy machine
    )
