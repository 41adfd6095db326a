"""The ASGI app of a program: where clients connect, the module for browsers, and its health.

It mounts into any Starlette or FastAPI app, or stands alone.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from afresh.rpc.origins import OriginRule, same_host
from afresh.rpc.transports.asgi import RpcEndpoint

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from afresh.app import App

__all__ = ["asgi_app"]

SCRIPT = "afresh.js"


def asgi_app(
    app: App,
    *,
    origins: OriginRule | Iterable[str] = same_host,
    formats: Collection[str] | None = None,
    require_proof: bool = False,
    expose_backend: bool = False,
    rpc_path: str = "/rpc/ws",
    script_path: str = "/afresh/afresh.js",
    health_path: str = "/health",
) -> Starlette:
    """Return a Starlette app that serves `app`; `App.asgi()` is the way to call it.

    Args:
        app: what to serve.
        origins: which web pages may connect: a rule, or a list of origins. Pages of the same host
            by default.
        formats: the serialization formats that may be used; all that the app knows by default.
        require_proof: refuse clients that come back without a reconnect proof.
        expose_backend: serve backend services too, under "/backend" and `rpc_path`. Never let the
            public reach that path.
        rpc_path: where clients connect.
        script_path: where the module for browsers is.
        health_path: where the state of the program can be asked for.

    Raises:
        ImportError: Starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import JSONResponse, Response
        from starlette.routing import Route, WebSocketRoute
    except ImportError as error:
        raise ImportError(
            "App.asgi() needs Starlette: pip install 'afresh[web]'. Without it, mount "
            "afresh.rpc.transports.asgi.RpcEndpoint(app.hub), which is a plain ASGI app."
        ) from error

    script = files(__package__).joinpath("static", SCRIPT).read_bytes()
    compressed = gzip.compress(script, 9, mtime=0)
    tag = f'"{hashlib.sha256(script).hexdigest()[:24]}"'

    async def send_script(request: Request) -> Response:
        headers = {"Cache-Control": "no-cache", "ETag": tag, "Vary": "Accept-Encoding"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        content = script
        if "gzip" in request.headers.get("accept-encoding", ""):
            content = compressed
            headers["Content-Encoding"] = "gzip"
        return Response(content, media_type="text/javascript", headers=headers)

    async def send_health(request: Request) -> Response:
        health = app.health()
        return JSONResponse(health, status_code=503 if health["status"] == "closed" else 200)

    endpoint: Callable[[bool], Any] = lambda is_backend: RpcEndpoint(  # noqa: E731
        app.hub,
        is_backend=is_backend,
        origins=origins,
        formats=formats,
        require_proof=require_proof,
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with app:
            yield

    routes: list[Any] = [
        WebSocketRoute(rpc_path, endpoint(False)),
        Route(script_path, send_script),
        Route(health_path, send_health),
    ]
    if expose_backend:
        routes.append(WebSocketRoute(f"/backend{rpc_path}", endpoint(True)))
    return Starlette(routes=routes, lifespan=lifespan)
