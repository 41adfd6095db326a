"""The clock of the database, in SQL.

Leases, due times and ages are compared by it, so that hosts whose own clocks differ agree.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Float, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.sql.functions import GenericFunction

from ..columns import UtcTimestamp

__all__ = ["moment"]


class _Moment(GenericFunction[datetime]):
    """The time of the database, so many seconds from now."""

    type = UtcTimestamp()
    inherit_cache = True
    name = "afresh_moment"


def moment(seconds: float | ColumnElement[float] = 0.0) -> ColumnElement[datetime]:
    """Return an SQL expression: the time when the statement runs.

    Args:
        seconds: to add to it; negative for the past. A bound parameter is fine.
    """
    if not isinstance(seconds, ColumnElement):
        seconds = bindparam(None, float(seconds), Float())
    return _Moment(seconds)


@compiles(_Moment, "postgresql")
def _for_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"(clock_timestamp() + {seconds} * interval '1 second')"


@compiles(_Moment, "mysql")
@compiles(_Moment, "mariadb")
def _for_mysql(element: Any, compiler: Any, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"(UTC_TIMESTAMP(6) + INTERVAL ROUND({seconds} * 1000000) MICROSECOND)"


@compiles(_Moment, "sqlite")
def _for_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    # The form in which SQLAlchemy stores a date and time, so that the two compare.
    seconds = compiler.process(element.clauses, **options)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', {seconds} || ' seconds')"
