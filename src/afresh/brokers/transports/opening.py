"""Which transport an address stands for."""

from __future__ import annotations

import importlib
from typing import Any, cast

from ..transport import Transport

__all__ = ["open_transport"]

_TRANSPORTS = {
    "memory": ("memory", "MemoryTransport", ""),
    "amqp": ("rabbitmq", "RabbitTransport", "rabbitmq"),
    "amqps": ("rabbitmq", "RabbitTransport", "rabbitmq"),
    "kafka": ("kafka", "KafkaTransport", "kafka"),
    "nats": ("nats", "NatsTransport", "nats-broker"),
    "tls": ("nats", "NatsTransport", "nats-broker"),
    "redis": ("redis", "RedisTransport", "redis-broker"),
    "rediss": ("redis", "RedisTransport", "redis-broker"),
    "servicebus": ("servicebus", "ServiceBusTransport", "servicebus"),
}


def open_transport(address: str | Transport, **options: Any) -> Transport:
    """Make the transport that an address stands for; it is yet to be started.

    Args:
        address: ``amqp://``, ``kafka://``, ``nats://``, ``redis://``, ``servicebus://`` (or a
            connection string of Azure Service Bus), ``memory://``; or a transport, which is
            returned as it is.
        options: what else the transport is made with.

    Raises:
        ValueError: there is no transport for such an address.
        ImportError: the library that it needs is not installed.
    """
    if isinstance(address, Transport):
        return address
    scheme = address.partition("://")[0].lower()
    if address.startswith("Endpoint="):
        scheme = "servicebus"
    found = _TRANSPORTS.get(scheme)
    if found is None:
        raise ValueError(
            f"There is no broker for {scheme!r}; use amqp://, kafka://, nats://, redis://, "
            "servicebus:// or memory://."
        )
    module, name, extra = found
    try:
        transport = getattr(importlib.import_module(f".{module}", __package__), name)
    except ImportError as error:
        raise ImportError(
            f"{scheme}:// needs a library that is not installed: pip install 'afresh[{extra}]'."
        ) from error
    return cast("Transport", transport(address, **options))
