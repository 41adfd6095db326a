"""Processes one event: runs its command, and writes down what became of it.

The handler's own transaction marks the event as processed; only where a handler uses none is that
done afterwards. Which event is next is left to the reader.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from afresh.errors import HandlerNotFoundError, LeaseLostError, LogDecodeError
from afresh.operations.pipeline import COMMIT_GUARD
from afresh.primitives.clock import current_clock
from afresh.primitives.delays import RetryDelays
from afresh.primitives.tasks import start_background, uncancelled
from afresh.primitives.transience import retry_delay_of
from afresh.rpc.transports.deadline import Deadline

from .event_log import ClaimedEvent, EventGuard, EventLog
from .options import EventLogOptions
from .worker import patience

if TYPE_CHECKING:
    from afresh.commands import Commander, CommandOf
    from afresh.operations.codec import LogCodec

__all__ = ["EventProcessor", "Outcome"]

_log = logging.getLogger("afresh.db.logs")

_RENEW_AFTER = 0.6
"""Of a lease. The later, the longer a handler's transaction may have its snapshot; what is left has
to do for a few tries."""
_RENEWALS = RetryDelays.exponential(0.25, 2)
_RECORDS = RetryDelays.exponential(0.25, 5)


class Outcome(enum.Enum):
    """What became of an event."""

    PROCESSED = "processed"
    SPLIT = "split"
    """There is one for each handler now."""
    FAILED = "failed"
    """It is tried again later."""
    DEAD = "dead"
    UNHANDLED = "unhandled"
    """This host can't handle it, another one may."""
    LOST = "lost"
    """It was no longer this host's, or nobody knows."""


class EventProcessor:
    """Processes events of a log.

    Args:
        log: where they are.
        commander: handles their commands.
        codec: reads their commands.
        options: how hard to try.
    """

    def __init__(
        self, log: EventLog, commander: Commander, codec: LogCodec, options: EventLogOptions
    ) -> None:
        self._log = log
        self._commander = commander
        self._codec = codec
        self._options = options
        self._retries = RetryDelays.exponential(options.retry, options.longest_retry, 2)
        self._unknown = RetryDelays.fixed(options.unknown_retry)
        self._told: set[str] = set()

    async def process(self, event: ClaimedEvent) -> Outcome:
        """Process an event; raises nothing but cancellation, after giving the event back."""
        guard = EventGuard(self._log, event)
        try:
            async with _Lease(self._log, event, self._options.lease, guard):
                return await self._process(event, guard)
        except asyncio.CancelledError:
            if not guard.is_used:
                await uncancelled(self._give_back(event))
            raise

    async def _process(self, event: ClaimedEvent, guard: EventGuard) -> Outcome:
        options = self._options
        if event.attempts > options.attempts:  # hosts died of it, or it would have been noted
            return await self._bury(event, "Hosts ended while they processed it.")
        try:
            command = self._codec.decode(event.value)
            branches = self._branches(command, event)
        except LogDecodeError as error:
            if error.tag and self._commander.registry.type_of(error.tag) is None:
                return await self._leave(event, error)
            return await self._fail(event, error)
        except HandlerNotFoundError as error:
            return await self._leave(event, error)
        except Exception as error:
            return await self._fail(event, error)
        if len(branches) > 1:
            is_split = await self._record(lambda: self._log.split(event, branches))
            return Outcome.SPLIT if is_split else Outcome.LOST
        chain = branches[0] if branches else event.chain
        try:
            async with Deadline(
                options.timeout, f"The event was not processed within {options.timeout} seconds."
            ):
                await self._commander.call(
                    command, outermost=True, chain=chain, items={COMMIT_GUARD: guard}
                )
        except LeaseLostError as error:
            _log.warning("%s", error)
            await self._give_back(event)
            return Outcome.LOST
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            if not guard.is_used:
                return await self._fail(event, error)
            _log.warning("The event %s was processed, and failed then.", event.uuid)
        if guard.is_used or await self._record(lambda: self._log.mark_processed(event)):
            return Outcome.PROCESSED
        await self._give_back(event)
        return Outcome.LOST

    def _branches(self, command: CommandOf[Any], event: ClaimedEvent) -> tuple[str, ...]:
        """Return the handlers that an event for all of them is still to be given to.

        Raises:
            HandlerNotFoundError: this host has no handler for it.
        """
        chain = self._commander.chain_of(type(command))
        if chain.branches is None:
            if chain.final is None:
                raise HandlerNotFoundError(f"No handler takes {type(command).__qualname__} here.")
            return ()
        if event.chain is None:
            return tuple(chain.branches)
        if event.chain not in chain.branches:
            raise HandlerNotFoundError(
                f"{event.chain!r} is no handler of {type(command).__qualname__} here."
            )
        return ()

    # -- what became of it

    async def _fail(self, event: ClaimedEvent, error: BaseException) -> Outcome:
        told = f"{type(error).__qualname__}: {error}"
        if event.attempts >= self._options.attempts:
            return await self._bury(event, told)
        pause = max(self._retries[event.attempts], retry_delay_of(error) or 0.0)
        if not await self._record(lambda: self._log.postpone(event, told, pause)):
            await self._give_back(event)
            return Outcome.LOST
        _log.warning(
            "The event %s failed, for the %d. time, and is tried again in %.1f s: %s",
            event.uuid,
            event.attempts,
            pause,
            told,
        )
        return Outcome.FAILED

    async def _bury(self, event: ClaimedEvent, told: str) -> Outcome:
        if not await self._record(lambda: self._log.bury(event, told)):
            await self._give_back(event)
            return Outcome.LOST
        _log.error(
            "The event %s is dead after %d attempts; requeue() or drop() it: %s",
            event.uuid,
            event.attempts,
            told,
        )
        return Outcome.DEAD

    async def _leave(self, event: ClaimedEvent, error: Exception) -> Outcome:
        told = str(error)
        if told not in self._told:
            self._told.add(told)
            _log.warning("The event %s is left to other hosts: %s", event.uuid, told)
        pause = self._unknown[1]
        await self._record(lambda: self._log.postpone(event, told, pause, counts=False))
        return Outcome.UNHANDLED

    async def _give_back(self, event: ClaimedEvent) -> None:
        try:
            await _patiently(self._log.release(event))
        except Exception:
            _log.warning(
                "The event %s can't be given back; its lease will end.", event.uuid, exc_info=True
            )

    async def _record(self, change: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
        """Write down what became of an event, however often that takes within its lease.

        Returns:
            Whether the event was still this host's.
        """
        clock = current_clock()
        deadline, attempt = clock.now() + self._options.lease, 0
        while True:
            try:
                return await uncancelled(_patiently(change()))
            except Exception as error:
                attempt += 1
                pause = _RECORDS[attempt]
                if clock.now() + pause >= deadline:
                    _log.exception("What became of an event can't be written down.")
                    return False
                _log.warning("What became of an event can't be written down yet: %r", error)
                await clock.sleep(pause)


async def _patiently(change: Coroutine[Any, Any, bool]) -> bool:
    async with patience():
        return await change


def _is_cancelled() -> bool:
    """Whether somebody cancels this task, and not just the handler itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Lease:
    """Keeps an event for this host as long as the block runs, which is cancelled if it is lost."""

    def __init__(
        self, log: EventLog, event: ClaimedEvent, seconds: float, guard: EventGuard
    ) -> None:
        self._log = log
        self._event = event
        self._seconds = seconds
        self._guard = guard
        self._renewing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "coroutines of asyncio run in tasks"
        self._task = task
        # Few events take so long that there is anything to renew.
        self._timer = current_clock().call_later(self._seconds * _RENEW_AFTER, self._start)

    async def __aexit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])

    def _start(self) -> None:
        name = f"afresh: renew the lease of {self._event.uuid}"
        self._renewing = start_background(self._renew(), name=name)

    async def _renew(self) -> None:
        clock, failures = current_clock(), 0
        while True:
            try:
                is_kept = await _patiently(self._log.renew(self._event, self._seconds))
            except Exception as error:
                failures += 1
                _log.warning("The lease of %s can't be renewed: %r", self._event.uuid, error)
                await clock.sleep(_RENEWALS[failures])
                continue
            if not is_kept:
                if not self._guard.is_used:
                    _log.warning("The lease of the event %s was lost.", self._event.uuid)
                    self._task.cancel()
                return
            failures = 0
            await clock.sleep(self._seconds * _RENEW_AFTER)
