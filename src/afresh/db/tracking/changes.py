"""Which rows a statement changes: a plan made once per compiled statement, filled in per execution.

Columns are left out of a row wherever their old or new value is in doubt; an object that the
session holds may fill in what a statement does not say (`afresh.db.tracking.objects`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import Column, Table
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import Delete, DMLWhereBase, Insert, Update, UpdateBase, ValuesBase
from sqlalchemy.sql.elements import BindParameter, ClauseElement, TextClause
from sqlalchemy.sql.selectable import TableClause

from .cascades import changed_by_delete, changed_by_update
from .clauses import Pin, elements, pins_by_table
from .facts import MAX_WRITE_ROWS, Row, Value
from .queries import TablePlan
from .touches import changes
from .values import UNKNOWN, Converter, converter, key_columns

__all__ = ["ChangePlan", "Held", "HeldValues", "RowsPlan", "plan_change"]

HeldValues: TypeAlias = Mapping[str, tuple[Any, ...]]
"""Values of a row that an object holds, old and new ones, by the name of the column."""

Held: TypeAlias = Callable[[Table, Mapping[str, Any]], HeldValues | None]
"""Finds the object for the primary key of a row, by the name of the column."""


class Source(NamedTuple):
    """A value that a statement stores in a column."""

    column: str
    parameter: str
    convert: Converter


class ChangePlan(NamedTuple):
    """What a statement changes."""

    is_everything: bool
    """Tables that can't be told."""
    whole: frozenset[TableClause]
    """Tables of which any row may be changed, by the statement or by what cascades from it."""
    rows: RowsPlan | None
    """The rows that can be told apart, if any."""

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return self.is_everything or bool(self.whole) or self.rows is not None


class RowsPlan(NamedTuple):
    """How the parameters of an execution tell which rows of one table change."""

    table: Table
    sources: tuple[tuple[Source, ...], ...]
    """What is stored, once for each row that one set of parameters has."""
    unknown: frozenset[str]
    """The columns that get a value which only the database knows."""
    pins: TablePlan
    key: Mapping[str, str]
    """The parameters that pin the primary key to one value, by column; empty without them."""
    converters: Mapping[str, Converter]
    """Of the columns worth knowing, for values of their own type."""
    key_names: tuple[str, ...]
    """The columns of the primary key."""
    is_insert: bool

    def changed(
        self,
        parameters: Sequence[Mapping[str, Any]],
        expanded: Mapping[str, Sequence[str]],
        held: Held,
    ) -> tuple[Row, ...] | None:
        """The rows that an execution changes or deletes, None where they are too many.

        Args:
            parameters: of each repetition, by name.
            expanded: the names into which those of IN were expanded.
            held: finds what objects hold.
        """
        if len(parameters) > MAX_WRITE_ROWS:
            return None
        return tuple(self._changed(each, expanded, held) for each in parameters)

    def inserted(
        self, parameters: Sequence[Mapping[str, Any]], keys: Sequence[Any]
    ) -> tuple[Row, ...] | None:
        """The rows that an execution has added, None where they are too many.

        Args:
            parameters: of each repetition, by name.
            keys: the primary keys that the rows got, as far as the database told.
        """
        if len(parameters) * len(self.sources) > MAX_WRITE_ROWS:
            return None
        rows: list[Row] = []
        told = keys if len(keys) == len(parameters) and len(self.sources) == 1 else ()
        for number, each in enumerate(parameters):
            for sources in self.sources:
                row = _stored(sources, each)
                if told and told[number] is not None:
                    for column, value in zip(self.table.primary_key, told[number], strict=True):
                        # A key that the database did not tell is None.
                        if column.name not in row and value is not None:
                            self._add(row, column.name, value)
                rows.append(row)
        return tuple(rows)

    def _changed(
        self, parameters: Mapping[str, Any], expanded: Mapping[str, Sequence[str]], held: Held
    ) -> Row:
        old = self.pins.pinned(parameters, expanded)
        object_values: HeldValues = {}
        if self.key and all(name in parameters for name in self.key.values()):
            key = {column: parameters[name] for column, name in self.key.items()}
            object_values = held(self.table, key) or {}
        for column, values in object_values.items():
            if column not in old and column in self.converters:
                converted = [self.converters[column](value) for value in values]
                if UNKNOWN not in converted:
                    old[column] = frozenset(converted)  # type: ignore[arg-type]
        for column in self.unknown:
            old.pop(column, None)
        if not self.sources[0]:
            return old
        new = _stored(self.sources[0], parameters)
        for source in self.sources[0]:
            before = old.get(source.column)
            after = new.get(source.column)
            if before is None or after is None:
                old.pop(source.column, None)
            else:
                old[source.column] = before | after
        return old

    def _add(self, row: dict[str, frozenset[Value]], column: str, value: Any) -> None:
        convert = self.converters.get(column)
        if convert is not None:
            converted = convert(value)
            if converted is not UNKNOWN:
                row[column] = frozenset((converted,))  # type: ignore[arg-type]


def _stored(
    sources: Sequence[Source], parameters: Mapping[str, Any]
) -> dict[str, frozenset[Value]]:
    row: dict[str, frozenset[Value]] = {}
    for source in sources:
        if source.parameter in parameters:
            value = source.convert(parameters[source.parameter])
            if value is not UNKNOWN:
                row[source.column] = frozenset((value,))  # type: ignore[arg-type]
    return row


NOTHING = ChangePlan(False, frozenset(), None)
EVERYTHING = NOTHING._replace(is_everything=True)


def plan_change(compiled: SQLCompiler) -> ChangePlan:
    """Find out what a compiled statement changes.

    The plan holds until a table is added to the metadata, whose foreign keys may cascade.
    """
    state: Any = compiled.compile_state
    statement: Any = state.statement if state is not None else compiled.statement
    inside = elements(statement)
    changing = [each for each in inside if isinstance(each, UpdateBase)]
    if any(isinstance(each, TextClause) and changes(each.text) for each in inside) or any(
        not isinstance(each.table, Table) for each in changing
    ):
        return EVERYTHING
    whole: set[Any] = set()
    rows = None
    for each in changing:
        table: Any = each.table
        if each is not statement or each._prefixes:
            # OR REPLACE deletes other rows.
            whole |= _whole(table)
        elif isinstance(each, Insert):
            if each._post_values_clause is not None:
                # ON CONFLICT: rows that were there before change as well.
                whole |= _whole(table)
            elif each._select_names is not None:
                whole.add(table)
            else:
                rows = _plan_insert(each, table, state, compiled)
        elif isinstance(each, Update):
            given = _given(each, table, state, compiled)
            if given is None:
                return EVERYTHING
            stored = {column.name for column in given if column.table == table}
            whole |= {column.table for column in given} - {table}
            whole |= changed_by_update(table, stored)
            rows = _plan_update(each, table, given, compiled)
        elif isinstance(each, Delete):
            whole |= changed_by_delete(table)
            rows = _plan_rows(each, table, compiled)
        else:
            whole |= _whole(table)
    return ChangePlan(False, frozenset(whole), rows)


def _whole(table: Table) -> set[Table]:
    names = {column.name for column in table.columns}
    return {table} | changed_by_delete(table) | changed_by_update(table, names)


def _plan_insert(
    statement: Insert, table: Table, state: Any, compiled: SQLCompiler
) -> RowsPlan | None:
    plan = _plan_rows(statement, table, compiled)._replace(is_insert=True)
    if statement._multi_values:
        sets = state._multi_parameters or ()
        sources = tuple(
            _sources(
                {column: each.get(column, each.get(column.key)) for column in table.columns},
                compiled,
                suffix=f"_m{number}",
            )
            for number, each in enumerate(sets)
        )
        return plan._replace(sources=sources)
    given = _given(statement, table, state, compiled)
    if given is None:
        return plan
    return plan._replace(sources=(_sources(given, compiled),))


def _plan_update(
    statement: Update, table: Table, given: Mapping[Column[Any], Any], compiled: SQLCompiler
) -> RowsPlan:
    plan = _plan_rows(statement, table, compiled)
    own = {column: value for column, value in given.items() if column.table == table}
    sources = _sources(own, compiled)
    known = {source.column for source in sources}
    unknown = {column.name for column in own} - known
    for column in table.columns:
        if column.name not in known and (
            column.onupdate is not None
            or column.server_onupdate is not None
            or column.computed is not None
        ):
            unknown.add(column.name)
    return plan._replace(sources=(sources,), unknown=frozenset(unknown))


def _plan_rows(statement: UpdateBase, table: Table, compiled: SQLCompiler) -> RowsPlan:
    pins: list[Pin] = []
    if isinstance(statement, DMLWhereBase):
        pins = pins_by_table(statement._where_criteria, compiled).get(table, [])
    single = {
        pin.column: pin.parameter
        for pin in pins
        if pin.parameter is not None and not pin.is_expanding
    }
    names = [column.name for column in table.primary_key]
    key = {name: single[name] for name in names if name in single}
    dialect = compiled.dialect
    keys = key_columns(table)
    converters = {
        column.name: convert
        for column in table.columns
        if column.name in keys and (convert := converter(column, column.type, dialect)) is not None
    }
    return RowsPlan(
        table=table,
        sources=((),),
        unknown=frozenset(),
        pins=TablePlan(table, tuple(pins)),
        key=key if len(key) == len(names) else {},
        converters=converters,
        key_names=tuple(names),
        is_insert=False,
    )


def _given(
    statement: ValuesBase, table: Table, state: Any, compiled: SQLCompiler
) -> dict[Column[Any], Any] | None:
    """The columns that get a value, each with its value or clause, or None for a parameter.

    None where one of them is not to be found.
    """
    given: dict[Column[Any], Any] = {}
    for key, value in (state._dict_parameters or {}).items():
        column = key if isinstance(key, Column) else table.columns.get(str(key))
        if column is None or not isinstance(column.table, Table):
            return None
        given[column] = value
    names = set(compiled.column_keys or ())
    fetched = {*compiled.insert_prefetch, *compiled.update_prefetch}
    for column in table.columns:
        if column not in given and (column.key in names or column in fetched):
            given[column] = None
    return given


def _sources(
    given: Mapping[Column[Any], Any], compiled: SQLCompiler, suffix: str = ""
) -> tuple[Source, ...]:
    found = []
    for column, value in given.items():
        if not isinstance(column.table, Table) or column.name not in key_columns(column.table):
            continue
        name = f"{column.key}{suffix}"
        if isinstance(value, BindParameter):
            name = compiled.bind_names.get(value, name if value.unique else value.key)
        elif isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"):
            continue
        bound = compiled.binds.get(name)
        if bound is None:
            continue
        convert = converter(column, bound.type, compiled.dialect)
        if convert is not None:
            found.append(Source(column.name, name, convert))
    return tuple(found)
