"""Tracking joined to the graph: what compute methods read goes stale when somebody changes it.

Each distinct `Read` is a leaf of the graph, shared by all results that were computed from it, so
that its lifetime and its invalidation are the graph's own: it is there as long as a result depends
on it. What statements read and write is told by `afresh.db.tracking`.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, NoReturn, Self

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.pool import ConnectionPoolEntry

from afresh.errors import InvalidStateError
from afresh.graph import Computed, ComputedOptions, try_current_computed
from afresh.graph._kernel import invalidate
from afresh.graph.producer import Producer

from .tracking import (
    EVERYTHING,
    Read,
    ReadIndex,
    TableName,
    Write,
    WriteRecorder,
    decode_writes,
    encode_writes,
    track,
)

__all__ = ["OperationWrites", "TrackedReads"]

_RECENT_OPERATIONS: Final = 1000
_RECENT_ROWS: Final = 20


class TrackedReads:
    """What the results of compute methods were read from, in the tables of one database.

    Example:
        ```python
        tracked = TrackedReads()
        tracked.track([engine])
        ...
        tracked.invalidate(writes, "PlaceOrder")
        ```
    """

    def __init__(self) -> None:
        self._rows = _Rows()
        self._index = ReadIndex[Read]()
        self._leaves: dict[Read, _Leaf] = {}
        self._gone: deque[_Leaf] = deque()
        self._is_busy = False
        self._thread = threading.get_ident()
        self._clock = 0
        self._recent: deque[tuple[Write, ...]] = deque(maxlen=_RECENT_OPERATIONS)

    def track(self, engines: Iterable[AsyncEngine], shard: str = "") -> Callable[[], None]:
        """Let statements that compute methods execute become dependencies of their results.

        Args:
            engines: all that work on the database, those of reads and those of commands.
            shard: the name of the part of the database; the same on every host.

        Returns:
            A function that ends it.
        """
        # What is executed on an engine with options of its own is seen on the one below as well.
        roots = {_root(engine.sync_engine): None for engine in engines}
        stops = [track(root, shard, self._reader) for root in roots]
        for root in roots:
            event.listen(root, "checkout", self._checked_out)

        def stop() -> None:
            for each in stops:
                each()
            for root in roots:
                event.remove(root, "checkout", self._checked_out)

        return stop

    def record(self, read: Read) -> None:
        """Make the result that is being computed, if any, depend on what will be read.

        For reads that are done on behalf of a computation, but elsewhere. Call it before the
        transaction begins in which they are.
        """
        node = try_current_computed()
        if node is not None:
            _Recording(self, node, self._clock).record(read)

    def invalidate(self, writes: Iterable[Write], cause: str) -> None:
        """Make the results stale that were computed from rows that changed.

        Call it when the change is committed, on every host.

        Args:
            writes: what changed.
            cause: recorded with the results.
        """
        writes = tuple(writes)
        self._clock += 1
        self._recent.append(tuple(map(_in_short, writes)))
        self._thread = threading.get_ident()
        self._is_busy = True
        try:
            leaves = []
            for read in self._index.touched(writes):
                self._index.discard(read, read)
                leaves.append(self._leaves.pop(read))
        finally:
            self._is_busy = False
        self._sweep()
        interruption: BaseException | None = None
        for leaf in leaves:
            computed = leaf()
            if computed is not None:
                try:
                    invalidate(computed, cause, True)
                except BaseException as error:  # asks the program to end: when all is done
                    interruption = error
        if interruption is not None:
            raise interruption

    def invalidate_everything(self, cause: str) -> None:
        """Make all results stale that were computed from any row.

        Args:
            cause: recorded with the results.
        """
        self.invalidate((Write(TableName(EVERYTHING, EVERYTHING)),), cause)

    def apply(self, changes: Any, cause: str) -> None:
        """Make the results stale that an operation's changes touch.

        Args:
            changes: what `OperationWrites.collected` gave, on any host.
            cause: recorded with the results.
        """
        self.invalidate(decode_writes(changes), cause)

    @property
    def count(self) -> int:
        """How many distinct reads results depend on."""
        self._sweep()
        return len(self._leaves)

    # -- reads

    def _checked_out(self, driver: Any, record: ConnectionPoolEntry, connection: Any) -> None:
        # Before any transaction begins on it.
        record.info[self] = self._clock

    def _reader(self, connection: Connection) -> _Recording | None:
        node = try_current_computed()
        if node is None:
            return None
        return _Recording(self, node, connection.info.get(self, 0))

    def _leaf(self, read: Read) -> Computed[None]:
        known = self._leaves.get(read)
        leaf = known() if known is not None else None
        if leaf is not None:
            return leaf
        self._thread = threading.get_ident()
        self._is_busy = True
        try:
            self._index.add(read, read)
            leaf = self._rows.leaf(read)
            self._leaves[read] = _Leaf(leaf, self._left)
        finally:
            self._is_busy = False
        self._sweep()
        return leaf

    def _left(self, leaf: _Leaf) -> None:
        # The garbage collector may come at any moment, and in any thread.
        self._gone.append(leaf)
        if not self._is_busy and threading.get_ident() == self._thread:
            self._sweep()

    def _sweep(self) -> None:
        """Forget reads that no result depends on any more."""
        if not self._gone:
            return
        self._is_busy = True
        try:
            while self._gone:
                leaf = self._gone.popleft()
                if self._leaves.get(leaf.read) is leaf:
                    del self._leaves[leaf.read]
                    self._index.discard(leaf.read, leaf.read)
        finally:
            self._is_busy = False

    def _changed_since(self, began: int, read: Read) -> bool:
        """Whether a read from a transaction that began earlier may be behind what is known."""
        count = self._clock - began
        if count > len(self._recent):
            return True
        return any(
            write.touches(read)
            for writes in list(self._recent)[len(self._recent) - count :]
            for write in writes
        )


class OperationWrites:
    """The rows that the transaction of an operation changes.

    Args:
        isolation: the level of its transaction, where that is known.
    """

    __slots__ = ("_isolation", "_recorder")

    def __init__(self, isolation: str | None = None) -> None:
        self._isolation = isolation
        self._recorder: WriteRecorder | None = None

    def bind(self, connection: AsyncConnection) -> None:
        """Begin to gather what the statements of a connection change."""
        self._recorder = WriteRecorder(connection, self._isolation)

    def follow(self, session: AsyncSession) -> None:
        """Let the objects of a session on that connection say more: see `WriteRecorder.follow`."""
        if self._recorder is not None:
            self._recorder.follow(session)

    def collected(self) -> Any:
        """What was changed and not undone, as plain data for `TrackedReads.apply`; None if nothing
        was.
        """
        writes = self._recorder.writes if self._recorder is not None else ()
        return encode_writes(writes) if writes else None


class _Recording:
    """Makes a result that is being computed depend on what its statements read."""

    __slots__ = ("_began", "_node", "_reads")

    def __init__(self, reads: TrackedReads, node: Computed[Any], began: int) -> None:
        self._reads = reads
        self._node = node
        self._began = began

    def record(self, read: Read) -> None:
        reads = self._reads
        self._node._use(reads._leaf(read))
        # A transaction may go on seeing what was when it began. Changes that were announced since
        # then did not find this read yet.
        if self._began != reads._clock and reads._changed_since(self._began, read):
            self._node.invalidate(now=True, cause="rows changed while they were read")


class _Leaf(weakref.ref["Computed[None]"]):
    """The leaf of a read, as long as a result depends on it."""

    __slots__ = ("read",)

    read: Read

    def __new__(cls, computed: Computed[None], left: Callable[[_Leaf], None]) -> Self:
        self = super().__new__(cls, computed, left)
        self.read = computed.key
        return self


class _Rows(Producer):
    """What the leaves belong to. It keeps none: results do."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_nothing, ComputedOptions())

    @property
    def category(self) -> str:
        return "rows"

    def describe(self, computed: Computed[Any]) -> str:
        read: Read = computed.key
        database, table = read.table
        where = f"{database}.{table}" if database else table
        pins = (f"{column} in {sorted(map(repr, each))}" for column, each in read.pins.items())
        return f"rows of {where} {{{', '.join(pins)}}}"

    def leaf(self, read: Read) -> Computed[None]:
        """Return a new leaf."""
        computed: Computed[None] = Computed(self, read, ())
        computed._finish(None, None, False)
        return computed

    def renew(self, computed: Computed[Any]) -> NoReturn:
        self._refuse(computed)

    def renewed_value(self, computed: Computed[Any], context: Any) -> Coroutine[Any, Any, Any]:
        self._refuse(computed)

    def _refuse(self, computed: Computed[Any]) -> NoReturn:
        raise InvalidStateError(
            f"{computed.describe()} changed, and have no value to compute; update a result that "
            "was read from them."
        )


async def _nothing() -> None:
    """The body that leaves do not have."""


def _in_short(write: Write) -> Write:
    few = write.rows is not None and len(write.rows) <= _RECENT_ROWS
    return write if few else Write(write.table)


def _root(engine: Engine) -> Engine:
    while isinstance(engine, OptionEngine):
        engine = engine._proxied
    return engine
