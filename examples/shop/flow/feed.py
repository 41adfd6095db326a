"""The feed of the flow page: what happened in all processes, the newest first."""

from __future__ import annotations

import functools
from collections import Counter

from nicegui import ui

from afresh import MutableState
from afresh.ui.nicegui import keep, live

from ..backstage.contracts import Board, Happening, Kind
from ..departments.contracts import DEPARTMENTS
from ..page import box, icon
from .parts import quiet_note, titled, words

ROWS = 200
KINDS: dict[Kind, tuple[str, str, str]] = {
    "command": ("Commands", "Command", "terminal"),
    "operation": ("Operations", "Operation", "save"),
    "publish": ("Sent", "Sent", "north_east"),
    "receive": ("Received", "Received", "south_west"),
    "retry": ("Retries", "Retry", "replay"),
    "duplicate": ("Duplicates", "Duplicate", "content_copy"),
    "unknown": ("Unknown", "Unknown", "help_outline"),
    "dead": ("Dead", "Dead", "mark_email_unread"),
    "process": ("Processes", "Process", "power_settings_new"),
    "compute": ("Computes", "Compute", "calculate"),
    "invalidate": ("Invalidations", "Invalid", "update"),
}
"""For each kind: what the chip says, what a row says, and its icon."""
NOISY: frozenset[Kind] = frozenset({"compute", "invalidate"})


class Feed:
    """What happened, as far as the visitor wants to see it.

    Args:
        board: remembers it.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        # Computes and invalidations are many: whoever wants to see them says so.
        self._wanted: MutableState[frozenset[Kind]] = MutableState(frozenset(KINDS) - NOISY)

    def build(self) -> None:
        with box("panel feed", "section").props('aria-label="What happened"'):
            titled("What happened", f"In all processes, the newest first; {ROWS} at most.")
            with box("filters").props('role=group aria-label="Kinds to show"'):
                self.filters()
            with box("rows").props('role=log aria-live=off tabindex=0 aria-label="Events"'):
                self.rows()

    @live(delay=0)
    async def filters(self) -> None:
        wanted = self._wanted.use()
        for kind, (text, _, picture) in KINDS.items():
            is_on = kind in wanted
            chip = ui.button(on_click=functools.partial(self.toggle, kind), color=None)
            chip.props("flat no-caps dense").classes(f"filter {kind} {'on' if is_on else ''}")
            chip.props["aria-pressed"] = "true" if is_on else "false"
            with chip:
                icon("check" if is_on else picture, 16)
                words(text)

    def toggle(self, kind: Kind) -> None:
        self._wanted.set(self._wanted.value ^ {kind})

    @live(delay=0.5)
    async def rows(self) -> None:
        wanted = tuple(kind for kind in KINDS if kind in self._wanted.use())
        happenings = await self._board.feed(ROWS, wanted) if wanted else ()
        if not happenings:
            quiet_note("history", "Nothing yet." if wanted else "Choose what to show.")
        times: Counter[Happening] = Counter()
        for happening in reversed(happenings):  # equal ones are told apart from the oldest on
            times[happening] += 1
        for happening in happenings[:ROWS]:
            keep((happening, times[happening]), functools.partial(row, happening))
            times[happening] -= 1


def row(happening: Happening) -> ui.element:
    """One line of the feed; it never changes."""
    _, name, picture = KINDS[happening.kind]
    with box("happening fresh") as made:
        words(f"{happening.at.astimezone():%H:%M:%S}", "soft small numbers")
        with box(f"kind {happening.kind}"):
            icon(picture, 14)
            words(name)
        words(process_name(happening.process), "soft small clip process")
        text = words(happening.text, "what")
        if happening.correlation:
            text.props["title"] = f"Correlation: {happening.correlation}"
    return made


def process_name(process: str) -> str:
    return process.capitalize() if process in {*DEPARTMENTS, "shop"} else process
