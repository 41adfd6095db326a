"""The accepting end: a peer that waits for its client, and remembers it for a while."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from afresh.errors import ConnectionClosedError, DisconnectedError, PeerClosedError
from afresh.primitives.clock import Timer, current_clock

from .handshake import Handshake
from .link import Link
from .peer import Peer
from .proof import ProofCheck
from .transports.connection import CLOSE_GOING_AWAY, GOODBYE, ConnectionDetails

if TYPE_CHECKING:
    from .formats import Format
    from .hub import RpcHub

__all__ = ["ServerPeer"]


class ServerPeer(Peer):
    """One client of this hub, over all its connections.

    Args:
        hub: what it belongs to.
        client_id: what the client calls itself.
        format: the format that it asked for.
        is_backend: whether it came in through an endpoint for backend peers.
    """

    is_server = True

    __slots__ = ("_links", "_made_at", "_removal", "client_id", "details", "proof")

    def __init__(self, hub: RpcHub, client_id: str, format: Format, *, is_backend: bool) -> None:
        super().__init__(hub, format, is_backend=is_backend)
        self.client_id: str = client_id
        self.details: ConnectionDetails | None = None
        """What is known of its last connection."""
        self.proof: ProofCheck = ProofCheck(client_id)
        self.secret: str | None = self.proof.secret
        self._made_at = current_clock().now()
        self._removal: Timer | None = None
        self._links: set[Link] = set()

    @property
    def address(self) -> str:
        """The address of the client, or what it calls itself."""
        return (self.details.address if self.details else "") or self.client_id

    @property
    def is_gone(self) -> bool:
        """Whether there is no connection, and none under way; the client may come back."""
        return not self._links

    def new_link(self, details: ConnectionDetails) -> Link:
        """Return the receiver of a new connection; the one before, if still there, is closed."""
        self._stop_removal()
        self.details = details
        if self.link is not None:
            self.link.close(
                DisconnectedError("The client came back on another connection."),
                CLOSE_GOING_AWAY,
                "replaced by a newer connection",
            )
        self._stop_removal()
        link = Link(self)
        link.expect_handshake()  # a client may leave before there is a connection
        self._links.add(link)
        return link

    def connected(self, link: Link, handshake: Handshake) -> None:
        other = self.link
        if other is not None:  # two connections were under way at the same time
            older = link if link.index < other.index else other
            older.close(
                DisconnectedError("The client came back on another connection."),
                CLOSE_GOING_AWAY,
                "replaced by a newer connection",
            )
            if older is link:
                return
        self._stop_removal()
        super().connected(link, handshake)

    def disconnected(self, link: Link, error: Exception) -> None:
        self._links.discard(link)
        super().disconnected(link, error)
        if self.is_closed or self._links:
            return
        is_goodbye = isinstance(error, ConnectionClosedError) and error.reason == GOODBYE
        if self.remote is None or is_goodbye:  # it never said who it is, or will not come back
            self.close(error)
            return
        limits = self.limits
        life = (current_clock().now() - self._made_at) / 3
        self._stop_removal()
        self._removal = current_clock().call_later(
            min(max(life, limits.min_peer_life), limits.max_peer_life), self._remove
        )

    def close(self, error: Exception | None = None) -> None:
        self._stop_removal()
        super().close(error)
        for link in self._closing:  # those on which the client has not introduced itself
            link.close(PeerClosedError(f"{self!r} was closed."), CLOSE_GOING_AWAY)

    def _links_there(self) -> Iterable[Link]:
        return self._links

    def _remove(self) -> None:
        self.close(PeerClosedError(f"{self!r} did not come back."))

    def _stop_removal(self) -> None:
        if self._removal is not None:
            self._removal.cancel()
            self._removal = None
