"""One connection of a peer, from the handshake to its end.

A peer outlives its connections; what arrives late on an old one must not be taken for news on the
new one. So each has a link of its own, which introduces this side, waits for the other to do the
same, watches that it stays alive, and hands frames on for as long as it is the peer's current one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from afresh.errors import CallTimeoutError, DisconnectedError, FormatError, RpcError
from afresh.primitives.clock import Timer, current_clock

from .handshake import HANDSHAKE, Handshake
from .transports.connection import CLOSE_GOING_AWAY, CLOSE_NORMAL, CLOSE_TOO_BIG, Connection

if TYPE_CHECKING:
    from .peer import Peer

__all__ = ["Link"]

_log = logging.getLogger("afresh.rpc")

_CLOSE_PROTOCOL_ERROR = 1002
_CLOSE_POLICY = 1008
_ROUNDING = 1e-6
"""Less time than this is none: it could be lost in the sum with the time of the clock."""


class Link:
    """Receives what one connection brings, for its peer."""

    __slots__ = (
        "_compression",
        "_heard_at",
        "_is_closed",
        "_is_heard",
        "_timer",
        "connection",
        "error",
        "index",
        "is_connected",
        "peer",
    )

    connection: Connection | None

    def __init__(self, peer: Peer) -> None:
        self.peer: Peer = peer
        self.connection = None
        self.is_connected: bool = False
        """Whether both sides have introduced themselves, and the connection is still there."""
        self.error: Exception | None = None
        """Why the connection was closed."""
        self.index: int = 0
        """Which of the connections that this side began it is, counted from 1 on."""
        self._compression = peer.format.compression(is_server=peer.is_server)
        self._is_closed = False
        self._timer: Timer | None = None
        self._heard_at = 0.0
        self._is_heard = False
        """Whether anything came since the timer last looked, or the last keep-alive."""

    @property
    def is_text(self) -> bool:
        """Whether frames are UTF-8 text."""
        return self.peer.format.is_text

    def expect_handshake(self) -> None:
        """Give the other side some time, from now on, to introduce itself."""
        self._stop_timer()
        self._timer = current_clock().call_later(
            self.peer.limits.handshake_timeout, self._note_missing_handshake
        )

    # -- called by the transport

    def connection_made(self, connection: Connection) -> None:
        """Introduce this side at once, and give the other some time to do so."""
        self.connection = connection
        peer = self.peer
        if self._is_closed:
            connection.close(CLOSE_GOING_AWAY)
            return
        connection.max_frame_size = peer.limits.max_handshake_frame
        self.index = peer.next_index()
        self.send(peer.introduction(self.index))
        self.expect_handshake()

    def frame_received(self, frame: bytes) -> None:
        """Hand a frame on to the peer, or take the handshake out of the first."""
        if self.is_connected:
            self._is_heard = True
            if self._compression is not None:
                unpacked = self._unpacked(frame, self.peer.limits.max_frame)
                if unpacked is None:
                    return
                frame = unpacked
            self.peer.frame_received(frame)
        elif not self._is_closed:
            self._take_handshake(frame)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the peer that the connection is gone."""
        self._end(self.error or error or DisconnectedError("The connection was closed."))

    # -- called by the peer

    def send(self, frame: bytes) -> None:
        """Send a frame."""
        if self.connection is not None:
            if self._compression is not None:
                frame = self._compression.pack(frame)
            self.connection.send(frame)

    def close(self, error: Exception, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """Close the connection, and let the peer know at once.

        Args:
            error: why, for this side.
            code: the WebSocket close code for the other.
            reason: the text that goes with it.
        """
        self.error = self.error or error
        connection = self.connection
        self._end(error)
        if connection is not None:
            connection.close(code, reason)

    @property
    def silence(self) -> float:
        """For how many seconds the other side has not shown that it is there."""
        return current_clock().now() - self._heard_at

    def note_keep_alive(self) -> None:
        """The other side showed that it is there."""
        self._heard_at = current_clock().now()
        self._is_heard = False

    # -- inside

    def _take_handshake(self, frame: bytes) -> None:
        peer = self.peer
        if len(frame) > peer.limits.max_handshake_frame:
            self._refuse(RpcError("The first frame is too large for a handshake."), CLOSE_TOO_BIG)
            return
        if self._compression is not None:
            unpacked = self._unpacked(frame, peer.limits.max_handshake_frame)
            if unpacked is None:
                return
            frame = unpacked
        messages, error = peer.format.decode(frame)
        try:
            if not messages or messages[0][2] != peer.format.method_key(HANDSHAKE):
                raise error or FormatError("The first message is not a handshake.")
            handshake = Handshake.decode(peer.format, messages[0][3])
        except RpcError as failure:
            self._refuse(failure, _CLOSE_PROTOCOL_ERROR)
            return
        assert self.connection is not None
        self.connection.max_frame_size = peer.limits.max_frame
        self._stop_timer()
        self.is_connected = True
        self._heard_at = current_clock().now()
        self._timer = current_clock().call_later(peer.limits.keep_alive_period, self._keep_alive)
        peer.connected(self, handshake)
        if len(messages) > 1 and self.is_connected:
            peer.messages_received(messages[1:], error)

    def _unpacked(self, frame: bytes, most: int) -> bytes | None:
        assert self._compression is not None
        try:
            return self._compression.unpack(frame, most)
        except FormatError as error:  # nor can what follows be unpacked
            self._refuse(error, _CLOSE_PROTOCOL_ERROR)
            return None

    def _refuse(self, error: Exception, code: int) -> None:
        _log.warning("%r: the connection was refused: %s", self.peer, error)
        self.close(error, code, str(error))

    def _note_missing_handshake(self) -> None:
        limit = self.peer.limits.handshake_timeout
        self.close(
            CallTimeoutError(f"The other side did not introduce itself within {limit:g} s."),
            _CLOSE_POLICY,
            "no handshake",
        )

    def _keep_alive(self) -> None:
        limits = self.peer.limits
        if self._is_heard:  # a long answer may keep the other side from saying that it is there
            self.note_keep_alive()
        silence = self.silence
        left = limits.keep_alive_timeout - silence
        if left < _ROUNDING:
            self.close(
                DisconnectedError(f"Nothing was heard of the other side for {silence:.0f} s."),
                CLOSE_GOING_AWAY,
                "no keep-alive",
            )
            return
        self.peer.send_keep_alive()
        self._timer = current_clock().call_later(
            min(limits.keep_alive_period, left), self._keep_alive
        )

    def _end(self, error: Exception) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self.is_connected = False
        self._stop_timer()
        self.peer.disconnected(self, error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __repr__(self) -> str:
        state = "connected" if self.is_connected else "closed" if self._is_closed else "new"
        return f"<Link of {self.peer!r} {state}>"
