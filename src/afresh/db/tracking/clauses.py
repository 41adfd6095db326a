"""What can be told from the clauses of a statement: its tables, and what its WHERE pins.

Everything in here looks at SQLAlchemy's elements once per compiled statement; values come later,
from the parameters of each execution.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, Table
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    ColumnClause,
    Grouping,
    Null,
    TextClause,
)
from sqlalchemy.sql.selectable import Alias, FromClause, Join, TableClause
from sqlalchemy.sql.visitors import iterate

from .facts import MAX_PIN_VALUES, Value
from .values import UNKNOWN, Converter, converter, key_columns

__all__ = [
    "Pin",
    "constraints",
    "elements",
    "hides_tables",
    "leaves",
    "pins_by_table",
    "real_table",
]

# Words without which a fragment of text can't bring in a table.
BRINGS_TABLES = re.compile(r"\b(select|table|from|join|with|call)\b", re.IGNORECASE)


class Pin(NamedTuple):
    """One condition of a WHERE clause that says which values a column has."""

    column: str
    parameter: str | None
    """The name of the bound value; None for IS NULL."""
    is_expanding: bool
    """Whether there are several: IN."""
    convert: Converter

    def values(
        self, parameters: Mapping[str, Any], expanded: Mapping[str, Sequence[str]]
    ) -> frozenset[Value] | None:
        """The values in one execution, None where they can't be told.

        Args:
            parameters: of the execution, by name.
            expanded: the names into which those of IN were expanded.
        """
        if self.parameter is None:
            return frozenset((None,))
        names: Sequence[str] = (self.parameter,)
        if self.is_expanding:
            if self.parameter not in expanded:
                return None
            names = expanded[self.parameter]
        if len(names) > MAX_PIN_VALUES:
            return None
        values: set[Value] = set()
        for name in names:
            if name not in parameters:
                return None
            value = self.convert(parameters[name])
            if value is UNKNOWN:
                return None
            values.add(value)  # type: ignore[arg-type]
        values.discard(None)  # nothing equals NULL
        return frozenset(values)


def elements(statement: Any) -> list[Any]:
    """Everything inside a statement, itself included."""
    return list(iterate(statement))


def real_table(element: Any) -> TableClause | None:
    """The table behind an element of FROM, through its aliases; None where there is none."""
    while isinstance(element, Alias):
        element = element.element
    return element if isinstance(element, TableClause) else None


def hides_tables(inside: Sequence[Any]) -> bool:
    """Whether tables may be read that none of the elements shows."""
    return any(
        BRINGS_TABLES.search(fragment) for element in inside for fragment in _fragments(element)
    ) or any(
        getattr(element, "is_view", False)
        or any(isinstance(source, TextClause) for source in getattr(element, "_from_obj", ()))
        for element in inside
    )


def _fragments(element: Any) -> Iterator[str]:
    """The raw SQL that an element brings into a statement."""
    if isinstance(element, TextClause):
        yield element.text
    elif isinstance(element, ColumnClause) and element.is_literal:
        yield str(element.name)
    for clause, _ in (*getattr(element, "_prefixes", ()), *getattr(element, "_suffixes", ())):
        yield str(clause)
    for _, hint in getattr(element, "_statement_hints", ()):
        yield hint
    for hint in getattr(element, "_hints", {}).values():
        yield hint


def leaves(froms: Sequence[Any]) -> Iterator[tuple[Any, bool]]:
    """What FROM joins, each with whether an outer join may put NULLs in its place."""
    for element in froms:
        yield from _leaves(element, nullable=False)


def _leaves(element: Any, *, nullable: bool) -> Iterator[tuple[Any, bool]]:
    if isinstance(element, Join):
        yield from _leaves(element.left, nullable=nullable or element.full)
        yield from _leaves(element.right, nullable=nullable or element.full or element.isouter)
    else:
        yield element, nullable


def constraints(criteria: Sequence[Any]) -> Iterator[Any]:
    """The conditions of which all must hold."""
    for condition in criteria:
        if isinstance(condition, Grouping):
            yield from constraints((condition.element,))
        elif isinstance(condition, BooleanClauseList) and condition.operator is operators.and_:
            yield from constraints(condition.clauses)
        else:
            yield condition


def pins_by_table(criteria: Sequence[Any], compiled: SQLCompiler) -> dict[FromClause, list[Pin]]:
    """The pins of a WHERE clause, by the element of FROM whose columns they are about."""
    found: dict[FromClause, list[Pin]] = {}
    for condition in constraints(criteria):
        if not isinstance(condition, BinaryExpression):
            continue
        column, value = condition.left, condition.right
        if condition.operator is operators.eq and isinstance(column, BindParameter):
            column, value = value, column
        if not isinstance(column, Column) or column.table is None:
            continue
        pin = _pin(column, condition.operator, value, compiled)
        if pin is not None:
            found.setdefault(column.table, []).append(pin)
    return found


def _pin(column: Column[Any], operator: Any, value: Any, compiled: SQLCompiler) -> Pin | None:
    table = real_table(column.table)
    if not isinstance(table, Table):
        return None
    real = table.columns.get(column.key)
    if real is None or real.name != column.name or real.name not in key_columns(table):
        return None
    if operator is operators.is_ and isinstance(value, Null):
        return Pin(real.name, None, False, _nothing)
    if operator not in (operators.eq, operators.in_op) or not isinstance(value, BindParameter):
        return None
    name = compiled.bind_names.get(value)
    if name is None or value.expanding is not (operator is operators.in_op):
        return None
    convert = converter(real, value.type, compiled.dialect)
    return Pin(real.name, name, value.expanding, convert) if convert is not None else None


def _nothing(value: Any) -> Value:
    return None
