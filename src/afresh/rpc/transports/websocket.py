"""The client's end of a WebSocket: dialling.

The opening handshake is the websockets library's; the open connection is a `WebSocketConnection`.
When to dial again is left to the peer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import Mapping
from typing import Final, cast
from urllib.parse import quote, urlencode

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, InvalidURI
from websockets.protocol import CONNECTING, OPEN
from websockets.uri import WebSocketURI, parse_uri

from afresh.errors import DisconnectedError, RejectedError

from .connection import Connection, ConnectRequest, Receiver
from .deadline import Deadline
from .websocket_connection import WebSocketConnection

__all__ = ["WebSocketConnector"]

_REFUSALS: Final = frozenset({400, 401, 403})
"""HTTP statuses that the same request gets again; others may come from a server that is being
replaced, or from what stands in front of it."""


class WebSocketConnector:
    """Dials a server by WebSocket.

    ```python
    connector = WebSocketConnector("wss://shop.example/rpc/ws")
    ```

    Args:
        url: of the endpoint; `ws:`, `wss:`, `http:` or `https:`. What it has for a query is kept.
        headers: further HTTP headers of the upgrade request, such as `Authorization`.
        tls: how to encrypt, and whom to trust, where the URL asks for encryption; Python's default
            when not given.

    Raises:
        ValueError: the URL is none of these.
    """

    __slots__ = ("_headers", "_tls", "_uri", "url")

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        scheme, colon, rest = url.partition(":")
        try:
            self._uri: WebSocketURI = parse_uri(
                {"http": "ws", "https": "wss"}.get(scheme.lower(), scheme) + colon + rest
            )
        except InvalidURI as error:
            raise ValueError(
                f"{url!r} is no address of a WebSocket: {error}. Write it as in "
                '"wss://shop.example/rpc/ws".'
            ) from None
        self.url: str = url
        """Where to dial."""
        self._headers = dict(headers or {})
        self._tls = tls
        if self._uri.secure and tls is None:
            self._tls = ssl.create_default_context()

    async def __call__(self, receiver: Receiver, request: ConnectRequest) -> Connection:
        query = {"clientId": request.client_id, "f": request.format_key}
        if request.proof is not None:
            query["c"], query["p"] = str(request.proof[0]), request.proof[1]
        encoded = urlencode(query | dict(request.parameters), quote_via=quote)
        if self._uri.query:
            encoded = f"{self._uri.query}&{encoded}"
        uri = dataclasses.replace(self._uri, query=encoded)
        loop = asyncio.get_running_loop()
        opening = _Opening(loop, receiver, uri, self._headers)
        where = f"{uri.host}:{uri.port}"
        async with Deadline(
            request.timeout,
            f"No WebSocket to {where} within {request.timeout:g} s; is the server there?",
        ):
            try:
                await loop.create_connection(
                    lambda: opening, uri.host, uri.port, ssl=self._tls if uri.secure else None
                )
                return await opening.opened
            except BaseException:
                opening.abandon()
                raise

    def __repr__(self) -> str:
        return f"WebSocketConnector({self.url!r})"


class _Opening(asyncio.Protocol):
    """The handshake; hands the socket over to the connection once that is open."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        receiver: Receiver,
        uri: WebSocketURI,
        headers: Mapping[str, str],
    ) -> None:
        self.opened: asyncio.Future[WebSocketConnection] = loop.create_future()
        self._receiver = receiver
        self._protocol = ClientProtocol(uri, max_size=None)
        self._headers = headers
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: the transports of uvloop are no subclass of asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        request = self._protocol.connect()
        request.headers.update(self._headers)
        self._protocol.send_request(request)
        transport.write(b"".join(self._protocol.data_to_send()))

    def data_received(self, data: bytes) -> None:
        protocol = self._protocol
        # Line by line, so that the library sees nothing of what follows the handshake.
        while data and protocol.state is CONNECTING and protocol.handshake_exc is None:
            end = data.find(b"\n") + 1 or len(data)
            protocol.receive_data(data[:end])
            data = data[end:]
        if protocol.state is OPEN:
            self._hand_over(data)
        elif protocol.handshake_exc is not None:
            self._fail(_refusal(protocol.handshake_exc))

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.receive_eof()
        if isinstance(self._protocol.handshake_exc, InvalidStatus):
            self._fail(_refusal(self._protocol.handshake_exc))
        self._fail(
            exc or DisconnectedError("The connection was closed before the WebSocket was open.")
        )

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        opened = self.opened
        if opened.cancel() or opened.cancelled() or opened.exception():
            if self._transport is not None:
                self._transport.abort()
        else:
            opened.result().close()

    def _hand_over(self, data: bytes) -> None:
        self._protocol.events_received()
        assert self._transport is not None
        connection = WebSocketConnection(self._receiver, self._protocol, self._transport)
        self._transport.set_protocol(connection)
        if self.opened.cancelled():
            self._transport.abort()
            return
        self.opened.set_result(connection)
        connection._open()
        if data:
            connection.data_received(data)

    def _fail(self, error: Exception) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)


def _refusal(error: Exception) -> Exception:
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        said = (error.response.body or b"").decode(errors="replace")[:500].strip()
        message = f"The server answered HTTP {status} instead of opening a WebSocket"
        message += f": {said}" if said else "; see its log for the reason."
        return RejectedError(message, status) if status in _REFUSALS else DisconnectedError(message)
    refusal = DisconnectedError(
        f"What answered is no WebSocket server: {error}. Check the address."
    )
    refusal.__cause__ = error
    return refusal
