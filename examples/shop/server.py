"""The shop as a server: an ASGI app that pages and terminals connect to, and the plain page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from afresh import App

from .data import Database
from .services import open_shop

PLAIN = Path(__file__).with_name("plain")
WEBSOCKETS = "afresh.rpc.transports.uvicorn:Protocol"


def shop_app(app: App) -> Starlette:
    """The ASGI app: where clients connect, the module for browsers, and the plain page at "/"."""
    asgi = app.asgi()
    asgi.router.routes.append(Mount("/", StaticFiles(directory=PLAIN, html=True)))
    return asgi


def serve(database_url: str, *, host: str, port: int, reset: bool) -> None:
    """Serve the shop until the process is ended."""
    database = Database(database_url)
    app = App()
    open_shop(database, app)
    shop = shop_app(app)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await database.open(reset=reset)
        try:
            yield
        finally:
            await app.aclose()
            await database.close()

    shop.router.lifespan_context = lifespan
    print(f"The shop's server: http://{host}:{port}/ is the plain page.", flush=True)
    uvicorn.run(shop, host=host, port=port, log_level="warning", ws=WEBSOCKETS)
