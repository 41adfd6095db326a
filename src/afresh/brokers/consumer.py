"""What happens to each message that comes: it becomes a command, or is put aside.

The broker is told that a message is done with when what its handler did is committed, never before.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from afresh.commands import Commander
from afresh.errors import EnvelopeError
from afresh.operations import COMMIT_GUARD
from afresh.primitives.delays import RetryDelays
from afresh.primitives.handlers import Handlers
from afresh.primitives.transience import Transience, retry_delay_of, transience_of

from .envelope import Envelope, read_envelope
from .events import EventTypes
from .handlers import EventMeta, ServiceHandler
from .inbox import DuplicateDelivery, Inbox, InboxGuard
from .telemetry import TraceOf, look
from .transport import Ack, DeadLetter, Disposition, IncomingMessage, Retry
from .watching import HandledMessage

__all__ = ["Consumer", "ConsumerOptions"]

_log = logging.getLogger("afresh.brokers")

_Outcome: TypeAlias = Literal["handled", "duplicate", "retried", "dead", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerOptions:
    """How events of other services are handled. All times are in seconds.

    Args:
        workers: how many events of a subscription are handled at once.
        prefetch: how many are fetched ahead; twice the workers unless given.
        deliveries: after so many failures an event is put aside.
        retries: the pauses before it is handled again.
        unknown: what becomes of events of types that nobody here handles.
        drain: how long handlers get to end when the app is closed.
        keep: how long the inbox remembers what was handled; longer than the broker may deliver a
            message once more.
        trace: how the span of a handler is related to that of the publication, where OpenTelemetry
            records: by a "link", or as that of its "parent".
    """

    workers: int = 8
    prefetch: int | None = None
    deliveries: int = 10
    retries: RetryDelays = field(default_factory=lambda: RetryDelays.exponential(1, 300, 2, 0.2))
    unknown: Literal["ignore", "dead_letter"] = "ignore"
    drain: float = 30.0
    keep: float = 14 * 24 * 3600.0
    trace: TraceOf = "link"


@dataclass(slots=True)
class ConsumerCounts:
    """How many messages became what."""

    handled: int = 0
    duplicate: int = 0
    retried: int = 0
    dead: int = 0
    unknown: int = 0


class Consumer:
    """Handles the messages of one subscription.

    Args:
        commander: handles the commands that deliveries are.
        types: what the events are.
        handlers: by the names of the types of events.
        group: as whom the messages are received.
        options: how they are handled.
        inbox: where it is noted what was handled; None for broadcasts, and without a database.
        watchers: are told of each message.
    """

    def __init__(
        self,
        commander: Commander,
        types: EventTypes,
        handlers: Mapping[str, Sequence[ServiceHandler]],
        group: str,
        options: ConsumerOptions,
        inbox: Inbox | None,
        watchers: Handlers[HandledMessage] | None = None,
    ) -> None:
        self.group: str = group
        self.counts: ConsumerCounts = ConsumerCounts()
        self._commander = commander
        self._types = types
        self._handlers = handlers
        self._options = options
        self._inbox = inbox
        self._watchers = watchers

    async def handle(self, message: IncomingMessage) -> Disposition:
        """Handle a message, and say what becomes of it."""
        recorder = look()
        if recorder is None:
            disposition, outcome = await self._handle(message)
        else:
            recording = recorder.receive(self.group, message, self._options.trace)
            ended, why = "cancel", None
            try:
                disposition, outcome = await self._handle(message)
                ended = outcome
                why = disposition.reason if isinstance(disposition, DeadLetter) else None
            finally:
                recording.end(ended, why)
        setattr(self.counts, outcome, getattr(self.counts, outcome) + 1)
        if self._watchers:
            self._watchers.call(HandledMessage(self.group, message, outcome))
        return disposition

    async def _handle(self, message: IncomingMessage) -> tuple[Disposition, _Outcome]:
        try:
            envelope = read_envelope(message)
            found = self._types.find(envelope.type)
            handlers = self._handlers.get(found[0].name, ()) if found is not None else ()
            if found is None or not handlers:
                return self._unknown(envelope)
            kind, version = found
            event = kind.decode(envelope.data, version)
        except EnvelopeError as error:
            _log.error("A message of %r is put aside: %s", message.destination, error)
            return DeadLetter(str(error), type(error).__name__), "dead"
        outcome: _Outcome = "duplicate"
        for handler in handlers:
            # Handlers of one group that take the same event are told apart.
            group = self.group if len(handlers) == 1 else f"{self.group}:{handler.id}"
            try:
                if await self._deliver(handler, group, envelope, event, message):
                    outcome = "handled"
            except Exception as error:
                return self._failed(handler, envelope, message, error)
        return Ack(), outcome

    def _unknown(self, envelope: Envelope) -> tuple[Disposition, _Outcome]:
        if self._options.unknown == "dead_letter":
            return DeadLetter(f"Nobody handles {envelope.type} here."), "unknown"
        return Ack(), "unknown"

    async def _deliver(
        self,
        handler: ServiceHandler,
        group: str,
        envelope: Envelope,
        event: Any,
        message: IncomingMessage,
    ) -> bool:
        """Hand an event to a handler; returns whether it had not handled it before."""
        meta = EventMeta(
            id=envelope.id,
            source=envelope.source,
            type=envelope.type,
            group=self.group,
            key=envelope.subject or message.key,
            time=envelope.time,
            deliveries=message.deliveries,
            attributes=envelope.extensions,
        )
        command = handler.deliver(event, meta)
        inbox = self._inbox
        if inbox is None:
            await self._commander.call(command, outermost=True)
            return True
        noted = {"group": group, "source": envelope.source, "message_id": envelope.id}
        if message.deliveries > 1 and await inbox.has(noted):
            return False
        guard = InboxGuard(inbox, noted)
        try:
            await self._commander.call(command, outermost=True, items={COMMIT_GUARD: guard})
        except DuplicateDelivery:
            return False
        except Exception:
            # What it wanted to do may be what it has done before.
            if await inbox.has(noted):
                return False
            raise
        return True

    def _failed(
        self,
        handler: ServiceHandler,
        envelope: Envelope,
        message: IncomingMessage,
        error: Exception,
    ) -> tuple[Disposition, _Outcome]:
        kind = transience_of(error)
        is_final = kind in {Transience.NON_TRANSIENT, Transience.TERMINAL}
        is_last = message.deliveries >= self._options.deliveries
        if is_final or (is_last and kind is not Transience.SUPER_TRANSIENT):
            _log.error(
                "%s is put aside, as %s failed with it %d times: %s",
                envelope.id,
                handler.id,
                message.deliveries,
                error,
            )
            reason = f"{handler.id}: {error} (delivery {message.deliveries})"
            return DeadLetter(reason, type(error).__qualname__), "dead"
        delay = max(self._options.retries[message.deliveries], retry_delay_of(error) or 0)
        if not math.isfinite(delay):
            delay = self._options.retries.maximum
        return Retry(delay), "retried"
