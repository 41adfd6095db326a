"""Watchers: how hosts that share a database learn that one of them has committed something.

They carry no data, only "look now" (see `afresh.db.watchers.watcher`). `open_watcher` chooses one:
LISTEN/NOTIFY on PostgreSQL, a file beside an SQLite database, Redis or NATS where an address of
one is given, and polling for the rest. The watchers of servers need a library each (asyncpg, redis,
nats-py) and have modules that are imported only where they are used.
"""

from .channel import ChannelConnection, ChannelWatcher, channel_name
from .file import FileWatcher
from .local import LocalWatcher, PollingWatcher
from .opening import open_watcher
from .signal import Signal
from .watcher import LogKind, Watcher

__all__ = [
    "ChannelConnection",
    "ChannelWatcher",
    "FileWatcher",
    "LocalWatcher",
    "LogKind",
    "PollingWatcher",
    "Signal",
    "Watcher",
    "channel_name",
    "open_watcher",
]
