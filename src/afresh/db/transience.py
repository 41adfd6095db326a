"""Which errors of a database may pass by themselves, and which say that a commit did not happen.

By what the server says in numbers, so that the language of its messages does not matter. What to do
with the answers is left to operations and to the readers of logs.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError

from afresh.primitives.transience import Transience

__all__ = ["is_refusal", "transience_of_database_error"]

# SQLSTATEs of PostgreSQL, whole or by how they begin.
_TRANSIENT_STATES = (
    "08",  # the connection failed
    "40001",  # serialization failure
    "40P01",  # deadlock
    "53",  # too many connections, out of memory, disk full
    "55P03",  # a lock was not available
    "57P01",  # shutting down
    "57P02",  # crashed
    "57P03",  # starting up
)

# What refuses a COMMIT; with a state that is missing here the commit is in doubt.
_REFUSING_STATES = (
    "22",  # bad data, found by a deferred trigger
    "23",  # a deferred constraint is violated
    "25",  # the transaction is in a state that can't be committed
    "27",  # a deferred trigger changed what it must not
    "40000",  # rolled back
    "40001",  # serialization failure
    "40002",  # integrity
    "40P01",  # deadlock
    "42",  # a deferred trigger is wrong
    "44",  # a check option is violated
    "55P03",  # a lock was not available
    "57014",  # a deferred trigger took too long
    "P0",  # a deferred trigger raised an error
)

# Numbers of MySQL and MariaDB, those from 2000 to 2999 the client's own.
_TRANSIENT_NUMBERS = frozenset(
    {
        1020,  # the row changed since the transaction's snapshot
        1040,  # too many connections
        1047,  # the node of the cluster is not ready
        1053,  # shutting down
        1205,  # waited too long for a lock
        1213,  # deadlock
        1927,  # the connection was killed
        2002,  # can't connect through the socket
        2003,  # can't connect
        2006,  # the server has gone away
        2013,  # lost the connection during a query
        3572,  # a lock was not available
        4031,  # disconnected for being idle
    }
)

_REFUSING_NUMBERS = frozenset({1020, 1205, 1213})

_TRANSIENT_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

# After these the transaction is still open, or was rolled back.
_REFUSING_CODES = _TRANSIENT_CODES | {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_FULL}


def transience_of_database_error(error: BaseException) -> Transience:
    """Sort an error of a database, or one that a database's error caused.

    The first one that says something decides: the error itself, what SQLAlchemy wrapped in it, its
    cause, its context. Of a group of exceptions all members have to be transient.

    Transient are lost connections, serialization failures, deadlocks, locks that were not to be
    had, servers that start, stop or have too much to do, time-outs, and rows whose version changed
    in between (`StaleDataError`). A cancellation never is.

    Returns:
        `Transience.UNKNOWN` if nothing says what kind it is; what an error says by its `transience`
        attribute goes first.

    Example:
        ```python
        if transience_of_database_error(error) is Transience.TRANSIENT:
            ...
        ```
    """
    if isinstance(error, asyncio.CancelledError):
        return Transience.NON_TRANSIENT
    for each in _chain(error):
        kind = _kind_of(each)
        if kind is not Transience.UNKNOWN:
            return kind
    return Transience.UNKNOWN


def is_refusal(error: BaseException) -> bool:
    """Whether this error of a COMMIT is the database's answer that it did not happen.

    After any other error nobody knows, and the database has to be asked.
    """
    if isinstance(error, DBAPIError):
        if error.orig is None:
            return False
        error = error.orig
    if (number := _number_of(error)) is not None:
        return number in _REFUSING_NUMBERS
    if (state := _state_of(error)) is not None:
        return state.startswith(_REFUSING_STATES)
    return _sqlite_code_of(error) in _REFUSING_CODES


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it came from, each one once."""
    seen: set[int] = set()
    rest: list[BaseException | None] = [error]
    while rest:
        each = rest.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if not each.__suppress_context__:
            rest.append(each.__context__)
        rest.append(each.__cause__)
        if isinstance(each, DBAPIError):
            rest.append(each.orig)


def _kind_of(error: BaseException) -> Transience:
    """What one error says by itself, or all members of a group say together."""
    tag = getattr(error, "transience", None)
    if isinstance(tag, Transience):
        return tag
    if isinstance(error, BaseExceptionGroup):
        kinds = set(map(transience_of_database_error, error.exceptions))
        return kinds.pop() if len(kinds) == 1 else Transience.NON_TRANSIENT
    if isinstance(error, DBAPIError):
        return Transience.TRANSIENT if error.connection_invalidated else Transience.UNKNOWN
    if isinstance(error, (StaleDataError, PoolTimeoutError)):
        return Transience.TRANSIENT
    if (number := _number_of(error)) is not None:
        return _transient_if(number in _TRANSIENT_NUMBERS)
    if (state := _state_of(error)) is not None:
        return _transient_if(state.startswith(_TRANSIENT_STATES))
    if (code := _sqlite_code_of(error)) is not None:
        return _transient_if(code in _TRANSIENT_CODES)
    if isinstance(error, (FileNotFoundError, PermissionError)):
        return Transience.UNKNOWN  # about what was asked for, not about the moment
    if isinstance(error, OSError):  # a TimeoutError is one, too
        return Transience.TRANSIENT
    if type(error).__name__ == "InternalClientError" and _is_of(type(error), {"asyncpg"}):
        return Transience.TRANSIENT  # the connection broke between two steps of the driver
    return Transience.UNKNOWN


def _transient_if(condition: bool) -> Transience:
    return Transience.TRANSIENT if condition else Transience.NON_TRANSIENT


def _state_of(error: BaseException) -> str | None:
    """The SQLSTATE, as asyncpg and psycopg tell it; those of MySQL say too little."""
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def _sqlite_code_of(error: BaseException) -> int | None:
    """The primary code; the extended ones only say more."""
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if code is not None else None


def _number_of(error: BaseException) -> int | None:
    """The number with which errors of asyncmy and aiomysql begin."""
    if not _is_of(type(error), {"asyncmy", "pymysql", "aiomysql", "MySQLdb"}):
        return None
    number = error.args[0] if error.args else None
    return number if isinstance(number, int) else None


def _is_of(error_type: type, packages: set[str]) -> bool:
    return any(base.__module__.partition(".")[0] in packages for base in error_type.__mro__)
