"""uvicorn's WebSockets with a short cut for `RpcEndpoint`: no queue, no task switch and no pause in
reading for each message.

```sh
uvicorn shop:asgi --ws afresh.rpc.transports.uvicorn:Protocol
```

or `uvicorn.run(app, ws=Protocol)`, with uvicorn 0.44 or newer. The handshake, routing, and
WebSockets of other applications on the same server are uvicorn's own. Connections of `RpcEndpoint`
are accepted without compression, have no pings of uvicorn's (peers have their own keep-alive), and
are cut when a client that reads nothing is to be let go; behind the plain protocol its socket would
stay open, with what uvicorn has buffered for it.
"""

from __future__ import annotations

from asyncio import BaseTransport
from socket import AF_INET, AF_INET6, IPPROTO_TCP, TCP_NODELAY

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from afresh.errors import ConnectionClosedError

from .asgi import DIRECT, Send, accept
from .connection import Receiver
from .websocket_connection import WebSocketConnection

__all__ = ["Protocol"]

_SERVICE_RESTART = 1012


class Protocol(WebSocketsSansIOProtocol):
    """The class for uvicorn's `ws` option."""

    _direct: _DirectConnection | None = None

    def handle_connect(self, event: Request) -> None:
        """Take in the opening handshake, and offer the short cut to applications."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["extensions"][DIRECT] = self._serve  # type: ignore[assignment]

    def shutdown(self) -> None:
        """Close the connection, since the server ends."""
        if self._direct is None:
            super().shutdown()
        else:
            self._direct._refuse(_SERVICE_RESTART, "the server shuts down")

    async def _serve(self, receiver: Receiver, send: Send) -> None:
        self.response.headers.pop("Sec-WebSocket-Extensions", None)
        self.conn.extensions = []
        await accept(receiver, send)
        if self.transport.is_closing():  # the client is gone already
            receiver.connection_lost(ConnectionClosedError())
            return
        self.stop_keepalive()
        _send_at_once(self.transport)
        self._direct = _DirectConnection(receiver, self)
        self.transport.set_protocol(self._direct)
        self._direct._open()
        await self._direct.wait_closed()


class _DirectConnection(WebSocketConnection):
    __slots__ = ("_owner",)

    def __init__(self, receiver: Receiver, owner: Protocol) -> None:
        super().__init__(receiver, owner.conn, owner.transport)
        self._owner = owner

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._owner.connection_lost(exc)


def _send_at_once(transport: BaseTransport) -> None:
    # Event loops see to it for sockets that they bound. Where somebody else did, as with several
    # workers, what follows an answer would wait until the client's system confirms that: 40 ms.
    bound = transport.get_extra_info("socket")
    if bound is not None and bound.family in {AF_INET, AF_INET6}:
        bound.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
