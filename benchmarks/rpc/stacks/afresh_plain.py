"""afresh behind uvicorn's own WebSockets, as `uvicorn shop:asgi` runs it with no options."""

from benchmarks.rpc.stacks import afresh_rpc
from benchmarks.rpc.stacks.afresh_rpc import Client

__all__ = ["Client", "Server"]


class Server(afresh_rpc.Server):
    ws = "auto"
