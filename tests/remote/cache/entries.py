"""Entries to put into caches."""

from afresh.remote.cache import CacheEntry, CacheKey


def key(name: str = "a") -> CacheKey:
    """The key of a call with one argument."""
    return CacheKey("Orders.for_user:1", name.encode(), "msgpack6c")


def entry(name: str = "a", data: bytes = b"data", hashed: str = "") -> CacheEntry:
    """What that call returned."""
    return CacheEntry(key(name), data, hashed)
