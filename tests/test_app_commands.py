"""Commands of a program: handled here, and sent to where their service lives."""

from __future__ import annotations

from abc import abstractmethod

import pytest

from afresh import App, Command, ComputeService, command_handler, compute_method, connect, rpc_error
from afresh.errors import HandlerNotFoundError
from tests.rpc.transports.parties import serving


@rpc_error
class TooMuch(Exception):
    """More than there is."""


class Place(Command[int], frozen=True):
    user_id: str
    pieces: int = 1


class Shop(ComputeService):
    @compute_method
    @abstractmethod
    async def count(self, user_id: str) -> int: ...

    @command_handler
    @abstractmethod
    async def place(self, command: Place) -> int: ...


class MemoryShop(Shop):
    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    async def count(self, user_id: str) -> int:
        return self.counts.get(user_id, 0)

    async def place(self, command: Place) -> int:
        if command.pieces > 10:
            raise TooMuch("at most ten")
        self.counts[command.user_id] = self.counts.get(command.user_id, 0) + command.pieces
        self.count.invalidate(command.user_id)
        return self.counts[command.user_id]


async def test_a_command_is_handled_by_the_service_that_was_added() -> None:
    app = App()
    with pytest.raises(HandlerNotFoundError):
        await app.call(Place("u1"))
    shop = app.add(MemoryShop())
    assert await app.call(Place("u1")) == 1
    assert await shop.place(Place("u1", 2)) == 3
    await app.aclose()


async def test_a_client_sends_commands_to_where_their_service_lives() -> None:
    app = App()
    app.add(MemoryShop())
    async with serving(app.asgi()) as port, connect(f"ws://127.0.0.1:{port}/rpc/ws") as client:
        with pytest.raises(HandlerNotFoundError):
            await client.call(Place("u1"))
        shop = client.service(Shop)
        node = await shop.count.capture("u1")
        assert await client.call(Place("u1")) == 1
        assert node.is_invalidated
        assert await shop.count("u1") == 1
        assert await shop.place(Place("u1", 2)) == 3
        with pytest.raises(TooMuch, match="at most ten"):
            await client.call(Place("u1", 11))
    await app.aclose()


async def test_a_program_passes_commands_on_to_another() -> None:
    backend = App()
    backend.add(MemoryShop())
    async with serving(backend.asgi()) as port:
        gateway = App()
        gateway.add(gateway.service(Shop, f"ws://127.0.0.1:{port}/rpc/ws"))
        async with (
            serving(gateway.asgi()) as outer,
            connect(f"ws://127.0.0.1:{outer}/rpc/ws") as client,
        ):
            shop = client.service(Shop)
            node = await shop.count.capture("u1")
            assert await client.call(Place("u1")) == 1
            assert node.is_invalidated
            assert await gateway.call(Place("u1")) == 2
        await gateway.aclose()
    await backend.aclose()
