"""A server for the end-to-end suites of other implementations of the protocol.

`python -m tests.interop_server --port 8000` serves `ws://127.0.0.1:8000/rpc/ws`, and says so on
standard output once it can be reached. Port 0 chooses a free one. `IServerControlService` restarts
it, with nothing left of its state.
"""

from __future__ import annotations

import argparse
import asyncio
import socket

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from afresh.remote import ComputeCalls
from afresh.rpc.hub import DEFAULT_FORMATS, RpcHub
from afresh.rpc.naming import DOTNET
from afresh.rpc.transports.asgi import RpcEndpoint
from tests.interop_services import serve_all

PAUSE = 0.2
"""For how many seconds a restart leaves clients without a server."""


async def serve(port: int, formats: tuple[str, ...]) -> None:
    """Serve until stopped."""
    while True:
        listener = socket.create_server(("127.0.0.1", port), backlog=2048)
        port = listener.getsockname()[1]
        print(f"Serving ws://127.0.0.1:{port}/rpc/ws", flush=True)
        if not await serve_until_restart(listener, formats):
            return
        await asyncio.sleep(PAUSE)


async def serve_until_restart(listener: socket.socket, formats: tuple[str, ...]) -> bool:
    """Serve until stopped, which returns False, or until a client asks for a restart."""
    is_restarted = False

    def restart() -> None:
        nonlocal is_restarted
        is_restarted = True
        server.should_exit = True

    async with RpcHub(naming=DOTNET, formats=formats, kinds=[ComputeCalls()]) as hub:
        serve_all(hub, restart)
        app = Starlette(routes=[WebSocketRoute("/rpc/ws", RpcEndpoint(hub))])
        config = uvicorn.Config(
            app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        await server.serve(sockets=[listener])
    listener.close()
    return is_restarted


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument(
        "--format",
        action="append",
        dest="formats",
        help="a format that clients may use, the default one first; all unless given",
    )
    options = parser.parse_args()
    asyncio.run(serve(options.port, tuple(options.formats or DEFAULT_FORMATS)))


if __name__ == "__main__":
    main()
