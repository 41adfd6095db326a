"""The client's end of a stream socket: dialling by Unix domain socket or plain TCP.

When to dial again is left to the peer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec

from afresh.errors import (
    ConnectionClosedError,
    DisconnectedError,
    LimitError,
    RejectedError,
    UnknownFormatError,
)

from .connection import CLOSE_NORMAL, CLOSE_UNKNOWN_FORMAT, Connection, ConnectRequest, Receiver
from .deadline import Deadline
from .unix_connection import (
    MAX_GREETING,
    Greeting,
    SocketConnection,
    framed,
    read_notice,
    take_frame,
)

__all__ = ["TcpConnector", "UnixConnector"]


class UnixConnector:
    """Dials a server behind a Unix domain socket.

    Args:
        path: of the socket's file.
    """

    __slots__ = ("path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: str = os.fspath(path)
        """Where to dial."""

    async def __call__(self, receiver: Receiver, request: ConnectRequest) -> Connection:
        loop = asyncio.get_running_loop()
        return await _dial(
            lambda opening: loop.create_unix_connection(opening, self.path),
            self.path,
            receiver,
            request,
        )

    def __repr__(self) -> str:
        return f"UnixConnector({self.path!r})"


class TcpConnector:
    """Dials a server by plain TCP.

    Args:
        host: name or address.
        port: of the server.
    """

    __slots__ = ("host", "port")

    def __init__(self, host: str, port: int) -> None:
        self.host: str = host
        """Where to dial."""
        self.port: int = port
        """Where to dial there."""

    async def __call__(self, receiver: Receiver, request: ConnectRequest) -> Connection:
        loop = asyncio.get_running_loop()
        return await _dial(
            lambda opening: loop.create_connection(opening, self.host, self.port),
            f"{self.host}:{self.port}",
            receiver,
            request,
        )

    def __repr__(self) -> str:
        return f"TcpConnector({self.host!r}, {self.port})"


async def _dial(
    connect: Callable[[Callable[[], asyncio.Protocol]], Awaitable[object]],
    where: str,
    receiver: Receiver,
    request: ConnectRequest,
) -> Connection:
    opening = _Opening(receiver, request)
    async with Deadline(
        request.timeout,
        f"No connection to {where} within {request.timeout:g} s; is the server there?",
    ):
        try:
            await connect(lambda: opening)
            return await opening.opened
        except BaseException:
            opening.abandon()
            raise


class _Opening(asyncio.Protocol):
    """Introduces the client and waits for the answer."""

    def __init__(self, receiver: Receiver, request: ConnectRequest) -> None:
        self.opened: asyncio.Future[SocketConnection] = asyncio.get_running_loop().create_future()
        self._receiver = receiver
        self._request = request
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: the transports of uvloop are no subclass of asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        request, proof = self._request, self._request.proof
        greeting = Greeting(
            request.client_id,
            request.format_key,
            None if proof is None else (str(proof[0]), proof[1]),
            dict(request.parameters),
        )
        transport.write(framed(msgspec.json.encode(greeting)))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            frame = take_frame(self._buffer, 2 * MAX_GREETING)
        except LimitError:
            self._fail(DisconnectedError("What answered is no such server. Check the address."))
            return
        if frame is None or self.opened.done():
            return
        is_notice, body = frame
        if is_notice:
            code, reason = read_notice(body)
            self._fail(
                UnknownFormatError(reason)
                if code == CLOSE_UNKNOWN_FORMAT
                else RejectedError(reason, code)
                if code < CLOSE_NORMAL  # an HTTP status
                else ConnectionClosedError(code, reason)
            )
            return
        assert self._transport is not None
        connection = SocketConnection(self._receiver, self._transport)
        self._transport.set_protocol(connection)
        self.opened.set_result(connection)
        connection._open()
        if self._buffer:
            connection.data_received(bytes(self._buffer))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or DisconnectedError("The connection was closed while it was opened."))

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        opened = self.opened
        if opened.cancel() or opened.cancelled() or opened.exception():
            if self._transport is not None:
                self._transport.abort()
        else:
            opened.result().close()

    def _fail(self, error: Exception) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)
