"""One end of a lasting link between two hubs: calls, streams, and at most one live connection.

A peer outlives its connections. What is the same on both ends is here: messages out and in, the
tables of calls, what a new connection means for them. How connections come about is left to
`client_peer` and `server_peer`, what travels on them to `link`, the meaning of system calls to
`system`.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from afresh.errors import (
    DisconnectedError,
    InvalidStateError,
    LimitError,
    PeerChangedError,
    PeerClosedError,
    RpcError,
)
from afresh.primitives.clock import Timer, current_clock
from afresh.primitives.freshness import noted_freshness
from afresh.primitives.handlers import Handlers

from .contracts import (
    SURVIVE_PEER_CHANGE,
    SURVIVE_RECONNECT,
    WAIT_FOR_CONNECTION,
    MethodDefinition,
)
from .exceptions import endpoint_not_found, invalid_call_type
from .freshness import Headers
from .handshake import HANDSHAKE, Handshake
from .inbound import InboundCall, ServedMethod
from .outbound import OutboundCall
from .proxy import service_of
from .slow_calls import SlowCalls
from .streams.table import StreamTable
from .system import SystemCalls
from .transports.connection import GOODBYE

if TYPE_CHECKING:
    from .formats import Format, FrameError, Incoming
    from .hub import RpcHub
    from .limits import Limits
    from .link import Link

__all__ = ["ConnectionState", "Peer", "current_peer"]

T = TypeVar("T")

_log = logging.getLogger("afresh.rpc")

_CLOSE_TOO_SLOW = 1008
_MOST_COMPLAINTS = 20


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """Whether a peer is connected, and since when.

    Args:
        is_connected: whether there is a connection, and both sides have introduced themselves.
        since: when that became so, in seconds of `current_clock()`.
        next_attempt_at: when a client tries again, None while it does or when it will not.
        error: what ended the connection, or the last attempt.
    """

    is_connected: bool
    since: float
    next_attempt_at: float | None = None
    error: Exception | None = None


_current_peer: ContextVar[Peer] = ContextVar("afresh.rpc.peer")


def current_peer() -> Peer:
    """Return the peer whose call is being handled: the way back to the caller.

    Raises:
        InvalidStateError: no call of a peer is being handled.

    Example:
        ```python
        async def subscribe(self, topic: str) -> None:
            await current_peer().service(Listener).greet(topic)
        ```
    """
    peer = _current_peer.get(None)
    if peer is None:
        raise InvalidStateError(
            "current_peer() is for handlers: no call of another peer is being handled here."
        )
    return peer


class Peer:
    """One end of a link between two hubs; made by a hub.

    Args:
        hub: what it belongs to.
        format: how messages are written.
        is_backend: whether backend services may be called through it.
    """

    __slots__ = (
        "__weakref__",
        "_closing",
        "_complaints",
        "_connection_handlers",
        "_error_writer",
        "_index",
        "_next_id",
        "_outbox",
        "_release_timer",
        "_services",
        "_slow_calls",
        "_system",
        "connection_state",
        "context",
        "earlier_calls",
        "format",
        "hub",
        "id",
        "inbound",
        "is_backend",
        "is_closed",
        "limits",
        "link",
        "loop",
        "outbound",
        "queued",
        "remote",
        "secret",
        "streams",
        "unconfirmed",
    )

    def __init__(self, hub: RpcHub, format: Format, *, is_backend: bool = False) -> None:
        self.hub: RpcHub = hub
        self.format: Format = format
        self.limits: Limits = hub.limits
        self.is_backend: bool = is_backend
        self.loop: asyncio.AbstractEventLoop = hub.enter_loop()
        self.id: uuid.UUID = uuid.uuid4()
        """Tells the other side whether it still talks to the same peer."""
        self.remote: Handshake | None = None
        """How the other side introduced itself last."""
        self.secret: str | None = None
        """What a server makes its client prove when that reconnects."""
        self.link: Link | None = None
        """The connection in use; None while there is none."""
        self.outbound: dict[int, OutboundCall] = {}
        """Calls made, by their number, until nothing more can come for them."""
        self.inbound: dict[int, InboundCall] = {}
        """Calls that the other side made and that take their time, by its numbers; by negative ones
        those that it does not want answered."""
        self.earlier_calls: set[int] = set()
        """Those that were here before this connection, until it is clear which of them matter."""
        self.queued: int = 0
        """How many messages of the other side wait in the dispatcher's queue."""
        self.is_closed: bool = False
        self.context: contextvars.Context = contextvars.Context()
        """What the handlers of this peer's calls find."""
        self.context.run(_current_peer.set, self)
        self.context.run(noted_freshness.set, "")
        self.unconfirmed: str = ""
        """What calls carry for the other side to apply first; see `freshness`."""
        self.streams: StreamTable = StreamTable(self)
        self.connection_state: ConnectionState = ConnectionState(False, current_clock().now())
        self._system = SystemCalls(self)
        self._connection_handlers: Handlers[ConnectionState] = Handlers(_log)
        self._error_writer = format.writer("$sys.Error:1")
        self._index = 0
        self._next_id = 1
        self._outbox: list[bytes] = []
        self._release_timer: Timer | None = None
        self._slow_calls = SlowCalls(self)
        self._services: dict[Any, Any] = {}
        self._complaints = 0
        self._closing: tuple[Link, ...] = ()

    is_server: ClassVar[bool] = False
    """Whether it is the end that accepts connections."""

    # -- for users

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, and both sides have introduced themselves."""
        return self.link is not None

    @property
    def peer_id(self) -> uuid.UUID:
        """What streams that this side owns name as their host."""
        return self.id

    def service(self, contract: type[T], *, name: str | None = None) -> T:
        """Return an object of this contract whose methods are calls to the other side.

        Args:
            contract: a class with annotated methods; the same as the other side serves.
            name: what the service is called on the wire, where it is not what the class says.

        Raises:
            DefinitionError: the class can't be a contract; says why.
        """
        key = contract, name
        found = self._services.get(key)
        if found is None:
            found = self._services[key] = service_of(contract, name, self.hub, self)
        return found  # type: ignore[no-any-return]

    def on_connection_change(
        self, handler: Callable[[ConnectionState], object]
    ) -> Callable[[], None]:
        """Call `handler` with the new `connection_state` whenever that changes.

        Returns:
            A function that takes the handler out again.
        """
        return self._connection_handlers.add(handler)

    # -- freshness

    def note_headers(self, headers: Headers) -> None:
        """Take in what goes along with an answer."""

    def with_freshness(self, headers: Headers) -> Headers:
        """Return the headers of a request together with what the other side is to apply first."""
        return headers

    # -- calls out

    @property
    def next_call_id(self) -> int:
        """The number of the next call."""
        return self._next_id

    def start(self, call: OutboundCall) -> None:
        """Register a call and send it, now or on the next connection.

        Raises:
            PeerClosedError: no calls can be made any more.
            DisconnectedError: there is no connection, and the method may not wait for one.
            LimitError: too many calls wait for their answers.
        """
        outbound = self.outbound
        if self.is_closed:
            raise PeerClosedError(f"{self!r} is closed: no calls can be made through it.")
        if len(outbound) >= self.limits.max_outbound_calls:
            raise LimitError(
                f"{len(outbound):,} calls to {self!r} wait for their answers; "
                "Limits.max_outbound_calls allows no more."
            )
        link = self.link
        if link is None and not call.method.flags & WAIT_FOR_CONNECTION:
            raise DisconnectedError(
                f"There is no connection, and {call.method.name} does not wait for one."
            )
        id = self._next_id
        self._next_id = id + 1
        call.id = id
        outbound[id] = call
        if link is not None:
            call.send()
        else:
            call.wait_for_connection()
            self.wanted()

    def post(self, message: bytes) -> None:
        """Send a call that nobody answers; dropped while there is no connection."""
        self.send(message)

    def wanted(self) -> None:
        """A call waits for a connection."""

    # -- messages out

    def send(self, message: bytes) -> None:
        """Send a message in this turn of the event loop; dropped while there is no connection."""
        if self.link is not None:
            outbox = self._outbox
            if not outbox:
                self.hub.will_flush(self)
            outbox.append(message)

    def send_system(self, name: str, related_id: int, arguments: bytes) -> None:
        """Send a system call."""
        if self.link is not None:
            self.send(self.hub.system_writer(self.format, name)(related_id, arguments))

    def send_error(
        self, related_id: int, error: BaseException, method: MethodDefinition | None = None
    ) -> None:
        """Answer a call with an error."""
        info = self.hub.exceptions.describe(error, method.wire_name if method else "a call")
        arguments = self._system.error.encode_one(info)
        self.send(self._error_writer(related_id, arguments))

    def send_keep_alive(self) -> None:
        """Show the other side that this one is there, and which streams it reads."""
        self._slow_calls.look()
        ids = self.streams.keep_alive_ids()
        self.send_system("$sys.KeepAlive:1", 0, self._system.ids.encode_one(ids))

    def next_index(self) -> int:
        """Count a connection that this side begins."""
        self._index += 1
        return self._index

    def introduction(self, index: int) -> bytes:
        """The frame to begin a connection with."""
        handshake = Handshake(self.id, self.hub.id, index, self.secret)
        write = self.hub.system_writer(self.format, HANDSHAKE)
        return self.format.join([write(0, handshake.encode(self.format))])

    @property
    def connection_index(self) -> int:
        """Which of the connections that this side began is in use; 0 while none is."""
        return 0 if self.link is None else self.link.index

    def flush(self) -> None:
        """Hand the messages of this turn to the connection; called by the hub."""
        messages = self._outbox
        if not messages:
            return
        self._outbox = []
        link = self.link
        if link is None or link.connection is None:
            return
        waiting = link.connection.buffered
        if waiting > self.limits.max_buffered:
            error = LimitError(
                f"{self!r} does not read what is sent to it: {waiting:,} bytes wait, "
                f"Limits.max_buffered allows {self.limits.max_buffered:,}."
            )
            _log.warning("%s", error)
            link.close(error, _CLOSE_TOO_SLOW, "reads too slowly")
            return
        frame = self.format.join(messages)
        batch = self.limits.batch
        if len(frame) <= 4 * batch or len(messages) == 1:
            link.send(frame)
        else:
            for part in _batches(messages, batch):
                link.send(self.format.join(part))

    @property
    def waiting(self) -> int:
        """How many bytes wait for a connection that takes them too slowly."""
        link = self.link
        return 0 if link is None or link.connection is None else link.connection.buffered

    @property
    def is_clogged(self) -> bool:
        """Whether so much waits that nothing large should follow."""
        return self.waiting > self.limits.max_buffered // 2

    def check_room(self, size: int, name: str) -> None:
        """See whether a large result may wait behind the others.

        Raises:
            LimitError: the other side is to read these first.
        """
        self.flush()
        waiting = self.waiting
        if waiting and waiting + size > self.limits.max_buffered // 2:
            raise LimitError(
                f"The result of {name} takes {size:,} bytes, and {waiting:,} bytes of others wait "
                f"to be read; half of Limits.max_buffered, {self.limits.max_buffered:,}, may. Ask "
                "for less at a time, or for large data as a stream."
            )

    # -- messages in

    def frame_received(self, frame: bytes) -> None:
        """Take in a frame."""
        messages, error = self.format.decode(frame)
        self.messages_received(messages, error)

    def messages_received(self, messages: Iterable[Incoming], error: FrameError | None) -> None:
        """Take in the messages of a frame; what `error` tells of could not be read."""
        system = self._system.handlers
        endpoints: list[dict[Any, ServedMethod]] | None = None
        queue = self.hub.dispatcher.queue
        count = 0
        room = self._room()
        for call_type, related_id, key, arguments, headers in messages:
            handler = system.get(key)
            if handler is not None:
                if queue and key in self._system.in_order and count < room:
                    queue.append((None, self, related_id, arguments, handler))
                    count += 1
                else:
                    handler(related_id, arguments, headers)
                continue
            if endpoints is None:
                endpoints = self.hub.endpoints(self.format, self.is_backend)
            method = endpoints[call_type].get(key)
            if method is None:
                self._refuse(call_type, related_id, key)
            elif count < room or count < (room := self._room()):
                queue.append((method, self, related_id, arguments, headers))
                count += 1
            elif related_id in self.inbound:
                self.repeated(method, related_id)
            else:
                self._refuse_one_more(method, related_id)
        if count:
            self.queued += count
            self.hub.dispatcher.start()
        if error is not None:
            self.complain("the rest of a frame is dropped: %s", error)

    def _room(self) -> int:
        """How many more calls of the other side may run here."""
        return self.limits.max_inbound_calls - len(self.inbound) - self.queued

    def _refuse_one_more(self, method: ServedMethod, related_id: int) -> None:
        error = LimitError(
            f"Too many calls of this peer run here: Limits.max_inbound_calls allows "
            f"{self.limits.max_inbound_calls:,}."
        )
        if related_id:
            self.send_error(related_id, error, method.definition)
        else:
            self.complain("%s is dropped: %s", method, error)

    def _refuse(self, call_type: int, related_id: int, key: Any) -> None:
        name = self.format.method_name(key)
        known = self.hub.endpoints(self.format, self.is_backend)[0].get(key)
        if known is not None:
            expected = known.definition.kind.id
            error: RpcError = invalid_call_type(name, expected, call_type)
        else:
            error = endpoint_not_found(name)
        self.complain("%s", error)
        if related_id:
            self.send_error(related_id, error)

    def repeated(self, method: ServedMethod, id: int) -> None:
        """A call came that is here already: do not run it again, but see that it is answered."""
        call = self.inbound[id]
        if call.method is method:
            call.resume(0)
        else:
            self.complain("call %d of %r came again as %r; ignored.", id, call, method)

    def complain(self, text: str, *args: object) -> None:
        """Log what the other side does wrong, if it is one of the first things on a connection."""
        self._complaints += 1
        if self._complaints <= _MOST_COMPLAINTS:
            _log.warning("%r: " + text, self, *args)
            if self._complaints == _MOST_COMPLAINTS:
                _log.warning("%r: what else it does wrong is not logged.", self)

    # -- connections

    def connected(self, link: Link, handshake: Handshake) -> None:
        """Both sides have introduced themselves on this connection."""
        previous = self.remote
        self.remote = handshake
        self._complaints = 0
        self._outbox = []
        self.link = link
        is_same = previous is not None and previous.peer_id == handshake.peer_id
        if is_same:
            self._note_earlier_calls()
        elif previous is not None:
            self._forget_inbound()
        self.streams.connected(is_same)
        self._watch_streams()
        self.resume(is_first=previous is None, is_same=is_same)
        self._change_state(ConnectionState(True, current_clock().now()))

    def resume(self, *, is_first: bool, is_same: bool) -> None:
        """See what becomes of the calls that were made before this connection.

        Args:
            is_first: the other side introduced itself for the first time.
            is_same: it is the one of the last connection.
        """
        sent: list[OutboundCall] = []
        for call in list(self.outbound.values()):
            if not call.is_sent:
                call.send()
            elif is_same:
                sent.append(call)
            elif not is_first:
                if call.method.flags & SURVIVE_PEER_CHANGE == SURVIVE_PEER_CHANGE:
                    call.peer_changed()
                else:
                    call.fail(
                        PeerChangedError(
                            f"{call.method.name}: the other side was restarted, "
                            "and may or may not have run the call."
                        )
                    )
        if is_same and self._next_id > 1:
            self._system.reconcile(sent)

    def disconnected(self, link: Link, error: Exception) -> None:
        """This connection is gone, or never came to be."""
        if self.link is not link:
            return
        self.link = None
        self._outbox = []
        for call in list(self.outbound.values()):
            if call.is_sent and not call.method.flags & SURVIVE_RECONNECT:
                call.fail(
                    DisconnectedError(
                        f"{call.method.name}: the connection was lost before the "
                        "answer came, and the call may not wait for another."
                    )
                )
        self.streams.disconnected()
        self._change_state(ConnectionState(False, current_clock().now(), None, error))

    def close(self, error: Exception | None = None) -> None:
        """End the connection, and all calls and streams, for good; a second call does nothing."""
        if self.is_closed:
            return
        error = error or PeerClosedError(f"{self!r} was closed.")
        self.is_closed = True
        self._closing = tuple(self._links_there())
        if self.link is not None:
            for call in self.outbound.values():
                if call.is_sent:  # the other side would keep it for a while, in case of a return
                    self.send_system("$sys.Cancel:0", call.id, b"")
            self.flush()
        if self.link is not None:
            self.link.close(error, reason=GOODBYE)
        else:
            since = self.connection_state.since
            self._change_state(ConnectionState(False, since, None, error))
        if self._release_timer is not None:
            self._release_timer.cancel()
        for call in list(self.outbound.values()):
            call.fail(error)
        self.outbound.clear()
        self._forget_inbound()
        self.streams.close(error)
        self.hub.forget(self)

    async def wait_closed(self) -> None:
        """Return when nothing is left of the connections of a peer that was closed."""
        for link in self._closing:
            if link.connection is not None:
                await link.connection.wait_closed()

    def _links_there(self) -> Iterable[Link]:
        """The connections that are there, also those on which nobody has introduced himself."""
        return () if self.link is None else (self.link,)

    def _note_earlier_calls(self) -> None:
        self.earlier_calls = {id for id in self.inbound if id > 0}
        if self.queued:
            queue = self.hub.dispatcher.queue
            self.earlier_calls.update(work[2] for work in queue if work[1] is self)

    def _forget_inbound(self) -> None:
        self.earlier_calls = set()
        self.hub.dispatcher.forget(self)
        for call in list(self.inbound.values()):
            call.cancel()
        self.inbound.clear()

    def _watch_streams(self) -> None:
        if self._release_timer is None:
            self._release_timer = current_clock().call_later(
                self.limits.object_release_period, self._release_streams
            )

    def _release_streams(self) -> None:
        self._release_timer = None
        link = self.link
        if link is not None and not self.is_closed:
            # A side that was not heard of itself has not left its streams: perhaps all slept.
            if link.silence < self.limits.keep_alive_timeout:
                self.streams.release_expired(current_clock().now())
            self._watch_streams()

    def _change_state(self, state: ConnectionState) -> None:
        self.connection_state = state
        self._connection_handlers.call(state)

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "connected" if self.link else "disconnected"
        return f"<{type(self).__name__} {self.address} {state}>"

    @property
    def address(self) -> str:
        """Who is on the other end."""
        return str(self.id)


def _batches(messages: Sequence[bytes], size: int) -> Iterable[list[bytes]]:
    batch: list[bytes] = []
    filled = 0
    for message in messages:
        if batch and filled + len(message) > size:
            yield batch
            batch, filled = [], 0
        batch.append(message)
        filled += len(message)
    yield batch
