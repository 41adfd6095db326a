"""Which transport an address stands for, and what it says of it."""

from __future__ import annotations

from typing import Any

import pytest

from afresh.brokers import open_transport


@pytest.mark.parametrize(
    ("address", "name", "said"),
    [
        ("memory://?max_bytes=10", "memory", {}),
        ("amqp://localhost/?heartbeat=30&max_bytes=10", "rabbitmq", {}),
        ("redis://localhost/2?max_length=5&max_bytes=10", "redis", {"_max_length": 5}),
        (
            "nats://localhost?replicas=3&max_age=60&max_bytes=10",
            "nats",
            {"_replicas": 3, "_max_age": 60.0},
        ),
        (
            "kafka://one:9092,two:9092?replicas=3&partitions=16&idempotent=no&max_bytes=10",
            "kafka",
            {"_replicas": 3, "_partitions": 16, "_servers": ["one:9092", "two:9092"]},
        ),
        (
            "servicebus://Root:c2VjcmV0@localhost:5999?emulator=true&lock=30&max_bytes=10",
            "servicebus",
            {"_lock": 30.0},
        ),
    ],
)
def test_an_address_says_what_a_transport_is_made_with(
    address: str, name: str, said: dict[str, Any]
) -> None:
    transport = open_transport(address)
    assert transport.capabilities.name == name
    assert transport.capabilities.max_bytes == 10
    assert {each: getattr(transport, each) for each in said} == said


def test_options_go_before_what_an_address_says() -> None:
    transport = open_transport("memory://?max_bytes=10", max_bytes=20)
    assert transport.capabilities.max_bytes == 20


def test_a_transport_is_what_it_is() -> None:
    transport = open_transport("memory://")
    assert open_transport(transport) is transport


def test_a_number_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="replicas=many"):
        open_transport("kafka://localhost?replicas=many")


def test_an_address_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="amqp://, kafka://"):
        open_transport("http://localhost")
