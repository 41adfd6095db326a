"""`OperationLogReader`: has this host apply what other hosts have committed.

It follows the log by index, looks again for indexes that were missing, and fights failures; what
applying means is left to the callable it is given. What it knows is in memory only: a host that
starts has nothing cached that could be stale.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sqlalchemy import Executable, bindparam, case, func, null, select, text

from afresh.errors import LogDecodeError
from afresh.operations.logged import LoggedOperation
from afresh.primitives.clock import current_clock
from afresh.primitives.delays import RetryDelays

from .applying import Apply, Workers
from .backlog import Backlog
from .moments import moment
from .options import OperationLogOptions
from .telemetry import find_recorder
from .worker import Worker, fetch

if TYPE_CHECKING:
    from ..shards import Shard
    from ..tables import LogTables
    from ..watchers import Watcher

__all__ = ["OperationLogReader"]

_log = logging.getLogger("afresh.db.logs")

_CHUNK = 256
"""How many missing indexes are looked for with one statement."""
_LOOK_BACK_ROWS = 1024
"""How many rows before its cursor a host that starts, or has lost rows, searches for gaps."""
_MOST_CHARACTERS = 16_000_000
"""Batches grow as long as they hold less than about so much text."""
_SAFE_PAUSE = 60.0
"""No trimmer deletes rows as young as this, in seconds."""
_WARN_EVERY = 10.0

_snapshot = text(
    "SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint), "
    "CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint)"
)


class OperationLogReader(Worker):
    """Hands each operation of other hosts to a callable, once it is committed.

    Each is handed over once, and again only if the callable raised. An error never stops the
    reader.

    Args:
        shard: where the log is.
        tables: the tables of the log.
        apply: applies an operation; when it raises it is called again later.
        abandon: is called, with the error, for an operation that could not be applied in the end,
            or can't be read.
        lost_coverage: is called, with a text that says what happened, when rows were deleted before
            this host had read them.
        host_id: of this host, whose own operations are not handed over.
        watcher: tells when to look.
        options: how often to look, and how hard to try.
    """

    def __init__(
        self,
        shard: Shard,
        tables: LogTables,
        apply: Apply,
        *,
        abandon: Callable[[LoggedOperation, BaseException], object],
        lost_coverage: Callable[[str], object],
        host_id: str,
        watcher: Watcher,
        options: OperationLogOptions | None = None,
    ) -> None:
        self.options: OperationLogOptions = options or OperationLogOptions()
        super().__init__(
            f"operation log{f' of {shard.name}' if shard.name else ''}",
            watcher.signal("operations", shard.name),
        )
        self.applied: int = 0
        """How many operations of other hosts were applied."""
        self.abandoned: int = 0
        """How many were given up."""
        self.lost: int = 0
        """How often rows were deleted before they were read."""
        self._shard = shard
        self._abandon = abandon
        self._lost_coverage = lost_coverage
        self._workers = Workers(
            apply,
            self._note_done,
            concurrency=self.options.concurrency,
            timeout=self.options.apply_timeout,
        )
        self._backlog = Backlog(self.options, lambda: current_clock().now())
        self._periods = RetryDelays.fixed(self.options.check_period)
        self._cursor = 0
        self._is_at_beginning = False
        self._reads = 0
        self._last_read = 0.0
        self._lag = 0.0
        self._committed_before = 0
        self._path = "batch"
        self._warned_at = -_WARN_EVERY
        self._late = 0
        self._waiters: dict[asyncio.Future[None], tuple[int, int]] = {}
        self._statements(tables, host_id)

    def _statements(self, tables: LogTables, host_id: str) -> None:
        columns = tables.operations.c
        self._index = columns["index"]
        own = columns.host_id == host_id
        # Rows of this host only count, so their texts stay where they are.
        texts = [
            case((own, null()), else_=column).label(column.name)
            for column in (columns.command, columns.effects)
        ]
        logged = select(self._index, columns.uuid, columns.host_id, columns.logged_at, *texts)
        self._host_id = host_id
        self._batch = (
            logged.where(self._index >= bindparam("cursor"))
            .order_by(self._index)
            .limit(bindparam("size"))
        )
        self._some = logged.where(self._index.in_(bindparam("indexes", expanding=True)))
        self._older = select(self._index).where(self._index < bindparam("cursor")).limit(1)
        self._ends = select(
            select(func.max(self._index)).scalar_subquery(),
            select(func.min(self._index))
            .where(columns.logged_at >= moment(-self.options.look_back))
            .scalar_subquery(),
        )
        self._before = (
            select(self._index)
            .where(self._index < bindparam("cursor"))
            .order_by(self._index.desc())
            .limit(_LOOK_BACK_ROWS)
        )

    # -- life

    async def prepare(self) -> None:
        ((newest, recent),) = await self._fetch(self._ends)
        self._is_at_beginning = newest is None
        self._committed_before = newest or 0
        self._cursor = recent or (newest or 0) + 1
        before = [row[0] for row in await self._fetch(self._before, cursor=self._cursor)]
        seen = [*reversed(before), self._cursor]
        if len(before) < _LOOK_BACK_ROWS and seen[0] <= _LOOK_BACK_ROWS:
            seen.insert(0, 0)  # nothing was trimmed yet
        for index, following in pairwise(seen):
            if following > index + 1:
                self._backlog.add_gaps(index + 1, following)
        self._last_read = current_clock().now()

    async def aclose(self) -> None:
        """Stop; whoever waits for an index is told that it was not reached."""
        await super().aclose()
        await self._workers.aclose()
        for waiter in self._waiters:
            _end(waiter)

    # -- what is applied

    async def wait_for(self, index: int, timeout: float) -> bool:
        """Wait until this host has applied everything that is committed up to an index.

        That is everything that was committed when this was called. Operations of this host count
        as applied.

        Args:
            index: of an operation that is committed.
            timeout: the longest wait, in seconds; 0 only looks at what is known.

        Returns:
            Whether it is so; false when the time ran out first, or the reader was closed.
        """
        gaps = self._backlog.gaps
        if self._is_applied(index) and not (gaps and min(gaps) <= index):
            return True
        if timeout <= 0 or not self.is_running:
            return False
        # A read that goes on may have begun too early.
        needed = self._reads + (2 if self.is_working else 1)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = index, needed
        timer = current_clock().call_later(timeout, lambda: _end(waiter))
        self.signal.set()
        try:
            await waiter
        finally:
            timer.cancel()
            del self._waiters[waiter]
        return self._reads >= needed and self._is_applied(index)

    def _is_applied(self, index: int) -> bool:
        """Whether all that was seen up to an index is applied, and the index itself was seen."""
        backlog = self._backlog
        return (
            index < self._cursor
            and index not in backlog.gaps
            and not any(each <= index for each in backlog.failures)
            and not any(each <= index for each in self._workers.in_flight)
        )

    def _answer(self) -> None:
        for waiter, (index, needed) in self._waiters.items():
            if self._reads >= needed and self._is_applied(index):
                _end(waiter)

    def health(self) -> dict[str, Any]:
        """Return how the reader is doing.

        Returns:
            `cursor`, the index from which it reads on; `lag`, the seconds between commit and
            application of what was applied last; `read`, the seconds since the log was last read;
            how many operations were `applied` and `abandoned`, are `applying` now, and are
            `failing`, to be tried again; how many indexes are `missing`; how often rows were
            `lost`; the `error` of the last read, None if it went well.
        """
        return {
            "cursor": self._cursor,
            "lag": round(self._lag, 3),
            "read": round(current_clock().now() - self._last_read, 3),
            "applied": self.applied,
            "applying": len(self._workers.in_flight),
            "failing": len(self._backlog.failures),
            "missing": len(self._backlog.gaps),
            "abandoned": self.abandoned,
            "lost": self.lost,
            "error": self.error,
        }

    # -- reading

    async def work(self, *, signalled: bool) -> float:
        # First, so that an index found to be missing right below is not looked for once more.
        await self._look_for_gaps(signalled=signalled)
        await self._read_batches()
        await self._run(self._backlog.take_due_failures(), "retry")
        self._reads += 1
        self._last_read = current_clock().now()
        self._answer()
        return min(self._periods[1], self._backlog.next_due() - self._last_read)

    async def _read_batches(self) -> None:
        options, recorder = self.options, find_recorder()
        size = options.batch
        while True:
            began = time.perf_counter()
            try:
                rows = await self._fetch(self._batch, cursor=self._cursor, size=size)
            except Exception:
                if recorder is not None:
                    recorder.batch("operations", 0, time.perf_counter() - began, "error")
                raise
            if rows and rows[0][0] > self._cursor:
                await self._check_coverage(rows[0][0])
            cursor, operations = self._sort_out(rows)
            await self._run(operations, "batch")
            self._cursor = cursor
            if recorder is not None:
                recorder.batch("operations", len(rows), time.perf_counter() - began)
            if len(rows) < size:
                return
            # A log that grows as fast as it is read must not keep the gaps waiting.
            await self._look_for_gaps()
            # Reading costs about as much for many rows as for few, so a long log is read in long
            # batches; short ones at first, as nobody knows how large its rows are.
            characters = sum(len(row[4] or "") + len(row[5] or "") for row in rows)
            fitting = _MOST_CHARACTERS * size // max(characters, 1)
            size = max(1, min(2 * size, options.largest_batch, fitting))

    def _sort_out(self, rows: Sequence[Any]) -> tuple[int, list[LoggedOperation]]:
        """Return where to read on, and what is to be applied; note what is missing."""
        expected, own, operations = self._cursor, self._host_id, []
        for row in rows:
            index = row[0]
            if index != expected:
                self._note_gaps(expected, index)
            expected = index + 1
            if row[2] != own:
                operations.append(LoggedOperation(*row))
        if rows:
            self._is_at_beginning = False
        return expected, operations

    def _note_gaps(self, first: int, end: int) -> None:
        before = self._backlog.dropped
        if self._backlog.add_gaps(first, end) and not before:
            _log.warning(
                "The %s has more gaps than are kept track of, %d from %d on; the lowest are not "
                "looked for again.",
                self.name,
                end - first,
                first,
            )

    async def _check_coverage(self, first: int) -> None:
        """See whether rows were deleted before they were read."""
        if await self._fetch(self._older, cursor=self._cursor):
            return  # nobody deletes rows in the middle
        if self._is_at_beginning and current_clock().now() - self._last_read < _SAFE_PAUSE:
            return  # the first rows there are; what is missing was rolled back, or comes late
        self.lost += 1
        what = f"The {self.name} from {self._cursor} to {first - 1}, deleted before it was read,"
        _log.error("%s can't be applied; keep rows for longer than hosts may stall.", what)
        self._lost_coverage(what)
        self._backlog.clear()
        # Those right before the first row may be no loss at all, but still to be committed.
        self._cursor = max(self._cursor, first - _LOOK_BACK_ROWS)

    async def _look_for_gaps(self, *, signalled: bool = False) -> None:
        if not self._backlog.gaps:
            return
        wanted = max((index for index, _ in self._waiters.values()), default=-1)
        due = self._backlog.due_gaps(signalled=signalled, up_to=wanted)
        for start in range(0, len(due), _CHUNK):
            chunk = due[start : start + _CHUNK]
            oldest, horizon = 0, None
            if self._shard.dialect == "postgresql":
                ((oldest, horizon),) = await self._fetch(_snapshot)
            rows = await self._fetch(self._some, indexes=[gap.index for gap in chunk])
            for row in rows:
                del self._backlog.gaps[row[0]]
            for gap in chunk:
                if gap.index in self._backlog.gaps:
                    self._backlog.still_missing(gap, oldest, horizon)
            late = [LoggedOperation(*row) for row in rows if row[2] != self._host_id]
            await self._run(late, "gap")

    async def _run(self, operations: list[LoggedOperation], path: str) -> None:
        if operations:
            self._path = path
            await self._workers.run(operations, self.options.slow_after)

    async def _fetch(self, statement: Executable, **values: Any) -> Sequence[Any]:
        return await fetch(self._shard, statement, values)

    # -- outcomes

    def _note_done(self, logged: LoggedOperation, error: BaseException | None) -> None:
        if error is None:
            self.applied += 1
            self._backlog.failures.pop(logged.index, None)
            self._note_lag(logged)
        elif isinstance(error, LogDecodeError):  # which it will be the next time, too
            self._backlog.failures.pop(logged.index, None)
            self._give_up(logged, error)
        elif self._backlog.failed(logged, error):
            is_first = self._backlog.failures[logged.index].tries == 1
            _log.warning(
                "Operation %s of %s could not be applied, and is tried again: %r",
                logged.uuid,
                logged.host_id,
                error,
                exc_info=error if is_first else None,
            )
            if not self.is_working:
                self.signal.set()  # to look anew when the next thing is due
        else:
            self._give_up(logged, error)
        if self._waiters and not self.is_working:
            self._answer()

    def _give_up(self, logged: LoggedOperation, error: BaseException) -> None:
        self.abandoned += 1
        _log.error(
            "Operation %s of %s could not be applied, and is given up.",
            logged.uuid,
            logged.host_id,
            exc_info=error,
        )
        try:
            self._abandon(logged, error)
        except Exception:
            _log.exception("Giving up operation %s failed.", logged.uuid)

    def _note_lag(self, logged: LoggedOperation) -> None:
        self._lag = lag = max(time.time() - logged.logged_at.timestamp(), 0.0)
        recorder = find_recorder()
        if recorder is not None:
            recorder.operation_delay(self._shard.name, self._path, lag)
        if lag <= self.options.warn_above or logged.index <= self._committed_before:
            return
        now = current_clock().now()
        if now - self._warned_at < _WARN_EVERY:
            self._late += 1
            return
        _log.warning(
            "Operation %s of %s was applied %.1f s after its commit; so late, and not told of, "
            "were %d others before it.",
            logged.uuid,
            logged.host_id,
            lag,
            self._late,
        )
        self._warned_at, self._late = now, 0


def _end(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
