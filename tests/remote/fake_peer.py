"""A peer whose connection comes and goes as a test says."""

from __future__ import annotations

import logging
from collections.abc import Callable

from afresh.primitives.clock import current_clock
from afresh.primitives.handlers import Handlers
from afresh.rpc.peer import ConnectionState


class FakePeer:
    """What a connection monitor needs of a peer."""

    def __init__(self, *, is_connected: bool = True) -> None:
        self.handlers: Handlers[ConnectionState] = Handlers(logging.getLogger("test"))
        self.connection_state = ConnectionState(is_connected, current_clock().now())
        self.is_closed = False
        self.hurries = 0

    def on_connection_change(
        self, handler: Callable[[ConnectionState], object]
    ) -> Callable[[], None]:
        return self.handlers.add(handler)

    def change(self, state: ConnectionState) -> None:
        self.connection_state = state
        self.handlers.call(state)

    def connect(self) -> None:
        self.change(ConnectionState(True, current_clock().now()))

    def disconnect(self, error: Exception | None = None) -> None:
        self.change(ConnectionState(False, current_clock().now(), None, error))

    def wait(self, delay: float, error: Exception | None = None) -> None:
        since = self.connection_state.since
        self.change(ConnectionState(False, since, current_clock().now() + delay, error))

    def try_again(self) -> None:
        self.change(ConnectionState(False, self.connection_state.since))

    def reconnect_now(self) -> None:
        self.hurries += 1
        self.try_again()

    def close(self) -> None:
        self.is_closed = True
        self.disconnect(self.connection_state.error)
