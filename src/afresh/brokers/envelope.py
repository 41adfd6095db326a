"""CloudEvents 1.0: what a message says of itself, in headers of every kind of broker.

Binary mode is written: attributes in headers, data as it is. Structured mode, everything in one
JSON object, is read as well. See the specification, https://cloudevents.io, and its bindings for
AMQP, Kafka and NATS, which only differ in what stands in front of the names.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from afresh.errors import EnvelopeError

from .transport import IncomingMessage

__all__ = ["STRUCTURED", "Envelope", "read_envelope", "split_headers", "to_headers"]

STRUCTURED = "application/cloudevents+json"
VERSION = "1.0"
PREFIXES = ("ce-", "ce_", "cloudEvents_", "cloudEvents:")
_REQUIRED = ("id", "source", "type")


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What a message says of itself, and its data.

    Args:
        id: its name; with the source, nobody else's.
        source: who published it: a URI.
        type: of the event.
        data: as bytes.
        content_type: of the data.
        subject: what it is about: the key.
        time: when it happened.
        extensions: further attributes, such as "partitionkey", "sequence", "traceparent",
            "correlationid" and "causationid".
    """

    id: str
    source: str
    type: str
    data: bytes
    content_type: str = "application/json"
    subject: str | None = None
    time: datetime | None = None
    extensions: dict[str, str] = {}

    def attributes(self) -> dict[str, str]:
        """Return the attributes by their names, without the type of the data."""
        found = {"specversion": VERSION, "id": self.id, "source": self.source, "type": self.type}
        if self.subject is not None:
            found["subject"] = self.subject
        if self.time is not None:
            found["time"] = self.time.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return found | self.extensions


def to_headers(attributes: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Return attributes as headers, with the prefix of a kind of broker."""
    return {prefix + name: value for name, value in attributes.items()}


def split_headers(headers: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the attributes of CloudEvents among headers, and the other headers.

    Args:
        headers: as the broker gives them; values may be bytes. Every prefix is understood.
    """
    attributes: dict[str, str] = {}
    others: dict[str, str] = {}
    for name, value in headers.items():
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        for prefix in PREFIXES:
            if name.lower().startswith(prefix.lower()):
                attributes[name[len(prefix) :].lower()] = text
                break
        else:
            others[name] = text
    return attributes, others


def read_envelope(message: IncomingMessage) -> Envelope:
    """Return what a message says of itself, whichever mode it is in.

    Raises:
        EnvelopeError: it is no CloudEvent, or one that can't be read.
    """
    attributes = dict(message.attributes)
    data = message.body
    content_type = message.content_type
    if content_type.partition(";")[0].strip().lower() == STRUCTURED:
        attributes, data, content_type = _read_structured(message.body)
    missing = [name for name in _REQUIRED if not attributes.get(name)]
    if missing:
        raise EnvelopeError(
            f"A message of {message.destination!r} is no CloudEvent: it has no "
            f"{' and no '.join(missing)}."
        )
    version = attributes.pop("specversion", VERSION)
    if version != VERSION:
        raise EnvelopeError(f"A message is written in version {version!r} of CloudEvents.")
    known = {name: attributes.pop(name) for name in _REQUIRED}
    content_type = attributes.pop("datacontenttype", "") or content_type or "application/json"
    return Envelope(
        **known,
        data=data,
        content_type=content_type,
        subject=attributes.pop("subject", None),
        time=_read_time(attributes.pop("time", None)),
        extensions=attributes,
    )


def _read_structured(body: bytes) -> tuple[dict[str, str], bytes, str]:
    try:
        fields: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
        if "data_base64" in fields:
            data = base64.b64decode(fields.pop("data_base64"), validate=True)
        else:
            data = msgspec.json.encode(fields.pop("data", None))
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise EnvelopeError(f"A structured CloudEvent can't be read: {error}") from error
    attributes = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in fields.items()
        if value is not None
    }
    return attributes, data, attributes.pop("datacontenttype", "application/json")


def _read_time(text: str | None) -> datetime | None:
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 16:  # AMQP has a type of its own for it
        return datetime.fromtimestamp(int(text) / 1000, UTC)
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise EnvelopeError(f"{text!r} is no time of a CloudEvent.") from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
