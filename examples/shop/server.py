"""The shop as a server: an ASGI app that pages and terminals connect to, and the plain page.

`SHOP_DATABASE=postgresql+asyncpg://… uvicorn examples.shop.server:worker --factory --workers 4`
serves it by four processes behind one port; `cluster` does that for those who have no PostgreSQL.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import fields
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from afresh import App, connect
from afresh.brokers import Broker, RelayOptions
from afresh.primitives.delays import RetryDelays

from .backstage.contracts import Board
from .backstage.reporter import Reporter
from .backstage.servers import calm_loggers
from .contracts import Shop
from .data import clear, fill_shelves, orders_placed, shop_database
from .places import KnownPlaces
from .services import open_shop

PLAIN = Path(__file__).with_name("plain")
SHARED = Path(__file__).with_name("shared")
"""What all pages without Python share."""
RELAY = RelayOptions(pauses=RetryDelays.exponential(0.5, 2, 2, 0.1), lease=4, renew=1)
"""For people who watch: short pauses while the broker is away, or when a worker was killed."""
WEBSOCKETS = "afresh.rpc.transports.uvicorn:Protocol"


async def start(app: App, *, reset: bool = False) -> None:
    """Make the shop ready to be used; with `reset`, forget everything first."""
    if reset:
        await clear(app.database)
    await app.start()
    await fill_shelves(app.database)


def shop_broker(address: str) -> Broker:
    """What tells other services of the shop's orders."""
    return Broker(address, source="/shop", relay=RELAY)


@asynccontextmanager
async def reporting(
    app: App, shop: Shop, process: str, backstage: str | Board
) -> AsyncIterator[None]:
    """Tell the backstage what happens in this process.

    Args:
        app: of the shop, with its broker.
        shop: its services.
        process: what this one is called; "worker" for one of several.
        backstage: where that can be reached, or its board.
    """
    computing = {type(getattr(shop, each.name)).__name__ for each in fields(shop)}
    reporter = Reporter(process, "shop", app, computing, lambda: orders_placed(app.database))
    async with AsyncExitStack() as stack:
        if isinstance(backstage, str):
            client = await stack.enter_async_context(connect(backstage))
            board = client.service(Board)
        else:
            board = backstage
        await stack.enter_async_context(reporter.reporting_to(board))
        yield


def shop_app(
    app: App, *, reset: bool = False, around: AbstractAsyncContextManager[None] | None = None
) -> Starlette:
    """The ASGI app: where clients connect, the module for browsers, and the plain page at "/".

    Args:
        app: of the shop.
        reset: forget everything first.
        around: entered before the shop opens, and left when it is closed.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with around or nullcontext():
            try:
                await start(app, reset=reset)
                yield
            finally:
                await app.aclose()

    asgi = app.asgi()
    asgi.router.routes += [
        Mount("/shared", StaticFiles(directory=SHARED)),
        Mount("/", StaticFiles(directory=PLAIN, html=True)),
    ]
    asgi.router.lifespan_context = lifespan
    return asgi


def serve(database_url: str, *, host: str, port: int, reset: bool) -> None:
    """Serve the shop until the process is ended."""
    app = App(database=shop_database(database_url))
    open_shop(app)
    app.add(KnownPlaces())
    print(f"The shop's server: http://{host}:{port}/ is the plain page.", flush=True)
    uvicorn.run(
        shop_app(app, reset=reset), host=host, port=port, log_level="warning", ws=WEBSOCKETS
    )


def worker() -> Starlette:
    """The ASGI app of one of several processes, by what the environment says."""
    calm_loggers()
    broker = os.environ.get("SHOP_BROKER")
    backstage = os.environ.get("SHOP_BACKSTAGE")
    app = App(
        database=shop_database(os.environ["SHOP_DATABASE"]),
        broker=shop_broker(broker) if broker else None,
    )
    shop = open_shop(app)
    app.add(KnownPlaces())
    return shop_app(app, around=reporting(app, shop, "worker", backstage) if backstage else None)
