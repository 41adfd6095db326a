"""The graph across the wire: compute methods that live on the other side."""

from .cache import CacheEntry, CacheKey, MemoryCache, RemoteCache, SharedCache, SqliteCache
from .client import Client, connect
from .connection_monitor import ConnectionKind, ConnectionMonitor, ConnectionStatus
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
    "RemoteCache",
    "SharedCache",
    "SqliteCache",
    "connect",
]
