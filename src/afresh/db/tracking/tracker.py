"""Listens to the executions of an engine, and tells the recorders around what they did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool.base import _AdhocProxiedConnection
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import (
    RollbackToSavepointClause,
    SavepointClause,
)

from .changes import ChangePlan, RowsPlan, plan_change
from .facts import EVERYTHING, Read, TableName, Write
from .queries import QueryPlan, plan_query
from .reading import FindReader, current_reader
from .touches import is_control, named_by_option, only_reads, table_name
from .writing import WriteRecorder, writer_of

__all__ = ["track"]


def track(
    engine: AsyncEngine | Engine,
    database: str = "default",
    reader: FindReader = current_reader,
) -> Callable[[], None]:
    """Let the executions of an engine be seen by readers, and by the recorders of connections.

    Args:
        engine: whose executions; those that nobody looks at cost next to nothing.
        database: how the names of its tables begin; one name for each database, or shard.
        reader: called before each execution, gives whoever is to be told what it reads; the
            recorder of the block around, by default.

    Returns:
        A function that ends the tracking.

    Example:
        ```python
        engine = create_async_engine("sqlite+aiosqlite:///shop.db")
        stop = track(engine)
        ```
    """
    # The events of an engine would make each of its connections slower than those of the dialect.
    dialect = (engine.sync_engine if isinstance(engine, AsyncEngine) else engine).dialect
    listeners = _Tracker(database, reader).listeners()
    for name, listener in listeners.items():
        event.listen(dialect, name, listener)

    def stop() -> None:
        for name, listener in listeners.items():
            event.remove(dialect, name, listener)

    return stop


class _CachedQuery:
    """A plan with the names of its tables, and with its reads where no value is pinned."""

    __slots__ = ("constant", "names", "plan")

    def __init__(self, plan: QueryPlan, names: list[TableName]) -> None:
        self.plan = plan
        self.names = names
        self.constant: list[Read] | None = None
        if plan.tables is not None and not any(table.pins for table in plan.tables):
            self.constant = [Read(name) for name in dict.fromkeys(names)]


class _Tracker:
    """The listeners of one engine, and the plans of its compiled statements."""

    def __init__(self, database: str, reader: FindReader) -> None:
        self.database = database
        self.reader = reader
        self.everything = TableName(database, EVERYTHING)
        self.queries: WeakKeyDictionary[SQLCompiler, _CachedQuery] = WeakKeyDictionary()
        self.changes: WeakKeyDictionary[SQLCompiler, tuple[ChangePlan, int]] = WeakKeyDictionary()

    def listeners(self) -> dict[str, Callable[..., None]]:
        """By the name of the event."""
        return {
            "do_execute": self.do_execute,
            "do_executemany": self.do_execute,
            "do_execute_no_params": self.do_execute_no_params,
        }

    # Whatever they return tells SQLAlchemy to execute the statement itself.

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        self.executing(statement, context)

    def do_execute_no_params(self, cursor: Any, statement: str, context: Any) -> None:
        self.executing(statement, context)

    def executing(self, statement: str, context: Any) -> None:
        """A statement is about to run; one in several batches comes once for each."""
        connection = context.root_connection
        if isinstance(connection._dbapi_connection, _AdhocProxiedConnection):
            return  # SQLAlchemy asks what kind of a database it is, when it connects first
        reader = self.reader(connection)
        if reader is not None:
            for read in self.reads(connection, statement, context):
                reader.record(read)
        writer = writer_of(context)
        if writer is not None:
            writer.execute(context, partial(self.record_writes, writer, statement, context))

    # --- reads ---------------------------------------------------------------

    def reads(self, connection: Connection, statement: str, context: Any) -> Iterable[Read]:
        options = context.execution_options
        named = named_by_option(self.database, options, connection.dialect)
        compiled = context.compiled
        if not isinstance(compiled, SQLCompiler):
            if compiled is not None:
                return ()  # DDL
            return () if is_control(statement) else self.unanalysed(named)
        if named is not None and not named:
            return ()
        cached = self.queries.get(compiled)
        if cached is None:
            cached = self.plan_query(compiled, connection)
        if cached.plan.tables is None:
            return self.unanalysed(named)
        names = cached.names
        translate = options.get("schema_translate_map")
        if translate:
            names = [
                table_name(self.database, plan.table, connection.dialect, translate)
                for plan in cached.plan.tables
            ]
        elif cached.constant is not None and named is None:
            return cached.constant
        values = context.compiled_parameters[0]
        expanded = context._expanded_parameters
        reads = [
            Read(name, plan.pinned(values, expanded))
            for name, plan in zip(names, cached.plan.tables, strict=True)
        ]
        if named is not None:
            reads.extend(map(Read, named))
        return reads

    def plan_query(self, compiled: SQLCompiler, connection: Connection) -> _CachedQuery:
        plan = plan_query(compiled)
        names = [
            table_name(self.database, table.table, connection.dialect)
            for table in plan.tables or ()
        ]
        cached = self.queries[compiled] = _CachedQuery(plan, names)
        return cached

    def unanalysed(self, named: list[TableName] | None) -> list[Read]:
        return [Read(name) for name in ((self.everything,) if named is None else named)]

    # --- writes --------------------------------------------------------------

    def record_writes(self, writer: WriteRecorder, statement: str, context: Any) -> None:
        compiled = context.compiled
        element = compiled.statement if compiled is not None else None
        if isinstance(element, SavepointClause):
            writer.began_savepoint(element.ident)
        elif isinstance(element, RollbackToSavepointClause):
            writer.rolled_back_to_savepoint(element.ident)
        elif context.isddl:
            writer.record(Write(self.everything))
        elif not isinstance(compiled, SQLCompiler) or compiled.isplaintext or context.is_text:
            self.record_raw_change(writer, statement, context)
        else:
            self.record_change(writer, compiled, context)

    def record_change(self, writer: WriteRecorder, compiled: SQLCompiler, context: Any) -> None:
        options = context.execution_options
        dialect = compiled.dialect
        plan = self.plan_change(compiled)
        named = named_by_option(self.database, options, dialect)
        if not plan.changes or (named is not None and not named):
            return
        if plan.is_everything and named is None:
            writer.record(Write(self.everything))
            return
        for name in named or ():
            writer.record(Write(name))
        translate = options.get("schema_translate_map")
        for table in plan.whole:
            writer.record(Write(table_name(self.database, table, dialect, translate)))
        if plan.rows is None:
            return
        rows = plan.rows
        name = table_name(self.database, rows.table, dialect, translate)
        if rows.is_insert:
            writer.record_later(partial(_inserted, name, rows, context))
        else:
            changed = rows.changed(
                context.compiled_parameters,
                context._expanded_parameters,
                partial(writer.held, name),
            )
            writer.record(Write(name, changed), rows.key_names)

    def plan_change(self, compiled: SQLCompiler) -> ChangePlan:
        cached = self.changes.get(compiled)
        if cached is not None:
            plan, size = cached
            if plan.rows is None or len(plan.rows.table.metadata.tables) == size:
                return plan
        plan = plan_change(compiled)
        size = len(plan.rows.table.metadata.tables) if plan.rows is not None else 0
        self.changes[compiled] = plan, size
        return plan

    def record_raw_change(self, writer: WriteRecorder, statement: str, context: Any) -> None:
        if is_control(statement):
            writer.distrust_all()
        if only_reads(statement) or is_control(statement):
            return
        named = named_by_option(self.database, context.execution_options, context.dialect)
        for name in (self.everything,) if named is None else named:
            writer.record(Write(name))


def _inserted(name: TableName, rows: RowsPlan, context: Any) -> tuple[Write, Sequence[str]]:
    keys = context.inserted_primary_key_rows or ()
    return Write(name, rows.inserted(context.compiled_parameters, keys)), rows.key_names
