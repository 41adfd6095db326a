"""Plain calls: what goes over, what comes back, and what goes wrong."""

import asyncio
from abc import ABC, abstractmethod
from contextvars import ContextVar

import msgspec
import pytest

from afresh.errors import (
    CallTimeoutError,
    DisconnectedError,
    EndpointNotFoundError,
    LimitError,
    PeerClosedError,
    RemoteError,
    RpcError,
)
from afresh.rpc.contracts import NoWait, Timeouts, rpc_method
from afresh.rpc.limits import Limits
from afresh.rpc.peer import current_peer
from afresh.testing import FakeClock
from tests.rpc.pair import Pair, until


class Item(msgspec.Struct, frozen=True):
    name: str
    price: float
    tags: tuple[str, ...] = ()


class Shelf(ABC):
    @abstractmethod
    async def add(self, a: int, b: int) -> int: ...

    @abstractmethod
    async def describe(self, item: Item, count: int = 1) -> str: ...

    @abstractmethod
    async def items(self, names: list[str]) -> dict[str, Item]: ...

    @abstractmethod
    async def nothing(self) -> None: ...

    @abstractmethod
    async def fail(self, text: str) -> int: ...

    @abstractmethod
    async def wait(self, name: str) -> str: ...

    @abstractmethod
    async def note(self, text: str) -> NoWait: ...

    @rpc_method(timeouts=Timeouts(connect=1.5, run=10))
    @abstractmethod
    async def hurry(self) -> None: ...

    @rpc_method(wait_for_connection=False)
    @abstractmethod
    async def now(self) -> int: ...

    @rpc_method(survive_reconnect=False, survive_peer_change=False)
    @abstractmethod
    async def once(self) -> None: ...


class OakShelf(Shelf):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

    async def add(self, a: int, b: int) -> int:
        return a + b

    async def describe(self, item: Item, count: int = 1) -> str:
        return f"{count} {item.name} at {item.price}, {'/'.join(item.tags)}"

    async def items(self, names: list[str]) -> dict[str, Item]:
        return {name: Item(name, len(name)) for name in names}

    async def nothing(self) -> None:
        pass

    async def fail(self, text: str) -> int:
        raise ValueError(text)

    async def wait(self, name: str) -> str:
        self.started.append(name)
        gate = self.gates.setdefault(name, asyncio.Event())
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        return name

    async def note(self, text: str) -> NoWait:
        self.notes.append(text)
        if text == "bad":
            raise ValueError(text)

    async def hurry(self) -> None:
        await asyncio.Event().wait()

    async def now(self) -> int:
        return 1

    async def once(self) -> None:
        await asyncio.Event().wait()


async def test_values_go_over_and_results_come_back(pair: Pair) -> None:
    shelf = pair.service(Shelf, OakShelf())
    assert await shelf.add(2, 3) == 5
    assert await shelf.add(b=3, a=2) == 5
    assert await shelf.describe(Item("tea", 1.5, ("hot",))) == "1 tea at 1.5, hot"
    assert await shelf.describe(Item("tea", 1.5), count=2) == "2 tea at 1.5, "
    assert await shelf.items(["a", "bc"]) == {"a": Item("a", 1), "bc": Item("bc", 2)}
    assert await shelf.nothing() is None
    assert isinstance(shelf, Shelf)


async def test_many_calls_at_once_are_answered_each_with_its_own(pair: Pair) -> None:
    shelf = pair.service(Shelf, OakShelf())
    assert await asyncio.gather(*(shelf.add(i, 1) for i in range(1000))) == list(range(1, 1001))
    assert not pair.peer.outbound
    assert not pair.server_peer.inbound


async def test_wrong_arguments_are_refused_where_they_are_given(pair: Pair) -> None:
    shelf = pair.service(Shelf, OakShelf())
    with pytest.raises(TypeError, match="add"):
        await shelf.add(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="add"):
        await shelf.add(1, 2, c=3)  # type: ignore[call-arg]


async def test_values_of_the_wrong_type_are_refused_by_the_other_side(pair: Pair) -> None:
    shelf = pair.service(Shelf, OakShelf())
    with pytest.raises(RpcError):
        await shelf.add("two", 3)  # type: ignore[arg-type]
    assert await shelf.add(2, 3) == 5


async def test_an_error_comes_back_as_what_it_was(pair: Pair) -> None:
    shelf = pair.service(Shelf, OakShelf())
    with pytest.raises(ValueError, match="no such thing"):
        await shelf.fail("no such thing")


async def test_an_unknown_method_is_refused_and_the_connection_lives(pair: Pair) -> None:
    class Other(ABC):
        @abstractmethod
        async def missing(self) -> int: ...

    shelf = pair.service(Shelf, OakShelf())
    with pytest.raises(EndpointNotFoundError, match="Endpoint not found"):
        await pair.peer.service(Other).missing()
    assert await shelf.add(1, 1) == 2
    assert len(pair.connector.links) == 1


async def test_calls_that_nobody_waits_for_are_not_answered(pair: Pair) -> None:
    oak = OakShelf()
    shelf = pair.service(Shelf, oak)
    await pair.peer.connect()
    await shelf.note("one")
    await shelf.note("bad")
    await shelf.note("two")
    await until(lambda: len(oak.notes) == 3)
    assert oak.notes == ["one", "bad", "two"]
    assert not pair.peer.outbound


async def test_a_call_that_nobody_waits_for_is_lost_without_a_connection(pair: Pair) -> None:
    oak = OakShelf()
    shelf = pair.service(Shelf, oak)
    await shelf.note("lost")
    assert await shelf.add(1, 1) == 2
    assert oak.notes == []


async def test_a_call_waits_for_the_connection(pair: Pair) -> None:
    pair.connector.error = OSError("not yet")
    shelf = pair.service(Shelf, OakShelf())
    call = asyncio.create_task(shelf.add(1, 2))
    await until(lambda: pair.connector.attempts)
    pair.go_online()
    assert await call == 3


async def test_a_call_that_does_not_wait_for_a_connection_fails_without_one(pair: Pair) -> None:
    shelf = pair.service(Shelf, OakShelf())
    with pytest.raises(DisconnectedError, match="does not wait"):
        await shelf.now()
    await pair.peer.connect()
    assert await shelf.now() == 1


async def test_a_cancelled_call_is_cancelled_on_the_other_side(pair: Pair) -> None:
    oak = OakShelf()
    shelf = pair.service(Shelf, oak)
    call = asyncio.create_task(shelf.wait("a"))
    other = asyncio.create_task(shelf.wait("b"))
    await until(lambda: len(oak.started) == 2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: oak.cancelled == ["a"])
    assert len(pair.peer.outbound) == 1
    await until(lambda: len(pair.server_peer.inbound) == 1)
    oak.gates["b"].set()
    assert await other == "b"


async def test_a_handler_that_waits_does_not_hold_up_others(pair: Pair) -> None:
    oak = OakShelf()
    shelf = pair.service(Shelf, oak)
    waiting = asyncio.create_task(shelf.wait("a"))
    await until(lambda: oak.started)
    assert await shelf.add(1, 2) == 3
    oak.gates["a"].set()
    assert await waiting == "a"


async def test_a_call_times_out_as_its_method_says(clock: FakeClock, pair: Pair) -> None:
    shelf = pair.service(Shelf, OakShelf())
    await pair.peer.connect()
    call = asyncio.create_task(shelf.hurry())
    await until(lambda: pair.server_peer.inbound)
    await clock.advance(9.9)
    assert not call.done()
    await clock.advance(0.2)
    with pytest.raises(CallTimeoutError, match="within 10 s"):
        await call
    await until(lambda: not pair.server_peer.inbound)


async def test_a_call_times_out_waiting_for_a_connection(clock: FakeClock, pair: Pair) -> None:
    pair.connector.error = OSError("not today")
    shelf = pair.service(Shelf, OakShelf())
    call = asyncio.create_task(shelf.hurry())
    await until(lambda: pair.connector.attempts)
    await clock.advance(1.6)
    with pytest.raises(CallTimeoutError, match=r"no connection.* within 1.5 s"):
        await call


async def test_a_closed_peer_makes_no_calls_and_ends_those_under_way(pair: Pair) -> None:
    oak = OakShelf()
    shelf = pair.service(Shelf, oak)
    call = asyncio.create_task(shelf.wait("a"))
    await until(lambda: oak.started)
    pair.peer.close()
    with pytest.raises(PeerClosedError):
        await call
    with pytest.raises(PeerClosedError, match="closed"):
        await shelf.add(1, 2)


async def test_too_many_calls_are_refused_and_the_others_go_on() -> None:
    pair = Pair(limits=Limits(max_inbound_calls=2))
    oak = OakShelf()
    shelf = pair.service(Shelf, oak)
    calls = [asyncio.create_task(shelf.wait(name)) for name in "ab"]
    await until(lambda: len(oak.started) == 2)
    with pytest.raises(LimitError, match="max_inbound_calls"):
        await shelf.wait("c")
    for name in "ab":
        oak.gates[name].set()
    assert await asyncio.gather(*calls) == ["a", "b"]
    await pair.aclose()


async def test_arguments_and_results_that_are_too_large_fail_their_call_alone() -> None:
    pair = Pair(limits=Limits(max_arguments=1000), client={"limits": Limits(max_arguments=1000)})
    shelf = pair.service(Shelf, OakShelf())
    with pytest.raises(LimitError, match="max_arguments"):
        await shelf.fail("x" * 2000)
    with pytest.raises(LimitError, match="max_arguments"):
        await shelf.items([str(i) for i in range(100)])
    assert await shelf.add(1, 2) == 3
    await pair.aclose()


who: ContextVar[str] = ContextVar("who", default="nobody")


class Listener(ABC):
    @abstractmethod
    async def heard(self, text: str) -> str: ...


class Speaker(ABC):
    @abstractmethod
    async def speak(self, text: str) -> str: ...

    @abstractmethod
    async def name(self, given: str, pause: bool) -> str: ...

    @abstractmethod
    async def task_name(self) -> tuple[str, str]: ...

    @abstractmethod
    async def cancel_yourself(self) -> None: ...


class Radio(Speaker):
    async def speak(self, text: str) -> str:
        return await current_peer().service(Listener).heard(text)

    async def name(self, given: str, pause: bool) -> str:
        assert who.get() == "nobody"
        who.set(given)
        if pause:
            await asyncio.sleep(0)
        return who.get()

    async def task_name(self) -> tuple[str, str]:
        before = asyncio.current_task()
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        assert asyncio.current_task() is before
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.sleep(0, "done"))
        return "same", task.result()

    async def cancel_yourself(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()


class Ear(Listener):
    async def heard(self, text: str) -> str:
        return text.upper()


async def test_a_handler_can_call_back(pair: Pair) -> None:
    pair.client.serve(Listener, Ear())
    speaker = pair.service(Speaker, Radio())
    assert await speaker.speak("hello") == "HELLO"


async def test_each_handler_has_a_context_of_its_own(pair: Pair) -> None:
    speaker = pair.service(Speaker, Radio())
    calls = (speaker.name(f"n{i}", bool(i % 2)) for i in range(6))
    assert await asyncio.gather(*calls) == [f"n{i}" for i in range(6)]
    assert who.get() == "nobody"


async def test_a_handler_stays_in_one_task(pair: Pair) -> None:
    speaker = pair.service(Speaker, Radio())
    calls = [speaker.task_name() for _ in range(10)]
    assert await asyncio.gather(*calls) == [("same", "done")] * 10


async def test_a_handler_that_cancels_its_task_takes_no_other_along(pair: Pair) -> None:
    speaker = pair.service(Speaker, Radio())
    results = await asyncio.gather(
        speaker.cancel_yourself(),
        *(speaker.name(f"n{i}", True) for i in range(4)),
        return_exceptions=True,
    )
    assert results[1:] == ["n0", "n1", "n2", "n3"]


async def test_the_text_of_an_unexpected_error_stays_on_the_server() -> None:
    class Vault(ABC):
        @abstractmethod
        async def open(self) -> None: ...

    class Steel(Vault):
        async def open(self) -> None:
            raise OSError("password is 1234")

    from afresh.rpc.exceptions import ExceptionPolicy

    pair = Pair(exceptions=ExceptionPolicy())
    vault = pair.service(Vault, Steel())
    with pytest.raises(RemoteError) as caught:
        await vault.open()
    assert "1234" not in str(caught.value)
    assert "error id" in str(caught.value)
    await pair.aclose()


@pytest.mark.parametrize(
    "format", ["msgpack6-lz4", "msgpack6c-lz4", "msgpack6-lz4f", "msgpack6c-lz4f"]
)
async def test_frames_are_compressed_where_the_format_says_so(format: str) -> None:
    pair = Pair(format, formats=[format])
    shelf = pair.service(Shelf, OakShelf())
    names = [f"the same words again {i}" for i in range(2000)]
    assert list(await shelf.items(names)) == names
    assert list(await shelf.items(names)) == names
    pair.cut()
    assert await shelf.add(1, 2) == 3
    await pair.aclose()


async def test_a_frame_that_can_not_be_unpacked_ends_the_connection() -> None:
    pair = Pair("msgpack6-lz4f", formats=["msgpack6-lz4f"])
    shelf = pair.service(Shelf, OakShelf())
    await pair.peer.connect()
    await until(lambda: pair.server_peer.is_connected)
    link = pair.server_peer.link
    assert link is not None
    link.frame_received(b"\x80\xff\xff garbage")
    assert not pair.server_peer.is_connected
    assert await shelf.add(1, 2) == 3
    await pair.aclose()


async def test_calls_without_an_answer_are_told_of_once(
    clock: FakeClock, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = pair.service(Shelf, OakShelf())
    await pair.peer.connect()
    calls = [asyncio.create_task(shelf.wait(name)) for name in "ab"]
    await clock.advance(25)
    assert not caplog.messages
    await clock.advance(25)
    assert [message.split(":")[0] for message in caplog.messages] == ["Shelf.wait"] * 2
    await clock.advance(100)
    assert len(caplog.messages) == 2
    for call in calls:
        call.cancel()
