"""The graph across the wire: compute methods that live on the other side."""

from .cache import CacheEntry, CacheKey, MemoryCache, RemoteCache, SharedCache, SqliteCache
from .client import Client, connect
from .kind import COMPUTE, ComputeCalls, ComputeKind

__all__ = [
    "COMPUTE",
    "CacheEntry",
    "CacheKey",
    "Client",
    "ComputeCalls",
    "ComputeKind",
    "MemoryCache",
    "RemoteCache",
    "SharedCache",
    "SqliteCache",
    "connect",
]
