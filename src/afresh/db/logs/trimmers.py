"""`OperationTrimmer` and `EventTrimmer`: delete what no host needs any more.

Each host has its own; two that delete the same rows do no harm.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from sqlalchemy import Executable, bindparam, delete, select

from afresh.primitives.clock import current_clock
from afresh.primitives.delays import RetryDelays

from ..tables import EventState
from ..watchers import Signal
from .moments import moment
from .options import TrimOptions
from .worker import Worker, fetch, patience

if TYPE_CHECKING:
    from ..shards import Shard
    from ..tables import LogTables

__all__ = ["EventTrimmer", "OperationTrimmer"]

_CHUNK = 500
"""How many rows are named in one statement."""
_RETRIES = RetryDelays.exponential(15, 600)
_FIRST = 0.1
"""Of a period: when a host that has just started trims first."""


class Trimmer(Worker):
    """Deletes old rows of a log, batch by batch, in the background.

    Args:
        shard: where the log is.
        name: of the log.
        age: how old rows get, in seconds, unless the options say it.
        options: how old rows get, and how often to look.
    """

    def __init__(self, shard: Shard, name: str, age: float, options: TrimOptions | None) -> None:
        self.options: TrimOptions = options or TrimOptions()
        # Nobody tells a trimmer when to work, so the signal is never set.
        signal = Signal()
        super().__init__(f"trimming of the {name} log", signal, _RETRIES)
        self.age: float = age if self.options.age is None else self.options.age
        """How old rows get, in seconds."""
        self.trimmed: int = 0
        """How many rows were deleted."""
        self._shard = shard
        self._periods = RetryDelays.fixed(self.options.period, spread=0.25)
        self._is_first = True
        self._last_trim: float | None = None

    async def work(self, *, signalled: bool) -> float:
        if self._is_first:
            self._is_first = False
            return _FIRST * self._periods[1]
        while await self.trim_batch():
            pass
        self._last_trim = current_clock().now()
        return self._periods[1]

    @abstractmethod
    async def trim_batch(self) -> bool:
        """Delete some old rows; returns whether there may be more."""

    def health(self) -> dict[str, Any]:
        """Return how many rows were `trimmed`, the seconds since the log was last `looked` at, None
        if it was not, and the `error` of that, None if it went well.
        """
        looked = self._last_trim
        return {
            "trimmed": self.trimmed,
            "looked": None if looked is None else round(current_clock().now() - looked, 3),
            "error": self.error,
        }

    async def _delete(self, statement: Executable, **values: Any) -> None:
        async with patience(), self._shard.write.begin() as connection:
            options = {"touches": ()}
            result: Any = await connection.execute(statement, values, execution_options=options)
            self.trimmed += result.rowcount


class OperationTrimmer(Trimmer):
    """Deletes old operations.

    From the beginning of the log on, and only as far as all of them are old: there are never holes,
    and no operation goes early because a host with a wrong clock logged one. The last of the old
    ones stays, so that readers can tell a log that they have followed from one that was trimmed
    ahead of them.

    Args:
        shard: where the log is.
        tables: the tables of the log.
        options: how old rows get (30 minutes, if they do not say it), and how often to look.
    """

    def __init__(
        self, shard: Shard, tables: LogTables, *, options: TrimOptions | None = None
    ) -> None:
        super().__init__(shard, "operation", 1800.0, options)
        columns = tables.operations.c
        index = columns["index"]
        is_old = columns.logged_at < moment(-self.age)
        self._oldest = (
            select(index, is_old.label("is_old")).order_by(index).limit(self.options.batch)
        )
        self._trim = delete(tables.operations).where(index < bindparam("end"))

    async def trim_batch(self) -> bool:
        rows = await fetch(self._shard, self._oldest, {})
        old = 0
        while old < len(rows) and rows[old].is_old:
            old += 1
        if old < 2:
            return False
        await self._delete(self._trim, end=rows[old - 1][0])
        return old == self.options.batch


class EventTrimmer(Trimmer):
    """Deletes events that were processed, when they have been due for long. Those that are to be
    processed stay, and so do dead ones.

    Args:
        shard: where the log is.
        tables: the tables of the log.
        options: how old rows get (an hour, if they do not say it), and how often to look. An event
            that is added once more is skipped for so long.
    """

    def __init__(
        self, shard: Shard, tables: LogTables, *, options: TrimOptions | None = None
    ) -> None:
        super().__init__(shard, "event", 3600.0, options)
        columns = tables.events.c
        is_processed = columns.state == EventState.PROCESSED
        self._old = (
            select(columns.uuid)
            .where(is_processed, columns.due_at < moment(-self.age))
            .limit(self.options.batch)
        )
        self._trim = delete(tables.events).where(
            columns.uuid.in_(bindparam("uuids", expanding=True)), is_processed
        )

    async def trim_batch(self) -> bool:
        uuids = [row[0] for row in await fetch(self._shard, self._old, {})]
        for start in range(0, len(uuids), _CHUNK):
            await self._delete(self._trim, uuids=sorted(uuids[start : start + _CHUNK]))
        return len(uuids) == self.options.batch
