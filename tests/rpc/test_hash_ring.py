"""Nodes on a ring, each owning the keys whose hashes come before its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.rpc.hash_ring import HashRing
from afresh.rpc.stable_hash import stable_hash

NAMES = st.lists(st.text(max_size=8), min_size=1, max_size=12, unique=True)
HASHES = st.integers(-(2**31), 2**31 - 1)


def test_nodes_are_placed_by_their_hashes() -> None:
    # Computed by another implementation.
    ring = HashRing("abcde")
    assert list(ring.nodes) == ["e", "a", "b", "d", "c"]
    owners = [ring.find(stable_hash(f"order {number}")) for number in range(1, 7)]
    assert owners == ["d", "d", "d", "e", "d", "d"]


def test_a_key_with_the_hash_of_a_node_belongs_to_it_and_the_next_one_does_not() -> None:
    ring = HashRing("abc")
    for index, node in enumerate(ring.nodes):
        place = stable_hash(node)
        assert ring.find(place) == ring.find(place - 1) == node
        assert ring.find(place + 1) == ring.nodes[(index + 1) % 3]


def test_offsets_go_around_the_ring_in_both_directions() -> None:
    ring = HashRing("abc")
    start = stable_hash(ring.nodes[0])
    assert [ring.find(start, offset) for offset in range(-6, 7)] == (list(ring.nodes) * 5)[:13]


def test_several_nodes_of_a_key_differ_and_follow_each_other() -> None:
    ring = HashRing("abc")
    first, second, third = ring.nodes
    start = stable_hash(second)
    assert ring.several(start, 0) == ()
    assert ring.several(start, -1) == ()
    assert ring.several(start, 2) == (second, third)
    assert ring.several(start, 2, offset=1) == (third, first)
    assert ring.several(start, 9) == (second, third, first)
    assert ring.several(start, 9, offset=-7) == (first, second, third)


def test_an_empty_ring_has_nobody_to_name() -> None:
    ring: HashRing[str] = HashRing()
    assert len(ring) == 0
    assert ring.several(0, 3) == ()
    with pytest.raises(LookupError, match="empty"):
        ring.find(0)


def test_nodes_of_the_same_name_are_refused() -> None:
    with pytest.raises(ValueError, match="'a'"):
        HashRing(["a", "b", "a"])


def test_objects_whose_text_does_not_last_need_a_name() -> None:
    class Host:
        def __init__(self, port: int) -> None:
            self.port = port

    with pytest.raises(TypeError, match="Host"):
        HashRing([Host(1)])
    ring = HashRing([Host(1), Host(2)], name=lambda host: f"host-{host.port}")
    assert [host.port for host in ring.nodes] == [
        int(name[5:]) for name in HashRing(["host-1", "host-2"]).nodes
    ]


@given(NAMES, HASHES)
def test_the_order_in_which_nodes_are_given_does_not_matter(names: list[str], key: int) -> None:
    assert HashRing(names).find(key) == HashRing(reversed(names)).find(key)


@given(NAMES, st.text(max_size=8), HASHES)
def test_a_node_that_joins_takes_keys_and_moves_no_others(
    names: list[str], newcomer: str, key: int
) -> None:
    before = HashRing(name for name in names if name != newcomer)
    after = HashRing({*names, newcomer})
    assert not before or after.find(key) in {newcomer, before.find(key)}
