"""The RPC stacks under test: one module each, set up as its own documentation shows it.

A module has a class ``Server`` with ``start``, which returns the port, and classes for the other
side, all with ``connect``:

- ``Client``, with ``add(a, b)`` for calls, or ``batches(in_flight, rounds)`` where there are no
  single calls, and ``read(size, count)`` for streams;
- ``Crowd``, many clients in one process, for broadcasts and memory.

Nothing has to be closed: the processes end.

Orders that a server takes beside the wire are in ``Server.orders``.
"""

from importlib import import_module
from typing import Any

MODULES = {
    "afresh": "afresh_rpc",
    "afresh, plain uvicorn": "afresh_plain",
    "grpc.aio": "grpc_aio",
    "python-socketio": "socket_io",
    "FastAPI": "http",
    "raw WebSocket": "raw_websocket",
    "Starlette": "starlette_broadcast",
}
"""Name of a stack to the module it is in."""


def load(name: str) -> Any:
    """The module of a stack; raises ``ImportError`` where what it needs is not installed."""
    return import_module(f"{__name__}.{MODULES[name]}")
