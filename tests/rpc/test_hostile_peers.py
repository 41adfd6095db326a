"""Garbage, lies and threats: no crash, no unbounded memory; the message is skipped, or the
connection closed, and everybody else is served on.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afresh.errors import ConnectionClosedError
from afresh.remote import ComputeCalls
from afresh.rpc.formats import get_format
from afresh.rpc.hub import RpcHub
from afresh.rpc.transports.memory import MemoryConnector
from tests.remote.services import Counters, MemoryCounters
from tests.rpc.hostile import SYSTEM_CALLS, Hostile, Mishaps, frames, turns
from tests.rpc.workshop import OpenWorkshop, Workshop

FORMATS = ["json5np", "json5", "msgpack6", "msgpack6c"]
each_format = pytest.mark.parametrize("format", FORMATS)

CALLS = [
    "Workshop.add:3",
    "Workshop.work:2",
    "Workshop.blob:2",
    "Workshop.weigh:2",
    "Workshop.count_to:2",
    "Workshop.total:2",
    "Workshop.note:2",
    "Workshop.note_slowly:2",
    "Counters.get:2",
    "Counters.slow:2",
    "Counters.set:3",
    "Counters.get:7",
    "Nothing.at_all:1",
]


async def attack_server(format: str, said: list[bytes], *, greets: bool = True) -> None:
    hub = RpcHub(kinds=(ComputeCalls(),))
    hub.serve(Workshop, OpenWorkshop())
    hub.serve(Counters, MemoryCounters())
    guest = RpcHub().client_peer("memory:", format=format, connector=MemoryConnector(hub))
    await guest.connect()
    with Mishaps() as mishaps:
        hostile = Hostile(format)
        await hostile.dial(hub, greets=greets)
        for frame in said:
            hostile.send(frame)
            await turns(3)
        await turns()
        assert await guest.service(Workshop).add(1, 2) == 3
        for error in hostile.errors:
            assert isinstance(error, ConnectionClosedError)
            assert error.code not in {1006, 1011}
        if not hostile.errors and greets:
            hostile.say("Workshop.add:3", 999, encoded(hostile, int, 1, int, 2))
            await turns()
            assert ("$sys.Ok:1", 999) in [each[:2] for each in hostile.heard()]
        assert sum(len(peer.inbound) for peer in hub.peers) <= 30 * len(said)
        await guest.hub.aclose()
        await hub.aclose()
    assert mishaps.texts == []


async def attack_client(format: str, said: list[bytes]) -> None:
    hostile = Hostile(format)
    hub = RpcHub(kinds=(ComputeCalls(),))
    peer = hub.client_peer("memory:", format=format, connector=hostile.answer)
    workshop, counters = peer.service(Workshop), peer.service(Counters)
    with Mishaps() as mishaps:
        await peer.connect()
        calls: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(call)
            for call in (
                workshop.add(1, 2),
                workshop.count_to(3),
                workshop.work("a"),
                counters.get("a"),
                counters.get.capture("b"),
                workshop.note("x"),
            )
        ]
        await turns(5)
        for frame in said:
            hostile.send(frame)
            await turns(3)
        await turns()
        await hub.aclose()
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert not isinstance(result, BaseException) or isinstance(
                result, (Exception, asyncio.CancelledError)
            )
        assert not peer.outbound
        for error in hostile.errors:
            assert isinstance(error, ConnectionClosedError)
            assert error.code not in {1006, 1011}
    assert mishaps.texts == []


def streams_of_frames(format: str) -> Any:
    return st.lists(frames(get_format(format), SYSTEM_CALLS + CALLS), max_size=8)


def try_all(attack: Callable[[list[bytes]], Coroutine[Any, Any, None]], said: Any) -> None:
    @settings(max_examples=settings.default.max_examples // 2, deadline=None)
    @given(said)
    def try_one(said: list[bytes]) -> None:
        asyncio.run(attack(said))

    with Mishaps() as mishaps:
        try_one()
        gc.collect()  # what was lost without a word is told of now
    assert mishaps.texts == []


@pytest.mark.hypothesis
@each_format
def test_a_server_takes_whatever_a_client_may_say(format: str) -> None:
    try_all(lambda said: attack_server(format, said), streams_of_frames(format))


@pytest.mark.hypothesis
@each_format
def test_a_client_takes_whatever_a_server_may_say(format: str) -> None:
    try_all(lambda said: attack_client(format, said), streams_of_frames(format))


@pytest.mark.hypothesis
@each_format
def test_a_server_takes_whatever_comes_in_place_of_a_handshake(format: str) -> None:
    names = ["$sys.Handshake:1"] * 20 + SYSTEM_CALLS + CALLS
    whole = st.lists(frames(get_format(format), names), min_size=1, max_size=3)
    garbage = st.lists(st.binary(max_size=60), max_size=4)
    try_all(
        lambda said: attack_server(format, said, greets=False), st.one_of(whole, whole, garbage)
    )


def encoded(hostile: Hostile, *types_and_values: Any) -> bytes:
    types, given_values = types_and_values[::2], types_and_values[1::2]
    return hostile.format.codec(types).encode(given_values)


# -- one by one


class Scene:
    """A server with a hostile client, and an honest one."""

    def __init__(self, format: str, **arguments: Any) -> None:
        self.hub = RpcHub(kinds=(ComputeCalls(),), **arguments)
        self.workshop = OpenWorkshop()
        self.hub.serve(Workshop, self.workshop)
        self.hub.serve(Counters, MemoryCounters())
        self.hostile = Hostile(format)
        self.guest = RpcHub().client_peer("memory:", connector=MemoryConnector(self.hub))

    async def __aenter__(self) -> Self:
        await self.guest.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert await self.guest.service(Workshop).add(1, 2) == 3
        await self.guest.hub.aclose()
        await self.hub.aclose()

    async def say(self, name: str, related_id: int, *values: Any, call_type: int = 0) -> None:
        arguments = self.hostile.format.codec((Any,) * len(values)).encode(values)
        self.hostile.say(name, related_id, arguments, call_type=call_type)
        await turns()

    def answers(self, related_id: int) -> list[tuple[str, bytes]]:
        return [(name, data) for name, id, data in self.hostile.heard() if id == related_id]

    async def still_lives(self) -> bool:
        """Whether the hostile client is served as before."""
        await self.say("Workshop.add:3", 1_000_000, 1, 2)
        return any(name == "$sys.Ok:1" for name, _ in self.answers(1_000_000))


@pytest.fixture(params=["json5np", "msgpack6c"])
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    async with Scene(request.param) as scene:
        yield scene


GUID = "00000000-0000-0000-0000-000000000007"


@pytest.mark.parametrize(
    "members",
    [
        (),
        (GUID,),
        (GUID, None, GUID, 3, 1),
        (GUID, None, GUID, "two", 1),
        (GUID, None, GUID, 2, float("inf")),
        (GUID, None, GUID, 2, float("nan")),
        (GUID, None, GUID, 2, -1),
        (GUID, None, GUID, 2, 2**63),
        (7, None, GUID, 2, 1),
        (GUID[:-1], None, GUID, 2, 1),
        (None, None, None, None, None, None),
    ],
)
async def test_a_handshake_that_makes_no_sense_closes_the_connection_with_the_reason(
    scene: Scene, members: tuple[Any, ...]
) -> None:
    hostile = scene.hostile
    await hostile.dial(scene.hub, greets=False)
    with Mishaps() as mishaps:
        if hostile.is_text and members and members[-1] != float("inf"):
            names = ("RemotePeerId", "RemoteApiVersionSet", "RemoteHubId", "ProtocolVersion")
            value: Any = dict(zip((*names, "Index", "Secret"), members, strict=False))
        else:
            value = members
        await scene.say("$sys.Handshake:1", 0, value)
        (error,) = hostile.errors
    assert isinstance(error, ConnectionClosedError)
    assert error.code == 1002
    assert error.reason
    assert mishaps.texts == []
    assert len(scene.hub.peers) == 1


@pytest.mark.parametrize("secret", [[], {"a": 1}, 5, "x" * 5000])
@pytest.mark.parametrize("versions", [[], {}, [[]], {"value": {}}, "x" * 5000, [5]])
async def test_what_a_handshake_has_besides_may_be_anything(
    scene: Scene, secret: Any, versions: Any
) -> None:
    await scene.hostile.dial(scene.hub, greets=False)
    await scene.say("$sys.Handshake:1", 0, (GUID, versions, GUID, 2, 1, secret))
    assert await scene.still_lives()


async def test_a_second_handshake_changes_nothing(scene: Scene) -> None:
    await scene.hostile.dial(scene.hub)
    await scene.say("Workshop.work:2", 1, "a")
    other = "00000000-0000-0000-0000-000000000008"
    await scene.say("$sys.Handshake:1", 0, (other, None, other, 2, 1))
    assert scene.workshop.running == 1
    assert await scene.still_lives()


@pytest.mark.parametrize("name", ["$sys.NoSuch:1", "$sys-c.Other:0", "$sys.Ok:2", "$sys:", "$sys."])
async def test_a_system_call_that_nobody_knows_is_an_unknown_method(
    scene: Scene, name: str
) -> None:
    await scene.hostile.dial(scene.hub)
    await scene.say(name, 5, 1)
    ((answer, data),) = scene.answers(5)
    assert answer == "$sys.Error:1"
    assert b"Endpoint not found" in data
    await scene.say(name, 0, 1)
    assert await scene.still_lives()


@pytest.mark.parametrize("name", ["Workshop.add:2", "Workshop.add:4", "Workshop.nope:1", "x", "."])
async def test_an_unknown_method_or_number_of_arguments_is_answered_with_an_error(
    scene: Scene, name: str
) -> None:
    await scene.hostile.dial(scene.hub)
    await scene.say(name, 5, 1, 2)
    ((answer, data),) = scene.answers(5)
    assert answer == "$sys.Error:1"
    assert b"Endpoint not found" in data
    assert await scene.still_lives()


@pytest.mark.parametrize("values", [(), (1,), ("a", "b"), (None, None), ([], {})])
async def test_arguments_that_are_missing_or_of_the_wrong_kind_are_answered_with_an_error(
    scene: Scene, values: tuple[Any, ...]
) -> None:
    await scene.hostile.dial(scene.hub)
    await scene.say("Workshop.weigh:2", 5, *values)
    ((answer, _),) = scene.answers(5)
    assert answer == "$sys.Error:1"
    assert await scene.still_lives()


async def test_arguments_in_surplus_are_ignored(scene: Scene) -> None:
    await scene.hostile.dial(scene.hub)
    await scene.say("Workshop.add:3", 5, 1, 2, 3, [4], {"five": 6})
    assert [name for name, _ in scene.answers(5)] == ["$sys.Ok:1"]


async def test_a_call_of_the_wrong_type_is_answered_with_an_error(scene: Scene) -> None:
    await scene.hostile.dial(scene.hub)
    await scene.say("Workshop.add:3", 5, 1, 2, call_type=1)
    ((answer, data),) = scene.answers(5)
    assert answer == "$sys.Error:1"
    assert b"Invalid CallTypeId" in data
    await scene.say("Workshop.add:3", 6, 1, 2, call_type=7)
    assert [name for name, _ in scene.answers(6)] == ["$sys.Error:1"]
    assert await scene.still_lives()


@pytest.mark.parametrize("id", [2**31, 2**32, 2**53 + 1, 2**63, 2**64 - 1])
async def test_ids_have_64_bits(scene: Scene, id: int) -> None:
    await scene.hostile.dial(scene.hub)
    await scene.say("Workshop.add:3", id, 1, 2)
    await scene.say("Counters.get:2", id, "a", call_type=1)
    assert [name for name, _ in scene.answers(id)] == ["$sys.Ok:1", "$sys.Ok:1"]
    await scene.say("$sys.Cancel:0", id)
    assert not any(peer.inbound for peer in scene.hub.peers)


@pytest.mark.parametrize(
    "ids", [b"", b"\x80", b"\xff" * 11, b"\x01" * 500, b"\x80" * 9 + b"\x02", bytes(300)]
)
@pytest.mark.parametrize("stage", [0, 1, 3, -1, 4096, 2**40])
async def test_a_reconciliation_of_garbage_is_answered_and_harms_nothing(
    scene: Scene, ids: bytes, stage: int
) -> None:
    await scene.hostile.dial(scene.hub)
    await scene.say("Workshop.work:2", 1, "a")
    await scene.say("Counters.get:2", 2, "a", call_type=1)
    await scene.say("$sys.Reconnect:3", 5, 1, {stage: ids})
    assert [name for name, _ in scene.answers(5)] in (["$sys.Ok:1"], ["$sys.Error:1"])
    assert scene.workshop.running == 1
    scene.workshop.gate.set()
    await turns()
    assert [name for name, _ in scene.answers(1)] == ["$sys.Ok:1"]
    assert await scene.still_lives()


@pytest.mark.parametrize("values", [(), (1,), ("x", {}), (1, []), (1, {0: "no bytes"}), (1, None)])
async def test_a_reconciliation_that_is_none_is_answered_with_an_error(
    scene: Scene, values: tuple[Any, ...]
) -> None:
    await scene.hostile.dial(scene.hub)
    await scene.say("$sys.Reconnect:3", 5, *values)
    assert [name for name, _ in scene.answers(5)] == ["$sys.Error:1"]
    assert await scene.still_lives()


async def test_a_second_reconciliation_on_one_connection_comes_too_late(scene: Scene) -> None:
    await scene.hostile.dial(scene.hub)
    await scene.say("$sys.Reconnect:3", 5, 1, {})
    await scene.say("$sys.Reconnect:3", 6, 1, {})
    await scene.say("$sys.Reconnect:3", 7, 2, {})
    assert [name for name, _ in scene.answers(5)] == ["$sys.Ok:1"]
    for id in (6, 7):
        ((answer, data),) = scene.answers(id)
        assert answer == "$sys.Error:1"
        assert b"Too late" in data


async def test_keep_alives_with_a_million_ids_take_no_memory(scene: Scene) -> None:
    await scene.hostile.dial(scene.hub)
    data = scene.hostile.format.codec((list[int],)).encode_one(list(range(100_000, 1_100_000)))
    tracemalloc.start()
    scene.hostile.say("$sys.KeepAlive:1", 0, data)
    await turns()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * len(data)
    assert await scene.still_lives()


@pytest.mark.parametrize("ids", [[], [5], [-5], [2**63], "x", None, [None], [1.5], {"a": 1}])
async def test_keep_alives_and_disconnects_of_anything_harm_nothing(scene: Scene, ids: Any) -> None:
    await scene.hostile.dial(scene.hub)
    for name in ("$sys.KeepAlive:1", "$sys.Disconnect:1"):
        await scene.say(name, 0, ids)
        await scene.say(name, 9, ids)
    assert await scene.still_lives()


async def test_answers_to_calls_that_were_never_made_are_ignored(scene: Scene) -> None:
    await scene.hostile.dial(scene.hub)
    for id in (0, 1, 2**63):
        await scene.say("$sys.Ok:1", id, 5)
        await scene.say("$sys.Error:1", id, {"TypeRef": "x", "Message": "y"})
        await scene.say("$sys.M:0", id)
        await scene.say("$sys.Cancel:0", id)
        await scene.say("$sys-c.Invalidate:0", id)
        await scene.say("$sys.I:2", id, 0, 5)
        await scene.say("$sys.End:2", id, 0, {"TypeRef": "", "Message": ""})
    assert await scene.still_lives()


async def test_what_follows_a_message_that_cannot_be_read_is_dropped_and_the_connection_lives(
    scene: Scene,
) -> None:
    hostile = scene.hostile
    await hostile.dial(scene.hub)
    add = hostile.message("Workshop.add:3", 5, hostile.format.codec((int, int)).encode((1, 2)))
    later = hostile.message("Workshop.add:3", 6, hostile.format.codec((int, int)).encode((1, 2)))
    hostile.send(hostile.format.join([add, b"{" if hostile.is_text else b"\x1f\x01", later]))
    await turns()
    assert [name for name, _ in scene.answers(5)] == ["$sys.Ok:1"]
    assert scene.answers(6) == []
    assert await scene.still_lives()


async def test_a_frame_of_many_tiny_messages_takes_bounded_memory(scene: Scene) -> None:
    hostile = scene.hostile
    await hostile.dial(scene.hub)
    message = hostile.message("$sys.M:0", 0, b"")
    frame = hostile.format.join([message] * 300_000)
    tracemalloc.start()
    hostile.send(frame)
    await turns()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000
    assert await scene.still_lives()
