"""Routers, targets, routes, and what they do to calls."""

import asyncio
import itertools
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from afresh.errors import InvalidStateError, RerouteError
from afresh.primitives.clock import current_clock, use_clock
from afresh.rpc.routing import (
    REROUTE_DELAYS,
    ExecutionMode,
    Route,
    ShardTargets,
    Target,
    check_route,
    hosted,
    local_execution,
    reroute,
)
from afresh.rpc.shard_map import rendezvous
from afresh.testing import FakeClock

METHOD: Any = SimpleNamespace(wire_name="Chat.Post:2")


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with use_clock(FakeClock()) as clock:
        yield clock


class Cluster:
    """Something whose address changes."""

    def __init__(self) -> None:
        self.url: str | None = "ws://first"
        self.target = Target("primary", self.resolve)
        self.asked = 0

    def resolve(self) -> Route:
        self.asked += 1
        if self.url == "":
            raise RerouteError("It is moving.")
        return Route(self.url)

    def move(self, url: str | None) -> None:
        self.url = url
        self.target.mark_changed()


# -- targets and routes


def test_a_target_is_asked_for_its_route_when_somebody_reads_it() -> None:
    cluster = Cluster()
    assert cluster.asked == cluster.target.generation == 0
    route = cluster.target.route
    assert route is cluster.target.route
    assert (route.peer_url, route.is_local, route.is_changed) == ("ws://first", False, False)
    assert cluster.asked == cluster.target.generation == 1


def test_a_burst_of_changes_makes_one_new_route() -> None:
    cluster = Cluster()
    first = cluster.target.route
    for number in range(5):
        cluster.move(f"ws://{number}")
    assert cluster.asked == 1
    assert first.is_changed
    assert cluster.target.route.peer_url == "ws://4"
    assert cluster.asked == cluster.target.generation == 2


def test_a_reset_makes_a_new_route_at_once() -> None:
    cluster = Cluster()
    first = cluster.target.reset()
    second = cluster.target.reset()
    assert cluster.asked == 2
    assert first.is_changed
    assert second is cluster.target.route is not first


def test_a_route_that_changes_tells_those_who_follow_it_once() -> None:
    route = Route("ws://first")
    told: list[tuple[str, Route]] = []
    forget_early = route.on_changed(lambda changed: told.append(("early", changed)))
    route.on_changed(lambda changed: told.append(("first", changed)))
    forget_late = route.on_changed(lambda changed: told.append(("second", changed)))
    forget_early()
    route.mark_changed()
    route.mark_changed()
    assert told == [("first", route), ("second", route)]
    forget_early()
    forget_late()


def test_following_a_route_that_has_changed_tells_at_once() -> None:
    route = Route("ws://first")
    route.mark_changed()
    told: list[Route] = []
    forget = route.on_changed(told.append)
    assert told == [route]
    forget()


def test_a_follower_that_fails_does_not_keep_the_others_from_hearing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    route = Route("ws://first")
    told: list[Route] = []

    def fail(route: Route) -> None:
        raise ValueError("no")

    route.on_changed(fail)
    route.on_changed(told.append)
    route.mark_changed()
    assert told == [route]
    assert caplog.record_tuples[0][:2] == ("afresh.rpc.routing", logging.ERROR)


def test_a_route_that_follows_a_change_may_be_read_while_the_change_is_told() -> None:
    cluster = Cluster()
    seen: list[str | None] = []
    cluster.target.route.on_changed(lambda _: seen.append(cluster.target.route.peer_url))
    cluster.move("ws://second")
    assert seen == ["ws://second"]


def test_a_changed_route_fails_its_check() -> None:
    route = Route("ws://first")
    route.check()
    route.mark_changed()
    with pytest.raises(RerouteError, match="ws://first"):
        route.check()


@pytest.mark.parametrize("target", [Target.at("ws://fixed"), Target.local()])
def test_static_routes_never_change(target: Target) -> None:
    route = target.route
    told: list[Route] = []
    forget = route.on_changed(told.append)
    assert target.reset() is route
    for change in (route.mark_changed, target.mark_changed):
        with pytest.raises(InvalidStateError, match="static"):
            change()
    assert not route.is_changed
    assert told == []
    assert not route._handlers  # nothing is kept for calls that follow it
    forget()


def test_local_targets_are_in_this_process() -> None:
    assert Target.local().route.is_local
    assert Target.local().route.peer_url is None
    assert not Target.at("ws://fixed").route.is_local


def test_a_target_nobody_can_find_asks_again_each_time() -> None:
    cluster = Cluster()
    cluster.url = ""
    for _ in range(2):
        with pytest.raises(RerouteError, match="moving"):
            _ = cluster.target.route
    cluster.url = "ws://back"
    assert cluster.target.route.peer_url == "ws://back"
    assert cluster.target.generation == 1


def test_a_target_that_returns_its_changed_route_again_is_an_error() -> None:
    route = Route("ws://first")
    target = Target("stuck", lambda: route)
    target.mark_changed()  # there is none yet, and nothing happens
    assert target.route is route
    route.mark_changed()
    with pytest.raises(InvalidStateError, match="make a new Route"):
        _ = target.route


def test_targets_and_routes_say_what_they_are() -> None:
    cluster = Cluster()
    route = cluster.target.route
    assert repr(cluster.target) == "<Target 'primary', generation 1: <Route to ws://first>>"
    route.mark_changed()
    assert repr(route) == "<Route to ws://first, changed>"
    assert repr(Target.local().route) == "<Route to this process, static>"


# -- calls


async def test_a_call_goes_where_the_router_says() -> None:
    target = Target.at("ws://fixed")
    asked: list[Any] = []

    def router(method: Any, arguments: tuple[Any, ...]) -> Target | None:
        asked.append((method, arguments))
        return target if arguments[0] == "there" else None

    async def call(route: Route | None) -> str:
        return "default" if route is None else str(route.peer_url)

    assert await reroute(router, METHOD, ("there", 1), call) == "ws://fixed"
    assert await reroute(router, METHOD, ("here", 2), call) == "default"
    assert asked == [(METHOD, ("there", 1)), (METHOD, ("here", 2))]


async def test_a_call_whose_route_changes_is_made_again_elsewhere(clock: FakeClock) -> None:
    cluster = Cluster()
    seen: list[str | None] = []

    async def call(route: Route | None) -> str:
        assert route is not None
        seen.append(route.peer_url)
        if route.peer_url == "ws://second":
            return "done"
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        route.on_changed(lambda _: changed.set_exception(RerouteError("moved")))
        await changed
        raise AssertionError

    task = asyncio.ensure_future(reroute(lambda *_: cluster.target, METHOD, (), call))
    await clock.settle()
    cluster.move("ws://second")
    await clock.advance(0.05)
    assert seen == ["ws://first"]
    await clock.advance(0.07)
    assert seen == ["ws://first", "ws://second"]
    assert await task == "done"


async def test_waits_between_attempts_grow_up_to_five_seconds(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    times: list[float] = []

    async def call(route: Route | None) -> None:
        times.append(clock.now())
        raise RerouteError("not here")

    task = asyncio.ensure_future(reroute(lambda *_: None, METHOD, (), call))
    await clock.advance(60)
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert waits[0] == pytest.approx(0.1, rel=0.11)
    assert waits[1] == pytest.approx(0.1414, rel=0.11)
    assert waits[-1] == pytest.approx(5, rel=0.11)
    assert max(waits) <= 5.5
    assert REROUTE_DELAYS.maximum == 5
    assert "Chat.Post:2" in caplog.messages[0]
    assert "not here" in caplog.messages[0]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.timers == 0


async def test_a_call_whose_target_is_moving_waits_for_it(clock: FakeClock) -> None:
    cluster = Cluster()
    cluster.url = ""

    async def call(route: Route | None) -> str | None:
        assert route is not None
        return route.peer_url

    task = asyncio.ensure_future(reroute(lambda *_: cluster.target, METHOD, (), call))
    await clock.advance(1)
    cluster.url = "ws://back"
    await clock.advance(5.5)
    assert await task == "ws://back"


async def test_other_errors_of_routers_and_calls_reach_the_caller() -> None:
    attempts = 0

    def broken(*_: Any) -> Target:
        raise KeyError("router")

    async def call(route: Route | None) -> None:
        nonlocal attempts
        attempts += 1
        raise ValueError("call")

    with pytest.raises(KeyError, match="router"):
        await reroute(broken, METHOD, (), call)
    with pytest.raises(ValueError, match="call"):
        await reroute(lambda *_: None, METHOD, (), call)
    assert attempts == 1


def test_calls_that_came_to_the_wrong_host_are_sent_on() -> None:
    cluster = Cluster()
    with pytest.raises(RerouteError, match=r"Chat\.Post:2"):
        check_route(lambda *_: cluster.target, METHOD, ())
    cluster.move(None)
    assert check_route(lambda *_: cluster.target, METHOD, ()) is cluster.target.route
    assert check_route(lambda *_: None, METHOD, ()).is_local


# -- calls that come in


class Host:
    """A handler behind the middleware, as a hub would put it there."""

    def __init__(self, target: Target | None, *, is_compute: bool = False, **options: Any) -> None:
        kind = SimpleNamespace(id=int(is_compute))
        self.method: Any = SimpleNamespace(wire_name="Chat.Post:2", kind=kind)
        self.asked: list[Any] = []
        self.handled = 0
        self.gate = asyncio.Event()
        self.target = target
        self.middleware = hosted(self.route, **options)

    def route(self, method: Any, arguments: tuple[Any, ...]) -> Target | None:
        self.asked.append((method, arguments))
        return self.target

    async def handle(self) -> str:
        self.handled += 1
        await self.gate.wait()
        return "done"

    async def receive(self) -> str:
        request: Any = SimpleNamespace(method=self.method, args=["x", 5])
        result: str = await self.middleware(request, self.handle)
        return result


@pytest.mark.parametrize("target", [Target.local(), Target("here", lambda: Route(None)), None])
async def test_a_host_runs_what_belongs_to_it_and_what_belongs_to_nobody(
    target: Target | None,
) -> None:
    host = Host(target)
    host.gate.set()
    assert await host.receive() == "done"
    assert host.asked == [(host.method, ("x", 5))]


async def test_a_host_sends_on_what_belongs_to_others_before_anything_runs() -> None:
    host = Host(Target.at("ws://elsewhere"))
    with pytest.raises(RerouteError, match=r"Chat\.Post:2"):
        await host.receive()
    assert host.handled == 0


@pytest.mark.parametrize(
    ("options", "is_cancelled"),
    [
        ({}, True),
        ({"is_compute": True}, False),
        ({"mode": lambda method: ExecutionMode.UNCONSTRAINED}, False),
        ({"mode": lambda method: ExecutionMode.CONSTRAINED, "is_compute": True}, True),
    ],
)
async def test_calls_that_run_when_their_shard_leaves_end_as_their_mode_says(
    options: dict[str, Any], is_cancelled: bool
) -> None:
    target = Target("here", lambda: Route(None))
    host = Host(target, **options)
    task = asyncio.ensure_future(host.receive())
    await a_few_turns()
    target.mark_changed()
    await a_few_turns()
    host.gate.set()
    if is_cancelled:
        with pytest.raises(RerouteError):
            await task
    else:
        assert await task == "done"
    assert host.handled == 1


# -- calls that run in this process


def gated() -> tuple[Route, asyncio.Event]:
    event = asyncio.Event()
    return Route(None, entry_gate=event.wait), event


async def run_in(route: Route, mode: ExecutionMode, log: list[str]) -> str:
    async with local_execution(route, mode):
        log.append("entered")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
    raise AssertionError


async def a_few_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_unconstrained_call_does_not_look_at_the_route() -> None:
    route, _ = gated()
    route.mark_changed()
    async with local_execution(route, ExecutionMode.UNCONSTRAINED):
        entered = True
    assert entered


@pytest.mark.parametrize("mode", [ExecutionMode.CONSTRAINED_ENTRY, ExecutionMode.CONSTRAINED])
async def test_a_constrained_call_waits_for_the_entry_gate(mode: ExecutionMode) -> None:
    route, gate = gated()
    log: list[str] = []
    task = asyncio.ensure_future(run_in(route, mode, log))
    await a_few_turns()
    assert log == []
    gate.set()
    await a_few_turns()
    assert log == ["entered"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["entered", "cancelled"]


@pytest.mark.parametrize("mode", [ExecutionMode.CONSTRAINED_ENTRY, ExecutionMode.CONSTRAINED])
async def test_a_change_before_the_entry_keeps_a_constrained_call_out(mode: ExecutionMode) -> None:
    route = Route(None)
    route.mark_changed()
    log: list[str] = []
    with pytest.raises(RerouteError):
        await run_in(route, mode, log)
    assert log == []


@pytest.mark.parametrize("mode", [ExecutionMode.CONSTRAINED_ENTRY, ExecutionMode.CONSTRAINED])
@pytest.mark.parametrize("is_opened", [False, True])
async def test_a_change_at_the_gate_keeps_a_constrained_call_out(
    mode: ExecutionMode, is_opened: bool
) -> None:
    route, gate = gated()
    log: list[str] = []
    task = asyncio.ensure_future(run_in(route, mode, log))
    await a_few_turns()
    if is_opened:
        gate.set()
    route.mark_changed()
    with pytest.raises(RerouteError):
        await asyncio.wait_for(task, 5)
    assert log == []


async def test_a_change_cancels_a_constrained_call_and_sends_it_elsewhere() -> None:
    route = Route(None)
    log: list[str] = []
    task = asyncio.ensure_future(run_in(route, ExecutionMode.CONSTRAINED, log))
    await a_few_turns()
    route.mark_changed()
    with pytest.raises(RerouteError, match="this process") as raised:
        await asyncio.wait_for(task, 5)
    assert log == ["entered", "cancelled"]
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)
    assert task.cancelling() == 0


@pytest.mark.parametrize("has_gate", [False, True])
async def test_a_change_lets_a_call_with_constrained_entry_run_on(has_gate: bool) -> None:
    route, gate = gated() if has_gate else (Route(None), asyncio.Event())
    gate.set()
    async with local_execution(route, ExecutionMode.CONSTRAINED_ENTRY):
        route.mark_changed()
        await a_few_turns()
        log = ["finished"]
    assert log == ["finished"]


async def test_a_call_that_changes_its_own_route_as_its_last_step_has_succeeded() -> None:
    route = Route(None)
    async with local_execution(route, ExecutionMode.CONSTRAINED):
        route.mark_changed()
    # A cancellation left behind would strike here.
    await a_few_turns()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_call_that_changes_its_own_route_is_cancelled_where_it_waits() -> None:
    route = Route(None)

    async def move_away() -> None:
        async with local_execution(route, ExecutionMode.CONSTRAINED):
            route.mark_changed()
            await asyncio.sleep(3600)

    with pytest.raises(RerouteError):
        await move_away()


async def test_a_call_that_withstands_its_cancellation_keeps_its_result() -> None:
    route = Route(None)

    async def stubborn() -> str:
        async with local_execution(route, ExecutionMode.CONSTRAINED):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                return "saved"
        return "never"

    task = asyncio.ensure_future(stubborn())
    await a_few_turns()
    route.mark_changed()
    assert await asyncio.wait_for(task, 5) == "saved"
    assert task.cancelling() == 0


async def test_a_caller_that_cancels_counts_for_more_than_a_change() -> None:
    route = Route(None)
    log: list[str] = []
    task = asyncio.ensure_future(run_in(route, ExecutionMode.CONSTRAINED, log))
    await a_few_turns()
    route.mark_changed()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["entered", "cancelled"]


async def test_an_error_of_the_call_counts_for_more_than_a_change() -> None:
    route = Route(None)

    async def failing() -> None:
        async with local_execution(route, ExecutionMode.CONSTRAINED):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                raise ValueError("while cleaning up") from None

    task = asyncio.ensure_future(failing())
    await a_few_turns()
    route.mark_changed()
    with pytest.raises(ValueError, match="while cleaning up"):
        await task


async def test_a_call_within_a_timeout_is_told_apart_from_a_change() -> None:
    route = Route(None)
    with pytest.raises(TimeoutError):
        async with (
            asyncio.timeout(0.01),
            local_execution(route, ExecutionMode.CONSTRAINED),
        ):
            await asyncio.sleep(3600)


async def test_a_gate_that_fails_fails_the_call() -> None:
    async def gate() -> None:
        raise ValueError("shut")

    route = Route(None, entry_gate=gate)
    log: list[str] = []
    with pytest.raises(ValueError, match="shut"):
        await run_in(route, ExecutionMode.CONSTRAINED, log)
    assert log == []
    route.mark_changed()
    await a_few_turns()


@pytest.mark.parametrize("mode", [ExecutionMode.CONSTRAINED_ENTRY, ExecutionMode.CONSTRAINED])
async def test_static_routes_have_gates_as_well(mode: ExecutionMode) -> None:
    passed: list[str] = []

    async def gate() -> None:
        passed.append("gate")

    async with local_execution(Route(None, entry_gate=gate, is_static=True), mode):
        passed.append("body")
    assert passed == ["gate", "body"]


async def test_calls_that_are_over_leave_nothing_on_the_route() -> None:
    route, gate = gated()
    gate.set()
    for mode in ExecutionMode:
        async with local_execution(route, mode):
            pass
    assert not route._handlers


@pytest.mark.parametrize(
    ("is_compute", "is_distributed", "mode"),
    [
        (False, False, ExecutionMode.UNCONSTRAINED),
        (True, False, ExecutionMode.UNCONSTRAINED),
        (False, True, ExecutionMode.CONSTRAINED),
        (True, True, ExecutionMode.CONSTRAINED_ENTRY),
    ],
)
def test_what_has_effects_is_constrained_most(
    is_compute: bool, is_distributed: bool, mode: ExecutionMode
) -> None:
    assert ExecutionMode.default(is_compute=is_compute, is_distributed=is_distributed) is mode


# -- shards


def shards_of(*nodes: str, **options: Any) -> ShardTargets[str]:
    return ShardTargets(
        12, nodes, peer_url=lambda node: None if node == "me" else f"ws://{node}", **options
    )


def test_shards_are_targets_that_last_wherever_they_are() -> None:
    shards = shards_of("a", "b")
    targets = [shards.target(shard) for shard in range(12)]
    shards.set_nodes(["c"])
    assert [shards.target(shard) for shard in range(12)] == targets
    assert shards.target_of("chat-1") is targets[-1505339802 % 12]
    assert shards.target_of(b"\x00\x01\x02\xff") is targets[-2055525537 % 12]
    for shard in (-1, 12):
        with pytest.raises(IndexError, match="12"):
            shards.target(shard)


def test_shards_are_routed_to_their_owners() -> None:
    shards = shards_of("a", "me")
    for shard in range(12):
        route = shards.target(shard).route
        if shards.map[shard] == "me":
            assert route.is_local
        else:
            assert route.peer_url == "ws://a"


def test_only_shards_that_move_are_rerouted() -> None:
    shards = shards_of("a", "b", "c")
    routes = [shards.target(shard).route for shard in range(12)]
    before = shards.map
    moved = shards.set_nodes(["c", "a"])
    assert 4 <= len(moved) < 12
    assert moved == [shard for shard in range(12) if before[shard] != shards.map[shard]]
    for shard, route in enumerate(routes):
        assert route.is_changed == (shard in moved)
        assert (shards.target(shard).route is not route) == (shard in moved)
    assert shards.set_nodes(["a", "c"]) == []


def test_shards_of_a_node_with_a_new_address_are_rerouted() -> None:
    ports = {"a": 1, "b": 1}
    shards = ShardTargets(12, "ab", peer_url=lambda node: f"ws://{node}:{ports[node]}")
    owned = [shard for shard in range(12) if shards.map[shard] == "a"]
    routes = [shards.target(shard).route for shard in range(12)]
    ports["a"] = 2
    assert shards.set_nodes("ab") == owned
    assert [shard for shard in range(12) if routes[shard].is_changed] == owned


def test_shards_of_a_node_that_took_the_place_of_another_are_rerouted() -> None:
    shards = ShardTargets(12, ["first life"], peer_url=lambda node: "ws://a")
    route = shards.target(0).route
    assert shards.set_nodes(["second life"]) == list(range(12))
    assert route.is_changed


async def test_calls_wait_while_there_are_no_nodes(clock: FakeClock) -> None:
    shards = shards_of()

    async def call(route: Route | None) -> str | None:
        assert route is not None
        return route.peer_url

    task = asyncio.ensure_future(
        reroute(lambda method, arguments: shards.target_of(arguments[0]), METHOD, ("x",), call)
    )
    await clock.advance(0.05)
    assert shards.set_nodes(["a"]) == list(range(12))
    await clock.advance(0.2)
    assert await task == "ws://a"
    assert shards.set_nodes([]) == list(range(12))
    with pytest.raises(RerouteError, match="no node"):
        _ = shards.target(0).route


async def test_calls_wait_until_a_shard_has_settled(clock: FakeClock) -> None:
    shards = shards_of("me", settling=1.0)
    entered: list[float] = []

    async def call() -> None:
        async with local_execution(shards.target(0).route, ExecutionMode.CONSTRAINED_ENTRY):
            entered.append(current_clock().now())

    first = asyncio.ensure_future(call())
    await clock.advance(0.9)
    assert entered == []
    await clock.advance(0.2)
    assert entered == [1.0]
    second = asyncio.ensure_future(call())
    await clock.settle()
    assert len(entered) == 2
    await asyncio.gather(first, second)


def test_nodes_of_the_same_name_leave_everything_as_it_was() -> None:
    shards = shards_of("a", "b")
    before = shards.map
    with pytest.raises(ValueError, match="'a'"):
        shards.set_nodes(["a", "a"])
    assert shards.map is before


def test_shards_take_other_builders_and_names() -> None:
    def name(node: str) -> str:
        return f"node {node}"

    shards = shards_of("a", "b", builder=rendezvous, name=name)
    owners = rendezvous(12, ["node a", "node b"])
    assert [shards.map[shard] for shard in range(12)] == ["ab"[owner] for owner in owners]
    shards.set_nodes("abc")
    owners = rendezvous(12, ["node a", "node b", "node c"])
    assert [shards.map[shard] for shard in range(12)] == ["abc"[owner] for owner in owners]


@pytest.mark.parametrize("settling", [-1.0, float("nan")])
def test_senseless_times_to_settle_are_refused(settling: float) -> None:
    with pytest.raises(ValueError, match="settling"):
        shards_of(settling=settling)


def test_a_router_may_pick_targets_by_the_method_and_by_parts_of_arguments() -> None:
    servers = [Target.at("ws://server-0"), Target.at("ws://server-1")]
    shards = shards_of("a")

    def router(method: Any, arguments: tuple[Any, ...]) -> Target | None:
        if method.wire_name.startswith("Chat."):
            return servers[len(arguments[0]) % 2]
        return shards.target_of(arguments[0])

    other: Any = SimpleNamespace(wire_name="Other.Get:1")
    assert router(METHOD, ("ab",)) is servers[0]
    assert router(METHOD, ("abc",)) is servers[1]
    assert router(other, ("x",)) is shards.target_of("x")
