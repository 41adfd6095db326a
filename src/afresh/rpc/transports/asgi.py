"""The server's end of a WebSocket, as an ASGI application: runs on any ASGI server, and inside
Starlette and FastAPI.

`RpcEndpoint` decides who may connect, in this order: the origin of the page, the client's reconnect
proof (by the hub), the format. Then it moves frames. Running behind an ASGI server costs a little
for each frame; where the server is uvicorn, `afresh.rpc.transports.uvicorn` saves that.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import types
from collections import deque
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    MutableMapping,
)
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from afresh.errors import ConnectionClosedError, RejectedError, UnknownFormatError
from afresh.primitives.clock import Timer, current_clock
from afresh.primitives.tasks import start_background

from ..origins import OriginRule, allow_origins, same_host
from .connection import (
    CLOSE_TIMEOUT,
    CLOSE_TOO_BIG,
    CLOSE_UNKNOWN_FORMAT,
    MAX_CLIENT_ID_LENGTH,
    Acceptor,
    ConnectionDetails,
    Receiver,
)
from .receiving import ReceivingConnection
from .websocket_connection import cut_reason

__all__ = ["DIRECT", "RpcEndpoint", "accept"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

DIRECT: Final = "afresh.rpc"
"""The ASGI extension of servers that feed a receiver themselves: a coroutine function in the scope
that takes the receiver and `send`, calls `accept`, and returns when the WebSocket is closed."""

_UNSUPPORTED_DATA: Final = 1003
_NO_STATUS: Final = 1005

_log = logging.getLogger("afresh.rpc")


class RpcEndpoint:
    """Where clients reach a hub by WebSocket: an ASGI 3 application.

    ```python
    app = Starlette(routes=[WebSocketRoute("/rpc/ws", RpcEndpoint(hub))])
    ```

    Args:
        hub: what clients talk to.
        is_backend: whether clients that come in here may call backend services. Never expose such
            an endpoint to the public.
        origins: which web pages may connect: a rule, such as `same_host` (the default) or
            `any_origin`, or a list of origins. Programs that are no browsers, and so send no
            origin, may connect in any case.
        formats: the serialization formats that may be used; all that the hub knows by default. A
            client that names none gets the hub's default, or the first of these.
        require_proof: refuse clients that come back without a reconnect proof, which old clients
            do not send.

    Raises:
        ValueError: `formats` is empty or a string, or one of the listed origins is none.
    """

    __slots__ = ("_formats", "_hub", "_is_backend", "_origins", "_require_proof")

    def __init__(
        self,
        hub: Acceptor,
        *,
        is_backend: bool = False,
        origins: OriginRule | Iterable[str] = same_host,
        formats: Collection[str] | None = None,
        require_proof: bool = False,
    ) -> None:
        if formats is not None and (not formats or isinstance(formats, str)):
            raise ValueError('Pass formats as a list of keys with at least one, as in ["json5np"].')
        self._hub = hub
        self._is_backend = is_backend
        self._origins = origins if callable(origins) else allow_origins(*origins)
        self._formats = None if formats is None else tuple(formats)
        self._require_proof = require_proof

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _answer(send, "http.response", 400, "This address speaks WebSocket only.")
            return
        if scope["type"] != "websocket":
            raise RuntimeError(f"RpcEndpoint serves WebSockets, not {scope['type']!r}.")
        await receive()  # websocket.connect
        try:
            receiver = self._admit(scope)
        except UnknownFormatError as error:
            _log.info("A client was refused: %r", str(error)[:200])
            await send({"type": "websocket.accept"})
            await send(_closing(CLOSE_UNKNOWN_FORMAT, str(error)))
            return
        except RejectedError as error:
            _log.info("A client was refused: %r", str(error)[:200])
            await _reject(scope, send, error)
            return
        direct = (scope.get("extensions") or {}).get(DIRECT)
        if direct is not None:
            await direct(receiver, send)
        else:
            await accept(receiver, send)
            await _AsgiConnection(receiver, send).run(receive)

    def _admit(self, scope: Scope) -> Receiver:
        headers = _read_headers(scope)
        query: dict[str, str] = {}
        for name, value in parse_qsl(scope["query_string"].decode("latin-1"), True):
            query.setdefault(name, value)
        # Servers log it, and it may hold proofs, sessions and what else lets somebody in.
        told = [(name, query[name]) for name in ("clientId", "f") if name in query]
        scope["query_string"] = urlencode(told).encode()
        origin = headers.get("origin")
        if origin is not None and not self._origins(origin, headers.get("host", "")):
            raise RejectedError(
                f"Pages of {origin[:200]!r} may not connect; list that origin at the endpoint.", 403
            )
        client_id = query.get("clientId", "")
        if not (0 < len(client_id) <= MAX_CLIENT_ID_LENGTH and client_id.isprintable()):
            raise RejectedError("The query parameter clientId is missing or malformed.", 400)
        format_key = query.get("f") or None
        if self._formats is not None:
            format_key = format_key or self._formats[0]
            if format_key not in self._formats:
                raise _unknown_format(format_key)
        counter, proof = query.get("c"), query.get("p")
        client = scope.get("client")
        try:
            return self._hub.accept(
                client_id=client_id,
                format_key=format_key,
                is_backend=self._is_backend,
                proof=None if counter is None and proof is None else (counter or "", proof or ""),
                require_proof=self._require_proof,
                details=ConnectionDetails(
                    "websocket",
                    address=f"{client[0]}:{client[1]}" if client else "",
                    parameters=query,
                    headers=headers,
                ),
            )
        except UnknownFormatError as error:
            raise _unknown_format(format_key) from error


async def accept(receiver: Receiver, send: Send) -> None:
    """Accept the WebSocket; if that fails, the receiver learns that nothing comes of it."""
    try:
        await send({"type": "websocket.accept"})
    except BaseException:
        receiver.connection_lost(ConnectionClosedError())
        raise


class _AsgiConnection(ReceivingConnection):
    """A WebSocket behind an ASGI server.

    The server's `send` is a coroutine that nearly always finishes in its first step. So it is
    stepped by hand; only one that has to wait goes to a task, and later frames queue up behind it.
    """

    __slots__ = ("_app", "_asgi_send", "_buffered", "_is_ended", "_queue", "_sender", "_timer")

    def __init__(self, receiver: Receiver, asgi_send: Send) -> None:
        super().__init__(receiver)
        self._asgi_send = asgi_send
        self._queue: deque[tuple[int, Message]] = deque()
        self._buffered = 0
        self._sender: asyncio.Task[None] | None = None
        self._app = asyncio.current_task()
        self._is_ended = False
        """Whether the application returns, or is about to."""
        self._timer: Timer | None = None

    async def run(self, receive: Receive) -> None:
        """Feed the receiver until the connection ends."""
        self._open()
        try:
            while not self._is_ended:
                message = await receive()
                if message["type"] == "websocket.receive":
                    self._take(message)
                else:
                    code, reason = message.get("code"), message.get("reason")
                    self._lose(ConnectionClosedError(code or _NO_STATUS, reason or ""))
                    break
        except asyncio.CancelledError:
            # `_end` wakes the task up by cancelling it; anybody else means it.
            if not self._is_ended or self._app is None or self._app.uncancel() > 0:
                raise
        finally:
            self._is_ended = True
            self._lose(ConnectionClosedError())
            self._release()

    def send(self, frame: bytes) -> None:
        if self._is_over:
            return
        message: Message = (
            {"type": "websocket.send", "text": frame.decode()}
            if self._receiver.is_text
            else {"type": "websocket.send", "bytes": frame}
        )
        if self._sender is None:
            self._step(len(frame), message)
        else:
            self._queue.append((len(frame), message))
            self._buffered += len(frame)

    @property
    def buffered(self) -> int:
        return self._buffered

    def _take(self, message: Message) -> None:
        if self._is_over:
            return
        if not self._receiver.is_text:
            frame = message.get("bytes")
        elif (text := message.get("text")) is not None:
            frame = text.encode()
        else:
            frame = None
        if frame is None:
            self._refuse(_UNSUPPORTED_DATA, "text and binary messages mixed up")
        elif len(frame) > self.max_frame_size:
            self._refuse(CLOSE_TOO_BIG, "frame too big")
        else:
            self._deliver(frame)

    def _step(self, size: int, message: Message) -> None:
        steps = self._asgi_send(message).__await__()
        try:
            waits_for = next(steps)
        except StopIteration:
            return
        except Exception as error:
            self._fail(error)
        else:
            self._buffered += size
            self._sender = start_background(
                self._send_rest(steps, waits_for, size), name="afresh.rpc send"
            )

    async def _send_rest(self, steps: Iterator[Any], waits_for: Any, size: int) -> None:
        try:
            await _resume(steps, waits_for)
            self._buffered -= size
            while self._queue:
                size, message = self._queue.popleft()
                await self._asgi_send(message)
                self._buffered -= size
        except Exception as error:
            self._fail(error)
        finally:
            self._sender = None
        if self._is_over:
            self._end()

    def _fail(self, error: Exception) -> None:
        """The server does not take what was sent: the client is gone."""
        self._lose_soon(error)
        self._end()

    def _shut_down(self, code: int, reason: str) -> None:
        self._timer = current_clock().call_later(CLOSE_TIMEOUT, self._end)
        message = _closing(code, reason)
        if self._sender is None:
            self._step(0, message)
        else:
            self._queue.append((0, message))
        if self._sender is None:
            self._end()

    def _end(self) -> None:
        """Let the application return: then the server lets go of the socket."""
        if not self._is_ended:
            self._is_ended = True
            if self._app is not None and self._app is not asyncio.current_task():
                self._app.cancel()

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._sender is not None:
            self._sender.cancel()
        self._queue.clear()
        self._buffered = 0
        self._app = None
        self._note_closed()


@types.coroutine
def _resume(steps: Iterator[Any], waits_for: Any) -> Generator[Any, Any, None]:
    """Go on with what was stepped by hand until it had to wait for something.

    Does what `yield from` would, if that did not begin with a step of its own.
    """
    while True:
        try:
            yield waits_for
        except BaseException as error:
            if not isinstance(steps, Generator):  # some servers have plain iterators
                raise
            step = functools.partial(steps.throw, error)
        else:
            step = functools.partial(next, steps)
        try:
            waits_for = step()
        except StopIteration:
            return


def _read_headers(scope: Scope) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        separator = "; " if name == "cookie" else ", "
        headers[name] = f"{headers[name]}{separator}{value}" if name in headers else value
    return headers


def _unknown_format(key: str | None) -> UnknownFormatError:
    # These words are the protocol's.
    return UnknownFormatError(f"Unsupported RPC serialization format: '{key or ''}'")


def _closing(code: int, reason: str) -> Message:
    return {"type": "websocket.close", "code": code, "reason": cut_reason(reason)}


async def _reject(scope: Scope, send: Send, error: RejectedError) -> None:
    if "websocket.http.response" in (scope.get("extensions") or {}):
        status = error.status if 400 <= error.status < 600 else 403
        await _answer(send, "websocket.http.response", status, str(error))
    else:
        await send({"type": "websocket.close"})  # which is HTTP 403


async def _answer(send: Send, kind: str, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": text.encode()})
