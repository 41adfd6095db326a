"""Calls that this side makes: what is sent, and what becomes of the answer.

A call is registered with its peer until it is answered; what happens to it when the connection
comes and goes is decided by the peer, by the flags of its method. Kinds of calls that live longer
than their answer are subclasses elsewhere.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from afresh.errors import CallTimeoutError, LimitError, RerouteError
from afresh.primitives.clock import Timer, current_clock

from .contracts import MethodDefinition, Timeouts
from .formats.format import encode_headers
from .streams.reference import coding

if TYPE_CHECKING:
    from .exceptions import ExceptionInfo
    from .formats import Codec, Format, RecordNaming, Writer
    from .peer import Peer
    from .routing import Route

__all__ = ["OutboundCall", "OutboundMethod"]

Headers = Sequence[tuple[str, str]]


class OutboundMethod:
    """A method as it is called in one format.

    Args:
        definition: the method.
        format: the format of the peer.
        records: how fields of records are named.
        call_type: which kind of call to make of it.
    """

    __slots__ = (
        "arguments",
        "call_type",
        "definition",
        "flags",
        "name",
        "result",
        "timeouts",
        "write",
    )

    arguments: Codec
    result: Codec
    write: Writer

    def __init__(
        self,
        definition: MethodDefinition,
        format: Format,
        records: RecordNaming,
        call_type: int = 0,
    ) -> None:
        self.definition: MethodDefinition = definition
        self.name: str = definition.wire_name
        self.call_type: int = call_type
        self.flags: int = definition.flags
        self.timeouts: Timeouts = definition.timeouts
        self.arguments = format.codec(definition.types, records)
        self.result = format.codec((definition.result_type,), records)
        self.write = format.writer(definition.wire_name, call_type)

    def encode(self, peer: Peer, args: Sequence[Any]) -> bytes:
        """Return the argument section of a call.

        Raises:
            FormatError: a value can't be written.
            LimitError: the values are too large.
        """
        codec = self.arguments
        if codec.has_streams:
            with coding(peer.streams, codec.types):
                arguments = codec.encode(args)
        else:
            arguments = codec.encode(args)
        if len(arguments) > peer.limits.max_arguments:
            raise LimitError(
                f"The arguments of {self.name} take {len(arguments):,} bytes; "
                f"Limits.max_arguments allows {peer.limits.max_arguments:,}. "
                "Pass large data as a stream."
            )
        return arguments

    def decode(self, peer: Peer, arguments: bytes) -> Any:
        """Return the result in the argument section of an answer."""
        codec = self.result
        if codec.has_streams:
            with coding(peer.streams):
                return codec.decode_one(arguments)
        return codec.decode_one(arguments)

    def __repr__(self) -> str:
        return f"<OutboundMethod {self.name}>"


class OutboundCall:
    """A call that waits for its answer.

    Args:
        peer: whom to call.
        method: what to call there.
        arguments: the encoded arguments.
        headers: go with the request.

    Raises:
        FormatError: the headers are too many, or too long.
    """

    __slots__ = (
        "_timer",
        "_unfollow",
        "arguments",
        "future",
        "headers",
        "id",
        "is_sent",
        "method",
        "peer",
    )

    def __init__(
        self,
        peer: Peer,
        method: OutboundMethod,
        arguments: bytes,
        headers: Headers = (),
    ) -> None:
        if headers:
            encode_headers(headers)
        self.peer: Peer = peer
        self.method: OutboundMethod = method
        self.arguments: bytes = arguments
        self.headers: Headers = headers
        self.future: asyncio.Future[Any] = peer.loop.create_future()
        self.id: int = 0
        self.is_sent: bool = False
        """Whether the other side may know of it, from this connection or an earlier one."""
        self._timer: Timer | None = None
        self._unfollow: Callable[[], None] | None = None

    @property
    def stage(self) -> int:
        """0 as long as the answer has not come; else what the reconnection protocol calls it."""
        return 0

    def send(self) -> None:
        """Send the request for the first time."""
        self.is_sent = True
        timeout = self.method.timeouts.run
        if timeout < math.inf or self._timer is not None:
            self.set_deadline(timeout, "got no answer")
        self.peer.send(self.message())

    def wait_for_connection(self) -> None:
        """Begin to wait for a connection to send the request on."""
        timeout = self.method.timeouts.connect
        if timeout < math.inf:
            self.set_deadline(timeout, "got no connection")

    def message(self) -> bytes:
        """The request."""
        headers = self.headers
        if self.peer.unconfirmed:
            headers = self.peer.with_freshness(headers)
        if headers:
            return self.method.write(self.id, self.arguments, headers)
        return self.method.write(self.id, self.arguments)

    # -- what may happen to it

    def answered(self, arguments: bytes, headers: Headers) -> None:
        """The result came."""
        try:
            value = self.method.decode(self.peer, arguments)
        except Exception as error:
            self.fail(error)
            return
        self._finish()
        if not self.future.done():
            self.future.set_result(value)

    def refused(self, info: ExceptionInfo) -> None:
        """The method failed on the other side."""
        self.fail(self.peer.hub.exceptions.restore(info))

    def matched(self) -> None:
        """The result is the one whose hash was sent along."""
        self.fail(LookupError(f"{self.method.name}: a match for a result nobody has."))

    def resumed(self, is_known: bool) -> None:
        """After a reconnection to the same peer: whether that still knows the call."""
        if not is_known:
            self.peer.send(self.message())

    def peer_changed(self) -> None:
        """Behind the address there is another peer now, which knows of nothing."""
        self.peer.send(self.message())

    def fail(self, error: BaseException) -> None:
        """End the call with an error."""
        self._finish()
        if not self.future.done():
            if isinstance(error, asyncio.CancelledError):
                self.future.cancel()
            else:
                self.future.set_exception(error)

    def cancel(self) -> None:
        """Nobody waits for the answer any more: forget the call, and tell the other side."""
        self.let_go()
        self.future.cancel()

    def let_go(self) -> None:
        """Forget the call, and tell the other side."""
        if self.peer.outbound.get(self.id) is self:
            self._finish()
            if self.is_sent:
                self.peer.send_system("$sys.Cancel:0", self.id, b"")

    def follow(self, route: Route) -> None:
        """End the call with `RerouteError` when the route that led to the peer changes."""
        if not route.is_static:
            self._unfollow = route.on_changed(self._reroute)

    def _reroute(self, route: Route) -> None:
        self.let_go()
        self.fail(RerouteError(f"{route!r} has changed; ask the router again."))

    # -- time

    def set_deadline(self, seconds: float, what: str) -> None:
        """Give up after a while.

        Args:
            seconds: from now; `math.inf` takes a deadline back.
            what: the end of "Orders.place:2 ..." in the message of the error.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds < math.inf:
            self._timer = current_clock().call_later(seconds, lambda: self._time_out(seconds, what))

    def _time_out(self, seconds: float, what: str) -> None:
        name = self.method.name
        self.let_go()
        self.fail(CallTimeoutError(f"{name} {what} within {seconds:g} s."))

    def _finish(self) -> None:
        self.peer.outbound.pop(self.id, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._unfollow is not None:
            self._unfollow()
            self._unfollow = None

    def __repr__(self) -> str:
        state = "done" if self.future.done() else "sent" if self.is_sent else "waiting"
        return f"<{type(self).__name__} {self.id} {self.method.name} {state}>"
