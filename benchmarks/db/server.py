"""PostgreSQL for a run, as users have it."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers.postgresql import PostgreSQL
from tests.servers.processes import ServerMissing


class _Durable(PostgreSQL):
    """The server of the tests, but one that waits for the disk."""

    def command(self) -> list[str]:
        settings = {"fsync": "on", "full_page_writes": "on"}
        return super().command() + [
            part for setting in settings.items() for part in ("-c", "=".join(setting))
        ]


@contextmanager
def postgresql() -> Iterator[str | None]:
    """Run a server; gives the URL of a database whose user may create others, or None where it is
    not installed, which is printed.
    """
    try:
        server = _Durable()
    except ServerMissing as missing:
        print(f"PostgreSQL is left out: {missing}.")
        yield None
        return
    server.start()
    try:
        yield server.url
    finally:
        server.close()
