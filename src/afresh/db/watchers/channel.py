"""Watchers that tell other hosts over a channel where each of them hears what any of them says.

Keeps the connection, sends, and reads what comes in. How to speak on a channel is left to each kind
of server: see `ChannelConnection`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import re
import secrets
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import ClassVar, Protocol, TypeAlias

import msgspec

from afresh.primitives.clock import current_clock
from afresh.primitives.delays import RetryDelays
from afresh.primitives.tasks import start_background

from .signal import Signal
from .watcher import LogKind, Watcher

__all__ = ["ChannelConnection", "ChannelWatcher", "channel_name"]

_log = logging.getLogger("afresh.db")

_DELAYS = RetryDelays.exponential(1, 10)
"""Before a lost connection is renewed. They begin anew once one has lasted for the longest."""

_FIRST_ATTEMPT = 3.0
"""How long `start()` waits for the connection, in seconds, before it lets the host go on."""

_KEEP_ALIVE = 15.0
"""A connection that was idle for this many seconds is checked."""

_PATIENCE = 5.0
"""What takes longer than this many seconds, of real time, will not work out any more."""

_LAST_WORDS = 1.0
"""How long `aclose()` waits for what is still to be sent, in seconds of real time."""

_LONGEST_MESSAGE = 4_000
"""PostgreSQL takes fewer than 8,000 bytes; a longer list of shards is sent as "all of them"."""

_Message: TypeAlias = tuple[str, list[tuple[LogKind, str]]]
"""Who says it, and which logs have grown; none means that any of them may have."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Message).decode


def channel_name(*parts: str) -> str:
    """Make a name that every host comes up with and no other database has.

    It holds letters, digits and underscores only, and no more than 63 of them, as PostgreSQL wants.

    Args:
        parts: what tells the database from others that are reached through the same server.
    """
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
    words = re.sub("[^A-Za-z0-9]+", "_", " ".join(parts)).strip("_")[:39]
    return "_".join(filter(None, ("afresh", words, digest)))


class ChannelConnection(Protocol):
    """A connection that listens on a channel until it is closed or lost."""

    async def send(self, message: str) -> None:
        """Send to all who listen, and return when the server has it."""

    async def check(self) -> None:
        """Make sure that both directions still work; raise when they do not."""

    async def aclose(self) -> None:
        """Let go of the connection, whatever its state."""


class _Line:
    """Notes that a connection is lost, so that whoever waits for it waits no longer."""

    def __init__(self, work: Signal) -> None:
        self._work = work
        self._reason: str | None = None
        self._timeout: asyncio.Timeout | None = None

    def lost(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
            self._work.set()
            if self._timeout is not None and not self._timeout.expired():
                self._timeout.reschedule(-math.inf)

    @contextlib.asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """Raise what ended the connection, at once, or that the server takes too long."""
        if self._reason is not None:
            raise ConnectionError(self._reason)
        try:
            async with asyncio.timeout(_PATIENCE) as self._timeout:
                yield
        except TimeoutError:
            raise ConnectionError(self._reason or "the server does not answer") from None
        finally:
            self._timeout = None


class ChannelWatcher(Watcher):
    """Base of watchers that tell other hosts over a channel.

    A lost connection is renewed, after 1 to 10 seconds, for as long as the watcher runs. Whenever
    there is a new one, all logs are read, since nobody knows what was said meanwhile. What this
    host has to say is kept until there is a connection to say it on; since that is only which logs
    have grown, it is soon said, and at most one message is under way at a time.

    Args:
        host_id: who sends, for people who look at the messages.
    """

    kind: ClassVar[str]
    """What `health()` calls it."""

    def __init__(self, *, host_id: str = "") -> None:
        super().__init__()
        self._host_id = host_id
        self._sender = ""
        self._pending: dict[tuple[LogKind, str], None] = {}
        self._work = Signal()
        self._attempted = Signal()
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False
        self._connected_at: float | None = None
        self._failures = 0
        self._error: str | None = None
        self._connections = 0
        self._sent = 0
        self._received = 0
        self._unreadable = 0

    @abstractmethod
    async def _connect(
        self, hear: Callable[[str | bytes], None], lost: Callable[[str], None]
    ) -> ChannelConnection:
        """Connect, and return once listening.

        Args:
            hear: takes each message, one's own ones included.
            lost: takes the reason why the connection is lost, as soon as that is known.
        """

    async def start(self) -> None:
        if self._task is not None:
            return
        # Made here: processes that are forked from one that has made the watcher are not the same.
        self._sender = f"{self._host_id}~{secrets.token_hex(6)}"
        self._is_closing = False
        self._attempted.clear()
        self._task = start_background(self._run, name=f"{self.kind} watcher")
        await self._attempted.wait(_FIRST_ATTEMPT)

    async def aclose(self) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        self._is_closing = True
        self._work.set()
        if self._connected_at is not None:
            await asyncio.wait([task], timeout=_LAST_WORDS)
        task.cancel()
        await asyncio.wait([task])

    def health(self) -> dict[str, object]:
        """How the watcher is doing; see `Watcher.health`.

        Returns:
            Beside `kind` and `connected`: `error`, why there is no connection; and how many
            `connections` were made, and messages `sent`, `received` from others, and `unreadable`.
        """
        return {
            "kind": self.kind,
            "connected": self._connected_at is not None,
            "error": self._error,
            "connections": self._connections,
            "sent": self._sent,
            "received": self._received,
            "unreadable": self._unreadable,
        }

    def _tell(self, kind: LogKind, shard: str) -> None:
        self._pending[kind, shard] = None
        self._work.set()

    async def _run(self) -> None:
        while not self._is_closing:
            try:
                await self._converse()
            except asyncio.CancelledError:
                # Ours, or one that the library let out when it ended a connection.
                if self._task is None or self._task.cancelling():
                    raise
                self._note_failure(ConnectionError("the connection was given up"))
            except Exception as error:  # whatever the library raises, the host goes on
                self._note_failure(error)
            self._connected_at = None
            self._attempted.set()
            if not self._is_closing:
                await current_clock().sleep(_DELAYS[self._failures])

    async def _converse(self) -> None:
        """Connect, and send what there is to be sent, until the connection is lost."""
        line = _Line(self._work)
        async with line.patience():
            connection = await self._connect(self._hear, line.lost)
        try:
            self._note_connection()
            while not self._is_closing or self._pending:
                is_idle = not await self._work.wait(_KEEP_ALIVE)
                self._work.clear()
                async with line.patience():
                    if self._pending:
                        await self._send(connection)
                    elif is_idle:
                        await connection.check()
        finally:
            with contextlib.suppress(Exception):  # it may be broken in any way
                async with asyncio.timeout(_LAST_WORDS):
                    await connection.aclose()

    async def _send(self, connection: ChannelConnection) -> None:
        pending, self._pending = self._pending, {}
        message = _encode((self._sender, list(pending)))
        if len(message) > _LONGEST_MESSAGE:
            message = _encode((self._sender, ()))
        try:
            await connection.send(message.decode())
        except BaseException:
            self._pending = pending | self._pending
            raise
        self._sent += 1

    def _hear(self, message: str | bytes) -> None:
        try:
            sender, topics = _decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Of a newer version, perhaps: something has happened, at least.
            self._unreadable += 1
            self._wake_all()
            return
        if sender == self._sender:
            return
        self._received += 1
        for kind, shard in topics or list(self._signals):
            self._wake(kind, shard)

    def _note_connection(self) -> None:
        if self._connections or self._failures:
            _log.info("The %s watcher is connected again.", self.kind)
        self._connected_at = current_clock().now()
        self._connections += 1
        self._error = None
        self._attempted.set()
        self._work.set()  # something may have been left from the connection before
        self._wake_all()

    def _note_failure(self, error: Exception) -> None:
        lasted = 0.0 if self._connected_at is None else current_clock().now() - self._connected_at
        self._failures = 1 if lasted >= _DELAYS.maximum else self._failures + 1
        self._error = f"{type(error).__name__}: {error}"
        _log.log(
            logging.WARNING if self._failures == 1 else logging.DEBUG,
            "The %s watcher has no connection (%s) and goes on trying; until then, what other "
            "hosts commit is found by polling. Check that the server is up and its address right.",
            self.kind,
            self._error,
        )
