"""Watchers: how hosts that share a database learn that one of them has committed something.

They carry no data, only "look now" (see `afresh.db.watchers.watcher`). `open_watcher` chooses one:
LISTEN/NOTIFY on PostgreSQL, a file beside an SQLite database, Redis or NATS where an address of
one is given, and polling for the rest.
"""

from .local import LocalWatcher, PollingWatcher
from .signal import Signal
from .watcher import LogKind, Watcher

__all__ = ["LocalWatcher", "LogKind", "PollingWatcher", "Signal", "Watcher"]
