"""A value or an error, as one thing that can be kept and passed on.

For outcomes that outlive the call that had them: states, user actions. Code that can simply return
or raise should.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, Never, TypeVar, cast

__all__ = ["Result"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Result(Generic[T_co]):
    """What a call came to: a value, which may be None, or an error.

    Make one with `Result.ok` or `Result.err`. Immutable. Two results are equal when their values
    are, or when they hold the very same error.

    ```python
    result = Result.ok(5)
    value, error = result
    ```
    """

    _value: T_co | None
    _error: BaseException | None

    @staticmethod
    def ok(value: T) -> Result[T]:
        """A result that holds a value."""
        return Result(value, None)

    @staticmethod
    def err(error: BaseException) -> Result[Never]:
        """A result that holds an error.

        The error is kept as it is, together with the traceback it has, and so with the local
        variables of the frames in it. Whoever keeps results for long should drop that first
        (`error.__traceback__ = None`), once it is logged.

        Raises:
            TypeError: `error` is not an exception.
        """
        if not isinstance(error, BaseException):
            raise TypeError(
                f"Result.err takes an exception, not {error!r}; pass a value to Result.ok."
            )
        return Result(None, error)

    @property
    def is_ok(self) -> bool:
        """True when there is a value, False when there is an error."""
        return self._error is None

    @property
    def value(self) -> T_co:
        """The value.

        Raises:
            BaseException: the error, when there is one. Its traceback starts here: a result may
                be asked often, and tracebacks would grow with each time.
        """
        if self._error is not None:
            raise self._error.with_traceback(None)
        return cast(T_co, self._value)

    @property
    def error(self) -> BaseException | None:
        """The error, or None when there is a value."""
        return self._error

    @property
    def value_or_none(self) -> T_co | None:
        """The value, or None when there is an error."""
        return self._value

    def __iter__(self) -> Iterator[Any]:
        """Unpack as `value, error = result`; one of them is None."""
        yield self._value
        yield self._error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Result):
            return NotImplemented
        if self._error is not None or other._error is not None:
            return self._error is other._error
        return bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash(self._value) if self._error is None else object.__hash__(self._error)

    def __repr__(self) -> str:
        if self._error is not None:
            return f"Result.err({self._error!r})"
        return f"Result.ok({self._value!r})"
