"""Which transport an address stands for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode

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

_SETTINGS: dict[str, dict[str, Callable[[str], Any]]] = {
    "kafka": {
        "partitions": int,
        "replicas": int,
        "max_bytes": float,
        "idempotent": lambda text: text.lower() not in {"0", "false", "no"},
    },
    "nats": {"replicas": int, "max_age": float, "max_bytes": float},
    "rabbitmq": {"max_bytes": float},
    "redis": {"max_length": int, "max_bytes": float},
    "servicebus": {"max_bytes": float, "lock": float},
    "memory": {"max_bytes": float},
}
"""What an address may say after a question mark; the rest is for the library."""


def open_transport(address: str | Transport, **options: Any) -> Transport:
    """Make the transport that an address stands for; it is yet to be started.

    Args:
        address: ``amqp://``, ``kafka://``, ``nats://``, ``redis://``, ``servicebus://`` (or a
            connection string of Azure Service Bus), ``memory://``; or a transport, which is
            returned as it is.
        options: what else the transport is made with. Numbers among them may stand in the address.

    Raises:
        ValueError: there is no transport for such an address, or a number in it is none.
        ImportError: the library that it needs is not installed.

    Example:
        ```python
        transport = open_transport("kafka://localhost:9092?partitions=16&replicas=3")
        ```
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
    address, said = _settings_of(address, _SETTINGS[module])
    return cast("Transport", transport(address, **{**said, **options}))


def _settings_of(
    address: str, known: dict[str, Callable[[str], Any]]
) -> tuple[str, dict[str, Any]]:
    """Return an address without what is known here, and that."""
    base, mark, query = address.partition("?")
    if not mark or "://" not in base or base.startswith("Endpoint="):
        return address, {}
    pairs = parse_qsl(query, keep_blank_values=True)
    rest = urlencode([(name, value) for name, value in pairs if name not in known])
    said: dict[str, Any] = {}
    for name, value in pairs:
        if name in known:
            try:
                said[name] = known[name](value)
            except ValueError as error:
                raise ValueError(f"{name}={value} in the address of a broker: {error}") from error
    return f"{base}?{rest}" if rest else base, said
