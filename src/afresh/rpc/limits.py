"""How much one side takes from the other, and how long it waits: on by default, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

from afresh.primitives.delays import RetryDelays

__all__ = ["Limits"]

_ENVELOPE = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in bytes, times in seconds. Replace what does not fit; the rest keeps its default.

    ```python
    hub = RpcHub(limits=Limits(max_inbound_calls=1000))
    ```

    The sizes of frames and argument sections, the times of keep-alive, handshake and release are
    those of the protocol's reference.
    """

    connect_timeout: float = 10.0
    """For making a connection."""
    handshake_timeout: float = 10.0
    """For the other side to introduce itself."""
    premature_disconnect: float = 15.0
    """A connection that lived shorter counts as a failed attempt: the next one waits longer."""
    keep_alive_period: float = 10.0
    """How often each side shows that it is there."""
    keep_alive_timeout: float = 25.0
    """A side that was not heard of for this long is taken for gone."""
    reconnect_delays: RetryDelays = field(
        default_factory=lambda: RetryDelays.exponential(0.5, 10.0)
    )
    """Between attempts of a client to connect."""

    slow_call: float = 30.0
    """A call that has had no answer for this long, or somewhat longer, is told of in the log."""

    max_frame: int = 16_711_680
    """Of one frame, in either direction; `batch` and `max_arguments` are never larger than fits."""
    max_handshake_frame: int = 16_384
    """Of the first frame, from somebody still unknown."""
    max_arguments: int = 16_252_928
    """Of the values in one message."""
    batch: int = 65_536
    """Messages of one turn of the event loop travel in frames of about this size."""
    max_buffered: int = 67_108_864
    """What may wait for a connection that takes it too slowly. Over half of it streams pause and
    large results are refused; when there is more to send over all of it, the connection is closed.
    """

    max_inbound_calls: int = 65_536
    """Calls of one peer that run here, its live subscriptions included."""
    max_outbound_calls: int = 1_048_576
    """Calls to one peer that wait for their answers, live results included."""
    max_objects: int = 65_536
    """Streams of one peer, both directions together."""
    object_release_period: float = 10.0
    """How often streams are looked through for forgotten ones."""
    object_release_timeout: float = 125.0
    """A stream that its consumer did not mention for this long is released."""

    unused_peer_life: float = 300.0
    """A host that calls were routed to is no longer dialled when it was away for this long and no
    call waits for it."""
    max_peers: int = 65_536
    """Clients that a hub knows at a time, those included that may come back."""
    min_peer_life: float = 180.0
    max_peer_life: float = 900.0
    """A client that is gone is remembered for a third of the time it was known, in these bounds."""

    def __post_init__(self) -> None:
        # What a frame must hold besides: the name of the method, and all headers there may be.
        object.__setattr__(
            self, "max_arguments", min(self.max_arguments, self.max_frame - _ENVELOPE)
        )
        object.__setattr__(self, "batch", min(self.batch, self.max_frame // 4))
        if self.max_arguments <= 0:
            raise ValueError(f"Limits.max_frame must be more than {_ENVELOPE:,} bytes.")
