"""Listens to the executions of an engine, and tells the recorders around what they did."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import ExceptionContext, ExecutionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import SavepointClause

from .changes import ChangePlan, plan_change
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
    sync = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    listeners = _Tracker(database, reader).listeners()
    for name, listener in listeners.items():
        event.listen(sync, name, listener)

    def stop() -> None:
        for name, listener in listeners.items():
            event.remove(sync, name, listener)

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
            "before_cursor_execute": self.before_cursor_execute,
            "after_execute": self.after_execute,
            "handle_error": self.handle_error,
            "rollback_savepoint": self.rollback_savepoint,
            "rollback": self.rollback,
            "rollback_twophase": self.rollback_twophase,
            "commit": self.commit,
            "commit_twophase": self.commit_twophase,
        }

    # --- reads ---------------------------------------------------------------

    def before_cursor_execute(
        self,
        connection: Connection,
        cursor: Any,
        statement: str,
        parameters: Any,
        context: ExecutionContext | None,
        executemany: bool,
    ) -> None:
        reader = self.reader(connection)
        if reader is not None:
            for read in self.reads(connection, statement, context):
                reader.record(read)
        if context is None or context.compiled is None:
            # `exec_driver_sql`, of which no other event tells.
            writer = writer_of(connection)
            if writer is not None:
                self.raw_change(writer, connection, statement, context)

    def reads(self, connection: Connection, statement: str, context: Any) -> Iterable[Read]:
        options = context.execution_options if context is not None else {}
        named = named_by_option(self.database, options, connection.dialect)
        compiled = context.compiled if context is not None else None
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

    def after_execute(
        self,
        connection: Connection,
        element: Any,
        multiple: Any,
        parameters: Any,
        options: Any,
        result: Any,
    ) -> None:
        writer = writer_of(connection)
        if writer is None:
            return
        context = getattr(result, "context", None)
        if context is None:
            return  # a sequence
        if isinstance(element, SavepointClause):
            # The event of that name comes before the savepoint has one.
            writer.began_savepoint(element.ident)
            return
        if context.compiled is not None:
            self.record_execution(writer, connection, context.compiled.string, context)

    def record_execution(
        self,
        writer: WriteRecorder,
        connection: Connection,
        statement: str,
        context: Any,
        *,
        failed: bool = False,
    ) -> None:
        compiled = context.compiled
        if context.isddl:
            writer.record(Write(self.everything))
        elif not isinstance(compiled, SQLCompiler) or compiled.isplaintext or context.is_text:
            self.raw_change(writer, connection, statement, context)
        else:
            self.record_change(writer, connection, compiled, context, failed=failed)

    def record_change(
        self,
        writer: WriteRecorder,
        connection: Connection,
        compiled: SQLCompiler,
        context: Any,
        *,
        failed: bool = False,
    ) -> None:
        options = context.execution_options
        dialect = connection.dialect
        plan = self.plan_change(compiled)
        named = named_by_option(self.database, options, dialect)
        if plan.is_everything and named is None:
            writer.record(Write(self.everything))
            return
        if named is not None and not named:
            return
        if named is not None and plan.changes:
            for name in named:
                writer.record(Write(name))
        translate = options.get("schema_translate_map")
        for table in plan.whole:
            writer.record(Write(table_name(self.database, table, dialect, translate)))
        if plan.rows is not None:
            name = table_name(self.database, plan.rows.table, dialect, translate)
            rows = None
            if not failed:
                rows = plan.rows.rows(
                    context.compiled_parameters,
                    context._expanded_parameters,
                    (context.inserted_primary_key_rows or ()) if plan.rows.is_insert else (),
                    partial(writer.held, name),
                )
            writer.record(Write(name, rows), plan.rows.key_names)

    def handle_error(self, failure: ExceptionContext) -> None:
        """Of a statement that failed some rows may be changed all the same, where it had many."""
        connection, context = failure.connection, failure.execution_context
        writer = writer_of(connection) if connection is not None else None
        if connection is None or writer is None or context is None:
            return
        self.record_execution(writer, connection, failure.statement or "", context, failed=True)

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

    def raw_change(
        self, writer: WriteRecorder, connection: Connection, statement: str, context: Any
    ) -> None:
        if only_reads(statement) or is_control(statement):
            return
        options = context.execution_options if context is not None else {}
        named = named_by_option(self.database, options, connection.dialect)
        for name in (self.everything,) if named is None else named:
            writer.record(Write(name))

    # --- transactions --------------------------------------------------------

    def rollback_savepoint(self, connection: Connection, name: str, context: None) -> None:
        writer = writer_of(connection)
        if writer is not None:
            writer.rolled_back_to_savepoint(name)

    def rollback(self, connection: Connection) -> None:
        writer = writer_of(connection)
        if writer is not None:
            writer.rolled_back()

    def rollback_twophase(self, connection: Connection, xid: Any, is_prepared: bool) -> None:
        self.rollback(connection)

    def commit(self, connection: Connection) -> None:
        writer = writer_of(connection)
        if writer is not None:
            writer.committed()

    def commit_twophase(self, connection: Connection, xid: Any, is_prepared: bool) -> None:
        self.commit(connection)
