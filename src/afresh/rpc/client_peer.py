"""The dialling end: a peer that connects, and connects again, for as long as it is open."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING

from afresh.errors import (
    ConnectionClosedError,
    DisconnectedError,
    PeerClosedError,
    RejectedError,
    UnknownFormatError,
)
from afresh.primitives.clock import current_clock
from afresh.primitives.freshness import LONGEST, Freshness
from afresh.primitives.tasks import start_background

from .freshness import Headers, token_in
from .handshake import Handshake
from .link import Link
from .peer import ConnectionState, Peer
from .proof import ProofMaker, client_id_of
from .transports.connection import CLOSE_UNKNOWN_FORMAT, Connector, ConnectRequest

if TYPE_CHECKING:
    from .formats import Format
    from .hub import RpcHub

__all__ = ["ClientPeer"]

_log = logging.getLogger("afresh.rpc")

_FORBIDDEN = 403
_FINAL = frozenset({400, 401, _FORBIDDEN})
"""HTTP statuses that the same request gets again; others come from servers that are starting or
stopping, or have too much to do."""


class ClientPeer(Peer):
    """A peer that dials when it is first used, and again whenever the connection is lost.

    Args:
        hub: what it belongs to.
        url: whom to dial.
        format: the format to use.
        connector: makes connections.
    """

    __slots__ = (
        "_connector",
        "_dialled",
        "_failures",
        "_hurries",
        "_may_be_known",
        "_nap",
        "_proof",
        "_task",
        "_waiters",
        "confirmed",
        "is_kept",
        "parameters",
        "url",
    )

    def __init__(
        self,
        hub: RpcHub,
        url: str,
        format: Format,
        connector: Connector,
        *,
        is_backend: bool = False,
    ) -> None:
        super().__init__(hub, format, is_backend=is_backend)
        self.url: str = url
        self.parameters: dict[str, str] = {}
        """Further parameters to dial with, such as `session`."""
        self.is_kept: bool = False
        """Whether to dial for ever, also while nobody uses it."""
        self._connector = connector
        self._proof = ProofMaker(client_id_of(self.id))
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._nap: asyncio.Future[None] | None = None
        self._hurries = False
        self._waiters: list[asyncio.Future[None]] = []
        self._may_be_known = False
        self._dialled: Link | None = None
        self.confirmed: Freshness = Freshness()
        """What the other side is known to have applied."""

    @property
    def address(self) -> str:
        """Whom it dials."""
        return self.url

    def wanted(self) -> None:
        """Begin to dial, unless that is under way."""
        if self._task is None and not self.is_closed:
            self._task = start_background(self._stay_connected, name=f"afresh rpc {self.url}")

    async def connect(self) -> None:
        """Return when there is a connection.

        Raises:
            RejectedError: the server refuses this client for good.
            UnknownFormatError: the server does not speak the format.
            PeerClosedError: the peer was closed.
        """
        if self.link is not None:
            return
        if self.is_closed:
            raise self._closed_because()
        self.wanted()
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)

    def reconnect_now(self) -> None:
        """Try again at once, or as soon as the attempt under way has failed; does nothing while
        there is a connection.
        """
        if self.link is not None:
            return
        if self._nap is None:
            self._hurries = True
        else:
            self._wake()

    def disconnect(self) -> None:
        """Drop the connection; the next one is made at once. For tests, and after a change of the
        network that would only be noticed later.
        """
        if self.link is not None:
            self._hurries = True
            self.link.close(DisconnectedError("The connection was dropped on purpose."))

    # -- freshness

    def note_headers(self, headers: Headers) -> None:
        seen = self.hub.seen
        token = token_in(headers)
        if seen is None or not token:
            return
        try:
            freshness = Freshness.parse(token)
        except ValueError as error:
            self.complain("what it has applied can't be read: %s", error)
            return
        self.confirmed = self.confirmed.merged(freshness).latest(LONGEST)
        seen.learn(freshness)
        if self.unconfirmed:
            seen.update(self)

    def with_freshness(self, headers: Headers) -> Headers:
        return headers if self.hub.seen is None else self.hub.seen.headers(self, headers)

    # -- inside

    def _wake(self) -> None:
        if self._nap is not None and not self._nap.done():
            self._nap.set_result(None)

    async def _stay_connected(self) -> None:
        while not self.is_closed:
            started = current_clock().now()
            try:
                error = await self._connection()
            except Exception as failure:
                if self._is_final(failure):
                    _log.error("%s refuses this client: %s", self.url, failure)
                    self.close(failure)
                    return
                error = failure
                was_long = False
            else:
                lived = current_clock().now() - started
                was_long = lived >= self.limits.premature_disconnect
            if self._is_unused():
                self.close(PeerClosedError(f"{self!r} was away for long, and nobody used it."))
                return
            self._failures = 0 if was_long else self._failures + 1
            delay = 0.0 if was_long else self.limits.reconnect_delays[self._failures]
            _log.info("%s: no connection (%s); trying again in %.1f s.", self.url, error, delay)
            if not self.is_closed:
                await self._pause(delay, error)

    def _is_unused(self) -> bool:
        if self.is_kept or self.outbound:
            return False
        away = current_clock().now() - self.connection_state.since
        return away >= self.limits.unused_peer_life

    def _is_final(self, error: Exception) -> bool:
        """Whether an attempt that failed so would fail again and again."""
        if not isinstance(error, RejectedError):
            return isinstance(error, UnknownFormatError)
        if error.status == _FORBIDDEN and self._may_be_known:
            # A server that was cut off before it could give away the secret that it wants proved,
            # or that has another one by now, takes this client only for another one.
            self._become_another()
            return False
        return error.status in _FINAL

    def _become_another(self) -> None:
        self.id: uuid.UUID = uuid.uuid4()
        self._proof = ProofMaker(client_id_of(self.id))
        self._may_be_known = False

    async def _pause(self, delay: float, error: Exception) -> None:
        if self._hurries:
            self._hurries = False
            await asyncio.sleep(0)
            return
        now = current_clock().now()
        since = now if self.connection_state.is_connected else self.connection_state.since
        self._nap = self.loop.create_future()
        nap = self._nap
        timer = current_clock().call_later(delay, self._wake)
        self._change_state(ConnectionState(False, since, now + delay, error))
        try:
            await nap
        finally:
            timer.cancel()
            self._nap = None
        self._change_state(ConnectionState(False, since, None, error))

    async def _connection(self) -> Exception:
        """Make a connection, and return when it is gone: why."""
        link = self._dialled = _ClientLink(self)
        request = ConnectRequest(
            client_id_of(self.id),
            self.format.key,
            self._proof.make(),
            self.parameters,
            self.limits.connect_timeout,
        )
        try:
            await self._connector(link, request)
            error = await link.ended
        except (RejectedError, UnknownFormatError):
            raise
        except BaseException:
            self._may_be_known = True
            raise
        finally:
            link.close(PeerClosedError(f"{self!r} was closed."))
        self._may_be_known = True
        if isinstance(error, (RejectedError, UnknownFormatError)):
            raise error
        if isinstance(error, ConnectionClosedError) and error.code == CLOSE_UNKNOWN_FORMAT:
            raise UnknownFormatError(
                f"The server does not speak {self.format.key!r}: {error.reason}"
            )
        if not link.was_connected:
            raise error
        return error

    def connected(self, link: Link, handshake: Handshake) -> None:
        self._proof.learn(handshake.secret)
        self._hurries = False
        if self.remote is None or self.remote.hub_id != handshake.hub_id:
            self.confirmed = Freshness()
            if self.hub.seen is not None:
                self.hub.seen.update(self)
        super().connected(link, handshake)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def close(self, error: Exception | None = None) -> None:
        super().close(error)
        self._wake()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error or self._closed_because())
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def wait_closed(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            await asyncio.wait((self._task,))
        await super().wait_closed()

    def _links_there(self) -> Iterable[Link]:
        return () if self._dialled is None else (self._dialled,)

    def _closed_because(self) -> Exception:
        error = self.connection_state.error
        if isinstance(error, (RejectedError, UnknownFormatError)):
            return error
        return PeerClosedError(f"{self!r} is closed.")


class _ClientLink(Link):
    __slots__ = ("ended", "was_connected")

    def __init__(self, peer: ClientPeer) -> None:
        super().__init__(peer)
        self.ended: asyncio.Future[Exception] = peer.loop.create_future()
        self.was_connected: bool = False

    def _take_handshake(self, frame: bytes) -> None:
        super()._take_handshake(frame)
        self.was_connected = self.was_connected or self.is_connected

    def _end(self, error: Exception) -> None:
        super()._end(error)
        if not self.ended.done():
            self.ended.set_result(error)
