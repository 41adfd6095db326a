"""Which transport an address asks for."""

from __future__ import annotations

from .transports.connection import Connector

__all__ = ["connector_for"]


def connector_for(url: str) -> Connector:
    """Return what dials `url`.

    Args:
        url: "ws:…", "wss:…", "http:…" or "https:…" for a WebSocket, "unix:…" for a socket in the
            file system.

    Raises:
        ValueError: nothing here dials such an address.
    """
    scheme = url.partition(":")[0].lower()
    if scheme in {"ws", "wss", "http", "https"}:
        from .transports.websocket import WebSocketConnector

        return WebSocketConnector(url)
    if scheme == "unix":
        from .transports.unix import UnixConnector

        return UnixConnector(url.partition(":")[2].removeprefix("//"))
    raise ValueError(
        f"{url!r} is no address to connect to; write 'ws://host:port/rpc/ws' or 'unix:/path'."
    )
