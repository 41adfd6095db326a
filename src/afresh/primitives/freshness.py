"""What somebody has seen of operations, as a short text that travels from host to host.

Whoever changes something is told how far the log has come with it. A host that is shown this waits
until it has come as far itself, and then answers with nothing older: one reads what one has
written, whichever host one asks. Who waits, and where the text travels, is left to others.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TypeAlias
from urllib.parse import quote, unquote

__all__ = ["LONGEST", "Freshness", "Log", "note_freshness", "noted_freshness"]

Log: TypeAlias = tuple[str, str]
"""A log of operations: the names of the database and of the shard."""

MAX_LOGS = 100
"""Logs that a token may name."""
LONGEST = 1_000
"""Characters that a token has at most where it goes with a message."""


class Freshness(Mapping[Log, int]):
    """The index of the last operation that is known of, for each log. Immutable.

    Args:
        indexes: by log.

    Example:
        ```python
        token = str(Freshness({("default", ""): 1204}))  # "default/@1204"
        ```
    """

    __slots__ = ("_indexes",)

    def __init__(self, indexes: Mapping[Log, int] | None = None) -> None:
        self._indexes = dict(indexes or {})

    @classmethod
    def parse(cls, token: str) -> Freshness:
        """Return what a token stands for.

        Raises:
            ValueError: it is no token.
        """
        indexes: dict[Log, int] = {}
        parts = token.split(",") if token else []
        if len(parts) > MAX_LOGS:
            raise ValueError(f"A freshness token names {len(parts)} logs; {MAX_LOGS} are allowed.")
        for part in parts:
            place, at, index = part.rpartition("@")
            database, slash, shard = place.partition("/")
            if not (at and slash and index.isascii() and index.isdigit() and len(index) < 20):
                raise ValueError(f"{token[:80]!r} is no freshness token.")
            log = unquote(database), unquote(shard)
            indexes[log] = max(int(index), indexes.get(log, 0))
        return cls(indexes)

    def merged(self, other: Mapping[Log, int]) -> Freshness:
        """Return what both together know of; the logs of `other` come last."""
        indexes = dict(self._indexes)
        for log, index in other.items():
            indexes[log] = max(index, indexes.pop(log, index))
        return Freshness(indexes)

    def beyond(self, other: Mapping[Log, int]) -> Freshness:
        """Return what this knows of and `other` does not."""
        return Freshness(
            {log: index for log, index in self._indexes.items() if index > other.get(log, -1)}
        )

    def latest(self, length: int) -> Freshness:
        """Return as much of it as fits into a token of that many characters; the last logs do."""
        indexes: dict[Log, int] = {}
        for log, index in reversed(self._indexes.items()):
            length -= len(_place(log)) + len(str(index)) + 2
            if length < -1 or len(indexes) == MAX_LOGS:
                break
            indexes[log] = index
        return Freshness(dict(reversed(indexes.items())))

    def __getitem__(self, log: Log) -> int:
        return self._indexes[log]

    def __iter__(self) -> Iterator[Log]:
        return iter(self._indexes)

    def __len__(self) -> int:
        return len(self._indexes)

    def __str__(self) -> str:
        return ",".join(f"{_place(log)}@{index}" for log, index in self._indexes.items())

    def __repr__(self) -> str:
        return f"<Freshness {self}>"


@functools.lru_cache(maxsize=1_024)
def _place(log: Log) -> str:
    database, shard = log
    return f"{quote(database, safe='')}/{quote(shard, safe='')}"


noted_freshness: ContextVar[str | None] = ContextVar("afresh.noted_freshness", default=None)
"""The token of what was changed on behalf of the call that is handled here; None where there is
nobody to tell, such as outside of calls from other processes."""


def note_freshness(token: str) -> None:
    """Let the answer to the call that is handled here tell of a change.

    Args:
        token: of what was changed; empty if that is nothing. One that is too long is not told.
    """
    noted = noted_freshness.get()
    if noted is None or not 0 < len(token) <= LONGEST:
        return
    if noted and noted != token:
        token = str(Freshness.parse(noted).merged(Freshness.parse(token)).latest(LONGEST))
    noted_freshness.set(token)
