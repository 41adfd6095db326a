"""The index answers as asking each read would, and forgets what is discarded."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from afresh.db.tracking import EVERYTHING, Read, ReadIndex, TableName, Write

values = st.integers(0, 3) | st.none()
sets = st.frozensets(values, max_size=2)
tables = st.builds(TableName, st.sampled_from(["x", "y"]), st.sampled_from(["a", "b", EVERYTHING]))
pins = st.dictionaries(st.sampled_from("ijk"), sets, max_size=3)
reads = st.builds(Read, tables, pins)
every_table = st.builds(TableName, st.just(EVERYTHING), st.sampled_from(["a", EVERYTHING]))
writes = st.builds(Write, tables | every_table, st.none() | st.lists(pins, max_size=3).map(tuple))


@given(st.lists(st.tuples(st.booleans(), reads, st.integers(0, 3)), max_size=30), writes)
def test_it_finds_what_asking_each_read_finds(steps: list[Any], write: Write) -> None:
    index = ReadIndex[int]()
    plain: set[tuple[Read, int]] = set()
    for adds, read, item in steps:
        if adds:
            index.add(read, item)
            plain.add((read, item))
        else:
            index.discard(read, item)
            plain.discard((read, item))
    assert len(index) == len({read for read, _ in plain})
    assert index.touched([write]) == {item for read, item in plain if write.touches(read)}
    for read, item in plain:
        index.discard(read, item)
    assert index._databases == {}


def test_reads_are_values() -> None:
    name = TableName("x", "a")
    one = Read(name, {"i": frozenset({1}), "j": frozenset({2})})
    same = Read(name, {"j": frozenset({2}), "i": frozenset({1})})
    assert (one, hash(one)) == (same, hash(same))
    assert one != Read(name, {"i": frozenset({1})})
    assert one != "a read"
    assert Write(name, ()) != Write(name)
    assert repr(Read(name)) == "Read(TableName(database='x', name='a'), {})"


def test_a_write_of_known_rows_looks_at_the_reads_of_their_values_only() -> None:
    """Among thousands: what is looked at is counted, not timed."""
    looked = 0

    class Counted(frozenset[Any]):
        def isdisjoint(self, other: Any) -> bool:
            nonlocal looked
            looked += 1
            return super().isdisjoint(other)

    index = ReadIndex[int]()
    name = TableName("x", "orders")
    for number in range(5000):
        index.add(Read(name, {"user_id": frozenset({number}), "status": frozenset({1})}), number)
    row = {"user_id": Counted({7, 8}), "status": Counted({1})}
    assert index.touched([Write(name, (row,))]) == {7, 8}
    assert looked <= 4
