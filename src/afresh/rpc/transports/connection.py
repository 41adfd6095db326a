"""The seams between what moves frames and what understands them.

A transport makes a `Connection` and feeds a `Receiver`; on the dialling side a `Connector` does so,
on the accepting side a server that asks an `Acceptor`, which is the hub, for the receiver. A frame
is `bytes` in every format; a transport that tells text from binary turns them into text where
`Receiver.is_text` says so.

What frames mean, when to dial again, and how much may be buffered is left to the peer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

__all__ = [
    "CLOSE_GOING_AWAY",
    "CLOSE_INTERNAL_ERROR",
    "CLOSE_NORMAL",
    "CLOSE_TIMEOUT",
    "CLOSE_TOO_BIG",
    "CLOSE_UNKNOWN_FORMAT",
    "GOODBYE",
    "MAX_CLIENT_ID_LENGTH",
    "MAX_FRAME_SIZE",
    "Acceptor",
    "ConnectRequest",
    "Connection",
    "ConnectionDetails",
    "Connector",
    "Receiver",
]

CLOSE_NORMAL: Final = 1000
"""Close code: nothing is wrong, this side has no more use for the connection."""

GOODBYE: Final = "goodbye"
"""Close reason, with `CLOSE_NORMAL`: this peer will not come back, so there is nothing to keep."""

CLOSE_GOING_AWAY: Final = 1001
"""Close code: this side is shutting down."""

CLOSE_TOO_BIG: Final = 1009
"""Close code: a frame was larger than `Connection.max_frame_size`."""

CLOSE_INTERNAL_ERROR: Final = 1011
"""Close code: the receiver raised an error."""

CLOSE_UNKNOWN_FORMAT: Final = 4001
"""Close code: the server does not speak the format asked for; clients stop dialling."""

CLOSE_TIMEOUT: Final = 2.0
"""How long a connection may take to close once it was told to, in seconds; then it is cut."""

MAX_FRAME_SIZE: Final = 16_711_680
"""The largest frame that peers of this protocol send, in bytes."""

MAX_CLIENT_ID_LENGTH: Final = 128
"""In characters; those that this library makes have 22."""


class Connection(ABC):
    """A live link to the other side, made by a transport for one `Receiver`.

    Belongs to the event loop it was made on.
    """

    __slots__ = ("max_frame_size",)

    max_frame_size: int
    """The largest frame to take in, in bytes; a larger one closes the connection with code 1009.
    Starts as `MAX_FRAME_SIZE` and may be set at any time, so that a peer can stay strict until it
    knows who is there."""

    @abstractmethod
    def send(self, frame: bytes) -> None:
        """Send a frame, after those sent before.

        Never waits and never raises because the connection is lost: what can't be sent is dropped,
        and `Receiver.connection_lost` tells of it.
        """

    @property
    @abstractmethod
    def buffered(self) -> int:
        """How many bytes `send` has taken that the operating system has not taken yet."""

    @abstractmethod
    def close(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """Close the connection, also when the other side reads nothing any more.

        `Receiver.connection_lost` follows in the next turn of the event loop, and frames that
        arrive meanwhile are dropped. What was sent before still goes out if the other side takes it
        within `CLOSE_TIMEOUT`. Further calls do nothing.

        Args:
            code: a WebSocket close code.
            reason: for the other side to log; cut to 123 bytes where a transport can't carry more.
        """

    @abstractmethod
    async def wait_closed(self) -> None:
        """Wait until nothing is left of the connection, no socket and no task.

        After `close` that takes `CLOSE_TIMEOUT` at most.
        """


class Receiver(Protocol):
    """What a transport calls, always from the event loop and never from within `Connection.send`
    or `Connection.close`.

    One object serves one connection. An error that one of these raises closes the connection with
    code 1011.
    """

    @property
    def is_text(self) -> bool:
        """Whether frames are UTF-8 text, which a WebSocket carries as text messages."""

    def connection_made(self, connection: Connection) -> None:
        """The connection is open; comes first, and once."""

    def frame_received(self, frame: bytes) -> None:
        """A frame arrived."""

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone; comes last, and once.

        A receiver that `Acceptor.accept` gave is told in any case, without `connection_made` when
        the connection never came to be.

        Args:
            error: why, such as `ConnectionClosedError` with the code of the other side; None after
                `Connection.close` was called on this side.
        """


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """What a client tells when it dials."""

    client_id: str
    """Identifies the peer that dials; see `afresh.rpc.proof.client_id_of`."""

    format_key: str
    """The serialization format, such as "msgpack6c"."""

    proof: tuple[int, str] | None = None
    """Counter and reconnect proof, when the server gave this peer a secret."""

    parameters: Mapping[str, str] = field(default_factory=dict)
    """Further query parameters, such as `session`."""

    timeout: float = 10.0
    """How long dialling may take, in seconds."""


Connector = Callable[[Receiver, ConnectRequest], Awaitable[Connection]]
"""Dials: opens a connection, calls `receiver.connection_made` before it returns, then feeds it.

Raises `RejectedError` or `UnknownFormatError` where the server refuses for good (an unknown format
may also come to light only after the connection is open: as `connection_lost` with that error),
`CallTimeoutError` after `ConnectRequest.timeout`, else an `OSError` or `DisconnectedError`. When it
raises, or is cancelled, no connection is left behind.
"""


@dataclass(frozen=True, slots=True)
class ConnectionDetails:
    """What a server knows of a connection besides who it is for."""

    transport: str
    """The kind of transport: "websocket", "unix", "memory"."""

    address: str = ""
    """The remote address, as far as the transport knows one."""

    parameters: Mapping[str, str] = field(default_factory=dict)
    """Query parameters, decoded; the first of each name."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """HTTP headers of the upgrade request, with names in lower case."""


class Acceptor(Protocol):
    """The hub, as a server's transport sees it."""

    def accept(
        self,
        *,
        client_id: str,
        format_key: str | None,
        is_backend: bool,
        proof: tuple[str, str] | None,
        require_proof: bool,
        details: ConnectionDetails,
    ) -> Receiver:
        """Find or make the peer of a client that dials in, and give the receiver of its connection.

        Called before the connection is accepted. Closes the connection that this client had before,
        if it is still there.

        Args:
            client_id: what the client calls itself.
            format_key: the format it asks for; None when it asks for none.
            is_backend: whether it came in through an endpoint for backend peers.
            proof: its reconnect proof as texts, counter first, "" for a missing half; None when it
                sent neither.
            require_proof: refuse clients that reconnect without a proof.
            details: what else is known.

        Raises:
            RejectedError: it may not connect; with the HTTP status to answer.
            UnknownFormatError: there is no such format (close code 4001).
        """
