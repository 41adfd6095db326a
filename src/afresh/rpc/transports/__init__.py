"""What moves frames between two peers: WebSockets, Unix sockets, memory.

`connection` has the seams. Each transport is a module of its own, imported by those who use it, so
that a client needs no server's modules and a server no client's.
"""

from .connection import (
    Acceptor,
    Connection,
    ConnectionDetails,
    Connector,
    ConnectRequest,
    Receiver,
)

__all__ = [
    "Acceptor",
    "ConnectRequest",
    "Connection",
    "ConnectionDetails",
    "Connector",
    "Receiver",
]
