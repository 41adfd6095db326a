"""A client that talks to a server as the reference's TypeScript client does.

Connections come and go when a test says so; what the client does then is what the other would do.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Self, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from .wire import Message, increasing, read_increasing, wire_of

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds after which something that should have come is taken for lost."""
NOBODY = str(uuid.UUID(int=0))


class RemoteFailure(Exception):
    """What the server answered instead of a result."""

    def __init__(self, type_ref: str, message: str) -> None:
        super().__init__(message)
        self.type_ref = type_ref


class StreamLost(Exception):
    """The stream did not survive the loss of the connection."""


class Call:
    """A call, until nothing more can come of it."""

    def __init__(self, number: int, frame: str | bytes, is_compute: bool) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.frame = frame
        self.is_compute = is_compute
        self.is_sent = False
        self.answer: asyncio.Future[Any] = loop.create_future()
        self.stale: asyncio.Future[None] = loop.create_future()

    async def result(self) -> Any:
        """Wait for the answer."""
        return await soon(self.answer)

    async def invalidated(self, seconds: float = PATIENCE) -> None:
        """Wait until the result is stale."""
        await soon(self.stale, seconds)

    def invalidate(self) -> None:
        """Note that the result is stale."""
        if not self.stale.done():
            self.stale.set_result(None)


class Client:
    """One client peer.

    Args:
        url: of the server.
        format_key: the format to talk in.
    """

    def __init__(self, url: str, format_key: str) -> None:
        self.wire = wire_of(format_key)
        self.peer_id = uuid.uuid4()
        self.hub_id = uuid.uuid4()
        identity = base64.urlsafe_b64encode(self.peer_id.bytes_le).decode().rstrip("=")
        self.url = f"{url}?f={format_key}&clientId={identity}"
        self.index = 0
        self.server_id: str | None = None
        self.calls: dict[int, Call] = {}
        self.streams: dict[int, asyncio.Queue[Message | None]] = {}
        self.received: list[Message] = []
        """All that came in over the connection of now, keep-alives aside."""
        self._last_id = 0
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.disconnect()

    # -- connections

    async def connect(self) -> None:
        """Connect, and pick up what was going on before."""
        self.index += 1
        self.received = []
        socket = self._socket = await self._dial()
        handshake = {
            "RemotePeerId": str(self.peer_id),
            "RemoteApiVersionSet": None,
            "RemoteHubId": str(self.hub_id),
            "ProtocolVersion": 2,
            "Index": self.index,
        }
        shape = handshake if "json" in self.url else list(handshake.values())
        await socket.send(self.wire.encode(Message("$sys.Handshake:1", 0, [shape])))
        first = self.wire.decode(await soon(socket.recv()))
        assert first[0].method == "$sys.Handshake:1"
        server_id, index = _identity(first[0].arguments[0])
        is_same_peer = server_id == self.server_id
        self.server_id = server_id
        for message in first[1:]:
            self._receive(message)
        self._reader = asyncio.ensure_future(self._read(socket))
        answered = [call for call in self.calls.values() if call.answer.done()]
        unsent = [call for call in self.calls.values() if not call.is_sent]
        in_progress = [
            call for call in self.calls.values() if call.is_sent and not call.answer.done()
        ]
        for call in unsent:
            await self._send(call)
        if is_same_peer and in_progress:
            numbers = sorted(call.number for call in in_progress)
            unknown = await self.call("$sys.Reconnect:3", index, {0: increasing(numbers)}).result()
            in_progress = [self.calls[number] for number in read_increasing(unknown)]
        for call in in_progress:
            await self._send(call)
        for call in answered:
            self.calls.pop(call.number, None)
            call.invalidate()

    async def disconnect(self) -> None:
        """Close the connection; what is going on stays to be picked up."""
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()
        if self._reader is not None:
            await self._reader
            self._reader = None

    async def disconnected(self) -> None:
        """Wait until the server closes the connection."""
        if self._reader is not None:
            await soon(self._reader)
            self._reader = self._socket = None

    async def _dial(self) -> ClientConnection:
        # A server that restarts takes a moment.
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(OSError, InvalidHandshake):
                    return await connect(self.url, compression=None, max_size=None, proxy=None)
                await asyncio.sleep(0.02)

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for frame in socket:
                for message in self.wire.decode(frame):
                    self._receive(message)
        except ConnectionClosed:
            pass
        except Exception as error:  # what came was not as it should be: no use in waiting
            for call in self.calls.values():
                if not call.answer.done():
                    call.answer.set_exception(error)
        for queue in self.streams.values():
            queue.put_nowait(None)

    def _receive(self, message: Message) -> None:
        if message.method == "$sys.KeepAlive:1":
            return
        self.received.append(message)
        call = self.calls.get(message.related_id)
        if message.method in {"$sys.I:2", "$sys.B:2", "$sys.End:2"}:
            if message.related_id in self.streams:
                self.streams[message.related_id].put_nowait(message)
        elif call is None:
            pass
        elif message.method == "$sys-c.Invalidate:0":
            assert call.answer.done(), "the answer comes first"
            del self.calls[call.number]
            call.invalidate()
        elif not call.answer.done():
            if not call.is_compute:
                del self.calls[call.number]
            if message.method == "$sys.Ok:1":
                call.answer.set_result(message.arguments[0] if message.arguments else None)
            else:
                assert message.method == "$sys.Error:1"
                call.answer.set_exception(RemoteFailure(*_error(message.arguments[0])))

    # -- calls

    def call(self, method: str, *arguments: Any, is_compute: bool = False) -> Call:
        """Make a call; without a connection it waits for one."""
        self._last_id += 1
        shape = _json_keys(arguments) if "json" in self.url else list(arguments)
        frame = self.wire.encode(Message(method, self._last_id, shape, int(is_compute)))
        call = self.calls[self._last_id] = Call(self._last_id, frame, is_compute)
        if self._socket is not None:
            call.is_sent = True
            self._sending = asyncio.ensure_future(self._socket.send(frame))
        return call

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Make a plain call and wait for its answer."""
        return await self.call(method, *arguments).result()

    async def tell(self, method: str, related_id: int, *arguments: Any) -> None:
        """Send a message that has no answer."""
        assert self._socket is not None
        await self._socket.send(self.wire.encode(Message(method, related_id, list(arguments))))

    async def _send(self, call: Call) -> None:
        assert self._socket is not None
        call.is_sent = True
        await self._socket.send(call.frame)

    # -- streams

    async def stream(self, method: str, *arguments: Any) -> AsyncIterator[Any]:
        """Call a method that returns a stream, and read that."""
        host_id, local_id, ack_period, allow_reconnect = _stream(await self.ask(method, *arguments))
        queue = self.streams[local_id] = asyncio.Queue()
        await self.tell("$sys.Ack:2", local_id, 0, host_id)
        expected = 0
        try:
            while True:
                message = await soon(queue.get())
                if message is None:
                    assert not allow_reconnect
                    raise StreamLost("Peer disconnected.")
                assert message.arguments[0] == expected
                if message.method == "$sys.End:2":
                    type_ref, text = _error(message.arguments[1])
                    if type_ref or text:
                        raise RemoteFailure(type_ref, text)
                    await self.tell("$sys.AckEnd:1", local_id, host_id)
                    return
                items = message.arguments[1]
                for item in items if message.method == "$sys.B:2" else [items]:
                    yield item
                    expected += 1
                    if expected % ack_period == 0 and self._socket is not None:
                        await self.tell("$sys.Ack:2", local_id, expected, NOBODY)
        finally:
            del self.streams[local_id]


async def soon(awaitable: Awaitable[T], seconds: float = PATIENCE) -> T:
    """Wait, but not for ever."""
    return await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(awaitable)), seconds)


def _identity(handshake: Any) -> tuple[str, int]:
    if isinstance(handshake, list):
        return handshake[0], handshake[4]
    members = {name.lower(): value for name, value in handshake.items()}
    return members["remotepeerid"], members["index"]


def _error(info: Any) -> tuple[str, str]:
    members = {name.lower(): value for name, value in info.items()}
    return members["typeref"], members["message"]


def _stream(reference: Any) -> tuple[str, int, int, bool]:
    if isinstance(reference, str):
        host_id, local_id, ack_period, _, allow_reconnect, _ = reference.split(",")
        return host_id, int(local_id), int(ack_period), allow_reconnect == "1"
    host_id, number = reference["SerializedId"]
    return host_id, number, reference["AckPeriod"], reference["AllowReconnect"]


def _json_keys(arguments: tuple[Any, ...]) -> list[Any]:
    return [
        {str(key): value for key, value in each.items()} if isinstance(each, dict) else each
        for each in arguments
    ]
