"""Garbage, cuts and lies in frames and values: they are reported, and nothing else happens."""

import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.errors import FormatError
from afresh.rpc.exceptions import ExceptionInfo
from afresh.rpc.formats import (
    Format,
    FrameError,
    Incoming,
    Moment,
    Open,
    Option,
    RecordNaming,
    Result,
    get_format,
    register_open_type,
)
from afresh.rpc.formats.sequences import decode_increasing, decode_varuint

FORMATS = ["json5np", "json5", "msgpack6", "msgpack6c"]
BINARY = ["msgpack6", "msgpack6c"]


def example_frame(wire: Format) -> bytes:
    call = wire.writer("Shop.order:2", 1)
    answer = wire.writer("$sys.Ok:1")
    section = wire.codec((int, str)).encode((300, "tea"))
    return wire.join(
        [
            call(5, section),
            call(300, section, [("#", "abc"), ("~p", "x" * 200)]),
            answer(70_000, wire.codec((None,)).encode_one(None)),
            answer(2**40, section),
        ]
    )


def most_memory(function: Callable[[], object]) -> int:
    """How many bytes were taken at most at once."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def check_messages(frame: bytes, messages: list[Incoming], error: FrameError | None) -> None:
    for call_type, related_id, _, section, headers in messages:
        assert 0 <= call_type <= 7
        assert 0 <= related_id < 2**64
        assert section in frame
        assert len(headers) <= 31
    assert error is None or isinstance(error, FrameError)


@pytest.mark.parametrize("key", BINARY)
def test_whatever_came_before_a_cut_is_kept(key):
    wire = get_format(key)
    frame = example_frame(wire)
    whole, _ = wire.decode(frame)
    complete = []
    for cut in range(len(frame) + 1):
        messages, error = wire.decode(frame[:cut])
        assert messages == whole[: len(messages)]
        if error is None:
            complete.append(len(messages))
        else:
            assert f"Message {len(messages) + 1} of a frame in {key}" in str(error)
    assert complete == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("key", ["json5", "json5np"])
def test_whatever_came_before_a_cut_in_text_is_kept(key):
    wire = get_format(key)
    frame = example_frame(wire)
    whole, _ = wire.decode(frame)
    complete = set()
    for cut in range(len(frame) + 1):
        messages, error = wire.decode(frame[:cut])
        # Nothing tells where the values of the last one would have ended.
        certain = messages[:-1] if error is None else messages
        assert certain == whole[: len(certain)]
        complete.add(len(certain))
    assert complete == {0, 1, 2, 3}


@pytest.mark.parametrize("key", FORMATS)
@given(garbage=st.binary(max_size=400))
def test_garbage_is_reported(key, garbage):
    wire = get_format(key)
    check_messages(garbage, *wire.decode(garbage))
    frame = example_frame(wire)
    separator = b"\n\x1e" if wire.is_text else b""
    messages, error = wire.decode(frame + separator + garbage)
    assert messages[:4] == wire.decode(frame)[0]
    check_messages(frame + separator + garbage, messages, error)


@pytest.mark.parametrize("key", FORMATS)
@given(data=st.data())
def test_frames_with_some_bytes_changed_are_read_or_reported(key, data):
    wire = get_format(key)
    frame = bytearray(example_frame(wire))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    check_messages(bytes(frame), *wire.decode(bytes(frame)))


@pytest.mark.parametrize("key", BINARY)
@pytest.mark.parametrize("length", [1, 2**16, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_section_that_claims_more_than_there_is_takes_no_memory(key, length):
    wire = get_format(key)
    good = wire.writer("S.m:0")(1, b"")
    frame = good + good[:-4] + struct.pack("<I", length)
    assert most_memory(lambda: wire.decode(frame)) < 20_000
    messages, error = wire.decode(frame)
    assert len(messages) == 1
    assert "ends beyond the frame" in str(error)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"\0" + b"\xff" * 10 + b"\x01", "64 bits"),
        (b"\0" + b"\xff" * 9 + b"\x02", "64 bits"),
        (b"\0\x01\xff\xff\xff\xff\x0f" + bytes(10), "name is 4294967295 bytes long"),
        (b"\0\x01\x81\x08" + bytes(2000), "name is 1025 bytes long"),
        (b"\0\x01\x05abc", "ends within it"),
        (b"\0", "ends within it"),
        (b"\x01\x01\x01a\0\0\0\0", "ends within it"),
        (b"\x01\x01\x01a\0\0\0\0\x05ab", "64 bits"),
        (b"\x01\x01\x01a\0\0\0\0\x01k\x05ab", "value of a header is 5 bytes long"),
        (b"\x01\x01\x01a\0\0\0\0\x01k\x81\x08" + bytes(2000), "value of a header is 1025"),
    ],
)
def test_lies_in_binary_frames_are_told_apart(frame, reason):
    messages, error = get_format("msgpack6").decode(frame)
    assert messages == []
    assert reason in str(error)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("", None),
        ("{}", "line feed"),
        ("{}\n", "missing required field `Method`"),
        ('{"Method":""}\n', "length >= 1"),
        ('{"Method":"' + "m" * 1025 + '"}\n', "length <= 1024"),
        ('{"Method":"m","RelatedId":-1}\n', "`int` >= 0"),
        ('{"Method":"m","RelatedId":18446744073709551616}\n', "64 bits"),
        ('{"Method":"m","RelatedId":1.5}\n', "Expected `int`"),
        ('{"Method":"m","CallType":8}\n', "`int` <= 7"),
        ('{"Method":"m","Headers":["a"]}\n', "a header has no value"),
        ('{"Method":"m","Headers":' + str(["a"] * 64).replace("'", '"') + "}\n", "length <= 62"),
        ('{"Method":"m","Headers":[1,2]}\n', "Expected `str`"),
        ('["m"]\n', "Expected `object`"),
        ('{"Method":"m"\n1', "truncated"),
        ('{"Method":"m"} x\n1', "malformed"),
        ('{"Method":"m","X":' + "[" * 100_000 + "\n", "recursion"),
    ],
)
def test_lies_in_text_frames_are_told_apart(frame, reason):
    messages, error = get_format("json5").decode(frame.encode())
    assert messages == []
    assert (error is None) if reason is None else (reason in str(error))


def test_text_that_is_no_utf8_is_reported():
    _, error = get_format("json5").decode(b'{"Method":"\xff"}\n1')
    assert "utf-8" in str(error)


class Line(msgspec.Struct):
    item: str
    count: int = 1
    left: timedelta | None = None


@dataclass
class Order:
    order_id: UUID
    placed_at: datetime
    lines: tuple[Line, ...] = ()
    total: Decimal | None = None


class Event(msgspec.Struct):
    number: int


class Paid(Event):
    how: str = "cash"


register_open_type(Event, {"paid": Paid})

TYPES: list[Any] = [
    (int,),
    (str, bytes),
    (bool | None, float, Decimal),
    (dict[int, list[str]], set[int]),
    (Order,),
    (list[Order], Any),
    (Open[Event], Open[Event] | None, int),
    (list[Open[Event]],),
    (Moment, timedelta),
    (Option[Line], Result[Order], ExceptionInfo),
    (None,),
    (),
    (int | str | None,) * 20,
]


json_like = st.text('[]{}",:0123456789.eE-+nulltruefase/*@=\x1f \\u', max_size=60).map(str.encode)


@pytest.mark.parametrize("key", ["json5np", "json5", "msgpack6c"])
@given(
    types=st.sampled_from(TYPES),
    naming=st.sampled_from(RecordNaming),
    garbage=st.binary(max_size=100) | json_like,
)
def test_garbage_among_the_values_raises_one_error_only(key, types, naming, garbage):
    codec = get_format(key).codec(types, naming)
    try:
        values = codec.decode(garbage)
    except FormatError:
        pass
    else:
        assert len(values) == len(types)
    if len(types) == 1:
        try:
            codec.decode_one(garbage)
        except FormatError:
            pass


@pytest.mark.parametrize("types", TYPES, ids=str)
@pytest.mark.parametrize(
    "section",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x05",
        b"\xdd\xff\xff\xff\xff" * 200,
        b"\x91" * 100_000,
        b"\x81" * 100_000,
        b"\xff\xff" + bytes(50),
    ],
    ids=lambda section: f"{section[:6].hex()}-{len(section)}",
)
def test_values_that_claim_more_than_there_is_take_no_memory(types, section):
    for naming in RecordNaming:
        codec = get_format("msgpack6").codec(types, naming)

        def decode(codec=codec):
            try:
                codec.decode(section)
            except FormatError:
                pass

        decode()
        assert most_memory(decode) < 100_000 + 40 * len(section)


@pytest.mark.parametrize("key", ["json5", "msgpack6"])
@pytest.mark.parametrize("naming", RecordNaming)
def test_values_within_values_without_end_are_refused(key, naming):
    wire = get_format(key)
    section = b"[" * 100_000 if wire.is_text else b"\x91" * 100_000
    for types in ((Any,), (Any, int), (list[Any],), (Order,)):
        with pytest.raises(FormatError, match="recursion"):
            wire.codec(types, naming).decode(section)


@pytest.mark.parametrize("annotation", [int, timedelta, Moment, int | None], ids=str)
@pytest.mark.parametrize("text", [b"1e999999999", b"1e300", b"-1e300", b"1e21", b"9" * 5000])
def test_numbers_beyond_64_bits_do_not_fill_the_memory(annotation, text):
    codec = get_format("json5").codec((annotation,))
    with pytest.raises(FormatError):
        codec.decode_one(text)


def test_decimals_beyond_all_bounds_are_as_short_as_they_are_written():
    codec = get_format("json5").codec((int | Decimal,))
    assert codec.decode_one(b"1e999999999") == Decimal("1e999999999")


@given(st.binary(max_size=60))
def test_sequences_of_ids_end_or_are_refused(data):
    try:
        ids = decode_increasing(data)
    except FormatError:
        return
    assert ids == sorted(ids)
    assert len(ids) <= len(data)
    assert all(0 <= each < 2**64 for each in ids)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9, b"\xff" * 9 + b"\x02", b"\x80" * 11])
def test_numbers_that_do_not_end_are_refused(data):
    with pytest.raises(FormatError, match="no number of at most 64 bits"):
        decode_varuint(data)


def test_numbers_may_be_longer_than_needed():
    assert decode_varuint(b"\x85\x80\x80\x80\x00") == (5, 5)
