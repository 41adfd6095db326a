"""Tells of calls that have had no answer for long, without a clock reading for each call.

Calls are numbered in order, so it is enough to note now and then which number is the next: what is
below a note that is old enough, and not answered, is slow.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from afresh.primitives.clock import current_clock

if TYPE_CHECKING:
    from .outbound import OutboundCall
    from .peer import Peer

__all__ = ["SlowCalls"]

_log = logging.getLogger("afresh.rpc")


class SlowCalls:
    """Watches the calls of one peer.

    Args:
        peer: who makes them.
    """

    __slots__ = ("_looked_at", "_notes", "_peer")

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._notes: deque[tuple[float, int]] = deque()
        self._looked_at = 1

    def look(self) -> None:
        """Log the calls that became slow since the last look."""
        peer = self._peer
        now = current_clock().now()
        limit = peer.limits.slow_call
        end = self._looked_at
        while self._notes and now - self._notes[0][0] >= limit:
            end = self._notes.popleft()[1]
        self._notes.append((now, peer.next_call_id))
        outbound = peer.outbound
        slow: list[OutboundCall] = []
        if end - self._looked_at < len(outbound):
            numbers = range(self._looked_at, end)
            slow = [outbound[number] for number in numbers if number in outbound]
        elif outbound:
            slow = [call for call in outbound.values() if self._looked_at <= call.id < end]
        self._looked_at = end
        for call in slow:
            if call.stage == 0 and not call.future.done():
                _log.warning(
                    "%s: no answer from %r for more than %g s.", call.method.name, peer, limit
                )
