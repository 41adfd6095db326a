"""A file beside the database: how processes on one machine tell each other.

Each change adds one byte to the file. Whoever finds more bytes than it added itself knows that
another process has committed. Looking is one `stat` of a small file, which is cheaper than a query
and needs neither a library nor a thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from afresh.primitives.clock import Timer, current_clock

from .watcher import LogKind, Watcher

__all__ = ["FileWatcher"]

_log = logging.getLogger("afresh.db")

_LONGEST = 65_536
"""A file of more bytes than this is emptied."""


class FileWatcher(Watcher):
    """Tells other processes on this machine by a file that all of them look at.

    Made for several processes on one SQLite database. Not for folders that a network shares.

    Args:
        path: the file; made when it is not there, and never removed.
        period: seconds between two looks; half of it is what others wait on average.
    """

    def __init__(self, path: str | os.PathLike[str], *, period: float = 0.05) -> None:
        super().__init__()
        if not period > 0:
            raise ValueError(f"FileWatcher: period is {period}; pass more than 0 seconds.")
        self.path: Path = Path(path)
        self._period = period
        self._timer: Timer | None = None
        self._is_telling = False
        self._seen: tuple[int, int] | None = None
        self._added = 0
        self._sent = 0
        self._received = 0
        self._error: str | None = None

    async def start(self) -> None:
        if self._timer is None:
            self._look()
            self._schedule()

    async def aclose(self) -> None:
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        if self._is_telling:
            self._add()

    def health(self) -> dict[str, object]:
        """How the watcher is doing; see `Watcher.health`.

        Returns:
            Beside `kind` and `connected`: `error`, why the file cannot be used; how many changes
            were `sent`, and how often changes of others were `received`.
        """
        return {
            "kind": "file",
            "connected": self._timer is not None and self._error is None,
            "error": self._error,
            "sent": self._sent,
            "received": self._received,
        }

    def _tell(self, kind: LogKind, shard: str) -> None:
        # What changes in one turn of the loop is one change for the others.
        if self._timer is not None and not self._is_telling:
            self._is_telling = True
            asyncio.get_running_loop().call_soon(self._add)

    def _schedule(self) -> None:
        self._timer = current_clock().call_later(self._period, self._turn)

    def _turn(self) -> None:
        self._schedule()
        self._look()

    def _add(self) -> None:
        self._is_telling = False
        try:
            with self.path.open("ab", buffering=0) as file:
                if file.tell() >= _LONGEST:
                    file.truncate(0)
                file.write(b".")
        except OSError as error:
            self._note_failure(error)
            return
        self._added += 1
        self._sent += 1

    def _look(self) -> None:
        try:
            try:
                status = self.path.stat()
            except FileNotFoundError:
                self.path.touch()
                status = self.path.stat()
        except OSError as error:
            self._note_failure(error)
            return
        self._error = None
        found = (status.st_ino, status.st_size)
        if self._seen is None or found != (self._seen[0], self._seen[1] + self._added):
            self._received += self._seen is not None
            self._wake_all()
        self._seen = found
        self._added = 0

    def _note_failure(self, error: OSError) -> None:
        if self._error is None:
            _log.warning(
                "%s cannot be used (%s); until it can, what other processes commit is found by "
                "polling. Let the process write to that folder, or choose another watcher.",
                self.path,
                error,
            )
        self._error = str(error)
