"""Connections within one process, for single-process use and for tests that want things to go
wrong.

Frames arrive in the event loop's next turn, never within `send`, in the order in which they were
sent. Every link can be made to misbehave as networks do, and does so the same way each time: each
direction can be held back, slowed down, altered or cut at a byte, and each end can lose the link
without the other noticing. Delays go by `current_clock()`, so a test's clock moves them.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterable

from afresh.errors import ConnectionClosedError
from afresh.primitives.clock import current_clock

from .connection import (
    CLOSE_TOO_BIG,
    Acceptor,
    Connection,
    ConnectionDetails,
    ConnectRequest,
    Receiver,
)
from .receiving import ReceivingConnection

__all__ = ["Direction", "MemoryConnection", "MemoryConnector", "MemoryLink"]

_HEADER_SIZE = 4
"""What a frame's length takes in a stream of bytes; counts for `Direction.cut_after`."""


class Direction:
    """One way of a link: what one end sent on its way to the other."""

    __slots__ = (
        "_context",
        "_is_held",
        "_is_scheduled",
        "_latest_due",
        "_link",
        "_queue",
        "_room",
        "_target",
        "alter",
        "buffered",
        "delay",
    )

    def __init__(self, link: MemoryLink) -> None:
        self.delay: float = 0.0
        """Seconds that each frame is on its way; longer than the loop's next turn if above zero."""
        self.alter: Callable[[bytes], Iterable[bytes]] | None = None
        """What becomes of a frame when it leaves: none, one or several, as they were or not."""
        self.buffered: int = 0
        """Bytes that the network has not taken yet."""
        self._link = link
        self._target: MemoryConnection | None = None
        self._queue: deque[bytes | tuple[int, str]] = deque()
        self._room: int | None = None
        self._is_held = False
        self._is_scheduled = False
        self._latest_due = 0.0
        self._context = contextvars.Context()

    def hold(self) -> None:
        """Take nothing from the sender: what it sends piles up, as if nobody read."""
        self._is_held = True

    def release(self, order: Callable[[list[bytes]], Iterable[bytes]] | None = None) -> None:
        """Go on after `hold`.

        Args:
            order: given what piled up, returns it in the order in which to deliver it.
        """
        self._is_held = False
        if order is not None:
            frames = [frame for frame in self._queue if isinstance(frame, bytes)]
            notices = [notice for notice in self._queue if isinstance(notice, tuple)]
            self._queue = deque([*order(frames), *notices])
        self._schedule()

    def cut_after(self, size: int) -> None:
        """Lose the link once that many more bytes have passed this way.

        Counted as in a stream, where each frame has 4 bytes of length before it: a frame of which
        only a part has passed does not arrive.
        """
        self._room = size
        if size <= 0:
            self._link.drop()

    def _send(self, item: bytes | tuple[int, str]) -> None:
        self._queue.append(item)
        if isinstance(item, bytes):
            self.buffered += len(item)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled and not self._is_held and self._queue:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._flow, context=self._context)

    def _flow(self) -> None:
        self._is_scheduled = False
        # As many as there are now: what an answer to them brings waits for its own turn.
        for _ in range(len(self._queue)):
            if self._is_held or not self._queue:  # what arrived may have had the link dropped
                return
            item = self._queue.popleft()
            if isinstance(item, tuple):
                self._travel(item)
                continue
            self.buffered -= len(item)
            for frame in (item,) if self.alter is None else self.alter(item):
                if self._room is not None:
                    self._room -= _HEADER_SIZE + len(frame)
                    if self._room < 0:
                        self._link.drop()
                        return
                self._travel(frame)
            if self._room == 0:
                self._link.drop()
        self._schedule()

    def _travel(self, item: bytes | tuple[int, str]) -> None:
        now = current_clock().now()
        due = max(now + self.delay, self._latest_due)
        if due <= now:
            self._arrive(item)
        else:
            self._latest_due = due
            current_clock().call_later(due - now, lambda: self._arrive(item))

    def _arrive(self, item: bytes | tuple[int, str]) -> None:
        if self._target is not None:
            self._target._take(item)

    def _clear(self) -> None:
        self._queue.clear()
        self.buffered = 0


class MemoryConnection(ReceivingConnection):
    """One end of a `MemoryLink`."""

    __slots__ = ("_outgoing",)

    def __init__(self, receiver: Receiver, outgoing: Direction) -> None:
        super().__init__(receiver)
        self._outgoing = outgoing

    def send(self, frame: bytes) -> None:
        if not self._is_over:
            self._outgoing._send(frame)

    @property
    def buffered(self) -> int:
        return self._outgoing.buffered

    def lose(self, error: Exception | None = None) -> None:
        """Lose the link on this end alone: the other one does not notice, and hears nothing more.

        Args:
            error: what the receiver is told; a `ConnectionClosedError` with code 1006 by default.
        """
        self._outgoing._clear()
        self._lose_soon(error or ConnectionClosedError())

    def _shut_down(self, code: int, reason: str) -> None:
        self._outgoing._send((code, reason))

    def _tell_lost(self, error: Exception | None) -> None:
        super()._tell_lost(error)
        self._note_closed()

    def _take(self, item: bytes | tuple[int, str]) -> None:
        if self._is_over:
            return
        if isinstance(item, tuple):
            self._lose(ConnectionClosedError(*item))
        elif len(item) > self.max_frame_size:
            self._refuse(CLOSE_TOO_BIG, "frame too big")
        else:
            self._deliver(item)


class MemoryLink:
    """Two connected ends, and the network between them.

    Args:
        client: receives what the server sends.
        server: receives what the client sends.

    Raises:
        RuntimeError: no event loop is running.
    """

    __slots__ = ("client", "server", "to_client", "to_server")

    def __init__(self, client: Receiver, server: Receiver) -> None:
        self.to_server: Direction = Direction(self)
        """The way from client to server."""
        self.to_client: Direction = Direction(self)
        """The way from server to client."""
        self.client: MemoryConnection = MemoryConnection(client, self.to_server)
        """The end of the client."""
        self.server: MemoryConnection = MemoryConnection(server, self.to_client)
        """The end of the server."""
        self.to_server._target = self.server
        self.to_client._target = self.client
        self.server._open()
        self.client._open()

    @property
    def is_open(self) -> bool:
        """Whether at least one of the ends believes so."""
        return not (self.client._is_over and self.server._is_over)

    def drop(self) -> None:
        """Cut the link: both ends notice, what was on its way is lost."""
        self.to_server._target = self.to_client._target = None
        self.client.lose()
        self.server.lose()


class MemoryConnector:
    """Dials a hub in the same process.

    ```python
    connector = MemoryConnector(server_hub)
    peer = client_hub.client_peer(connector)
    ...
    connector.links[-1].drop()
    ```

    Args:
        acceptor: the hub to dial.
        is_backend: whether its backend services may be called.
        require_proof: refuse clients that come back without a reconnect proof.
    """

    __slots__ = ("_acceptor", "_is_backend", "_require_proof", "attempts", "error", "links")

    def __init__(
        self, acceptor: Acceptor, *, is_backend: bool = False, require_proof: bool = False
    ) -> None:
        self._acceptor = acceptor
        self._is_backend = is_backend
        self._require_proof = require_proof
        self.attempts: int = 0
        """How often somebody dialled."""
        self.error: Exception | None = None
        """What dialling fails with, as long as it is set."""
        self.links: list[MemoryLink] = []
        """The links that are open, the latest last."""

    async def __call__(self, receiver: Receiver, request: ConnectRequest) -> Connection:
        self.attempts += 1
        if self.error is not None:
            raise self.error
        counter_and_proof = request.proof
        server = contextvars.Context().run(
            self._acceptor.accept,
            client_id=request.client_id,
            format_key=request.format_key,
            is_backend=self._is_backend,
            proof=None
            if counter_and_proof is None
            else (str(counter_and_proof[0]), counter_and_proof[1]),
            require_proof=self._require_proof,
            details=ConnectionDetails("memory", parameters=request.parameters),
        )
        link = MemoryLink(receiver, server)
        self.links = [*(link for link in self.links if link.is_open), link]
        return link.client
