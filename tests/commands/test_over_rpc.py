"""Commands that come from elsewhere, and those that are sent there."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any

import pytest

from afresh import ComputeService, compute_method
from afresh.commands import (
    COMMAND,
    LOCAL_PRIORITY,
    REMOTE_PRIORITY,
    BackendCommand,
    Command,
    CommandCalls,
    Commander,
    CommandOf,
    command_filter,
    command_handler,
    current_context,
)
from afresh.errors import CallTimeoutError, EndpointNotFoundError
from afresh.primitives.clock import use_clock
from afresh.remote import ComputeCalls
from afresh.rpc import current_peer, describe, rpc_method, rpc_service
from afresh.rpc.contracts import REGULAR
from afresh.rpc.formats.open_types import Open, register_open_type
from afresh.rpc.middleware import Proceed
from afresh.rpc.routing import Target
from afresh.testing import FakeClock
from tests.commands.services import Fail, Log, MemoryOrders, Order, Orders, PlaceOrder, ambient
from tests.rpc.pair import URL, Pair, until


@pytest.fixture(params=["json5np", "msgpack6c"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    pair = Pair(request.param, kinds=(CommandCalls(), ComputeCalls()))
    yield pair
    await pair.aclose()


async def test_a_method_of_a_remote_contract_is_a_command_of_the_other_side(
    pair: Pair, commander: Commander
) -> None:
    local = commander.add(MemoryOrders())
    log = commander.add(Log())
    remote = pair.service(Orders, local)
    assert await remote.place(PlaceOrder("u1")) == Order(1, "u1")
    assert local.contexts[0].is_outermost
    assert log.lines == ["> PlaceOrder", "< PlaceOrder"]
    with pytest.raises(ValueError, match="no"):
        await remote.fail(Fail())


async def test_a_client_finds_the_service_by_the_type_of_the_command(
    pair: Pair, commander: Commander
) -> None:
    local = commander.add(MemoryOrders())
    client = Commander()
    log = client.add(Log())
    client.add(pair.service(Orders, local))
    assert await client.call(PlaceOrder("u1")) == Order(1, "u1")
    assert local.placed == [Order(1, "u1")]
    assert log.lines == []  # it is put around the handler, which is not here


async def test_the_highest_filters_of_a_client_see_what_is_sent(
    pair: Pair, commander: Commander
) -> None:
    class Client(ComputeService):
        def __init__(self) -> None:
            self.seen: list[str] = []

        @command_filter(priority=REMOTE_PRIORITY + 1)
        async def high(self, command: CommandOf[Any], proceed: Proceed) -> Any:
            self.seen.append("high")
            return await proceed()

        @command_filter(priority=LOCAL_PRIORITY + 1)
        async def higher(self, command: CommandOf[Any], proceed: Proceed) -> Any:
            self.seen.append("higher")
            return await proceed()

    client = Commander()
    filters = client.add(Client())
    client.add(pair.service(Orders, commander.add(MemoryOrders())))
    await client.call(PlaceOrder("u1"))
    assert filters.seen == ["higher", "high"]


class Whose(Command[tuple[str, str, bool]], frozen=True):
    pass


class Asked(ComputeService):
    @command_handler
    @abstractmethod
    async def whose(self, command: Whose) -> tuple[str, str, bool]: ...


class Asking(Asked):
    async def whose(self, command: Whose) -> tuple[str, str, bool]:
        before = ambient.get()
        ambient.set("left over")
        await asyncio.sleep(0)
        context = current_context()
        return before, str(current_peer().id), context.command is command


async def test_a_handler_knows_the_peer_that_called_and_shares_no_context(
    pair: Pair, commander: Commander
) -> None:
    remote = pair.service(Asked, commander.add(Asking()))
    for _ in range(2):
        answers = await asyncio.gather(*(remote.whose(Whose()) for _ in range(3)))
        assert set(answers) == {("", str(pair.server_peer.id), True)}


async def test_a_service_that_no_commander_has_is_not_called(pair: Pair) -> None:
    remote = pair.service(Orders, MemoryOrders())
    with pytest.raises(RuntimeError, match="add it to one first"):
        await remote.place(PlaceOrder("u1"))


class Loose(ComputeService):
    @command_handler
    @abstractmethod
    async def place(self, command: PlaceOrder | None) -> None: ...


class Nothing(Loose):
    async def place(self, command: PlaceOrder | None) -> None:
        raise AssertionError


async def test_null_is_no_command(pair: Pair) -> None:
    remote = pair.service(Loose, Nothing())
    with pytest.raises(ValueError, match="was called without a command"):
        await remote.place(None)


async def test_a_remote_service_can_be_passed_on(pair: Pair, commander: Commander) -> None:
    remote = pair.service(Orders, commander.add(MemoryOrders()))
    middle = Pair(pair.format, kinds=(CommandCalls(), ComputeCalls()))
    passed = middle.service(Orders, remote)
    assert await passed.place(PlaceOrder("u2")) == Order(1, "u2")
    await middle.aclose()


async def test_a_command_that_is_cancelled_is_cancelled_there(
    pair: Pair, commander: Commander
) -> None:
    class Waiting(ComputeService):
        state = ""

        @command_handler
        async def fail(self, command: Fail) -> None:
            self.state = "begun"
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                self.state = "cancelled"
                raise

    waiting = commander.add(Waiting())
    remote = pair.service(Waiting, waiting)
    task = asyncio.create_task(remote.fail(Fail()))
    await until(lambda: waiting.state == "begun")
    task.cancel()
    await until(lambda: waiting.state == "cancelled")


# -- time-outs


@rpc_service(backend=True)
class Backend(ComputeService):
    @command_handler
    @abstractmethod
    async def fail(self, command: Fail) -> None: ...

    @rpc_method
    @abstractmethod
    async def ping(self) -> None: ...


class Refund(Command[int], BackendCommand, frozen=True):
    id: int = 1


class Mixed(ComputeService):
    @command_handler
    @abstractmethod
    async def refund(self, command: Refund) -> int: ...

    @rpc_method(name="p")
    @command_handler
    @abstractmethod
    async def place(self, command: PlaceOrder) -> Order: ...

    @compute_method
    @abstractmethod
    async def of(self, user_id: str) -> int: ...


def test_commands_have_time_outs_of_their_own() -> None:
    kinds = (COMMAND, ComputeCalls.kind, REGULAR)
    mixed = describe(Mixed, kinds=kinds)
    backend = describe(Backend, kinds=kinds)
    times = {
        method.name: (method.timeouts.connect, method.timeouts.run)
        for method in (*mixed.methods.values(), *backend.methods.values())
    }
    endless = (float("inf"), float("inf"))
    assert times == {
        "refund": (300, 300),
        "place": (1.5, 10),
        "of": endless,
        "fail": (300, 300),
        "ping": endless,
    }
    assert mixed.methods["place"].wire_name == "Mixed.p:2"
    assert {method.name: method.is_backend for method in mixed.methods.values()} == {
        "refund": True,
        "place": False,
        "of": False,
    }


async def test_a_command_without_an_answer_fails_after_its_time(
    pair: Pair, commander: Commander
) -> None:
    class Waiting(ComputeService):
        @command_handler
        async def fail(self, command: Fail) -> None:
            await asyncio.get_running_loop().create_future()

    with use_clock(FakeClock()) as clock:
        remote = pair.service(Waiting, commander.add(Waiting()))
        task = asyncio.create_task(remote.fail(Fail()))
        await until(lambda: pair.server.peers and pair.server_peer.inbound)
        await clock.advance(9.9)
        assert not task.done()
        await clock.advance(0.2)
        with pytest.raises(CallTimeoutError, match="within 10 s"):
            await task


# -- the backend gate


class AnyCommand(Command[int], frozen=True):
    id: int = 1


class Inner(AnyCommand, BackendCommand, frozen=True):
    pass


register_open_type(AnyCommand, {"tests.Inner": Inner})


class Gate(ComputeService):
    @command_handler
    @abstractmethod
    async def refund(self, command: Refund) -> int: ...

    @command_handler
    @abstractmethod
    async def open(self, command: Open[AnyCommand]) -> int: ...


class Gatekeeper(Gate):
    async def refund(self, command: Refund) -> int:
        return command.id

    async def open(self, command: Open[AnyCommand]) -> int:
        return command.id


async def test_methods_for_backend_commands_are_not_there_for_others(
    pair: Pair, commander: Commander
) -> None:
    remote = pair.service(Gate, commander.add(Gatekeeper()))
    with pytest.raises(EndpointNotFoundError):
        await remote.refund(Refund())
    assert await remote.open(AnyCommand(2)) == 2


async def test_a_backend_command_in_a_public_parameter_is_refused(
    pair: Pair, commander: Commander
) -> None:
    remote = pair.service(Gate, commander.add(Gatekeeper()))
    with pytest.raises(PermissionError, match="needs a backend peer"):
        await remote.open(Inner(2))


async def test_backend_peers_may_send_backend_commands(pair: Pair, commander: Commander) -> None:
    remote = pair.service(Gate, commander.add(Gatekeeper()))
    pair.connector._is_backend = True
    assert await remote.refund(Refund(5)) == 5
    assert await remote.open(Inner(6)) == 6


# -- routed services


class Somewhere:
    def __init__(self) -> None:
        self.is_here = True

    def __call__(self, method: Any, args: tuple[Any, ...]) -> Target | None:
        return Target.local() if self.is_here else Target.at(URL)


async def test_a_routed_command_goes_through_the_filters_where_it_is_handled(
    commander: Commander,
) -> None:
    pair = Pair(kinds=(CommandCalls(), ComputeCalls()))
    there = commander.add(MemoryOrders())
    pair.server.serve(Orders, there)
    _ = pair.peer
    router, here, client = Somewhere(), MemoryOrders(), Commander()
    routed = client.add(pair.client.service(Orders, router, local=here))
    log = client.add(Log())
    assert await client.call(PlaceOrder("u1")) == Order(1, "u1")
    assert await routed.place(PlaceOrder("u2")) == Order(1, "u2")
    assert await here.place(PlaceOrder("u3")) == Order(1, "u3")
    assert here.placed == [Order(1, "u1"), Order(1, "u2"), Order(1, "u3")]
    assert log.lines == ["> PlaceOrder", "< PlaceOrder"] * 3
    (handler,) = (it for it in client.handlers if it.id == "Orders.place")
    assert handler.is_remote
    assert handler.owner is here
    router.is_here = False
    assert await client.call(PlaceOrder("u4")) == Order(1, "u4")
    assert there.placed == [Order(1, "u4")]
    assert len(log.lines) == 6
    await pair.aclose()


async def test_filters_are_no_part_of_a_contract() -> None:
    with pytest.raises(TypeError, match="has no method that could be called"):
        describe(Log, kinds=(COMMAND, REGULAR))
