"""What readers and trimmers have in common: a task that works, waits, and works again."""

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Executable

from afresh.errors import InvalidStateError
from afresh.primitives.clock import current_clock
from afresh.primitives.delays import RetryDelays
from afresh.primitives.tasks import start_background

if TYPE_CHECKING:
    from ..shards import Shard
    from ..watchers import Signal

__all__ = ["Worker", "fetch", "patience"]

_log = logging.getLogger("afresh.db.logs")

_RETRIES = RetryDelays.exponential(0.25, 5)
_PATIENCE = 60.0
"""Longer than one may wait for a free connection, or for SQLite's write lock."""


class Worker(ABC):
    """Works in the background from `start()` to `aclose()`, whatever fails meanwhile.

    Args:
        name: what it works at, in logs.
        signal: wakes it up.
        retries: the pauses after failures.
    """

    def __init__(self, name: str, signal: Signal, retries: RetryDelays = _RETRIES) -> None:
        self.name: str = name
        self.signal: Signal = signal
        """Set it to have work done now."""
        self.is_working: bool = False
        """Whether it works just now, and does not wait."""
        self.error: str | None = None
        """Why the last round of work failed; None if it did not."""
        self._retries = retries
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not closed."""
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        """Get ready, and begin to work in the background.

        Raises:
            InvalidStateError: it was started before.
            Exception: it can't get ready, as the database can't be reached for example.
        """
        if self._task is not None:
            raise InvalidStateError(f"The worker for the {self.name} was started already.")
        await self.prepare()
        self._task = start_background(self._live(), name=f"afresh: {self.name}")

    async def aclose(self) -> None:
        """Stop; a round of work that goes on is cancelled. Closing again does nothing."""
        self._is_closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def prepare(self) -> None:
        """Get ready, before anything else can happen on this host."""
        return

    @abstractmethod
    async def work(self, *, signalled: bool) -> float:
        """Do one round of work.

        Args:
            signalled: whether something has changed since the last round, as far as is known.

        Returns:
            The longest pause until the next round, in seconds.
        """

    @abstractmethod
    def health(self) -> dict[str, Any]:
        """Return how it is doing."""

    async def _live(self) -> None:
        failures = 0
        # Not just until it is cancelled: a driver may turn that into an error, or swallow it.
        while self._goes_on():
            signalled = self.signal.is_set
            self.signal.clear()
            self.is_working = True
            try:
                pause = await self.work(signalled=signalled)
            except (Exception, asyncio.CancelledError) as error:
                if not self._goes_on():
                    return
                failures += 1
                self.error = f"{type(error).__name__}: {error}"
                self._tell(failures, error)
                self.is_working = False
                # Whatever was signalled is looked at in the next round in any case.
                await current_clock().sleep(self._retries[failures])
                self.signal.set()
                continue
            self.is_working = False
            if failures:
                _log.info("The %s works again after %d failures.", self.name, failures)
            failures, self.error = 0, None
            if self._goes_on():
                await self.signal.wait(pause)

    def _goes_on(self) -> bool:
        task = asyncio.current_task()
        return not (self._is_closing or (task is not None and task.cancelling()))

    def _tell(self, failures: int, error: BaseException) -> None:
        # Ever more rarely: a database may be away for hours. Once may be no more than a deadlock.
        if math.log2(failures).is_integer():
            _log.log(
                logging.WARNING if failures == 1 else logging.ERROR,
                "The %s can't be worked at, for the %d. time in a row, and is tried again: %r",
                self.name,
                failures,
                error,
                exc_info=None if failures == 1 else error,
            )


async def fetch(shard: Shard, statement: Executable, values: Mapping[str, Any]) -> Sequence[Any]:
    """Return the rows of a statement that reads.

    Args:
        shard: where it reads.
        statement: the statement.
        values: of its parameters.

    Raises:
        TimeoutError: the database does not answer.
    """
    async with patience():
        async with shard.read.connect() as connection:
            return (await connection.execute(statement, values)).all()


@asynccontextmanager
async def patience() -> AsyncIterator[None]:
    """Give a database a limited time to answer, in the block: connections may die in silence.

    Real time, as for drivers and pools, and not that of the current clock.

    Raises:
        TimeoutError: it did not answer.
    """
    try:
        async with asyncio.timeout(_PATIENCE):
            yield
    except TimeoutError as error:
        raise TimeoutError(f"The database has not answered for {_PATIENCE:.0f} seconds.") from error
