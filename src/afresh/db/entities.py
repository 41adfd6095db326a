"""Rows by their keys, many look-ups in one query.

Compute methods that each need one row look it up one by one, and all of them at once; the look-ups
of one turn of the event loop go to the database together. Keeping what was found is left to the
results that are computed from it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count, islice
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Column, Select, bindparam, inspect, select, tuple_
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import InstrumentedAttribute, Mapper, raiseload
from sqlalchemy.sql.compiler import SQLCompiler

from afresh.errors import DefinitionError, InvalidStateError
from afresh.primitives.clock import current_clock
from afresh.primitives.delays import RetryDelays
from afresh.primitives.tasks import start_background
from afresh.primitives.transience import Transience

from .read_only import ReadSession, read_session
from .shards import Shard
from .tracked import TrackedReads
from .tracking import EVERYTHING, Read, TableName
from .tracking.queries import plan_query
from .tracking.touches import table_name
from .tracking.values import UNKNOWN, Converter, converter
from .transience import transience_of_database_error

__all__ = ["EntityLoader", "EntityLoaderOptions", "HasShards"]

T = TypeVar("T")

Key: TypeAlias = Any
"""A hashable value; a tuple where several columns make a key."""

_Batch: TypeAlias = dict[Key, list[asyncio.Future[T | None]]]
"""Those who wait for rows, by their keys."""

_is_done = asyncio.Future.done


class HasShards(Protocol):
    """Where loaders find shards by their names; a `Database` is one."""

    tracked: TrackedReads | None

    def shard(self, name: str = "") -> Shard:
        """Return the shard of a name, or raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityLoaderOptions:
    """How a loader asks the database.

    Args:
        batch_size: the most keys in one query.
        batches: the most queries at the same time, for each shard; look-ups wait, and gather, while
            these run.
        timeout: for how many seconds a query may run.
        retries: how often a query is tried again after an error that may pass.
        retry_delays: the delays before that.
    """

    batch_size: int = 250
    batches: int = 4
    timeout: float = 5.0
    retries: int = 3
    retry_delays: RetryDelays = field(
        default_factory=partial(RetryDelays.exponential, 0.125, 0.5, 2)
    )

    def __post_init__(self) -> None:
        for name in ("batch_size", "batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"EntityLoaderOptions: {name} must be 1 or more.")


class EntityLoader(Generic[T]):
    """Finds rows by their keys. Look-ups that are made at the same time share queries.

    What comes back belongs to no session: relationships can't be loaded from it, and since callers
    may share it, nobody should change it. It is what was committed: an operation that needs its own
    changes reads them in its session.

    Args:
        database: a `Database` or a shard.
        entity: the mapped class.
        key: the attribute that tells rows apart, or a tuple of several; the primary key unless
            given. No two rows may have the same.
        options: sizes and times.
        record_read: called in the context of each look-up, before it begins, with what it reads;
            unless given, a database that tracks reads is told.

    Raises:
        DefinitionError: the class is not mapped, or the key is none of its attributes.

    Example:
        ```python
        class Users(ComputeService):
            def __init__(self, database: Database) -> None:
                self.rows = EntityLoader(database, UserRow)

            @compute_method
            async def name(self, user_id: int) -> str | None:
                row = await self.rows.get(user_id)
                return row.name if row is not None else None
        ```
    """

    def __init__(
        self,
        database: HasShards | Shard,
        entity: type[T],
        *,
        key: InstrumentedAttribute[Any] | tuple[InstrumentedAttribute[Any], ...] | None = None,
        options: EntityLoaderOptions | None = None,
        record_read: Callable[[Read], None] | None = None,
    ) -> None:
        self._database = database
        self._options = options or EntityLoaderOptions()
        if record_read is None and not isinstance(database, Shard) and database.tracked is not None:
            record_read = database.tracked.record
        self._record_read = record_read
        self._query = _Query(entity, key)
        self._queues: dict[Shard, _Queue[T]] = {}
        self._reads: WeakKeyDictionary[Shard, _Reads] = WeakKeyDictionary()

    async def get(self, key: Key, *, shard: str = "") -> T | None:
        """Find one row.

        Args:
            key: its key; a tuple where several columns make it.
            shard: where it is.

        Returns:
            The row, or None if there is none.

        Raises:
            LookupError: there is no such shard.
            TypeError: the key has another number of values than the key of this loader.
            InvalidStateError: several rows have this key.
            Exception: what the query raised, after its retries.
        """
        self._query.check(key)
        return await self._look_up(self._shard(shard), key)

    async def get_many(self, keys: Iterable[Key], *, shard: str = "") -> dict[Key, T]:
        """Find many rows.

        Args:
            keys: their keys.
            shard: where they are.

        Returns:
            The rows that there are, by their keys, in the order of the keys.

        Raises:
            Exception: as for `get`.
        """
        each = list(dict.fromkeys(keys))
        for key in each:
            self._query.check(key)
        where = self._shard(shard)
        futures = [self._look_up(where, key) for key in each]
        try:
            rows = [await future for future in futures]
        finally:
            for future in futures:
                if not future.cancel() and not future.cancelled():
                    _ = future.exception()  # the first one is raised, the others are the same
        return {key: row for key, row in zip(each, rows, strict=True) if row is not None}

    def _shard(self, name: str) -> Shard:
        database = self._database
        if not isinstance(database, Shard):
            return database.shard(name)
        if name != database.name:
            raise LookupError(f"This loader knows the shard {database.name!r} only, not {name!r}.")
        return database

    def _look_up(self, shard: Shard, key: Key) -> asyncio.Future[T | None]:
        # Before the query begins, so that no change in between is missed.
        if self._record_read is not None:
            for read in self._reads_of(shard).of(key):
                self._record_read(read)
        loop = asyncio.get_running_loop()
        queue = self._queues.get(shard)
        if queue is None or queue.loop is not loop:
            queue = _Queue(self._query, shard, self._options, self._queues, loop)
            self._queues[shard] = queue
        return queue.add(key)

    def _reads_of(self, shard: Shard) -> _Reads:
        reads = self._reads.get(shard)
        if reads is None:
            reads = self._reads[shard] = _Reads(self._query, shard)
        return reads

    def __repr__(self) -> str:
        return f"<EntityLoader of {self._query.entity.__name__}>"


class _Query(Generic[T]):
    """The queries for rows of a class by their keys; the same for all shards."""

    def __init__(self, entity: type[T], key: Any) -> None:
        mapper = inspect(entity, raiseerr=False)
        if not isinstance(mapper, Mapper):
            raise DefinitionError(f"{entity!r} is no mapped class; give one of your models.")
        names = _names_of(mapper, key)
        columns = [getattr(entity, name) for name in names]
        self.entity: type[T] = entity
        self.key_of: Callable[[Any], Key] = attrgetter(*names)
        self._size = len(names)
        self._names = ", ".join(names)
        self._columns = [mapper.column_attrs[name].columns[0] for name in names]
        self._converters: WeakKeyDictionary[Dialect, list[Converter | None]] = WeakKeyDictionary()
        # What a relationship leads to would be read unseen, and by rows that nobody asked for.
        rows = select(entity).options(raiseload("*"))
        column = columns[0] if len(columns) == 1 else tuple_(*columns)
        self.rows: Select[Any] = rows.where(column.in_(bindparam("keys", expanding=True)))
        self.row: Select[Any] = rows.where(
            *(
                column == bindparam(f"key_{number}", type_=column.type)
                for number, column in enumerate(columns)
            )
        )

    def check(self, key: Key) -> None:
        if self._size > 1 and not (isinstance(key, tuple) and len(key) == self._size):
            raise TypeError(
                f"The key of {self.entity.__name__} is a tuple of {self._size} values "
                f"({self._names}), not {key!r}."
            )
        hash(key)

    def values(self, key: Key) -> dict[str, Any]:
        """The parameters of `row`."""
        each = key if self._size > 1 else (key,)
        return {f"key_{number}": value for number, value in enumerate(each)}

    async def find(self, session: ReadSession, keys: list[Key], limit: int) -> dict[Key, T]:
        # Few different lengths, so that the database prepares few statements.
        length = min(1 << (len(keys) - 1).bit_length(), limit)
        padded = keys + keys[-1:] * (length - len(keys))
        found: dict[Key, T] = {}
        for row in await session.scalars(self.rows, {"keys": padded}):
            key = self.key_of(row)
            if key in found:
                raise InvalidStateError(
                    f"Several rows of {self.entity.__name__} have {self._names} {key!r}; give the "
                    "loader a key that no two rows share."
                )
            found[key] = row
        for key in keys:
            if key not in found and not self._is_exact(key, session):
                # The row may be there, with a key that only the database takes for the same.
                row = (await session.scalars(self.row, self.values(key))).one_or_none()
                if row is not None:
                    found[key] = row
        return found

    def _is_exact(self, key: Key, session: ReadSession) -> bool:
        """Whether the database surely compares a key as Python does."""
        dialect = session.get_bind().dialect
        converters = self._converters.get(dialect)
        if converters is None:
            converters = self._converters[dialect] = [
                converter(column, column.type, dialect) if isinstance(column, Column) else None
                for column in self._columns
            ]
        return all(
            convert is not None and convert(value) is not UNKNOWN
            for convert, value in zip(converters, self.values(key).values(), strict=True)
        )


def _names_of(mapper: Mapper[Any], key: Any) -> list[str]:
    if key is None:
        return [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    names = []
    for each in key if isinstance(key, tuple) else (key,):
        name = getattr(each, "key", "")
        if name not in mapper.column_attrs or getattr(each, "class_", None) is not mapper.class_:
            raise DefinitionError(
                f"{each!r} is no column of {mapper.class_.__name__}; give key= an attribute of "
                "the class, or a tuple of them."
            )
        names.append(name)
    return names


class _Reads:
    """What a look-up of one row reads, for the tracking of one shard."""

    def __init__(self, query: _Query[Any], shard: Shard) -> None:
        self._dialect = shard.read.dialect
        compiled = query.row.compile(dialect=self._dialect)
        assert isinstance(compiled, SQLCompiler)
        self._plan = plan_query(compiled)
        self._values = query.values
        self._place = shard.place

    def of(self, key: Key) -> Iterator[Read]:
        if self._plan.tables is None:
            yield Read(TableName(self._place, EVERYTHING))
            return
        values = self._values(key)
        for each in self._plan.tables:
            pins = each.pinned(values, {})
            yield Read(table_name(self._place, each.table, self._dialect), pins)
            schema = getattr(each.table, "schema", None)
            if schema is not None and self._dialect.default_schema_name is None:
                # Before the first connection nobody knows whether a schema is the usual one.
                yield Read(TableName(self._place, each.table.name.lower()), pins)


class _Queue(Generic[T]):
    """The look-ups of one loader in one shard that were not answered yet."""

    def __init__(
        self,
        query: _Query[T],
        shard: Shard,
        options: EntityLoaderOptions,
        queues: dict[Shard, _Queue[T]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self._query = query
        self._shard = shard
        self._options = options
        self._queues = queues
        self._waiting: _Batch[T] = {}
        self._is_due = False
        self._running = 0

    def add(self, key: Key) -> asyncio.Future[T | None]:
        future: asyncio.Future[T | None] = self.loop.create_future()
        # Only with others that wait: a query that runs may be behind what this look-up must see.
        self._waiting.setdefault(key, []).append(future)
        if not self._is_due:
            self._is_due = True
            self.loop.call_soon(self._start, context=contextvars.Context())
        return future

    def _start(self) -> None:
        self._is_due = False
        while self._waiting and self._running < self._options.batches:
            batch = self._next_batch()
            if batch:
                self._running += 1
                start_background(self._answer(batch), name=f"look up {len(batch)} rows")
        if not self._running and self._queues.get(self._shard) is self:
            del self._queues[self._shard]

    def _next_batch(self) -> _Batch[T]:
        batch = self._waiting
        if len(batch) > self._options.batch_size:
            keys = list(islice(batch, self._options.batch_size))
            batch = {key: batch.pop(key) for key in keys}
        else:
            self._waiting = {}
        # Without those whose callers were all cancelled.
        return {key: each for key, each in batch.items() if not all(map(_is_done, each))}

    async def _answer(self, batch: _Batch[T]) -> None:
        try:
            found = await self._find(list(batch))
            for key, waiters in batch.items():
                row = found.get(key)
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(row)
        except BaseException as error:
            for waiter in chain.from_iterable(batch.values()):
                if not waiter.done():
                    if isinstance(error, Exception):
                        waiter.set_exception(error)
                    else:
                        waiter.cancel()
            if not isinstance(error, Exception):
                raise
        finally:
            self._running -= 1
            self._start()

    async def _find(self, keys: list[Key]) -> dict[Key, T]:
        options = self._options
        for retry in count():
            try:
                async with asyncio.timeout(options.timeout), read_session(self._shard) as session:
                    return await self._query.find(session, keys, options.batch_size)
            except Exception as error:
                if retry >= options.retries or not _may_pass(error):
                    raise
            await current_clock().sleep(options.retry_delays[retry + 1])
        raise AssertionError("unreachable")


def _may_pass(error: Exception) -> bool:
    kind = transience_of_database_error(error)
    return kind in (Transience.TRANSIENT, Transience.SUPER_TRANSIENT)
