"""Well-known types of .NET peers, for contracts with them. They look the same whatever the naming.

`ExceptionInfo` is one more of them.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct

from ..exceptions import ExceptionInfo

__all__ = ["WELL_KNOWN", "Option", "Result", "VersionSet"]

T = TypeVar("T")
V = TypeVar("V")


class Option(Struct, Generic[T], frozen=True):
    """A value or none, where None may be a value: .NET's `Option<T>` and `ApiOption<T>`."""

    has_value: bool = False
    """Whether there is a value."""
    value_or_default: T | None = None
    """The value."""

    @staticmethod
    def some(value: V) -> Option[V]:
        """An option that holds a value."""
        return Option(True, value)


class Result(Struct, Generic[T], frozen=True, array_like=True):
    """A value or what is known of an error, as a value: .NET's `Result<T>`."""

    value_or_default: T | None = None
    """The value, if there was no error."""
    exception_info: ExceptionInfo | None = None
    """The error, if there was one."""


class VersionSet(Struct, frozen=True, array_like=True):
    """Versions of several things, such as ``Api=1.0,Db=2.3``."""

    value: str = ""
    """The text."""


WELL_KNOWN = frozenset({ExceptionInfo, Option, Result, VersionSet})
"""These are always named as in .NET; an `array_like` one is an array in binary formats."""
