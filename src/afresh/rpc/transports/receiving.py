"""What all connections have in common: how a receiver is called.

`connection_made` comes first, `connection_lost` last and once, in the loop's next turn after an own
`close`; what a receiver raises closes the connection. How bytes move is left to the subclasses.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from abc import abstractmethod

from afresh.errors import ConnectionClosedError

from .connection import CLOSE_INTERNAL_ERROR, CLOSE_NORMAL, MAX_FRAME_SIZE, Connection, Receiver

__all__ = ["ReceivingConnection"]

_log = logging.getLogger("afresh.rpc")


class ReceivingConnection(Connection):
    """A connection that feeds a receiver.

    A subclass calls `_open`, then `_deliver` for each frame, and `_lose` when the other side, or
    what lies between, ended it; it begins to close in `_shut_down`, and calls `_note_closed` when
    nothing is left.
    """

    __slots__ = ("_closed", "_is_over", "_receiver")

    def __init__(self, receiver: Receiver) -> None:
        self.max_frame_size = MAX_FRAME_SIZE
        self._receiver = receiver
        self._is_over = False
        """Whether the receiver gets no frames any more; it may still have to be told why."""
        self._closed: asyncio.Future[None] | bool | None = None
        """Who waits until it is closed; True when it is."""

    def close(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """Close the connection; see `Connection.close`."""
        if not self._is_over:
            self._lose_soon(None)
            self._shut_down(code, reason)

    async def wait_closed(self) -> None:
        """Wait until nothing is left of the connection."""
        if self._closed is True:
            return
        if not isinstance(self._closed, asyncio.Future):
            self._closed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._closed)

    @abstractmethod
    def _shut_down(self, code: int, reason: str) -> None:
        """Tell the other side, and let go of the link within `CLOSE_TIMEOUT`."""

    def _open(self) -> None:
        try:
            self._receiver.connection_made(self)
        except Exception:
            self._note_failure()

    def _deliver(self, frame: bytes) -> None:
        try:
            self._receiver.frame_received(frame)
        except Exception:
            self._note_failure()

    def _lose(self, error: Exception | None) -> None:
        """The connection ended without `close`; does nothing after that, or a second time."""
        if not self._is_over:
            self._is_over = True
            self._tell_lost(error)

    def _lose_soon(self, error: Exception | None) -> None:
        """The same in the loop's next turn, for what may be called from within the receiver."""
        if not self._is_over:
            self._is_over = True
            # In a context of its own: the receiver must not run in that of a computation.
            asyncio.get_running_loop().call_soon(
                self._tell_lost, error, context=contextvars.Context()
            )

    def _refuse(self, code: int, reason: str) -> None:
        """Close the connection because of what the other side did."""
        self._lose(ConnectionClosedError(code, reason))
        self._shut_down(code, reason)

    def _note_closed(self) -> None:
        waiting, self._closed = self._closed, True
        if isinstance(waiting, asyncio.Future) and not waiting.done():
            waiting.set_result(None)

    def _note_failure(self) -> None:
        _log.exception("The receiver %r raised an error; its connection is closed.", self._receiver)
        self.close(CLOSE_INTERNAL_ERROR, "internal error")

    def _tell_lost(self, error: Exception | None) -> None:
        try:
            self._receiver.connection_lost(error)
        except Exception:
            _log.exception("The receiver %r raised an error.", self._receiver)
