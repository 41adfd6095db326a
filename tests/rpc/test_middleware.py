"""What is put around calls, on the way in and on the way out."""

from abc import ABC, abstractmethod
from typing import Any

import pytest

from afresh import ComputeService, compute_method
from afresh.errors import RpcError
from afresh.remote import ComputeCalls
from afresh.rpc.contracts import NoWait
from afresh.rpc.middleware import Middleware, Proceed, Request
from tests.rpc.pair import Pair, until


class Echo(ABC):
    @abstractmethod
    async def say(self, text: str) -> str: ...

    @abstractmethod
    async def note(self, text: str) -> NoWait: ...


class Valley(Echo):
    def __init__(self) -> None:
        self.notes: list[str] = []

    async def say(self, text: str) -> str:
        return text

    async def note(self, text: str) -> NoWait:
        self.notes.append(text)


def marking(mark: str, seen: list[str]) -> Middleware:
    async def middleware(request: Request, proceed: Proceed) -> Any:
        seen.append(f"{mark} in {request.method.name}")
        try:
            return await proceed()
        finally:
            seen.append(f"{mark} out")

    return middleware


async def test_the_first_middleware_is_outermost() -> None:
    seen: list[str] = []
    pair = Pair(
        middleware=[marking("c", seen), marking("d", seen)],
        client={"outbound_middleware": [marking("a", seen), marking("b", seen)]},
    )
    echo = pair.service(Echo, Valley())
    assert await echo.say("hello") == "hello"
    assert seen == [
        *("a in say", "b in say", "c in say", "d in say"),
        *("d out", "c out", "b out", "a out"),
    ]
    await pair.aclose()


async def test_arguments_results_and_headers_can_be_changed() -> None:
    async def out(request: Request, proceed: Proceed) -> Any:
        request.headers.append(("tenant", "blue"))
        request.args = (request.args[0].upper(),)
        return await proceed()

    async def into(request: Request, proceed: Proceed) -> Any:
        request.args = (f"{request.args[0]} from {dict(request.headers)['tenant']}",)
        return f"<{await proceed()}>"

    pair = Pair(middleware=[into], client={"outbound_middleware": [out]})
    echo = pair.service(Echo, Valley())
    assert await echo.say("hello") == "<HELLO from blue>"
    await pair.aclose()


async def test_middleware_can_refuse_a_call() -> None:
    async def refuse(request: Request, proceed: Proceed) -> Any:
        raise RpcError("not today")

    valley = Valley()
    pair = Pair(middleware=[refuse])
    echo = pair.service(Echo, valley)
    with pytest.raises(RpcError, match="not today"):
        await echo.say("hello")
    await pair.aclose()


async def test_calls_without_an_answer_go_through_middleware_too() -> None:
    seen: list[str] = []
    valley = Valley()
    pair = Pair(
        middleware=[marking("in", seen)], client={"outbound_middleware": [marking("out", seen)]}
    )
    echo = pair.service(Echo, valley)
    await pair.peer.connect()
    await echo.note("x")
    await until(lambda: valley.notes)
    assert seen[0] == "out in note"
    assert "in in note" in seen
    await pair.aclose()


async def test_compute_calls_go_through_middleware_and_stay_live() -> None:
    class Numbers(ComputeService):
        value = 1

        @compute_method
        async def get(self) -> int:
            return self.value

    seen: list[str] = []
    numbers = Numbers()
    pair = Pair(kinds=(ComputeCalls(),), middleware=[marking("in", seen)])
    here = pair.service(Numbers, numbers)
    node = await here.get.capture()
    assert seen == ["in in get", "in out"]
    numbers.value = 2
    numbers.get.invalidate()
    await node.when_invalidated()
    assert await here.get() == 2
    await pair.aclose()
