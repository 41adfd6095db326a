"""CloudEvents as others read and write them: held against the `cloudevents` package."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings import amqp, kafka, rabbitmq
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from afresh.brokers import IncomingMessage
from afresh.brokers.envelope import (
    STRUCTURED,
    Envelope,
    read_envelope,
    split_headers,
    to_headers,
)
from afresh.errors import EnvelopeError

TIME = datetime(2026, 11, 23, 18, 30, 5, 250_000, tzinfo=UTC)

ENVELOPE = Envelope(
    id="m1",
    source="/shop",
    type="shop.order_placed.v1",
    data=b'{"order_id":7,"user_id":"\xc3\xa4"}',
    subject="u1",
    time=TIME,
    extensions={"partitionkey": "u1", "causationid": "op1", "sequence": "12"},
)


def message(headers: dict[str, Any], body: bytes, content_type: str = "") -> IncomingMessage:
    attributes, others = split_headers(headers)
    return IncomingMessage("shop", body, content_type, attributes, others)


def headers(prefix: str) -> dict[str, str]:
    return to_headers(ENVELOPE.attributes(), prefix)


def check(event: Any) -> None:
    assert event.get_id() == "m1"
    assert event.get_source() == "/shop"
    assert event.get_type() == "shop.order_placed.v1"
    assert event.get_specversion() == "1.0"
    assert event.get_subject() == "u1"
    assert event.get_time() == TIME
    assert event.get_extension("causationid") == "op1"
    assert event.get_datacontenttype() == "application/json"
    assert event.get_data() == {"order_id": 7, "user_id": "ä"}


def test_others_read_what_is_written_for_rabbitmq() -> None:
    written = rabbitmq.RabbitMQMessage(headers("ce-"), "application/json", ENVELOPE.data)
    check(rabbitmq.from_binary(written, JSONFormat()))


def test_others_read_what_is_written_for_kafka() -> None:
    binary = {name: value.encode() for name, value in headers("ce_").items()}
    binary["content-type"] = b"application/json"
    check(kafka.from_binary(kafka.KafkaMessage(binary, "u1", ENVELOPE.data), JSONFormat()))


@pytest.mark.parametrize("prefix", ["cloudEvents:", "cloudEvents_"])
def test_others_read_what_is_written_for_amqp(prefix: str) -> None:
    written = amqp.AMQPMessage({"content-type": "application/json"}, headers(prefix), ENVELOPE.data)
    check(amqp.from_binary(written, JSONFormat()))


def foreign() -> CloudEvent:
    return CloudEvent(
        {
            "id": "m1",
            "source": "/shop",
            "type": "shop.order_placed.v1",
            "specversion": "1.0",
            "subject": "u1",
            "time": TIME,
            "datacontenttype": "application/json",
            "causationid": "op1",
        },
        {"order_id": 7, "user_id": "ä"},
    )


def check_read(envelope: Envelope) -> None:
    assert (envelope.id, envelope.source, envelope.type) == ("m1", "/shop", "shop.order_placed.v1")
    assert envelope.subject == "u1"
    assert envelope.time == TIME
    assert envelope.content_type == "application/json"
    assert envelope.extensions["causationid"] == "op1"
    assert json.loads(envelope.data) == {"order_id": 7, "user_id": "ä"}


def test_what_others_write_is_read_in_binary_mode() -> None:
    from_rabbit = rabbitmq.to_binary(foreign(), JSONFormat())
    content_type = from_rabbit.content_type or ""
    check_read(read_envelope(message(from_rabbit.headers, from_rabbit.body, content_type)))
    from_kafka = kafka.to_binary(foreign(), JSONFormat())
    given = dict(from_kafka.headers)
    content_type = given.pop("content-type").decode()
    check_read(read_envelope(message(given, from_kafka.value, content_type)))
    from_amqp = amqp.to_binary(foreign(), JSONFormat())
    properties = from_amqp.application_properties
    check_read(read_envelope(message(properties, from_amqp.application_data, "application/json")))


def test_what_others_write_is_read_in_structured_mode() -> None:
    body = JSONFormat().write(foreign())
    check_read(read_envelope(message({}, body, f"{STRUCTURED}; charset=utf-8")))


def test_structured_data_may_be_bytes() -> None:
    fields = {"id": "1", "source": "/s", "type": "t", "specversion": "1.0", "data_base64": "AAEC"}
    assert read_envelope(message({}, json.dumps(fields).encode(), STRUCTURED)).data == b"\0\1\2"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no id and no source and no type"),
        ({"ce-id": "1", "ce-source": "/s"}, "no type"),
        ({"ce-id": "1", "ce-source": "/s", "ce-type": "t", "ce-specversion": "0.3"}, "0.3"),
        ({"ce-id": "1", "ce-source": "/s", "ce-type": "t", "ce-time": "yesterday"}, "yesterday"),
    ],
)
def test_what_is_no_cloud_event_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(EnvelopeError, match=said):
        read_envelope(message(given, b"{}"))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"data_base64": "%%%"}'])
def test_a_structured_event_that_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(EnvelopeError):
        read_envelope(message({}, body, STRUCTURED))


def test_names_of_headers_are_read_in_any_case_and_others_are_left_alone() -> None:
    attributes, others = split_headers({"CE-ID": b"1", "Ce-Type": "t", "x-other": b"\xc3\xa4"})
    assert attributes == {"id": "1", "type": "t"}
    assert others == {"x-other": "ä"}
