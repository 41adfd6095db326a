"""What runs in the background for one shard: its logs are read and trimmed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from afresh.operations.pipeline import Operations

from .logs import (
    EventLogOptions,
    EventLogReader,
    EventTrimmer,
    OperationLogOptions,
    OperationLogReader,
    OperationTrimmer,
    TrimOptions,
)
from .shards import Shard
from .tables import LogTables
from .watchers import Watcher

if TYPE_CHECKING:
    from .logs.worker import Worker

__all__ = ["FollowOptions", "Following"]


@dataclass(frozen=True, slots=True)
class FollowOptions:
    """How logs are read; the usual where it is None."""

    operations: OperationLogOptions | None = None
    events: EventLogOptions | None = None
    trim_operations: TrimOptions | None = None
    trim_events: TrimOptions | None = None


class Following:
    """Reads and trims the logs of one shard.

    Args:
        shard: whose logs.
        tables: the tables of the logs.
        operations: applies what was read, and handles the events.
        watcher: tells when to look.
        options: how logs are read.
        handles_events: whether this host takes part in that.
    """

    def __init__(
        self,
        shard: Shard,
        tables: LogTables,
        operations: Operations,
        watcher: Watcher,
        options: FollowOptions,
        *,
        handles_events: bool,
    ) -> None:
        self.shard: Shard = shard
        self.handles_events: bool = handles_events
        self._operations = operations
        self._log = shard.database_name, shard.name
        completion = operations.completion
        self.operation_reader: OperationLogReader = OperationLogReader(
            shard,
            tables,
            completion.apply,
            abandon=completion.abandon,
            lost_coverage=completion.lost_coverage,
            host_id=operations.host_id,
            watcher=watcher,
            options=options.operations,
        )
        self.event_reader: EventLogReader = EventLogReader(
            shard,
            tables,
            operations.commander,
            operations.codec,
            host_id=operations.host_id,
            watcher=watcher,
            options=options.events,
        )
        self._workers: dict[str, Worker] = {"operations": self.operation_reader}
        if handles_events:
            self._workers["events"] = self.event_reader
        self._workers["operation trimmer"] = OperationTrimmer(
            shard, tables, options=options.trim_operations
        )
        self._workers["event trimmer"] = EventTrimmer(shard, tables, options=options.trim_events)

    async def start(self) -> None:
        """Begin; returns when this host knows where in the log it stands."""
        for worker in self._workers.values():
            await worker.start()
        self._operations.freshness.add(self._log, self.operation_reader.wait_for)

    async def aclose(self) -> None:
        """Stop."""
        self._operations.freshness.remove(self._log)
        for worker in reversed(self._workers.values()):
            await worker.aclose()

    @property
    def error(self) -> str | None:
        """Why a part of it does not work at present; None if all do."""
        return next((each.error for each in self._workers.values() if each.error), None)

    def health(self) -> dict[str, Any]:
        """Return how each part of it is doing."""
        return {name: worker.health() for name, worker in self._workers.items()}

    def __repr__(self) -> str:
        return f"<Following of {self.shard!r}>"
