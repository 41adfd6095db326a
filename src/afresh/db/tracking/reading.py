"""Collects what is read by the statements that run inside a block."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from sqlalchemy import Connection

from afresh.errors import InvalidStateError

from .facts import Read

__all__ = ["FindReader", "OnRead", "ReadRecorder", "Reader", "current_reader"]


class Reader(Protocol):
    """Whoever is told what statements read."""

    def record(self, read: Read) -> None:
        """Called with each read before its statement runs."""


FindReader: TypeAlias = Callable[[Connection], Reader | None]

OnRead: TypeAlias = Callable[[Read], None]

_current: ContextVar[ReadRecorder | None] = ContextVar("afresh_read_recorder", default=None)


class ReadRecorder:
    """A context manager in which statements of tracked engines tell what they read.

    A read is on record before its statement runs: a change that is committed between the two is
    then seen as touching it. Objects that a session finds among those it has already are read
    without a statement, so give every recorder a session of its own.

    Args:
        on_read: called with each read, the first time, before its statement runs; it must not
            raise.

    Example:
        ```python
        with ReadRecorder() as recorder:
            async with session_factory() as session:
                rows = await session.scalars(select(Order).where(Order.user_id == 1))
        print(recorder.reads)
        ```
    """

    __slots__ = ("_on_read", "_reads", "_token")

    def __init__(self, on_read: OnRead | None = None) -> None:
        self._on_read = on_read
        self._reads: dict[Read, None] = {}
        self._token: Token[ReadRecorder | None] | None = None

    @property
    def reads(self) -> tuple[Read, ...]:
        """What was read, each once, in order."""
        return tuple(self._reads)

    def record(self, read: Read) -> None:
        """Put a read on record, as statements do."""
        if read not in self._reads:
            self._reads[read] = None
            if self._on_read is not None:
                self._on_read(read)

    def __enter__(self) -> Self:
        if self._token is not None:
            raise InvalidStateError("This recorder is entered already; make a new one instead.")
        self._token = _current.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._token is not None
        _current.reset(self._token)
        self._token = None


def current_reader(connection: Connection) -> ReadRecorder | None:
    """The recorder of the innermost block around, if any."""
    return _current.get()
