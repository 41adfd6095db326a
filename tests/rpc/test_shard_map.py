"""Which node owns which shard.

The expected maps were computed by another implementation, from the rules of .NET peers.
"""

import functools
import math
import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.rpc.shard_map import ShardMap, ShardMapBuilder, greedy, maglev, rendezvous

UNEVEN = functools.partial(rendezvous, max_imbalance=math.inf)
BUILDERS = pytest.mark.parametrize("builder", [maglev, rendezvous, greedy, UNEVEN])
EVEN_BUILDERS = pytest.mark.parametrize("builder", [maglev, rendezvous, greedy])

COUNTS = st.integers(1, 150)
NAMES = st.lists(st.text(max_size=8), min_size=1, max_size=12, unique=True)


@pytest.mark.parametrize(
    ("shard_count", "node_count", "builder", "expected"),
    [
        (12, 3, maglev, "221201011002"),
        (12, 5, maglev, "421203131004"),
        (17, 4, maglev, "30122013030322110"),
        (60, 7, maglev, "206135433406255012515555046640243221640321631630024103624113"),
        (1, 3, maglev, "0"),
        (2, 2, maglev, "01"),
        (5, 9, maglev, "02341"),
        (12, 3, rendezvous, "210021210021"),
        (12, 5, rendezvous, "210231420344"),
        (17, 4, rendezvous, "21033122032102013"),
        (60, 7, rendezvous, "210241450344023516463151602131456656040205443133255632022605"),
        (1, 3, rendezvous, "2"),
        (2, 2, rendezvous, "10"),
        (5, 9, rendezvous, "21034"),
        (12, 3, UNEVEN, "210221220021"),
        (60, 7, UNEVEN, "210241450344020516465151602001456656040205443130255632022605"),
        (
            60,
            7,
            functools.partial(rendezvous, max_imbalance=3),
            "210241450344023516465151602031456656040205443133255632022605",
        ),
        (12, 3, greedy, "022110021201"),
        (12, 5, greedy, "234110031204"),
        (17, 4, greedy, "21022203030133101"),
        (60, 7, greedy, "323143535004244224125006013350563266610510161422354146560213"),
        (1, 3, greedy, "0"),
        (2, 2, greedy, "01"),
        (5, 9, greedy, "04321"),
    ],
)
def test_builders_give_the_maps_of_other_platforms(
    shard_count: int, node_count: int, builder: ShardMapBuilder, expected: str
) -> None:
    names = [f"node-{number}" for number in range(1, node_count + 1)]
    assert "".join(map(str, builder(shard_count, names))) == expected
    shards = ShardMap(shard_count, names, builder=builder)
    assert [shards[shard] for shard in range(shard_count)] == [
        names[int(index)] for index in expected
    ]


@BUILDERS
@given(shard_count=COUNTS, names=NAMES)
def test_every_shard_has_an_owner(
    builder: ShardMapBuilder, shard_count: int, names: list[str]
) -> None:
    shards = ShardMap(shard_count, names, builder=builder)
    assert {shards[shard] for shard in range(shard_count)} <= set(names)


@EVEN_BUILDERS
@given(shard_count=COUNTS, names=NAMES)
def test_shares_differ_by_one_shard_at_most(
    builder: ShardMapBuilder, shard_count: int, names: list[str]
) -> None:
    shares = Counter(dict.fromkeys(range(len(names)), 0))
    shares.update(builder(shard_count, names))
    assert max(shares.values()) - min(shares.values()) <= 1


@BUILDERS
@given(shard_count=COUNTS, names=NAMES)
def test_the_order_in_which_nodes_are_given_does_not_matter(
    builder: ShardMapBuilder, shard_count: int, names: list[str]
) -> None:
    first = ShardMap(shard_count, names, builder=builder)
    second = ShardMap(shard_count, reversed(names), builder=builder)
    assert str(first) == str(second)


@given(shard_count=COUNTS, names=NAMES, newcomer=st.text(max_size=8))
def test_with_uneven_shares_a_node_that_joins_takes_shards_and_moves_no_others(
    shard_count: int, names: list[str], newcomer: str
) -> None:
    before = ShardMap(shard_count, set(names) - {newcomer}, builder=UNEVEN)
    after = ShardMap(shard_count, {*names, newcomer}, builder=UNEVEN)
    for shard in range(shard_count):
        assert before[shard] is None or after[shard] in {newcomer, before[shard]}


@pytest.mark.parametrize("node_count", [2, 3, 5, 10])
def test_when_a_node_joins_or_leaves_little_more_than_its_share_moves(node_count: int) -> None:
    shard_count = 1009
    moved = 0
    for cluster in range(20):
        names = [f"cluster-{cluster}-node-{number}" for number in range(node_count)]
        few = ShardMap(shard_count, names[1:])
        many = ShardMap(shard_count, names)
        moved += sum(few[shard] != many[shard] for shard in range(shard_count))
    assert moved / 20 <= 1.3 * shard_count / node_count


@BUILDERS
def test_maps_do_not_depend_on_the_seed_of_the_process(builder: ShardMapBuilder) -> None:
    # A set gives its strings in another order under each seed.
    code = (
        "import functools, math\n"
        "from afresh.rpc.shard_map import ShardMap, greedy, maglev, rendezvous\n"
        "names = {f'node-{number}' for number in range(9)}\n"
        "uneven = functools.partial(rendezvous, max_imbalance=math.inf)\n"
        "for builder in (maglev, rendezvous, greedy, uneven):\n"
        "    print(ShardMap(40, names, builder=builder))\n"
    )
    maps = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(maps) == 1
    names = {f"node-{number}" for number in range(9)}
    assert str(ShardMap(40, names, builder=builder)) in maps.pop()


def test_keys_keep_their_shard_whoever_the_nodes_are() -> None:
    few = ShardMap(12, ["a", "b"])
    many = ShardMap(12, ["a", "b", "c"])
    assert few.shard_of("chat-1") == many.shard_of("chat-1") == -1505339802 % 12
    assert few.shard_of(b"\x00\x01\x02\xff") == -2055525537 % 12


def test_replicas_are_the_nodes_that_follow_the_owner() -> None:
    shards = ShardMap(12, ["c", "a", "b"])
    assert list(shards.nodes) == ["a", "b", "c"]
    owner = shards[0]
    assert owner is not None
    following = "abcabc"[(start := "abc".index(owner)) : start + 3]
    assert "".join(str(shards.replica(0, offset)) for offset in range(3)) == following
    assert shards.replica(0, 3) == owner
    assert shards.replica(0, -1) == following[-1]


def test_without_nodes_shards_have_no_owner() -> None:
    shards: ShardMap[str] = ShardMap(3)
    assert [shards[shard] for shard in range(3)] == [None, None, None]
    assert shards.replica(0, 1) is None
    assert str(shards) == "3 shards on 0 nodes"


def test_nodes_may_be_any_objects_that_have_a_name() -> None:
    class Host:
        def __init__(self, port: int) -> None:
            self.port = port

    hosts = [Host(2), Host(1)]
    with pytest.raises(TypeError, match="Host"):
        ShardMap(12, hosts)
    by_name = ShardMap(12, ["host-1", "host-2"])
    shards = ShardMap(12, hosts, name=lambda host: f"host-{host.port}")
    for shard in range(12):
        host = shards[shard]
        assert host is not None
        assert f"host-{host.port}" == by_name[shard]
    assert str(shards) == str(by_name)


def test_the_text_of_a_map_draws_it() -> None:
    assert str(ShardMap(4, ["b", "a"], builder=lambda count, names: [0, 1, 1, 0])) == (
        "4 shards on 2 nodes\n  +--+ a\n  -++- b"
    )


@pytest.mark.parametrize("shard", [-1, 3])
def test_shards_that_do_not_exist_are_an_error(shard: int) -> None:
    with pytest.raises(IndexError, match="3"):
        ShardMap(3, ["a"])[shard]
    with pytest.raises(IndexError, match="3"):
        ShardMap(3)[shard]


def test_a_map_without_shards_or_with_nodes_of_the_same_name_is_refused() -> None:
    with pytest.raises(ValueError, match="shard_count is 0"):
        ShardMap(0, ["a"])
    with pytest.raises(ValueError, match="'a'"):
        ShardMap(3, ["a", "b", "a"])
    with pytest.raises(ValueError, match="max_imbalance is 0"):
        rendezvous(3, ["a"], max_imbalance=0)
    with pytest.raises(ValueError, match="max_imbalance is nan"):
        rendezvous(3, ["a"], max_imbalance=math.nan)
