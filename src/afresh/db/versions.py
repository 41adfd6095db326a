"""Version columns: a change of a row that somebody else changed in between fails.

SQLAlchemy compares the version that was read with that in the database, and raises `StaleDataError`
where they differ; an operation is then tried again from the start. To keep others from changing a
row meanwhile, lock it instead, with `select(…).with_for_update()`.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, declared_attr, has_inherited_table, mapped_column

__all__ = ["VersionMixin", "next_version", "version_arguments"]


def next_version(current: int | None) -> int:
    """Return a version greater than the current one.

    Versions are microseconds since 1970 while clocks are in order, so that a row that was deleted
    and made anew has another version than the old one; they never go back when clocks do.

    Args:
        current: of the row; None for a new one.
    """
    now = time.time_ns() // 1000
    return now if current is None else max(now, current + 1)


def version_arguments(column: Any) -> dict[str, Any]:
    """Return what `__mapper_args__` needs to make a column of integers the version of rows.

    Example:
        ```python
        class OrderRow(Base):
            __tablename__ = "orders"
            id: Mapped[int] = mapped_column(primary_key=True)
            revision: Mapped[int] = mapped_column(BigInteger)
            __mapper_args__ = version_arguments(revision)
        ```
    """
    return {"version_id_col": column, "version_id_generator": next_version}


class VersionMixin:
    """Gives a mapped class a column `version`, which grows with each change of a row.

    It sets `__mapper_args__`; a class with arguments of its own adds them to
    `version_arguments(VersionMixin.version)`. Statements such as `update(OrderRow)` go past it.

    Example:
        ```python
        class OrderRow(VersionMixin, Base):
            __tablename__ = "orders"
            id: Mapped[int] = mapped_column(primary_key=True)
        ```
    """

    version: Mapped[int] = mapped_column(BigInteger)
    """Greater with each change."""

    @declared_attr.directive
    @classmethod
    def __mapper_args__(cls) -> dict[str, Any]:
        # A class that inherits from a mapped one has the versions of that.
        return {} if has_inherited_table(cls) else version_arguments(cls.version)
