"""What has just moved: the board counts since the start, a diagram shows the last moment.

All visitors share one `Traffic`, so that it is worked out once a second, however many look on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime

from afresh import ComputeService, compute_method

from ..backstage.contracts import Board, Counts

_NAMES = tuple(field.name for field in dataclasses.fields(Counts))


def since(before: Counts, now: Counts) -> Counts:
    """What was counted between; nothing where a restart let a count begin anew."""
    return Counts(*(max(0, getattr(now, name) - getattr(before, name)) for name in _NAMES))


class Traffic(ComputeService):
    """What each process counted between the last two ticks of the board, one a second.

    Args:
        board: counts since the start.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._tick: datetime | None = None
        self._before: Mapping[str, Counts] = {}
        self._moved: Mapping[str, Counts] = {}

    @compute_method
    async def lately(self) -> Mapping[str, Counts]:
        """By process; one that has just come to be known is not there yet."""
        samples = await self._board.rates()
        tick = samples[-1].at if samples else None
        now = {each: await self._board.counts(each) for each in await self._board.processes()}
        if tick != self._tick:
            self._moved = {
                each: since(self._before[each], counts)
                for each, counts in now.items()
                if each in self._before
            }
            self._tick, self._before = tick, now
        return self._moved
