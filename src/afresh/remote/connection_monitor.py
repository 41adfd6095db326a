"""`ConnectionMonitor`: how the connection to a peer is doing, in words fit for a user.

A connection that comes and goes should not flicker on a screen, so the first moments after each
change are told apart from what follows. How connections are made is the business of the peer.
"""

from __future__ import annotations

import enum
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from afresh.graph import ComputedOptions, current_computed
from afresh.primitives.clock import current_clock
from afresh.rpc.peer import ConnectionState
from afresh.states import NEXT_TICK, ComputedState, MutableState

__all__ = ["ConnectionKind", "ConnectionMonitor", "ConnectionStatus", "MonitoredPeer"]

_JUST_CONNECTED = 1.5
_JUST_DISCONNECTED = 3.0

_SOON = 1.0
"""An attempt that is less than this away counts as under way."""

_LATER = 0.1
"""How long after the end of a phase the next one is shown, so that clocks need not be exact."""


class ConnectionKind(enum.Enum):
    """The phases of a connection."""

    JUST_CONNECTED = "just connected"
    """The first 1.5 s of a connection."""
    CONNECTED = "connected"
    """There is a connection."""
    JUST_DISCONNECTED = "just disconnected"
    """The first 3 s without one; most users need not know yet."""
    DISCONNECTED = "disconnected"
    """There is none."""


_WORDS = {
    ConnectionKind.JUST_CONNECTED: "Just connected.",
    ConnectionKind.CONNECTED: "Connected.",
    ConnectionKind.JUST_DISCONNECTED: "Just disconnected, reconnecting...",
}


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """How a connection is doing.

    Args:
        kind: the phase.
        error: what ended the connection, or the last attempt to make one.
        reconnects_at: when the next attempt is made, in seconds of `current_clock()`; None while
            one is under way, or about to be, or when there is none to wait for.
        is_final: whether there will be no attempts any more.
    """

    kind: ConnectionKind
    error: Exception | None = None
    reconnects_at: float | None = None
    is_final: bool = False

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self.kind in {ConnectionKind.JUST_CONNECTED, ConnectionKind.CONNECTED}

    @property
    def likely_connected(self) -> bool:
        """Whether there is a connection, or was one a moment ago: what to show to a user."""
        return self.kind is not ConnectionKind.DISCONNECTED

    @property
    def reconnects_in(self) -> float | None:
        """Seconds from now to the next attempt; None when there is none to wait for."""
        if self.reconnects_at is None:
            return None
        return max(0.0, self.reconnects_at - current_clock().now())

    @property
    def text(self) -> str:
        """The status in words, such as "Reconnecting...", without the error."""
        return self.describe()

    def describe(self, *, with_error: bool = False) -> str:
        """The status in words.

        Args:
            with_error: tell why there is no connection, while no attempt to make one is under way.
                Its message may be more than a user should know.
        """
        if self.kind is not ConnectionKind.DISCONNECTED:
            return _WORDS[self.kind]
        if self.reconnects_at is None and not self.is_final:
            return "Reconnecting..."
        if not with_error or self.error is None:
            return "Disconnected."
        message = str(self.error).strip() or type(self.error).__name__
        return f"Disconnected: {message}{'' if message[-1] in '.!?' else '.'}"


class MonitoredPeer(Protocol):
    """What a monitor needs of a peer; client peers have it."""

    @property
    def connection_state(self) -> ConnectionState:
        """Whether it is connected, and since when."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether it is closed, and will never connect again."""
        ...

    def on_connection_change(
        self, handler: Callable[[ConnectionState], object], /
    ) -> Callable[[], None]:
        """Call `handler` whenever the state changes, until the returned function is called."""
        ...

    def reconnect_now(self) -> None:
        """Do not wait for the next attempt."""
        ...


class ConnectionMonitor(ComputedState[ConnectionStatus]):
    """A state with the `ConnectionStatus` of a peer; close it when it is no longer needed.

    Args:
        peer: whose connection; None stands for one that is always there, as between parts of one
            process.
        start: whether to follow the peer at once; else `start()` does.

    Raises:
        InvalidStateError: it is to start, and no event loop is running.

    Example:
        ```python
        async with ConnectionMonitor(client.peer) as monitor:
            async for status in monitor:
                print(status.text)
        ```
    """

    def __init__(self, peer: MonitoredPeer | None, *, start: bool = True) -> None:
        raw: MutableState[tuple[ConnectionState, bool] | None] = MutableState(None)
        if peer is not None:
            followed = peer

            def note(state: ConnectionState) -> None:
                raw.set((state, followed.is_closed))

            note(peer.connection_state)
            # Also for a monitor that is dropped without being closed.
            self._stop = weakref.finalize(self, peer.on_connection_change(note))
            self._stop.atexit = False
        self._peer = peer

        async def compute() -> ConnectionStatus:
            status, changes_in = _status(raw.use())
            if changes_in < math.inf:
                current_computed().invalidate(after=changes_in + _LATER)
            return status

        super().__init__(
            compute,
            delay=NEXT_TICK,
            initial=_status(raw.value)[0],
            options=ComputedOptions(),
            category="ConnectionMonitor",
            start=start,
        )

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self.value.is_connected

    @property
    def likely_connected(self) -> bool:
        """Whether there is a connection, or was one a moment ago: what to show to a user."""
        return self.value.likely_connected

    @property
    def text(self) -> str:
        """The status in words, such as "Reconnecting...", without the error."""
        return self.value.text

    @property
    def reconnects_in(self) -> float | None:
        """Seconds from now to the next attempt; None when there is none to wait for."""
        return self.value.reconnects_in

    def reconnect_now(self) -> None:
        """Let the peer try again at once, rather than when it is time."""
        if self._peer is not None:
            self._peer.reconnect_now()

    def close(self) -> None:
        if self._peer is not None:
            self._stop()
        super().close()

    dispose = close


def _status(raw: tuple[ConnectionState, bool] | None) -> tuple[ConnectionStatus, float]:
    """The status at this moment, and for how many seconds it will be that."""
    if raw is None:
        return ConnectionStatus(ConnectionKind.CONNECTED), math.inf
    state, is_closed = raw
    now = current_clock().now()
    lasted = now - state.since
    if state.is_connected:
        if lasted < _JUST_CONNECTED:
            return ConnectionStatus(ConnectionKind.JUST_CONNECTED), _JUST_CONNECTED - lasted
        return ConnectionStatus(ConnectionKind.CONNECTED), math.inf
    if is_closed:
        kind = ConnectionKind.DISCONNECTED
        return ConnectionStatus(kind, state.error, is_final=True), math.inf
    if lasted < _JUST_DISCONNECTED:
        kind = ConnectionKind.JUST_DISCONNECTED
        return ConnectionStatus(kind, state.error), _JUST_DISCONNECTED - lasted
    kind = ConnectionKind.DISCONNECTED
    if state.next_attempt_at is None or state.next_attempt_at - now < _SOON:
        return ConnectionStatus(kind, state.error), math.inf
    waits_for = state.next_attempt_at - _SOON - now
    return ConnectionStatus(kind, state.error, state.next_attempt_at), waits_for
