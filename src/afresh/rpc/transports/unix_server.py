"""The server's end of stream sockets: a Unix domain socket, or TCP on loopback.

There is no encryption here, and no check of origins. Who may open the socket's file may connect;
over TCP that is everybody who reaches the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Awaitable
from pathlib import Path
from typing import Final, cast

import msgspec

from afresh.errors import LimitError, RejectedError, UnknownFormatError
from afresh.primitives.clock import Timer, current_clock

from .connection import (
    CLOSE_GOING_AWAY,
    CLOSE_UNKNOWN_FORMAT,
    MAX_CLIENT_ID_LENGTH,
    Acceptor,
    ConnectionDetails,
    Receiver,
)
from .unix_connection import (
    MAX_GREETING,
    SocketConnection,
    framed,
    notice,
    read_greeting,
    take_frame,
)

__all__ = ["SocketServer", "serve_tcp", "serve_unix"]

_GREETING_TIMEOUT: Final = 10.0
_BACKLOG: Final = 1024


async def serve_unix(
    hub: Acceptor,
    path: str | os.PathLike[str],
    *,
    mode: int = 0o600,
    is_backend: bool = False,
    require_proof: bool = False,
) -> SocketServer:
    """Let clients reach a hub through a Unix domain socket.

    A socket file that a server left behind when it died is replaced.

    Args:
        hub: what clients talk to.
        path: where to put the socket's file.
        mode: its permissions; by default only the same user may connect.
        is_backend: whether clients may call backend services.
        require_proof: refuse clients that come back without a reconnect proof.

    Returns:
        The server; `await server.close()` ends it and removes the file.

    Raises:
        FileExistsError: there is a file at `path` that is no socket, or another server is alive
            behind it.
    """
    server = SocketServer(hub, is_backend=is_backend, require_proof=require_proof)
    loop = asyncio.get_running_loop()
    listener = _bind(Path(path), mode)
    try:
        await server._start(
            loop.create_unix_server(server._answer, sock=listener, backlog=_BACKLOG), Path(path)
        )
    except BaseException:
        listener.close()
        raise
    return server


async def serve_tcp(
    hub: Acceptor,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    is_backend: bool = False,
    require_proof: bool = False,
) -> SocketServer:
    """Let clients reach a hub by plain TCP: whoever reaches the port, unencrypted.

    Args:
        hub: what clients talk to.
        host: the address to listen on.
        port: the port; a free one if zero, see `SocketServer.port`.
        is_backend: whether clients may call backend services.
        require_proof: refuse clients that come back without a reconnect proof.

    Returns:
        The server; `await server.close()` ends it.
    """
    server = SocketServer(hub, is_backend=is_backend, require_proof=require_proof)
    loop = asyncio.get_running_loop()
    await server._start(loop.create_server(server._answer, host, port, backlog=_BACKLOG), None)
    return server


class SocketServer:
    """What `serve_unix` and `serve_tcp` return."""

    def __init__(self, hub: Acceptor, *, is_backend: bool, require_proof: bool) -> None:
        self._hub = hub
        self._is_backend = is_backend
        self._require_proof = require_proof
        self._server: asyncio.Server | None = None
        self._file: tuple[Path, tuple[int, int]] | None = None
        self._open: set[_Opening | SocketConnection] = set()

    @property
    def port(self) -> int:
        """The TCP port that it listens on.

        Raises:
            ValueError: it listens on a Unix domain socket, or not any more.
        """
        if self._server is None or self._file is not None or not self._server.sockets:
            raise ValueError("The server listens on no TCP port.")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Take no more clients, and close the connections of those there are."""
        if self._server is not None:
            self._server.close()
        if self._file is not None:
            _remove(*self._file)
        connections = [each for each in self._open if isinstance(each, SocketConnection)]
        for opening in self._open.difference(connections):
            opening.close()
        for connection in connections:
            connection.close(CLOSE_GOING_AWAY, "the server shuts down")
        for connection in connections:
            await connection.wait_closed()

    async def _start(self, starting: Awaitable[asyncio.Server], path: Path | None) -> None:
        self._server = await starting
        if path is not None:
            self._file = path, _identity(path)

    def _answer(self) -> _Opening:
        return _Opening(self)

    def _admit(self, body: bytes, address: str) -> Receiver:
        try:
            greeting = read_greeting(body)
        except msgspec.DecodeError as error:
            raise RejectedError(f"The client's first frame can't be read: {error}", 400) from None
        client_id = greeting.client_id
        if not (0 < len(client_id) <= MAX_CLIENT_ID_LENGTH and client_id.isprintable()):
            raise RejectedError("The client id is missing or malformed.", 400)
        return self._hub.accept(
            client_id=client_id,
            format_key=greeting.format or None,
            is_backend=self._is_backend,
            proof=greeting.proof,
            require_proof=self._require_proof,
            details=ConnectionDetails(
                "unix" if self._file else "tcp", address, parameters=greeting.parameters
            ),
        )


class _Opening(asyncio.Protocol):
    """Waits for the client's introduction and answers it."""

    def __init__(self, server: SocketServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._is_answered = False
        self._transport: asyncio.Transport
        self._timer: Timer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: the transports of uvloop are no subclass of asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        self._server._open.add(self)
        self._timer = current_clock().call_later(_GREETING_TIMEOUT, transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._is_answered:
            return
        self._buffer += data
        try:
            frame = take_frame(self._buffer, MAX_GREETING)
            if frame is None:
                return
            self._is_answered = True
            is_notice, body = frame
            if is_notice:
                self._transport.close()
                return
            peer = self._transport.get_extra_info("peername")
            receiver = self._server._admit(
                body, f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""
            )
        except LimitError:
            self._transport.abort()
        except UnknownFormatError as error:
            self._reject(CLOSE_UNKNOWN_FORMAT, str(error))
        except RejectedError as error:
            self._reject(error.status, str(error))
        else:
            self._accept(receiver)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._server._open.discard(self)

    def close(self) -> None:
        """Cut it off."""
        self._transport.abort()

    def _reject(self, code: int, reason: str) -> None:
        self._transport.write(notice(code, reason))
        self._transport.close()

    def _accept(self, receiver: Receiver) -> None:
        self._timer.cancel()
        clients = self._server._open
        clients.discard(self)
        connection = SocketConnection(receiver, self._transport, clients.discard)
        clients.add(connection)
        self._transport.set_protocol(connection)
        self._transport.write(framed(b""))
        connection._open()
        if self._buffer:
            connection.data_received(bytes(self._buffer))


def _bind(path: Path, mode: int) -> socket.socket:
    """Make a socket with a file, if need be in place of one that a dead server left behind."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError(f"{path} is no socket; remove it, or choose another path.")
        if _is_alive(path):
            raise FileExistsError(
                f"Another server listens on {path}; stop it, or choose another path."
            )
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        # Nobody can connect before the server listens, so there is no moment of wider permissions.
        path.chmod(mode)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # it has more clients waiting than it takes
            return True
        return True


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _remove(path: Path, identity: tuple[int, int]) -> None:
    """Remove a socket's file, unless another server has put its own in its place."""
    with contextlib.suppress(OSError):
        if _identity(path) == identity:
            path.unlink()
