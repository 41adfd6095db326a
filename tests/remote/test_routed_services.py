"""Services spread over several hosts: each call goes where its target is, and follows it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from afresh.errors import InvalidStateError
from afresh.remote import ComputeCalls
from afresh.rpc.contracts import MethodDefinition
from afresh.rpc.exceptions import ExceptionPolicy
from afresh.rpc.hub import RpcHub
from afresh.rpc.routing import Route, ShardTargets, Target
from afresh.rpc.transports.memory import MemoryConnector
from afresh.testing import FakeClock
from tests.remote.services import Counters, MemoryCounters
from tests.rpc.pair import until


class Cluster:
    """Hosts that each have a hub and counters of their own, and a client that knows them all."""

    def __init__(self, names: str) -> None:
        self.counters = {name: MemoryCounters() for name in names}
        self.hubs = {
            name: RpcHub(kinds=(ComputeCalls(),), exceptions=ExceptionPolicy(expose_messages=True))
            for name in names
        }
        for name, hub in self.hubs.items():
            hub.serve(Counters, self.counters[name])  # type: ignore[type-abstract]
        self.client = RpcHub(
            kinds=(ComputeCalls(),),
            connectors=lambda url: MemoryConnector(self.hubs[url.removeprefix("memory:")]),
        )
        self.targets = ShardTargets(12, names, peer_url=self.url)

    def url(self, name: str) -> str | None:
        return None if name == "here" else f"memory:{name}"

    def route(self, method: MethodDefinition, args: tuple[object, ...]) -> Target | None:
        return self.targets.target_of(str(args[0]))

    def owner(self, key: str) -> str:
        url = self.targets.target_of(key).route.peer_url
        return "here" if url is None else url.removeprefix("memory:")

    async def aclose(self) -> None:
        for hub in (self.client, *self.hubs.values()):
            await hub.aclose()


@pytest.fixture
async def cluster(clock: FakeClock) -> AsyncIterator[Cluster]:
    cluster = Cluster("abc")
    yield cluster
    await cluster.aclose()


@contextlib.contextmanager
def moving(clock: FakeClock) -> Iterator[None]:
    """Let time pass as long as the block runs."""

    async def move() -> None:
        while True:
            await clock.advance(0.5)

    task = asyncio.get_running_loop().create_task(move())
    try:
        yield
    finally:
        task.cancel()


KEYS = [f"key {number}" for number in range(30)]


async def test_each_key_lives_on_one_host(cluster: Cluster) -> None:
    here = cluster.client.service(Counters, cluster.route)  # type: ignore[type-abstract]
    for key in KEYS:
        await here.set(key, 1)
        assert await here.get(key) == 1
    for key in KEYS:
        assert [name for name, each in cluster.counters.items() if key in each.values] == [
            cluster.owner(key)
        ]
    assert len({cluster.owner(key) for key in KEYS}) == 3


async def test_results_follow_their_shard_to_another_host(
    cluster: Cluster, clock: FakeClock
) -> None:
    here = cluster.client.service(Counters, cluster.route)  # type: ignore[type-abstract]
    nodes = {key: await here.get.capture(key) for key in KEYS}
    before = {key: cluster.owner(key) for key in KEYS}
    for key in KEYS:
        for counters in cluster.counters.values():
            counters.values[key] = 5
            counters.get.invalidate(key)
    for node in nodes.values():
        await node.when_invalidated()
    nodes = {key: await here.get.capture(key) for key in KEYS}
    cluster.targets.set_nodes("bc")
    for key, node in nodes.items():
        assert node.is_invalidated == (before[key] == "a"), key
    for key in KEYS:
        assert await here.get(key) == 5
        assert cluster.owner(key) != "a"
    peer = cluster.client.client_peer("memory:a")
    await until(lambda: not peer.outbound)


async def test_a_call_under_way_is_made_anew_when_its_shard_moves(
    cluster: Cluster, clock: FakeClock
) -> None:
    here = cluster.client.service(Counters, cluster.route)  # type: ignore[type-abstract]
    key = next(key for key in KEYS if cluster.owner(key) == "a")
    call = asyncio.create_task(here.slow(key))
    await until(lambda: cluster.counters["a"].computed)
    for counters in cluster.counters.values():
        counters.values[key] = 7
    cluster.targets.set_nodes("bc")
    await clock.advance(1)
    assert cluster.counters[cluster.owner(key)].computed == [key]
    cluster.counters[cluster.owner(key)].gate.set()
    assert await call == 7
    await until(lambda: not cluster.client.client_peer("memory:a").outbound)


async def test_what_has_come_here_runs_here_and_is_seen_as_a_dependency(
    cluster: Cluster, clock: FakeClock
) -> None:
    local = MemoryCounters()
    here = cluster.client.service(
        Counters,  # type: ignore[type-abstract]
        cluster.route,
        local=local,
    )
    cluster.targets.set_nodes(["here"])
    await here.set("x", 3)
    assert local.values == {"x": 3}
    node = await here.get.capture("x")
    await local.set("x", 4)
    assert node.is_invalidated
    node = await here.get.capture("x")
    assert node.value == 4
    cluster.targets.set_nodes("abc")
    assert node.is_invalidated
    assert await here.get("x") == 0
    cluster.targets.set_nodes(["here"])
    assert await here.get("x") == 4


async def test_a_call_that_has_nowhere_to_run_says_so(cluster: Cluster) -> None:
    here = cluster.client.service(
        Counters,  # type: ignore[type-abstract]
        lambda method, args: Target.local(),
    )
    with pytest.raises(InvalidStateError, match="local="):
        await here.set("x", 1)
    with pytest.raises(InvalidStateError, match="local="):
        await here.get("x")
    nowhere = cluster.client.service(
        Counters,  # type: ignore[type-abstract]
        lambda method, args: None,
    )
    with pytest.raises(InvalidStateError, match="default"):
        await nowhere.set("x", 1)


async def test_calls_without_a_target_go_to_the_default(cluster: Cluster) -> None:
    here = cluster.client.service(
        Counters,  # type: ignore[type-abstract]
        lambda method, args: None,
        default="memory:b",
    )
    await here.set("x", 1)
    assert await here.get("x") == 1
    assert cluster.counters["b"].values == {"x": 1}


async def test_a_host_may_say_that_a_call_belongs_elsewhere(
    cluster: Cluster, clock: FakeClock
) -> None:
    from afresh.errors import RerouteError

    class Moved(MemoryCounters):
        async def set(self, key: str, value: int) -> None:
            cluster.targets.set_nodes("bc")
            raise RerouteError("it lives elsewhere now")

    cluster.hubs["a"]._served["Counters"] = (
        cluster.hubs["a"]._served["Counters"][0],
        Moved(),
    )
    here = cluster.client.service(Counters, cluster.route)  # type: ignore[type-abstract]
    key = next(key for key in KEYS if cluster.owner(key) == "a")
    with moving(clock):
        await here.set(key, 2)
    assert cluster.counters[cluster.owner(key)].values == {key: 2}


async def test_a_shard_that_moves_all_the_time_is_read_right_in_the_end(
    cluster: Cluster, clock: FakeClock
) -> None:
    local = MemoryCounters()
    here = cluster.client.service(
        Counters,  # type: ignore[type-abstract]
        cluster.route,
        local=local,
    )
    everywhere = [*cluster.counters.values(), local]
    with moving(clock):
        for turn in range(40):
            cluster.targets.set_nodes([["a"], ["here"], ["b", "c"], ["here", "a"]][turn % 4])
            for counters in everywhere:
                await counters.set("x", turn)
            node = await here.get.capture("x")
            while node.value != turn:
                await node.when_invalidated()
                node = await here.get.capture("x")


def test_routes_are_shown_as_what_they_are() -> None:
    assert "static" in repr(Route(None, is_static=True))


async def test_a_host_that_is_gone_is_not_dialled_for_ever(
    cluster: Cluster, clock: FakeClock
) -> None:
    here = cluster.client.service(Counters, cluster.route)  # type: ignore[type-abstract]
    for key in KEYS:
        await here.get(key)
    assert len(cluster.client.peers) == 3
    cluster.targets.set_nodes("bc")
    await cluster.hubs["a"].aclose()
    await clock.advance(290)
    assert len(cluster.client.peers) == 3
    await clock.advance(30)
    assert sorted(peer.address for peer in cluster.client.peers) == ["memory:b", "memory:c"]
    cluster.targets.set_nodes("abc")
    asked = asyncio.create_task(here.get(next(key for key in KEYS if cluster.owner(key) == "a")))
    await clock.advance(1)
    assert len(cluster.client.peers) == 3
    asked.cancel()
