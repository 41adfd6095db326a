"""Which watcher a database gets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url

from .file import FileWatcher
from .local import LocalWatcher, PollingWatcher
from .watcher import Watcher

__all__ = ["open_watcher"]

_EXTRAS = {
    "postgresql": "postgres",
    "redis": "redis",
    "rediss": "redis",
    "unix": "redis",
    "nats": "nats",
    "tls": "nats",
}
"""What has to be installed for an address that begins so."""


def open_watcher(
    spec: str | Watcher | None = None,
    *,
    database_url: str | URL,
    host_id: str = "",
    name: str = "",
    connect_options: Mapping[str, Any] | None = None,
) -> Watcher:
    """Make the watcher of a database; it is yet to be started.

    Args:
        spec: a watcher, which is returned as it is; or the address of what the hosts meet on:
            Redis (`redis://…`), NATS (`nats://…`) or a PostgreSQL database (`postgresql://…`); or
            "local", "polling" or "file". None is what suits the database: LISTEN/NOTIFY for
            PostgreSQL, a file beside the database for SQLite, polling for others.
        database_url: the address of the database, or of its first shard; empty if there is none.
        host_id: who sends, for people who look at the messages.
        name: tells databases of afresh apart that share one address, such as by the schema and
            prefix of their tables; the same on all hosts.
        connect_options: what else `asyncpg.connect` takes for the database itself, such as `ssl`.

    Raises:
        ValueError: `spec` is none of these.
        ImportError: the library that it needs is not installed.
    """
    if isinstance(spec, Watcher):
        return spec
    url = make_url(database_url or "none://")
    if spec is None and url.get_backend_name() == "postgresql":
        spec = url.render_as_string(hide_password=False)
        return _of_server(spec, url, host_id, name, connect_options)
    spec = spec or _suited_to(url)
    if spec == "local":
        return LocalWatcher()
    if spec == "polling":
        return PollingWatcher()
    if spec == "file":
        path = _file_of(url)
        if path is None:
            raise ValueError(
                'watcher="file" needs an SQLite database in a file; pass FileWatcher(path) with a '
                "path that all processes on this machine share."
            )
        return FileWatcher(path)
    return _of_server(spec, url, host_id, name, None)


def _suited_to(url: URL) -> str:
    if url.get_backend_name() != "sqlite":
        return "polling"
    return "local" if _file_of(url) is None else "file"


def _file_of(url: URL) -> Path | None:
    """The file beside an SQLite database, if that is in a file."""
    database = (url.database or "").removeprefix("file:")
    if url.get_backend_name() != "sqlite" or not database or database.startswith(":memory:"):
        return None
    return Path(f"{database}-afresh")


def _of_server(
    spec: str, url: URL, host_id: str, name: str, connect_options: Mapping[str, Any] | None
) -> Watcher:
    extra = _EXTRAS.get(spec.partition("://")[0].partition("+")[0])
    # One Redis or NATS may serve many databases, which all hosts know by their own names.
    name_there = f"{Path(url.database or '').name}/{name}"
    try:
        if extra == "postgres":
            from .postgres import PostgresWatcher

            return PostgresWatcher(
                spec, name=name, connect_options=connect_options, host_id=host_id
            )
        if extra == "redis":
            from .redis import RedisWatcher

            return RedisWatcher(spec, name=name_there, host_id=host_id)
        if extra == "nats":
            from .nats import NatsWatcher

            return NatsWatcher(spec, name=name_there, host_id=host_id)
    except ImportError as error:
        raise ImportError(
            f"This watcher needs {error.name}: pip install 'afresh[{extra}]', or choose another "
            'one, such as watcher="polling".',
            name=error.name,
        ) from error
    raise ValueError(
        f"{spec!r} is no watcher: pass an address redis://…, nats://… or postgresql://…, or one of "
        '"local", "polling" and "file".'
    )
