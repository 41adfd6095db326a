"""The graph across the wire: compute methods that live on the other side."""

from .cache import (
    CacheEntry,
    CacheKey,
    MemoryCache,
    RemoteCache,
    SharedCache,
    SqliteCache,
    open_cache,
)
from .client import Client, connect
from .connection_monitor import ConnectionKind, ConnectionMonitor, ConnectionStatus, MonitoredPeer
from .kind import COMPUTE, ComputeCalls, ComputeKind

__all__ = [
    "COMPUTE",
    "CacheEntry",
    "CacheKey",
    "Client",
    "ComputeCalls",
    "ComputeKind",
    "ConnectionKind",
    "ConnectionMonitor",
    "ConnectionStatus",
    "MemoryCache",
    "MonitoredPeer",
    "RemoteCache",
    "SharedCache",
    "SqliteCache",
    "connect",
    "open_cache",
]
