import asyncio
import contextvars
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from afresh.errors import RemoteError, RpcError
from afresh.rpc.streams import RpcStream, shared

from .ends import Ends, Feed, numbers, read, turns

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


async def reading(ends: Ends, source: Any, **rules: Any) -> asyncio.Task[list[Any]]:
    task = asyncio.ensure_future(read(ends.stream(source, **rules)))
    await turns()
    return task


async def test_an_error_in_the_source_reaches_the_reader_after_the_items(ends: Ends):
    feed = Feed()
    feed.put(1, 2, KeyError("broken"))
    stream = ends.stream(feed.follow())
    assert [await anext(stream), await anext(stream)] == [1, 2]
    with pytest.raises(KeyError, match="broken"):
        await anext(stream)
    index, info = ends.owner.named("$sys.End")[0]
    assert (index, info.type_name) == (2, "System.Collections.Generic.KeyNotFoundException")


async def test_an_error_that_is_not_known_there_keeps_its_name(ends: Ends):
    class UnheardOf(Exception):
        pass

    feed = Feed()
    feed.put(UnheardOf("dear me"))
    with pytest.raises(RemoteError):
        await read(ends.stream(feed.follow()))


async def test_a_source_that_is_cancelled_from_within_fails_the_stream(ends: Ends):
    feed = Feed()
    feed.put(1, asyncio.CancelledError())
    with pytest.raises(RemoteError, match="canceled"):
        await read(ends.stream(feed.follow()))


async def test_a_source_that_can_not_even_begin_fails_the_stream(ends: Ends):
    class Broken:
        def __aiter__(self) -> AsyncIterator[int]:
            raise ValueError("no iterator today")

    with pytest.raises(ValueError, match="no iterator today"):
        await read(ends.stream(Broken()))


async def test_a_source_that_never_gives_anything_is_closed_when_the_reader_leaves(ends: Ends):
    feed = Feed()
    task = await reading(ends, feed.follow())
    task.cancel()
    await turns()
    assert feed.is_cancelled
    assert feed.is_closed


async def test_a_source_waiting_for_the_window_is_closed_when_the_reader_leaves(ends: Ends):
    feed = Feed()
    feed.put(*range(100))
    stream = ends.stream(feed.follow(), ack_period=2, ack_advance=5)
    assert await anext(stream) == 0
    await turns()
    await stream.aclose()
    await turns()
    assert (feed.given, feed.is_closed, feed.is_cancelled) == (5, True, False)


async def test_a_source_is_closed_when_the_peer_is_closed(ends: Ends):
    feed = Feed()
    task = await reading(ends, feed.follow())
    ends.owner.table.close(ConnectionError("closed"))
    await turns()
    assert feed.is_closed
    task.cancel()


async def test_a_source_is_closed_when_another_peer_comes(ends: Ends):
    feed = Feed()
    task = await reading(ends, feed.follow())
    ends.disconnect()
    await ends.reconnect(is_same_peer=False)
    await turns()
    assert feed.is_closed
    assert isinstance(task.exception(), ConnectionError)


async def test_a_source_may_take_its_time_to_close(ends: Ends):
    gate = asyncio.Event()
    done = []

    async def source():
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await gate.wait()
            done.append(True)

    async for _ in ends.stream(source()):
        break
    await turns()
    assert not done
    gate.set()
    await turns()
    assert done


async def test_a_source_that_cleans_up_after_its_end_was_sent_is_not_interrupted(ends: Ends):
    gate = asyncio.Event()
    done = []

    async def source():
        try:
            yield object()
        finally:
            await gate.wait()
            done.append(True)

    with pytest.raises(RpcError, match="can't be written"):
        await read(ends.stream(source(), Any))
    await turns()
    assert ends.counts == (0, 0)
    gate.set()
    await turns()
    assert done


async def test_a_source_that_goes_on_after_a_cancellation_is_closed_at_its_next_item(ends: Ends):
    closed = []

    async def source():
        try:
            while True:
                try:
                    yield 1
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    pass
        finally:
            closed.append(True)

    async for _ in ends.stream(source()):
        break
    await turns()
    assert closed
    assert len(ends.owner.items_sent) == 1


async def test_an_error_while_closing_is_logged(ends: Ends, caplog: pytest.LogCaptureFixture):
    async def source():
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            raise ValueError("can't close")

    async for _ in ends.stream(source()):
        break
    await turns()
    assert "can't close" in caplog.text


async def test_a_source_runs_in_one_task_of_its_own(ends: Ends):
    tasks = set()

    async def source():
        for number in range(3000):
            tasks.add(asyncio.current_task())
            yield number
            if number % 100 == 0:
                await asyncio.sleep(0)

    await read(ends.stream(source()))
    assert len(tasks) == 1
    assert asyncio.current_task() not in tasks


async def test_a_source_finds_the_context_of_the_peer_and_nobody_elses(ends: Ends):
    ends.owner.context.run(variable.set, "the peer's")
    variable.set("the reader's")

    async def source():
        yield variable.get()
        variable.set("the source's")
        yield variable.get()

    assert await read(ends.stream(source(), str)) == ["the peer's", "the source's"]
    assert ends.owner.context[variable] == "the peer's"
    assert variable.get() == "the reader's"


async def test_a_source_that_never_waits_leaves_turns_to_others(ends: Ends):
    ticks = 0

    async def others():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(others())
    assert len(await read(ends.stream(numbers(100_000)))) == 100_000
    task.cancel()
    assert ticks > 100


async def test_a_source_that_works_hard_is_interrupted_soon(ends: Ends):
    async def source():
        for number in range(200):
            end = time.perf_counter() + shared.SLICE / 4
            while time.perf_counter() < end:
                pass
            yield number

    task = asyncio.ensure_future(read(ends.stream(source())))
    ticks = 0
    while not task.done():
        ticks += 1
        await asyncio.sleep(0)
    assert task.result() == list(range(200))
    # It works for 50 slices.
    assert ticks > 25


async def test_iterators_other_than_generators_will_do(ends: Ends):
    class Countdown:
        def __init__(self) -> None:
            self.left = 3
            self.is_closed = False

        def __aiter__(self):
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    assert await read(ends.stream(Countdown())) == [2, 1, 0]


async def test_a_source_that_makes_iterators_can_be_read_by_many(ends: Ends):
    class Three:
        def __aiter__(self) -> AsyncIterator[int]:
            return numbers(3)

    stream = RpcStream(Three(), item_type=int)
    for _ in range(3):
        assert await read(ends.carry(stream, RpcStream[int])) == [0, 1, 2]
    assert await read(stream) == [0, 1, 2]


async def test_an_iterator_can_be_read_by_one_reader_only(ends: Ends):
    stream = RpcStream(numbers(3), item_type=int)
    first, second = (ends.carry(stream, RpcStream[int]) for _ in range(2))
    assert await read(second) == [0, 1, 2]
    with pytest.raises(Exception, match="was read already"):
        await read(first)


class Iterator:
    """A source that has nothing to give, and notes that it was closed."""

    is_closed = False

    def __aiter__(self):
        return self

    async def __anext__(self) -> int:
        await asyncio.Event().wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("pause", [0, 1, 5])
@pytest.mark.parametrize("is_begun", [True, False])
async def test_an_iterator_is_closed_however_far_reading_got(
    ends: Ends, is_begun: bool, pause: int
):
    source = Iterator()
    ends.stream(source)
    if is_begun:
        ends.owner.say("$sys.Ack:2", 1, 0, ends.owner.peer_id)
        await turns(pause)
    ends.owner.table.close(ConnectionError("closed"))
    await turns()
    assert source.is_closed


async def test_releasing_a_reference_leaves_a_local_reader_alone(ends: Ends):
    stream = RpcStream(numbers(3, lambda _: True))
    assert await anext(stream) == 0
    ends.owner.table.share(stream)
    ends.owner.table.close(ConnectionError("closed"))
    await turns()
    assert [await anext(stream), await anext(stream)] == [1, 2]


async def test_a_reference_that_nobody_read_does_not_take_the_source_from_another(ends: Ends):
    stream = RpcStream(numbers(3, lambda _: True), item_type=int)
    ends.carry(stream, RpcStream[int])
    second = ends.carry(stream, RpcStream[int])
    assert await anext(second) == 0
    ends.owner.table._release(ends.owner.table._shared[1])
    await turns()
    assert [await anext(second), await anext(second)] == [1, 2]
