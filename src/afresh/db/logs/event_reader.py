"""`EventLogReader`: takes events that are due, and has them processed, side by side with other
hosts.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any

from afresh.primitives.clock import current_clock
from afresh.primitives.delays import RetryDelays
from afresh.primitives.tasks import start_background, uncancelled

from .event_log import ClaimedEvent, DeadEvent, EventLog
from .event_processing import EventProcessor, Outcome
from .options import EventLogOptions
from .telemetry import find_recorder
from .worker import Worker, patience

if TYPE_CHECKING:
    from afresh.commands import Commander
    from afresh.operations.codec import LogCodec

    from ..shards import Shard
    from ..tables import LogTables
    from ..watchers import Watcher

__all__ = ["EventLogReader"]

_SHORTEST_PAUSE = 0.001
_HELD_PAUSE = 0.05
"""Events may be due, and yet held by somebody who is just about to change them."""
_COUNT_EVERY = 60.0


class EventLogReader(Worker):
    """Processes events that are due, each on one host at a time.

    Args:
        shard: where the log is.
        tables: the tables of the log.
        commander: handles their commands.
        codec: reads their commands.
        host_id: of this host.
        watcher: tells when to look, and others when an event has become several.
        options: how often to look, and how hard to try.
    """

    def __init__(
        self,
        shard: Shard,
        tables: LogTables,
        commander: Commander,
        codec: LogCodec,
        *,
        host_id: str,
        watcher: Watcher,
        options: EventLogOptions | None = None,
    ) -> None:
        self.options: EventLogOptions = options or EventLogOptions()
        super().__init__(
            f"event log{f' of {shard.name}' if shard.name else ''}",
            watcher.signal("events", shard.name),
        )
        self.outcomes: dict[str, int] = {outcome.value: 0 for outcome in Outcome}
        """How many events became what on this host."""
        self._watcher = watcher
        self._log = EventLog(shard, tables, host_id)
        self._processor = EventProcessor(self._log, commander, codec, self.options)
        self._periods = RetryDelays.fixed(self.options.check_period)
        self._running: set[asyncio.Task[None]] = set()
        self._concurrency: int = self.options.concurrency
        connections = getattr(shard.write.pool, "size", int)()
        if connections > 1:  # of which commands of users need some, too; SQLite's one is shared
            self._concurrency = min(self._concurrency, connections // 2)
        self._lateness = 0.0
        self._dead = 0
        self._counted_at = -math.inf

    async def aclose(self) -> None:
        """Take no more events; wait a little for those in work, and give back the rest."""
        is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = current_clock().call_later(self.options.closing, lambda: _end(is_over))
        # At the same time: on SQLite, one that takes events may wait for one that processes them.
        stopped = asyncio.ensure_future(super().aclose())
        try:
            all_ended = asyncio.gather(stopped, *self._running, return_exceptions=True)
            either: set[asyncio.Future[Any]] = {all_ended, is_over}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            self._cancel()
        await stopped
        self._cancel()  # what was taken in the last moment
        if self._running:
            await asyncio.wait(self._running)

    def _cancel(self) -> None:
        for task in self._running:
            task.cancel()

    # -- events that failed

    async def dead_events(self, limit: int = 100) -> list[DeadEvent]:
        """Return events whose last attempt has failed, the latest first.

        Args:
            limit: how many at most.
        """
        return await self._log.dead_events(limit)

    async def requeue(self, uuid: str) -> bool:
        """Have a dead event processed after all, with all its attempts.

        Returns:
            Whether there was a dead event of that name.
        """
        is_there = await self._log.requeue(uuid)
        if is_there:
            self._counted_at = -math.inf
            self._watcher.changed("events", self._log.shard.name)
        return is_there

    async def drop(self, uuid: str) -> bool:
        """Delete an event that is dead, or waits; what its handler is doing now is undone.

        Returns:
            Whether there was such an event of that name.
        """
        is_there = await self._log.drop(uuid)
        self._counted_at = -math.inf
        return is_there

    def health(self) -> dict[str, Any]:
        """Return how the reader is doing.

        Returns:
            How many events this host is `processing`, and how many became what: `processed`,
            `split` (into one for each handler), `failed` (to be tried again), `unhandled` (left to
            other hosts), `lost` (to another host, or given back); how many are `dead` in the log;
            the `lateness` of the oldest that is due, in seconds; the `error` of the last look at
            the log, None if it went well.
        """
        return {
            **self.outcomes,
            "processing": len(self._running),
            "dead": self._dead,
            "lateness": round(self._lateness, 3),
            "error": self.error,
        }

    # -- taking events

    async def work(self, *, signalled: bool) -> float:
        while (room := self._concurrency - len(self._running)) > 0:
            # Not to be torn apart, or events would wait for the end of a lease nobody knows of.
            if await uncancelled(self._take(room)) < room:
                break
        async with patience():
            outlook = await self._log.look()
        self._lateness = outlook.lateness
        now = current_clock().now()
        if now - self._counted_at >= _COUNT_EVERY:
            self._counted_at = now  # now, or what changes meanwhile would be missed
            async with patience():
                self._dead = await self._log.count_dead()
        pause = self._periods[1]
        if outlook.pause is not None and len(self._running) < self._concurrency:
            least = _SHORTEST_PAUSE if outlook.pause else _HELD_PAUSE
            pause = min(pause, max(outlook.pause, least))
        return pause

    async def _take(self, most: int) -> int:
        began = time.perf_counter()
        async with patience():
            events = await self._log.claim(most, self.options.lease)
        for event in events:
            name = f"afresh: event {event.uuid}"
            task = start_background(self._process(event), name=name)
            self._running.add(task)
            task.add_done_callback(self._note_end)
        recorder = find_recorder()
        if recorder is not None and events:
            recorder.batch("events", len(events), time.perf_counter() - began)
        return len(events)

    async def _process(self, event: ClaimedEvent) -> None:
        recorder = find_recorder()
        outcome = Outcome.LOST
        try:
            outcome = await self._processor.process(event)
        finally:
            self.outcomes[outcome.value] += 1
        if outcome is Outcome.SPLIT:
            self._watcher.changed("events", self._log.shard.name)
        elif outcome is not Outcome.PROCESSED:
            if outcome is Outcome.DEAD:
                self._counted_at = -math.inf
            self.signal.set()  # to look when it is due again
        if recorder is not None:
            path = "batch" if event.attempts == 1 else "reprocess"
            lag = max(time.time() - event.due_at.timestamp(), 0.0)
            recorder.event_delay(self._log.shard.name, path, lag)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if len(self._running) >= self._concurrency:
            self.signal.set()
        self._running.discard(task)


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
