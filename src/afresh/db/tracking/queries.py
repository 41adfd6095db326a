"""What a query reads: a plan made once per compiled statement, and filled in per execution."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import MetaData, Table
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.selectable import FromClause, Select, SelectBase, TableClause

from .clauses import Pin, elements, hides_tables, leaves, pins_by_table, real_table
from .facts import Value

__all__ = ["QueryPlan", "TablePlan", "plan_query"]

WORD = re.compile(r"\w+")
SELECT = re.compile(r"\bselect\b", re.IGNORECASE)


class TablePlan(NamedTuple):
    """One table that a query reads."""

    table: TableClause
    pins: tuple[Pin, ...]

    def pinned(
        self, parameters: Mapping[str, Any], expanded: Mapping[str, Sequence[str]]
    ) -> dict[str, frozenset[Value]]:
        """The values pinned in one execution, by column."""
        pinned: dict[str, frozenset[Value]] = {}
        for pin in self.pins:
            values = pin.values(parameters, expanded)
            if values is not None:
                before = pinned.get(pin.column)
                pinned[pin.column] = values if before is None else before & values
        return pinned


class QueryPlan(NamedTuple):
    """What a query reads; tables is None where that can't be told."""

    tables: tuple[TablePlan, ...] | None


def plan_query(compiled: SQLCompiler) -> QueryPlan:
    """Find out what a compiled query reads.

    Only a single SELECT is read closely. In one with others inside, the tables of all count as
    read whole: what SQLAlchemy makes of an inner ORM query is seen in its text alone.
    """
    state = compiled.compile_state
    # An ORM query is compiled into one that has all joins, which its own element does not have.
    statement: Any = state.statement if state is not None else compiled.statement
    inside = elements(statement)
    if hides_tables(inside):
        return QueryPlan(None)
    if (
        isinstance(statement, Select)
        and not any(
            isinstance(element, SelectBase) for element in inside if element is not statement
        )
        and len(SELECT.findall(compiled.string)) == 1
    ):
        return _plan_select(statement, compiled)
    return QueryPlan(_whole_tables(inside, compiled.string))


def _plan_select(statement: Select[Any], compiled: SQLCompiler) -> QueryPlan:
    pins = pins_by_table(statement._where_criteria, compiled)
    plans = []
    for leaf, nullable in leaves(statement.get_final_froms()):
        table = real_table(leaf)
        if table is None:
            if _reads_nothing(leaf):
                continue
            return QueryPlan(_whole_tables(elements(statement), compiled.string))
        own = pins.get(leaf, [])
        if nullable:
            # Where a row is missing, its columns are NULL as well.
            own = [pin for pin in own if pin.parameter is not None]
        plans.append(TablePlan(table, tuple(own)))
    return QueryPlan(tuple(plans))


def _reads_nothing(leaf: FromClause) -> bool:
    """Functions and VALUES, with what they are made of."""
    return not any(isinstance(element, TableClause) for element in elements(leaf))


def _whole_tables(inside: Sequence[Any], text: str) -> tuple[TablePlan, ...]:
    tables = {element for element in inside if isinstance(element, TableClause)}
    words = {word.lower() for word in WORD.findall(text)}
    catalogues: set[MetaData] = {table.metadata for table in tables if isinstance(table, Table)}
    for metadata in catalogues:
        for table in metadata.tables.values():
            if words.issuperset(WORD.findall(table.name.lower())):
                tables.add(table)
    return tuple(TablePlan(table, ()) for table in tables)
