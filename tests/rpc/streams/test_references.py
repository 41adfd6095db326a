import json
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from afresh.errors import FormatError, InvalidStateError
from afresh.rpc.streams import RpcStream
from afresh.rpc.streams.item_types import item_type_within
from afresh.rpc.streams.reference import StreamReference, coding, from_wire, to_wire

from .ends import Ends, numbers, read, turns

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "stream-refs.json").read_text(encoding="utf-8")
)["vectors"]

HOST = uuid.UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")


class Tree(msgspec.Struct):
    values: RpcStream[float]
    children: list["Tree"] = []


class Row(msgspec.Struct):
    name: str
    values: RpcStream[int]
    rest: RpcStream[str] | None = None


def as_vector(reference: StreamReference) -> dict[str, Any]:
    return {
        "hostId": str(reference.host_id),
        "localId": reference.local_id,
        "ackPeriod": reference.ack_period,
        "ackAdvance": reference.ack_advance,
        "allowReconnect": reference.allow_reconnect,
        "isRealTime": reference.is_real_time,
    }


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["ref"]))
def test_references_are_read_as_the_vectors_say(vector: dict[str, Any]):
    if vector["parsed"] is None:
        with pytest.raises(FormatError, match="no reference to a stream"):
            StreamReference.parse(vector["ref"])
    else:
        assert as_vector(StreamReference.parse(vector["ref"])) == vector["parsed"]


@pytest.mark.parametrize("allow_reconnect", [True, False])
@pytest.mark.parametrize("is_real_time", [True, False])
def test_a_reference_is_written_as_it_is_read(allow_reconnect: bool, is_real_time: bool):
    reference = StreamReference(HOST, 3, 30, 61, allow_reconnect, is_real_time)
    assert reference.to_text() == (
        f"7c9e6679-7425-40de-944b-e07fc1f90ae7,3,30,61,{allow_reconnect:d},{is_real_time:d}"
    )
    assert StreamReference.parse(reference.to_text()) == reference
    assert StreamReference.parse(reference.to_map()) == reference
    packed = msgspec.msgpack.encode(reference.to_map())
    assert StreamReference.parse(msgspec.msgpack.decode(packed)) == reference


@pytest.mark.parametrize(
    "data",
    [
        None,
        5,
        [],
        "",
        ",,,",
        f"{HOST},0,30,61",
        f"{HOST},-1,30,61",
        f"{HOST},3,0,61",
        f"{HOST},3,30,0",
        f"{HOST},3,30,61,1,0,1",
        f"{HOST},{2**64},30,61",
        f"{HOST},3.0,30,61",
        "7c9e6679,3,30,61",
        {"SerializedId": [str(HOST)]},
        {"SerializedId": [str(HOST), True]},
        {"SerializedId": [str(HOST), 3], "AckPeriod": 0},
        {"SerializedId": [str(HOST), 3], "AckAdvance": "61"},
        {"SerializedId": [5, 3]},
        {"SerializedId": None},
    ],
    ids=str,
)
def test_what_is_no_reference_is_refused(data: object):
    with pytest.raises(FormatError, match="no reference to a stream"):
        StreamReference.parse(data)


def test_an_error_does_not_repeat_long_garbage():
    with pytest.raises(FormatError) as refused:
        StreamReference.parse("x" * 1_000_000)
    assert len(str(refused.value)) < 300


def test_a_reference_without_numbers_has_those_of_the_protocol():
    reference = StreamReference.parse({"SerializedId": [str(HOST), 3]})
    assert (reference.ack_period, reference.ack_advance) == (30, 61)


async def test_a_reference_names_the_peer_as_host_and_counts_from_one(ends: Ends):
    table = ends.owner.table
    first = table.share(RpcStream(numbers(1)))
    second = table.share(RpcStream(numbers(1), ack_period=5, ack_advance=9, allow_reconnect=False))
    assert first[:2] == (ends.owner.peer_id, 1)
    assert second == (ends.owner.peer_id, 2, 5, 9, False, False)


async def test_text_formats_write_text_and_binary_ones_a_map(ends: Ends):
    with coding(ends.owner.table):
        written = to_wire(RpcStream(numbers(1)))
    assert isinstance(written, str if ends.format.is_text else dict)


def test_a_stream_is_written_and_read_for_a_peer_only():
    with pytest.raises(InvalidStateError, match="message to another peer"):
        to_wire(RpcStream(numbers(1)))
    with pytest.raises(InvalidStateError, match="message of another peer"):
        from_wire(RpcStream[int], f"{HOST},3,30,61")


async def test_tables_can_be_nested_while_coding(ends: Ends):
    with coding(ends.owner.table):
        with pytest.raises(ZeroDivisionError), coding(ends.reader.table):
            _ = 1 / 0
        to_wire(RpcStream(numbers(1)))
    assert ends.counts == (1, 0)


async def test_an_empty_text_stands_for_a_stream_without_items(ends: Ends):
    with coding(ends.reader.table):
        assert await read(from_wire(RpcStream[int], "")) == []


async def test_streams_travel_inside_records(ends: Ends):
    row = ends.carry(Row("a", RpcStream(numbers(5))), Row)
    assert (row.name, row.rest) == ("a", None)
    assert row.values.item_type is int
    assert await read(row.values) == [0, 1, 2, 3, 4]


async def test_streams_travel_inside_lists_and_maps(ends: Ends):
    carried = ends.carry(
        {"a": [RpcStream(numbers(2)), RpcStream(numbers(3))]}, dict[str, list[RpcStream[int]]]
    )
    assert [await read(stream) for stream in carried["a"]] == [[0, 1], [0, 1, 2]]


async def test_streams_travel_inside_streams(ends: Ends):
    async def rows():
        for size in range(5):
            yield Row(str(size), RpcStream(numbers(size)))

    table = ends.carry(RpcStream(rows(), item_type=Row), RpcStream[Row])
    assert [(row.name, await read(row.values)) async for row in table] == [
        (str(size), list(range(size))) for size in range(5)
    ]


async def test_streams_travel_both_ways_at_once(ends: Ends):
    there = ends.carry(RpcStream(numbers(3)), RpcStream[int])
    back = ends.carry(RpcStream(numbers(4)), RpcStream[int], back=True)
    assert (await read(there), await read(back)) == ([0, 1, 2], [0, 1, 2, 3])


async def test_a_stream_that_came_from_a_peer_can_be_passed_on(ends: Ends):
    there = ends.carry(RpcStream(numbers(100)), RpcStream[int])
    back = ends.carry(there, RpcStream[int], back=True)
    assert await read(back) == list(range(100))


async def test_leaving_a_stream_that_was_passed_on_closes_its_source(ends: Ends):
    there = ends.carry(RpcStream(numbers(10_000, lambda _: True)), RpcStream[int])
    async for _ in ends.carry(there, RpcStream[int], back=True):
        break
    await turns(40)
    assert ends.counts == (0, 0)


class TestTypesOfItems:
    def test_the_stream_may_know_it(self):
        assert RpcStream(numbers(1), item_type=int).item_type is int
        assert RpcStream[float](numbers(1)).item_type is float
        assert RpcStream(numbers(1)).item_type is None

    @pytest.mark.parametrize(
        ("annotations", "expected"),
        [
            ((RpcStream[int],), int),
            ((str, RpcStream[int] | None, list[RpcStream[int]]), int),
            ((dict[str, list[RpcStream[bytes]]],), bytes),
            ((Tree,), float),
            ((list[Tree],), float),
            ((RpcStream[int], RpcStream[str]), Any),
            ((Row,), Any),
            ((RpcStream,), Any),
            ((int,), Any),
            ((), Any),
        ],
        ids=str,
    )
    def test_or_else_the_place_where_it_is_written_does(
        self, annotations: tuple[Any, ...], expected: Any
    ):
        assert item_type_within(annotations) == expected

    async def test_what_the_place_says_counts_for_the_bytes(self, ends: Ends):
        async def durations():
            yield timedelta(seconds=90)

        codec = ends.format.codec((RpcStream[timedelta],))
        with coding(ends.owner.table, codec.types):
            data = codec.encode_one(RpcStream(durations()))
        with coding(ends.reader.table):
            stream = codec.decode_one(data)
        assert await read(stream) == [timedelta(seconds=90)]
        _, item = ends.owner.named("$sys.I")[0]
        assert item == ("00:01:30" if ends.format.is_text else 900_000_000)
