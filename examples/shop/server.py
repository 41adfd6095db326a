"""The shop as a server: an ASGI app that pages and terminals connect to, and the plain page.

`SHOP_DATABASE=postgresql+asyncpg://… uvicorn examples.shop.server:worker --factory --workers 4`
serves it by four processes behind one port; `cluster` does that for those who have no PostgreSQL.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from afresh import App

from .data import clear, fill_shelves, shop_database
from .services import open_shop

PLAIN = Path(__file__).with_name("plain")
WEBSOCKETS = "afresh.rpc.transports.uvicorn:Protocol"


async def start(app: App, *, reset: bool = False) -> None:
    """Make the shop ready to be used; with `reset`, forget everything first."""
    if reset:
        await clear(app.database)
    await app.start()
    await fill_shelves(app.database)


def shop_app(app: App, *, reset: bool = False) -> Starlette:
    """The ASGI app: where clients connect, the module for browsers, and the plain page at "/"."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            await start(app, reset=reset)
            yield
        finally:
            await app.aclose()

    asgi = app.asgi()
    asgi.router.routes.append(Mount("/", StaticFiles(directory=PLAIN, html=True)))
    asgi.router.lifespan_context = lifespan
    return asgi


def serve(database_url: str, *, host: str, port: int, reset: bool) -> None:
    """Serve the shop until the process is ended."""
    app = App(database=shop_database(database_url))
    open_shop(app)
    print(f"The shop's server: http://{host}:{port}/ is the plain page.", flush=True)
    uvicorn.run(
        shop_app(app, reset=reset), host=host, port=port, log_level="warning", ws=WEBSOCKETS
    )


def worker() -> Starlette:
    """The ASGI app of one of several processes."""
    app = App(database=shop_database(os.environ["SHOP_DATABASE"]))
    open_shop(app)
    return shop_app(app)
