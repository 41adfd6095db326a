"""Writes survive the log, and what does not counts as more, never as less."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.db.tracking import (
    EVERYTHING,
    MAX_ENCODED_VALUES,
    Read,
    TableName,
    Write,
    decode_writes,
    encode_writes,
)

NAME = TableName("", "orders")
values = st.none() | st.integers() | st.text() | st.text("\ud800a", max_size=3) | st.just("x" * 300)
rows = st.dictionaries(
    st.sampled_from("ijk"), st.frozensets(values | st.integers(0, 2), max_size=3)
)
tables = st.builds(TableName, st.sampled_from(["", "east"]), st.sampled_from(["a", EVERYTHING]))
writes = st.lists(
    st.builds(Write, tables, st.none() | st.lists(rows, max_size=4).map(tuple)),
    unique_by=lambda write: write.table,
)
anything: Any = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(writes, st.builds(Read, tables, rows))
def test_whatever_a_write_touches_it_touches_after_the_log(some: list[Write], read: Read) -> None:
    text = msgspec.json.encode(encode_writes(some))
    back = decode_writes(msgspec.json.decode(text))
    assert not any(each.touches(read) for each in some) or any(each.touches(read) for each in back)


@given(anything)
def test_no_data_is_refused(data: Any) -> None:
    for write in decode_writes(data):
        write.touches(Read(NAME))


def test_what_is_short_comes_back_as_it_was() -> None:
    row = {"id": frozenset({7}), "user_id": frozenset({1, None}), "name": frozenset({"é"})}
    some = (
        Write(NAME, (row, {"id": frozenset({8})})),
        Write(TableName("east", "users")),
        Write(TableName("east", "items"), ()),
    )
    data = msgspec.json.decode(msgspec.json.encode(encode_writes(some)))
    assert decode_writes(data) == some
    assert data["east"] == {"users": None, "items": []}
    assert data[""]["orders"][1] == {"id": 8}


def test_many_values_are_the_whole_table() -> None:
    def written(count: int) -> Any:
        each = tuple({"id": frozenset({number})} for number in range(count))
        return encode_writes([Write(NAME, each)])[""]["orders"]

    assert len(written(MAX_ENCODED_VALUES)) == MAX_ENCODED_VALUES
    assert written(MAX_ENCODED_VALUES + 1) is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, Write(TableName(EVERYTHING, EVERYTHING))),
        ([["orders"]], Write(TableName(EVERYTHING, EVERYTHING))),
        ({"": ["orders"]}, Write(TableName("", EVERYTHING))),
        ({"": {"orders": {"ranges": []}}}, Write(NAME)),
        ({"": {"orders": ["all"]}}, Write(NAME)),
        ({"": {"orders": [{"id": 1.5, "a": 1}]}}, Write(NAME, ({"a": frozenset({1})},))),
        ({"": {"orders": [{"id": [True]}]}}, Write(NAME, ({},))),
    ],
)
def test_what_is_not_understood_counts_as_all_that_it_may_be(data: Any, expected: Write) -> None:
    assert decode_writes(data) == (expected,)
