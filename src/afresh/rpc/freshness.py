"""Read-your-writes between peers: what was seen in one answer goes along with later calls.

A header carries it, in both directions. On an answer it says what the side that answers has
applied; on a request, what the side that calls wants applied first. Calls do without it while there
is nothing that the other side is not known to have. What the text means, `afresh.primitives` knows;
who waits for it, the hub is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from afresh.primitives.clock import current_clock
from afresh.primitives.freshness import LONGEST, Freshness

from .formats.format import MAX_HEADERS

if TYPE_CHECKING:
    from .client_peer import ClientPeer
    from .hub import RpcHub

__all__ = [
    "FRESHNESS",
    "Gate",
    "Headers",
    "Seen",
    "answer_headers",
    "behind_gate",
    "telling",
    "token_in",
]

FRESHNESS = "~f"
"""The header with a freshness token."""

LIFETIME = 30.0
"""For how many seconds calls carry what was seen. The readers of logs look every five seconds even
if nobody tells them to: a host that is behind for longer is ill, and waiting does not help."""

Headers: TypeAlias = Sequence[tuple[str, str]]

Gate: TypeAlias = Callable[[str], Awaitable[bool]]
"""Waits, bounded, until this host has applied what a token tells of; returns whether it has."""


# -- the side that answers


def token_in(headers: Headers) -> str:
    """Return the token among the headers of a message; empty if there is none."""
    for name, value in headers:
        if name == FRESHNESS:
            return value
    return ""


def answer_headers(headers: Headers) -> Headers:
    """Return what of these headers an answer has to carry."""
    token = token_in(headers)
    return ((FRESHNESS, token),) if token else ()


def telling(headers: Headers, token: str) -> Headers:
    """Return the headers of a request to whose answer a token is to be added."""
    known = token_in(headers)
    if known:
        headers = [header for header in headers if header[0] != FRESHNESS]
        token = str(Freshness.parse(known).merged(Freshness.parse(token)).latest(LONGEST))
    return (*headers, (FRESHNESS, token))


async def behind_gate(
    gate: Gate | None, headers: list[tuple[str, str]], start: Callable[..., Any], *args: Any
) -> Any:
    """Start a call when this host has applied what the caller wants, or can't be waited for.

    Args:
        gate: waits for that; None where nothing can.
        headers: of the request; those that it could not be fresh for are taken out.
        start: returns an awaitable of the result.
        args: of `start`.
    """
    if gate is None or not await gate(token_in(headers)):
        headers[:] = [header for header in headers if header[0] != FRESHNESS]
    return await start(*args)


# -- the side that calls


class Seen:
    """What a hub has seen in answers, and what of it goes along with the calls of each peer.

    Args:
        hub: whose client peers they are.
    """

    def __init__(self, hub: RpcHub) -> None:
        self._hub = hub
        self.known: Freshness = Freshness()
        """The last operation that was seen of each log."""
        self._learned_at = 0.0

    def learn(self, freshness: Freshness) -> None:
        """Let calls carry what was seen."""
        if not freshness.beyond(self.known):
            return
        self._forget_old()
        self.known = self.known.merged(freshness).latest(LONGEST)
        self._learned_at = current_clock().now()
        for peer in self._hub.client_peers:
            self.update(peer)

    def update(self, peer: ClientPeer) -> None:
        """Find out what calls of this peer have to carry."""
        self._forget_old()
        peer.unconfirmed = str(self.known.beyond(peer.confirmed))

    def headers(self, peer: ClientPeer, headers: Headers) -> Headers:
        """Return the headers of a request together with what the peer has yet to confirm."""
        self.update(peer)
        if not peer.unconfirmed or len(headers) >= MAX_HEADERS:
            return headers
        return (*headers, (FRESHNESS, peer.unconfirmed))

    def _forget_old(self) -> None:
        if self.known and current_clock().now() - self._learned_at > LIFETIME:
            self.known = Freshness()
