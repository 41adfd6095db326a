"""All streams of one peer, both ways: their numbers, their messages, their life-cycle.

A peer makes one `StreamTable`, dispatches system calls to its handlers, and tells it of connections
and keep-alives. How items are read and sent is left to the streams themselves.
"""

from __future__ import annotations

import contextvars
import copy
import logging
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from afresh.errors import DisconnectedError, LimitError, PeerChangedError, RpcError
from afresh.primitives.clock import current_clock

from ..exceptions import ExceptionInfo, stream_not_found
from .real_time import RealTimeStream
from .reference import StreamReference, coding
from .remote import RemoteStream
from .sections import sections_of
from .shared import SharedStream
from .stream import RpcStream

if TYPE_CHECKING:
    from ..exceptions import ExceptionPolicy
    from ..formats import Codec, Format, RecordNaming
    from ..limits import Limits

__all__ = ["StreamHub", "StreamLink", "StreamTable"]

_log = logging.getLogger("afresh.rpc")

_NOBODY = uuid.UUID(int=0)
"""Stands for the host in acknowledgements that ask for nothing to be sent again."""


class StreamHub(Protocol):
    """What streams need of the hub: which errors travel, and how fields of records are named."""

    @property
    def exceptions(self) -> ExceptionPolicy:
        """Which errors travel, and as what."""

    @property
    def records(self) -> RecordNaming:
        """How fields of records are named."""


class StreamLink(Protocol):
    """What streams need of the peer whose streams they are."""

    @property
    def hub(self) -> StreamHub:
        """What the peer belongs to."""

    @property
    def peer_id(self) -> uuid.UUID:
        """The host of streams that are owned here."""

    @property
    def format(self) -> Format:
        """How messages are written."""

    @property
    def limits(self) -> Limits:
        """Sizes and times."""

    @property
    def context(self) -> contextvars.Context:
        """What sources run in copies of."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""

    @property
    def is_clogged(self) -> bool:
        """Whether so much waits for the connection that no items should follow."""

    def send_system(self, name: str, related_id: int, arguments: bytes) -> None:
        """Send a system call; dropped while there is no connection."""


class StreamTable:
    """All streams of one peer.

    Args:
        link: the peer.
    """

    __slots__ = (
        "_ack",
        "_ack_end",
        "_closed_by",
        "_end",
        "_ids",
        "_last_id",
        "_left",
        "_remote",
        "_shared",
        "_write_section",
        "generation",
        "handlers",
        "link",
        "unread",
    )

    def __init__(self, link: StreamLink) -> None:
        self.link: StreamLink = link
        self.handlers: dict[str, Callable[[int, bytes], None]] = {
            "$sys.Ack:2": self._on_ack,
            "$sys.AckEnd:1": self._on_ack_end,
            "$sys.I:2": self._on_item,
            "$sys.B:2": self._on_batch,
            "$sys.End:2": self._on_end,
            "$sys.Disconnect:1": self._on_disconnect,
        }
        """What to do with which system call, given its related id and its argument section."""
        self.unread: int = 0
        """How many bytes of items wait to be read."""
        self.generation: int = 0
        """How often the peer behind the link became another one."""
        self._write_section = sections_of(is_text=link.format.is_text)
        self._ack = self.codec(int, uuid.UUID)
        self._ack_end = self.codec(uuid.UUID)
        self._end = self.codec(int, ExceptionInfo)
        self._ids = self.codec(list[int])
        self._shared: dict[int, SharedStream] = {}
        self._remote: dict[int, RemoteStream[Any]] = {}
        # Streams that nobody reads any more, which their owner could not be told yet.
        self._left: list[StreamReference] = []
        self._last_id = 0
        self._closed_by: BaseException | None = None

    def codec(self, *types: Any) -> Codec:
        """Return what reads and writes argument sections of these types."""
        return self.link.format.codec(types, self.link.hub.records)

    # -- streams come and go

    def share(self, stream: RpcStream[Any], item_type: Any = Any) -> StreamReference:
        """Let the other side read a stream, and return what it finds it by.

        Args:
            stream: the source, and the rules.
            item_type: what the items are.

        Raises:
            LimitError: the peer has too many streams.
            RpcError: the peer is closed.
        """
        if self._closed_by is not None:
            raise self._closed_by
        self._check_count()
        local_id = self._last_id = self._last_id + 1
        shared = RealTimeStream if stream.is_real_time else SharedStream
        self._shared[local_id] = shared(self, stream, item_type, local_id)
        return StreamReference(
            self.link.peer_id,
            local_id,
            stream.ack_period,
            stream.ack_advance,
            stream.allow_reconnect,
            stream.is_real_time,
        )

    def open(self, reference: StreamReference | None, item_type: Any) -> RpcStream[Any]:
        """Return the stream that the other side shares under this reference; None has no items.

        Nothing happens, here and there, before it is read.
        """
        if reference is None:
            return RpcStream(_nothing(), item_type=item_type)
        return RpcStream._of(RemoteStream(self, reference, item_type))

    def begin(self, remote: RemoteStream[Any]) -> None:
        """Ask for the items of a stream of the other side.

        Raises:
            LimitError: the peer has too many streams.
            RpcError: the peer is closed.
        """
        if self._closed_by is not None:
            remote.fail(copy.copy(self._closed_by))
        elif remote.generation != self.generation:
            remote.fail(_peer_changed())
        else:
            self._check_count()
            local_id = remote.reference.local_id
            replaced = self._remote.pop(local_id, None)
            self._remote[local_id] = remote
            if replaced is not None:
                replaced.fail(stream_not_found())
            remote.reset()

    def finish(self, remote: RemoteStream[Any]) -> None:
        """Forget a stream of the other side, and let it know."""
        reference = remote.reference
        if self._remote.get(reference.local_id) is remote:
            del self._remote[reference.local_id]
            if self.link.is_connected:
                self._send_ack_end(reference)
            else:
                self._left.append(reference)

    def _check_count(self) -> None:
        if len(self) >= self.link.limits.max_objects:
            raise LimitError(
                f"There are {len(self):,} streams between here and {self.link!r}; "
                "Limits.max_objects allows no more. Close those that nobody reads."
            )

    def __len__(self) -> int:
        return len(self._shared) + len(self._remote)

    # -- connections and keep-alives

    def connected(self, is_same_peer: bool) -> None:
        """There is a connection; `is_same_peer` says whether to the same peer as the last one."""
        now = current_clock().now()
        if is_same_peer:
            for reference in self._left:
                self._send_ack_end(reference)
            for remote in self._remote.values():
                remote.reset()
        else:
            self.generation += 1
            self._fail_remote(_peer_changed())
        self._left.clear()
        for shared in list(self._shared.values()):
            shared.mentioned_at = now
            # A reference that is still on its way, in a call that is sent again, stays good.
            if not is_same_peer and shared.is_started:
                self._release(shared)

    def disconnected(self) -> None:
        """The connection is lost."""
        for remote in list(self._remote.values()):
            if not remote.reference.allow_reconnect:
                remote.fail(
                    DisconnectedError(
                        "The connection was lost, and with it this stream: it got disconnected "
                        "for good, as allow_reconnect is False. Ask for it again."
                    )
                )
        for shared in list(self._shared.values()):
            if shared.is_started and not shared.stream.allow_reconnect:
                self._release(shared)

    def close(self, error: BaseException) -> None:
        """The peer is closed: end all streams, and let none begin."""
        self._closed_by = error
        self._fail_remote(error)
        for shared in list(self._shared.values()):
            self._release(shared)

    def keep_alive_ids(self) -> list[int]:
        """Return the numbers of the streams that are read here, for the other side to keep."""
        return list(self._remote)

    def note_keep_alive(self, ids: list[int]) -> None:
        """The other side reads these streams."""
        now = current_clock().now()
        unknown: list[int] = []
        for local_id in ids:
            shared = self._shared.get(local_id)
            if shared is None:
                unknown.append(local_id)
            else:
                shared.mentioned_at = now
        if unknown:
            self._send_disconnect(unknown)

    def release_expired(self, now: float) -> None:
        """Close the streams that the other side has not mentioned for too long.

        Args:
            now: in seconds of `current_clock()`.
        """
        if self.link.is_connected:
            limit = now - self.link.limits.object_release_timeout
            for shared in list(self._shared.values()):
                if shared.mentioned_at < limit:
                    _log.info("%r is closed: nobody has mentioned it for too long.", shared)
                    self._release(shared)

    def _fail_remote(self, error: BaseException) -> None:
        remote_streams = list(self._remote.values())
        self._remote.clear()  # whoever owned them is not there any more to be told
        for remote in remote_streams:
            remote.fail(copy.copy(error))  # each is raised, and gathers a traceback, elsewhere

    def _release(self, shared: SharedStream) -> None:
        self._shared.pop(shared.local_id, None)
        shared.close()

    # -- what streams send

    def send_ack(self, remote: RemoteStream[Any], index: int, *, is_reset: bool) -> None:
        """Tell the owner that everything before `index` is here.

        Args:
            remote: the stream.
            index: what is expected next.
            is_reset: whether the owner is to send everything from there on again.
        """
        reference = remote.reference
        arguments = self._ack.encode((index, reference.host_id if is_reset else _NOBODY))
        self.link.send_system("$sys.Ack:2", reference.local_id, arguments)

    def send_items(self, shared: SharedStream, index: int, items: Sequence[bytes]) -> None:
        """Send encoded items to the consumer.

        Args:
            shared: the stream.
            index: of the first item.
            items: at least one.
        """
        name = "$sys.I:2" if len(items) == 1 else "$sys.B:2"
        self.link.send_system(name, shared.local_id, self._write_section(index, items))

    def send_end(self, shared: SharedStream, index: int, info: ExceptionInfo) -> None:
        """Tell the consumer that there are `index` items and no more, and which error ended it."""
        self.link.send_system("$sys.End:2", shared.local_id, self._end.encode((index, info)))

    def _send_ack_end(self, reference: StreamReference) -> None:
        arguments = self._ack_end.encode_one(reference.host_id)
        self.link.send_system("$sys.AckEnd:1", reference.local_id, arguments)

    def _send_disconnect(self, ids: list[int]) -> None:
        self.link.send_system("$sys.Disconnect:1", 0, self._ids.encode_one(ids))

    # -- what the other side says

    def _on_ack(self, local_id: int, arguments: bytes) -> None:
        try:
            index, host_id = self._ack.decode(arguments)
        except RpcError as error:
            _log.warning("%r: an acknowledgement can't be read: %s", self.link, error)
            return
        shared = self._shared.get(local_id)
        is_reset = host_id != _NOBODY
        if shared is not None:
            shared.mentioned_at = current_clock().now()
            if (not is_reset or host_id == self.link.peer_id) and shared.acknowledge(
                index, is_reset=is_reset
            ):
                return
            self._release(shared)
        self._send_disconnect([local_id])

    def _on_ack_end(self, local_id: int, arguments: bytes) -> None:
        shared = self._shared.get(local_id)
        if shared is None:
            self._send_disconnect([local_id])
        else:
            self._release(shared)

    def _on_item(self, local_id: int, arguments: bytes) -> None:
        remote = self._remote.get(local_id)
        if remote is not None:
            try:
                index, item = self._decode(remote.singles, arguments)
            except Exception as error:
                remote.fail(error)
            else:
                remote.received(index, (item,), len(arguments))

    def _on_batch(self, local_id: int, arguments: bytes) -> None:
        remote = self._remote.get(local_id)
        if remote is not None:
            try:
                index, items = self._decode(remote.batches, arguments)
            except Exception as error:
                remote.fail(error)
            else:
                remote.received(index, items, len(arguments))

    def _on_end(self, local_id: int, arguments: bytes) -> None:
        remote = self._remote.get(local_id)
        if remote is not None:
            try:
                index, info = self._end.decode(arguments)
                error = self.link.hub.exceptions.restore(info) if info else None
            except Exception as failure:
                remote.fail(failure)
            else:
                remote.ended(index, error)

    def _on_disconnect(self, local_id: int, arguments: bytes) -> None:
        try:
            ids = self._ids.decode_one(arguments)
        except RpcError as error:
            _log.warning("%r: a disconnect can't be read: %s", self.link, error)
            return
        for lost_id in ids:
            remote = self._remote.pop(lost_id, None)
            if remote is not None:
                remote.fail(stream_not_found())

    def _decode(self, codec: Codec, arguments: bytes) -> Sequence[Any]:
        if codec.has_streams:
            with coding(self):
                return codec.decode(arguments)
        return codec.decode(arguments)


async def _nothing() -> AsyncGenerator[Any, None]:
    return
    yield


def _peer_changed() -> PeerChangedError:
    return PeerChangedError(
        "The other side was restarted, or replaced, and the stream is gone with it. Ask for it "
        "again."
    )
