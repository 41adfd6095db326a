"""Programs put together from services: served, used from elsewhere, and mounted."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from afresh import App, ComputeService, compute_method, connect
from afresh.errors import DefinitionError, RejectedError
from afresh.remote import RemoteCache
from afresh.rpc import rpc_service
from tests.rpc.pair import until
from tests.rpc.transports.parties import serving


class Orders(ComputeService):
    @compute_method
    @abstractmethod
    async def count(self, user_id: str) -> int: ...

    @abstractmethod
    async def place(self, user_id: str) -> int: ...


class MemoryOrders(Orders):
    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    async def count(self, user_id: str) -> int:
        return self.counts.get(user_id, 0)

    async def place(self, user_id: str) -> int:
        self.counts[user_id] = self.counts.get(user_id, 0) + 1
        self.count.invalidate(user_id)
        return self.counts[user_id]


@rpc_service(backend=True)
class Secrets(ComputeService):
    @compute_method
    async def get(self) -> str:
        return "secret"


async def test_a_client_uses_a_service_as_if_it_were_here() -> None:
    app = App()
    there = app.add(MemoryOrders())
    async with serving(app.asgi()) as port, connect(f"ws://127.0.0.1:{port}/rpc/ws") as client:
        orders = client.service(Orders)
        assert await orders.count("u1") == 0
        node = await orders.count.capture("u1")
        await there.place("u1")
        await node.when_invalidated()
        assert await orders.count("u1") == 1
        assert await orders.place("u1") == 2
        assert client.is_connected
        assert "connected" in repr(client)


async def test_the_same_code_works_with_a_local_service_and_a_remote_one() -> None:
    async def use(orders: Orders) -> list[int]:
        before = await orders.count("u2")
        node = await orders.count.capture("u2")
        await orders.place("u2")
        await node.when_invalidated()
        return [before, await orders.count("u2")]

    app = App()
    app.add(MemoryOrders())
    assert await use(app.service(Orders)) == [0, 1]
    async with serving(app.asgi()) as port:
        other = App()
        remote = other.service(Orders, f"ws://127.0.0.1:{port}/rpc/ws")
        assert await use(remote) == [1, 2]
        await other.aclose()


async def test_a_program_passes_on_what_it_gets_from_another() -> None:
    backend = App()
    there = backend.add(MemoryOrders())
    async with serving(backend.asgi()) as port:
        gateway = App()
        gateway.add(gateway.service(Orders, f"ws://127.0.0.1:{port}/rpc/ws"))
        async with (
            serving(gateway.asgi()) as outer,
            connect(f"ws://127.0.0.1:{outer}/rpc/ws") as client,
        ):
            node = await client.service(Orders).count.capture("u1")
            await there.place("u1")
            await node.when_invalidated()
            assert await client.service(Orders).count("u1") == 1


@pytest.mark.parametrize("outer", [Starlette, FastAPI])
async def test_it_mounts_into_other_apps(outer: type[Starlette]) -> None:
    app = App()
    app.add(MemoryOrders())
    site = outer(routes=[Mount("/live", app.asgi())])
    async with serving(site) as port, connect(f"ws://127.0.0.1:{port}/live/rpc/ws") as client:
        assert await client.service(Orders).count("u1") == 0
    await app.aclose()


async def test_it_serves_the_module_for_browsers_and_tells_its_health() -> None:
    app = App()
    asgi = app.asgi()
    transport = httpx.ASGITransport(asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        script = await http.get("/afresh/afresh.js")
        assert script.headers["content-type"].startswith("text/javascript")
        assert "export" in script.text
        assert script.headers["content-encoding"] == "gzip"
        plain = await http.get("/afresh/afresh.js", headers={"Accept-Encoding": "identity"})
        assert plain.text == script.text
        known = {"If-None-Match": script.headers["etag"]}
        assert (await http.get("/afresh/afresh.js", headers=known)).status_code == 304
        health = await http.get("/health")
        assert health.status_code == 200
        told = health.json()
        assert told["status"] == "ok"
        assert told["peers"] == {"known": 0, "connected": 0}
        assert told["operations"]["own"] == 0
        await app.aclose()
        assert (await http.get("/health")).status_code == 503


async def test_backend_services_have_an_endpoint_of_their_own() -> None:
    app = App()
    app.add(Secrets())
    async with serving(app.asgi()) as port:
        async with connect(f"ws://127.0.0.1:{port}/backend/rpc/ws") as client:
            with pytest.raises(RejectedError):
                await client.connected()
    app = App()
    app.add(Secrets())
    async with serving(app.asgi(expose_backend=True)) as port:
        async with connect(f"ws://127.0.0.1:{port}/backend/rpc/ws") as client:
            assert await client.service(Secrets).get() == "secret"


async def test_a_cached_client_starts_with_what_it_knew(tmp_path: Path) -> None:
    app = App()
    there = app.add(MemoryOrders())
    cache = tmp_path / "client.db"
    async with serving(app.asgi()) as port:
        url = f"ws://127.0.0.1:{port}/rpc/ws"
        await there.place("u1")
        async with connect(url, cache=cache) as client:
            assert await client.service(Orders).count("u1") == 1
    async with connect(url, cache=cache) as client:  # and nobody is there
        assert isinstance(client.cache, RemoteCache)
        assert await client.service(Orders).count("u1") == 1
        assert not client.is_connected


async def test_services_that_are_not_served_stay_here() -> None:
    app = App()
    app.add(MemoryOrders(), is_served=False)
    assert app.hub.services == ()
    assert await app.service(Orders).count("u1") == 0


def test_an_app_says_what_it_lacks() -> None:
    app = App()
    with pytest.raises(LookupError, match="add"):
        app.service(Orders)
    app.add(MemoryOrders())
    with pytest.raises(DefinitionError, match="already"):
        app.add(MemoryOrders())
    assert repr(app) == "<App of Orders>"

    class Other(ComputeService):
        @abstractmethod
        async def more(self) -> int: ...

    class Two(Orders, Other):
        async def count(self, user_id: str) -> int:
            return 1

        async def place(self, user_id: str) -> int:
            return 1

        async def more(self) -> int:
            return 1

    with pytest.raises(DefinitionError, match="contract="):
        app.add(Two())
    assert isinstance(app.add(Two(), contract=Other), Two)


async def test_a_client_waits_for_a_server_that_is_not_there_yet() -> None:
    app = App()
    app.add(MemoryOrders())
    asgi = app.asgi()
    async with serving(asgi) as port:
        pass
    app = App()
    app.add(MemoryOrders())
    async with connect(f"ws://127.0.0.1:{port}/rpc/ws") as client:
        call = asyncio.create_task(client.service(Orders).place("u1"))
        await until(lambda: client.peer.outbound)
        assert not call.done()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
