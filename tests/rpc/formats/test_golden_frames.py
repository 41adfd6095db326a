"""Frames that other implementations wrote: each is read, and written again, as its file says."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from afresh.rpc.formats import Format, Open, RecordNaming, get_format, register_open_type
from tests.rpc.formats.golden import frame_of, load, value_of, vectors, with_text_keys

FORMATS = ["json5np", "msgpack6", "msgpack6c"]


class Pet(msgspec.Struct):
    name: str


class Dog(Pet):
    pass


register_open_type(Pet, {"Samples.Dog, Samples": Dog})


def of_every_format() -> Iterator[Any]:
    for key in FORMATS:
        for each in load(f"frames-{key}")["vectors"]:
            yield pytest.param(key, each, id=f"{key}-{each['name']}")
    for each in load("frames-json5np")["vectors"]:
        yield pytest.param("json5", each, id=f"json5-{each['name']}")
    for each in load("frames-json5-polymorphic")["vectors"]:
        yield pytest.param("json5", each, id=f"json5-{each['name']}")


def is_polymorphic(vector: dict[str, Any]) -> bool:
    return bool(vector["name"].startswith("polymorphic."))


def values_in(wire: Format, section: bytes, count: int, *, is_polymorphic: bool) -> Any:
    if is_polymorphic:
        pet = wire.codec((Open[Pet] | None,), RecordNaming.DOTNET).decode_one(section)
        if pet is None:
            return [None]
        return [{"Name" if not wire.is_text else "name": pet.name}]
    return wire.codec((Any,) * count).decode(section)


@pytest.mark.parametrize(("key", "vector"), list(of_every_format()))
def test_a_frame_is_read_as_its_file_says(key: str, vector: dict[str, Any]) -> None:
    wire = get_format(key)
    messages, error = wire.decode(frame_of(vector))
    assert error is None
    assert len(messages) == len(vector["messages"])
    for message, expected in zip(messages, vector["messages"], strict=True):
        call_type, related_id, method, section, headers = message
        assert call_type == expected["callType"]
        assert related_id == expected["relatedId"]
        assert method == wire.method_key(expected["method"])
        assert wire.method_name(method) == expected["method"]
        assert [list(header) for header in headers] == expected.get("headers", [])
        count = len(expected["args"])
        values = values_in(wire, section, count, is_polymorphic=is_polymorphic(vector))
        assert with_text_keys(values) == value_of(expected["args"])


@pytest.mark.parametrize(("key", "vector"), list(of_every_format()))
def test_a_frame_is_written_as_its_file_says(key: str, vector: dict[str, Any]) -> None:
    wire = get_format(key)
    written = []
    for call_type, related_id, _, section, headers in wire.decode(frame_of(vector))[0]:
        expected = vector["messages"][len(written)]
        count = len(expected["args"])
        if is_polymorphic(vector):
            codec = wire.codec((Open[Pet] | None,), RecordNaming.DOTNET)
        else:
            codec = wire.codec((Any,) * count)
        again = codec.encode(codec.decode(section))
        write = wire.writer(expected["method"], call_type)
        written.append(write(related_id, again, headers))
    frame = wire.join(written)
    if wire.is_text:
        # Spelling is free there: only what is read from it must be the same.
        assert [message[:3] for message in wire.decode(frame)[0]] == [
            message[:3] for message in wire.decode(frame_of(vector))[0]
        ]
        test_a_frame_is_read_as_its_file_says(key, {**vector, "text": frame.decode()})
    elif vector.get("encode") != "decode-only":
        assert frame == frame_of(vector)


@pytest.mark.parametrize("vector", vectors("method-hashes"))
def test_methods_are_told_by_the_hash_of_their_name_in_compact_formats(vector: Any) -> None:
    compact = get_format("msgpack6c")
    assert compact.method_key(vector["name"]) == vector["uint32"]
    message = compact.writer(vector["name"])(0, b"")
    assert message[2:6].hex() == vector["wireHex"]


def conversations() -> Iterator[tuple[str, str, list[bytes]]]:
    """Format, step and frames of everything that was recorded."""
    for conversation in load("transcripts")["conversations"]:
        for step in conversation["steps"]:
            frames = [frame_of(it) for it in step["frames"] if "text" in it or "hex" in it]
            yield conversation["format"], step["step"], frames


RECORDED = [
    pytest.param(key, frames, id=f"{key}-{step[:40]}")
    for key, step, frames in conversations()
    if frames
]


@pytest.fixture
def names() -> list[str]:
    """The methods in the recordings; in all formats they are the same."""
    wire = get_format("json5np")
    return [
        wire.method_name(message[2])
        for key, _, frames in conversations()
        if key == wire.key
        for frame in frames
        for message in wire.decode(frame)[0]
    ]


@pytest.mark.parametrize(("key", "frames"), RECORDED)
def test_recorded_conversations_are_read_and_written(
    key: str, frames: list[bytes], names: list[str]
) -> None:
    wire = get_format(key)
    by_key = {wire.method_key(name): name for name in names}
    for frame in frames:
        messages, error = wire.decode(frame)
        assert error is None
        again = [
            wire.writer(by_key[method], call_type)(related_id, section, headers)
            for call_type, related_id, method, section, headers in messages
        ]
        if wire.is_text:
            assert wire.decode(wire.join(again))[0] == messages
        else:
            assert wire.join(again) == frame
