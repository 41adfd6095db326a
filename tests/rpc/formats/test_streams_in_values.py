"""Streams among values: codecs know where some may be, and leave them to the table in use."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

import msgspec
import pytest

from afresh.errors import FormatError, InvalidStateError
from afresh.rpc.formats import Option, RecordNaming, Result, get_format
from afresh.rpc.streams import RpcStream
from afresh.rpc.streams.reference import coding
from tests.rpc.streams.ends import Ends, numbers, read

T = TypeVar("T")


class Row(msgspec.Struct):
    row_name: str
    row_values: RpcStream[int]


@dataclass
class Table:
    all_rows: list[Row]


class Holder(msgspec.Struct, Generic[T]):
    held: T


class Tree(msgspec.Struct):
    sub_trees: "list[Tree]" = []


@pytest.mark.parametrize(
    "annotation",
    [
        RpcStream,
        RpcStream[int],
        RpcStream[int] | None,
        list[RpcStream[int]],
        dict[str, tuple[int, RpcStream[int]]],
        Row,
        Table,
        Holder[Row],
        Option[Row],
        Result[Table | None],
    ],
    ids=str,
)
def test_a_codec_knows_that_there_may_be_streams(annotation):
    for key in ("json5", "msgpack6c"):
        assert get_format(key).codec((int, annotation)).has_streams


@pytest.mark.parametrize("annotation", [int, Any, list[str], Holder[int], Tree, None], ids=str)
def test_a_codec_knows_that_there_are_no_streams(annotation):
    for key in ("json5", "msgpack6c"):
        assert not get_format(key).codec((annotation,)).has_streams
        assert not get_format(key).codec(()).has_streams


@pytest.mark.parametrize("key", ["json5np", "msgpack6c"])
@pytest.mark.parametrize("naming", RecordNaming)
async def test_streams_within_records_arrive_and_can_be_read(key, naming):
    ends = Ends(key)
    codec = ends.format.codec((Table, RpcStream[int] | None, timedelta), naming)
    table = Table([Row("a", RpcStream(numbers(2))), Row("b", RpcStream(numbers(3)))])
    with coding(ends.owner.table):
        section = codec.encode((table, None, timedelta(1)))
    with coding(ends.reader.table):
        received, none, _ = codec.decode(section)
    assert none is None
    assert [row.row_name for row in received.all_rows] == ["a", "b"]
    assert [await read(row.row_values) for row in received.all_rows] == [[0, 1], [0, 1, 2]]
    ends.close()


@pytest.mark.parametrize("key", ["json5np", "msgpack6c"])
async def test_streams_outside_of_messages_are_refused(key):
    codec = get_format(key).codec((RpcStream[int],))
    with pytest.raises(InvalidStateError, match="into a message"):
        codec.encode_one(RpcStream(numbers(2)))
    with pytest.raises(InvalidStateError, match="from a message"):
        codec.decode_one(get_format(key).codec((Any,)).encode_one("x"))


@pytest.mark.parametrize("key", ["json5np", "msgpack6c"])
@pytest.mark.parametrize("naming", RecordNaming)
async def test_what_is_no_reference_is_refused(key, naming):
    ends = Ends(key)
    for annotation in (RpcStream[int], Row):
        codec = ends.format.codec((annotation,), naming)
        value: Any = "1,2" if annotation is not Row else {"row_name": "a", "row_values": 5}
        section = ends.format.codec((Any,)).encode_one(value)
        with coding(ends.reader.table):
            with pytest.raises(FormatError, match="no reference to a stream"):
                codec.decode_one(section)
    ends.close()
