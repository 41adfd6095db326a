"""What commands show: texts, tables, and how far long work is."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from .sources import CommandError

__all__ = ["Progress", "duration", "reason_of", "table", "write"]

_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_SHOW_EVERY = 0.1
_ERASE = "\r\x1b[K"


def write(text: str, path: Path | None) -> None:
    """Write a text to a file, or to the screen if that is None.

    Raises:
        CommandError: the file can't be written.
    """
    if path is None:
        print(text, end="")
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}.") from error


def duration(seconds: float) -> str:
    """Return a duration for people, in the largest unit that fits: "3 min"."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return "0 s"


def reason_of(error: Exception) -> str:
    """Return why something failed, on a line; errors of databases show whole statements."""
    if isinstance(error, ConnectionError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def table(
    heads: Sequence[str], rows: Sequence[Sequence[object]], right: Collection[str] = ()
) -> str:
    """Return rows under their heads, as wide as they need to be.

    Args:
        heads: of the columns.
        rows: a value for each head.
        right: heads of the columns with numbers.
    """
    texts = [list(heads), *([_on_a_line(str(each)) for each in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    aligned = [str.rjust if head in right else str.ljust for head in heads]
    lines = (
        "  ".join(
            align(text, width) for align, text, width in zip(aligned, row, widths, strict=True)
        )
        for row in texts
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _on_a_line(text: str) -> str:
    """Return a text without what would move the cursor: messages come from anywhere."""
    words = " ".join(text.split())
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in words)


class Progress:
    """Shows how far long work is, on a terminal.

    Args:
        title: what is done.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._is_shown = sys.stderr.isatty()
        self._began_at = time.monotonic()
        self._shown_at = -1.0

    def show(self, count: int) -> None:
        """So many are done."""
        now = time.monotonic()
        if now - self._shown_at >= _SHOW_EVERY:
            self._shown_at = now
            self._print(f"{_ERASE}{self._title}: {count:,}")

    async def tick(self) -> None:
        """Show how long it has taken, again and again, where nobody tells how many are done."""
        while True:
            self._print(f"{_ERASE}{self._title}: {time.monotonic() - self._began_at:.0f} s")
            await asyncio.sleep(1)

    def end(self) -> None:
        """Leave nothing of it."""
        self._print(_ERASE)

    def _print(self, text: str) -> None:
        if self._is_shown:
            print(text, end="", file=sys.stderr, flush=True)
