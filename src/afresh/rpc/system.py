"""System calls: the messages with which the protocol runs itself.

Each peer has a table of them by method key. What concerns streams is handled by the table of
streams, and kinds of calls from outside may bring system calls of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from afresh.errors import LimitError, RpcError

from .contracts import Timeouts
from .exceptions import ExceptionInfo, too_late_for_reconnect
from .formats.sequences import decode_increasing, encode_increasing
from .outbound import Headers, OutboundCall, OutboundMethod

if TYPE_CHECKING:
    from .formats import Codec, Format
    from .peer import Peer

__all__ = ["SystemCalls", "SystemHandler"]

_log = logging.getLogger("afresh.rpc")

_LONGEST_ID = 24
"""What one number takes in a list of them, at most, in bytes."""

SystemHandler = Callable[[int, bytes, Headers], None]
"""Takes the related id, the argument section and the headers of a system call."""


class SystemCalls:
    """The system calls of one peer.

    Args:
        peer: what they are for.
    """

    __slots__ = (
        "_peer",
        "_reconnect",
        "_reconnected_at",
        "error",
        "handlers",
        "ids",
        "in_order",
    )

    def __init__(self, peer: Peer) -> None:
        format = peer.format
        self._peer = peer
        self._reconnected_at = 0
        self._reconnect = format.codec((int, dict[int, bytes]))
        self.error: Codec = format.codec((ExceptionInfo,))
        """Of an error."""
        self.ids: Codec = format.codec((list[int],))
        """Of a list of numbers."""
        by_name: dict[str, SystemHandler] = {
            "$sys.Ok:1": self._ok,
            "$sys.Error:1": self._error,
            "$sys.M:0": self._match,
            "$sys.Cancel:0": self._cancel,
            "$sys.KeepAlive:1": self._keep_alive,
            "$sys.Reconnect:3": self._resume,
            "$sys.Handshake:1": self._second_handshake,
        }
        for name, handler in peer.streams.handlers.items():
            by_name[name] = _without_headers(handler)
        for name, extend in peer.hub.system_extensions.items():
            by_name[name] = extend(peer)
        self.handlers: dict[Hashable, SystemHandler] = {
            format.method_key(name): handler for name, handler in by_name.items()
        }
        """By method key."""
        self.in_order: frozenset[Hashable] = frozenset(
            map(format.method_key, ("$sys.Cancel:0", "$sys.Reconnect:3"))
        )
        """Those that must not overtake calls that came in before them."""

    def reconcile(self, calls: Sequence[OutboundCall]) -> None:
        """Ask the other side, which is the one of the last connection, which calls it knows; those
        that are not mentioned are over for it.
        """
        stages: dict[int, list[int]] = {}
        for call in calls:
            stages.setdefault(call.stage, []).append(call.id)
        peer = self._peer
        assert peer.remote is not None
        arguments = self._reconnect.encode(
            (
                peer.remote.index,
                {stage: encode_increasing(sorted(ids)) for stage, ids in stages.items()},
            )
        )
        peer.start(Reconciliation(peer, _ReconnectMethod(peer.format), arguments, calls))

    # -- what the other side says

    def _ok(self, related_id: int, arguments: bytes, headers: Headers) -> None:
        if headers:
            self._peer.note_headers(headers)
        call = self._peer.outbound.get(related_id)
        if call is not None:
            call.answered(arguments, headers)

    def _error(self, related_id: int, arguments: bytes, headers: Headers) -> None:
        call = self._peer.outbound.get(related_id)
        if call is not None:
            try:
                info = self.error.decode_one(arguments)
            except Exception as error:
                call.fail(error)
            else:
                call.refused(info)

    def _match(self, related_id: int, arguments: bytes, headers: Headers) -> None:
        if headers:
            self._peer.note_headers(headers)
        call = self._peer.outbound.get(related_id)
        if call is not None:
            call.matched()

    def _cancel(self, related_id: int, arguments: bytes, headers: Headers) -> None:
        call = self._peer.inbound.get(related_id)
        if call is not None:
            call.cancel()

    def _keep_alive(self, related_id: int, arguments: bytes, headers: Headers) -> None:
        peer = self._peer
        if peer.link is not None:
            peer.link.note_keep_alive()
        if len(arguments) > _LONGEST_ID * (peer.limits.max_objects + 1):
            peer.complain("a keep-alive of %d bytes is ignored.", len(arguments))
            return
        try:
            ids = self.ids.decode_one(arguments)
        except RpcError as error:
            peer.complain("a keep-alive can't be read: %s", error)
            return
        peer.streams.note_keep_alive(ids)

    def _second_handshake(self, related_id: int, arguments: bytes, headers: Headers) -> None:
        self._peer.complain("it introduced itself twice on one connection; ignored.")

    def _resume(self, related_id: int, arguments: bytes, headers: Headers) -> None:
        peer = self._peer
        try:
            if len(arguments) > _LONGEST_ID * (peer.limits.max_inbound_calls + 1):
                raise LimitError("These are more calls than Limits.max_inbound_calls allows.")
            index, stages = self._reconnect.decode(arguments)
            current = peer.connection_index
            if index != current or self._reconnected_at == index:
                raise too_late_for_reconnect(f"it is number {current}, asked for was {index}")
            asked = {stage: decode_increasing(ids) for stage, ids in stages.items()}
        except (RpcError, ValueError, TypeError) as error:
            peer.send_error(related_id, error)
            return
        self._reconnected_at = index
        unknown: list[int] = []
        for stage, ids in asked.items():
            for id in ids:
                call = peer.inbound.get(id)
                if call is None:
                    unknown.append(id)
                else:
                    call.resume(stage)
            peer.earlier_calls.difference_update(ids)
        # What the other side does not mention it has given up, and could not, or can't have, said.
        for id in peer.earlier_calls:
            if (call := peer.inbound.get(id)) is not None:
                call.cancel()
        peer.earlier_calls = set()
        result = peer.format.codec((bytes,)).encode_one(encode_increasing(sorted(unknown)))
        peer.send_system("$sys.Ok:1", related_id, result)


class Reconciliation(OutboundCall):
    """The call with which a client finds out what the server still knows."""

    __slots__ = ("_calls",)

    def __init__(
        self,
        peer: Peer,
        method: OutboundMethod,
        arguments: bytes,
        calls: Sequence[OutboundCall],
    ) -> None:
        super().__init__(peer, method, arguments)
        self._calls = calls

    def answered(self, arguments: bytes, headers: Headers) -> None:
        self._finish()
        try:
            if len(arguments) > _LONGEST_ID * (len(self._calls) + 1):
                raise LimitError("these are more calls than were asked for")
            unknown = set(decode_increasing(self.method.decode(self.peer, arguments)))
        except Exception as error:
            _log.warning("%r: what it does not know can't be read: %s", self.peer, error)
            self._resolve(None)
        else:
            self._resolve(unknown)

    def refused(self, info: ExceptionInfo) -> None:
        self._finish()
        _log.info("%r does not resume calls: %s", self.peer, info.message)
        self._resolve(None)

    def resumed(self, is_known: bool) -> None:
        self._finish()  # the next connection has a round of its own

    def peer_changed(self) -> None:
        self._finish()

    def fail(self, error: BaseException) -> None:
        self._finish()

    def _resolve(self, unknown: set[int] | None) -> None:
        """Let the calls know; None where all of them are unknown."""
        outbound = self.peer.outbound
        for call in self._calls:
            if outbound.get(call.id) is call:
                call.resumed(is_known=unknown is not None and call.id not in unknown)


class _ReconnectMethod(OutboundMethod):
    __slots__ = ()

    def __init__(self, format: Format) -> None:
        self.name = "$sys.Reconnect:3"
        self.flags = 0
        self.timeouts = Timeouts()
        self.arguments = format.codec((int, dict[int, bytes]))
        self.result = format.codec((bytes,))
        self.write = format.writer(self.name)


def _without_headers(handler: Callable[[int, bytes], None]) -> SystemHandler:
    return lambda related_id, arguments, headers: handler(related_id, arguments)
