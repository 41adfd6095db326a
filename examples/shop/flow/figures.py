"""The tiles at the top of the flow page: what was counted since the start, and the last minute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from afresh.ui.nicegui import live

from ..backstage.contracts import Board
from ..page import box
from .parts import words

SECONDS = 60


@dataclass(frozen=True, slots=True)
class Figure:
    """One tile: which of the `Counts` it shows, what people call it, and what it means."""

    name: str
    title: str
    meaning: str
    look: str = ""


FIGURES = (
    Figure("hits", "Cache hits", "Calls answered from what was computed before"),
    Figure("computes", "Computes", "Results worked out anew"),
    Figure("invalidations", "Invalidations", "Results that a change made stale"),
    Figure("commands", "Commands", "Wishes carried out, deliveries of messages among them"),
    Figure("operations", "Operations", "Transactions that changed something"),
    Figure("published", "Messages out", "Confirmed by the broker"),
    Figure("received", "Messages in", "Handled by the departments"),
    Figure("retried", "Retried", "Deliveries that failed and come again", "warn"),
    Figure("duplicates", "Duplicates", "Came twice, and had an effect once", "warn"),
    Figure("dead", "Dead letters", "Given up, and kept for a person to look at", "bad"),
)


class Figures:
    """The tiles, each a live part of its own.

    Args:
        board: what is counted.
    """

    def __init__(self, board: Board) -> None:
        self._board = board

    def build(self) -> None:
        with box("tiles", "section").props('aria-label="Figures"'):
            for figure in FIGURES:
                self.tile(figure)
            self.unsent()

    @live(delay=0.5)
    async def tile(self, figure: Figure) -> None:
        total = getattr(await self._board.total(), figure.name)
        values = [getattr(each.counts, figure.name) for each in await self._board.rates()]
        lately = values[-1] if values else 0
        rate = f"+{lately:,}" if lately else ""
        show_tile(figure.title, figure.meaning, total, rate, values, figure.look if total else "")

    @live(delay=0.5)
    async def unsent(self) -> None:
        total = await self._board.total()
        values = [each.counts.pending for each in await self._board.rates()]
        note = f"{age(total.oldest)} old" if total.pending else ""
        meaning = "In the outbox: committed, and not yet confirmed by the broker"
        look = "last warn" if total.pending else "last"
        show_tile("Unsent", meaning, total.pending, note, values, look)


def show_tile(
    title: str, meaning: str, value: int, note: str, values: Sequence[int], look: str
) -> None:
    """A title, a number, what happens to it just now, and its last minute as a line."""
    with box(f"tile {look}") as tile:
        tile.props["title"] = meaning
        words(title, "soft small clip")
        with box("tile-value"):
            words(short(value), "number")
            words(note, "tile-note")
        spark(values)


def spark(values: Sequence[int]) -> None:
    """A small line of the last minute, the newest at the right."""
    line = path(values)
    with box("spark", "svg").props('viewBox="0 0 59 24" preserveAspectRatio=none') as picture:
        picture.props["aria-hidden"] = "true"
        box("spark-area", "path").props["d"] = f"{line} V24 H0 Z"
        box("spark-line", "path").props["d"] = line


def path(values: Sequence[int]) -> str:
    """The line as SVG writes paths, in a box of 59 by 24; flat where nothing happened."""
    known = values[-SECONDS:]
    shown = [0] * (SECONDS - len(known)) + list(known)
    most = max(*shown, 1)
    points = [f"{second} {22 - 20 * each / most:.1f}" for second, each in enumerate(shown)]
    return "M" + " L".join(points)


def short(number: int) -> str:
    """A number that always fits a tile."""
    if number < 100_000:
        return f"{number:,}"
    return f"{number / 1000:,.0f}k" if number < 10_000_000 else f"{number / 1e6:,.0f}M"


def age(seconds: float) -> str:
    """How long ago, in the largest unit that says something."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.0f} h"
