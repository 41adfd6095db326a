"""RabbitMQ for a run."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers.processes import ServerMissing
from tests.servers.rabbitmq import RabbitMQ


@contextmanager
def rabbitmq() -> Iterator[str | None]:
    """Run a server; gives its URL, or None where it is not installed, which is printed."""
    try:
        server = RabbitMQ()
    except ServerMissing as missing:
        print(f"RabbitMQ is left out: {missing}.")
        yield None
        return
    server.start()
    try:
        yield server.url
    finally:
        server.close()
