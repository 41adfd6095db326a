import asyncio
import gc
from contextlib import aclosing

import pytest

from afresh.errors import InvalidStateError
from afresh.rpc.streams import RpcStream

from .ends import NOBODY, Ends, Feed, numbers, read, turns


async def test_all_items_arrive_in_order(ends: Ends):
    assert await read(ends.stream(numbers(10_000))) == list(range(10_000))


async def test_items_that_come_now_and_then_arrive_in_order(ends: Ends):
    source = numbers(3000, lambda number: number % 7 == 0)
    assert await read(ends.stream(source)) == list(range(3000))


async def test_an_empty_stream_ends_at_once(ends: Ends):
    assert await read(ends.stream(numbers(0))) == []


async def test_nothing_happens_before_the_stream_is_read(ends: Ends):
    feed = Feed()
    feed.put(1)
    stream = ends.stream(feed.follow())
    iterator = aiter(stream)
    await turns()
    assert (feed.given, ends.reader.sent, ends.counts) == (0, [], (1, 0))
    assert await anext(iterator) == 1
    assert ends.reader.named("$sys.Ack") == [(0, ends.owner.peer_id)]


async def test_the_first_item_goes_out_at_once(ends: Ends):
    feed = Feed()
    stream = ends.stream(feed.follow())
    waiting = asyncio.ensure_future(anext(stream))
    await turns()
    feed.put(1)
    await turns(5)  # to the source, to the flush, over the link, to the reader
    assert waiting.done()


async def test_the_end_is_sent_and_acknowledged(ends: Ends):
    await read(ends.stream(numbers(5)))
    await turns()
    assert ends.owner.named("$sys.End")[0][0] == 5
    assert not ends.owner.named("$sys.End")[0][1]
    assert ends.reader.named("$sys.AckEnd") == [(ends.owner.peer_id,)]
    assert ends.counts == (0, 0)


async def test_reading_is_acknowledged_as_progress(ends: Ends):
    await read(ends.stream(numbers(10_000)))
    first, *others = ends.reader.named("$sys.Ack")
    assert first == (0, ends.owner.peer_id)
    assert {host for _, host in others} == {NOBODY}
    acknowledged = [index for index, _ in others]
    assert acknowledged == sorted(acknowledged)
    assert acknowledged[-1] >= 10_000 - 2048


async def test_an_item_that_is_under_way_is_lost_to_nobody_when_reading_by_loop(ends: Ends):
    feed = Feed()
    stream = ends.stream(feed.follow())
    task = asyncio.ensure_future(read(stream))
    for number in range(50):
        feed.put(number)
        await turns(number % 5)
    feed.put(None)
    assert await task == list(range(50))


@pytest.mark.parametrize("left_at", [0, 1, 70, 1500])
async def test_leaving_the_loop_tells_the_owner_and_closes_the_source(ends: Ends, left_at: int):
    feed = Feed()
    feed.put(*range(5000))
    async for item in ends.stream(feed.follow()):
        if item == left_at:
            break
    await turns()
    assert ends.reader.named("$sys.AckEnd") == [(ends.owner.peer_id,)]
    assert feed.is_closed
    assert ends.counts == (0, 0)


async def test_what_arrives_after_leaving_is_ignored(ends: Ends):
    async for _ in ends.stream(numbers(5000, lambda number: number % 10 == 0)):
        break
    ends.reader.say("$sys.I:2", 1, 1, 1)
    ends.reader.say("$sys.End:2", 1, 1, {"type_ref": "", "message": ""})
    await turns()
    assert ends.counts == (0, 0)
    assert len(ends.reader.named("$sys.AckEnd")) == 1


async def test_cancelling_the_reader_tells_the_owner(ends: Ends):
    feed = Feed()
    task = asyncio.ensure_future(read(ends.stream(feed.follow())))
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await turns()
    assert feed.is_closed
    assert ends.counts == (0, 0)


async def test_an_error_in_the_loop_tells_the_owner(ends: Ends):
    feed = Feed()
    feed.put(1)

    async def reader():
        async for item in ends.stream(feed.follow()):
            _ = item / 0

    with pytest.raises(ZeroDivisionError):
        await reader()
    await turns()
    assert feed.is_closed


async def test_a_stream_of_a_peer_is_read_once(ends: Ends):
    stream = ends.stream(numbers(3))
    await read(stream)
    for again in (lambda: read(stream), lambda: anext(stream)):
        with pytest.raises(InvalidStateError):
            await again()


async def test_a_stream_that_was_closed_has_no_items(ends: Ends):
    stream = ends.stream(numbers(3))
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert ends.reader.sent == []


class TestStepByStep:
    async def test_items_come_one_by_one(self, ends: Ends):
        stream = ends.stream(numbers(200))
        assert [await anext(stream) for _ in range(200)] == list(range(200))
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    async def test_a_step_that_is_given_up_loses_nothing(self, ends: Ends):
        feed = Feed()
        stream = ends.stream(feed.follow())
        for number in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.001)
            feed.put(number)
            assert await anext(stream) == number

    async def test_a_step_given_up_as_its_item_arrives_loses_nothing(self, ends: Ends):
        feed = Feed()
        stream = ends.stream(feed.follow())
        for waited in range(12):
            step = asyncio.ensure_future(anext(stream))
            await turns()
            feed.put(waited)
            await turns(waited)
            step.cancel()
            try:
                assert await step == waited
            except asyncio.CancelledError:
                assert await anext(stream) == waited

    async def test_an_error_is_raised_once(self, ends: Ends):
        feed = Feed()
        feed.put(1, ValueError("broken"))
        stream = ends.stream(feed.follow())
        assert await anext(stream) == 1
        with pytest.raises(ValueError, match="broken"):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    async def test_closing_ends_it(self, ends: Ends):
        feed = Feed()
        feed.put(1, 2)
        async with aclosing(ends.stream(feed.follow())) as stream:
            assert await anext(stream) == 1
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await turns()
        assert feed.is_closed

    async def test_closing_takes_errors_back(self, ends: Ends):
        feed = Feed()
        feed.put(1, ValueError("broken"))
        stream = ends.stream(feed.follow())
        assert await anext(stream) == 1
        await turns()
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    async def test_closing_wakes_up_who_waits(self, ends: Ends):
        stream = ends.stream(Feed().follow())
        step = asyncio.ensure_future(anext(stream))
        await turns()
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await step

    async def test_two_tasks_can_not_wait_at_a_time(self, ends: Ends):
        stream = ends.stream(Feed().follow())
        step = asyncio.ensure_future(anext(stream))
        await turns()
        with pytest.raises(InvalidStateError, match="Another task"):
            await anext(stream)
        step.cancel()

    async def test_it_can_not_be_mixed_with_a_loop(self, ends: Ends):
        stream = ends.stream(numbers(3))
        await anext(stream)
        with pytest.raises(InvalidStateError, match="once"):
            aiter(stream)

    async def test_dropping_the_stream_tells_the_owner(self, ends: Ends):
        feed = Feed()
        feed.put(1, 2, 3)
        stream = ends.stream(feed.follow())
        assert await anext(stream) == 1
        del stream
        gc.collect()
        await turns()
        assert feed.is_closed
        assert ends.counts == (0, 0)


class TestWhereTheSourceIs:
    async def test_it_reads_as_on_the_other_side(self):
        assert await read(RpcStream(numbers(5))) == [0, 1, 2, 3, 4]

    async def test_step_by_step_too(self):
        stream = RpcStream(numbers(2))
        assert [await anext(stream), await anext(stream)] == [0, 1]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    async def test_closing_it_closes_the_source(self):
        feed = Feed()
        feed.put(1)
        stream = RpcStream(feed.follow())
        assert await anext(stream) == 1
        await stream.aclose()
        assert feed.is_closed


def test_only_async_iterables_are_wrapped():
    with pytest.raises(TypeError, match="async iterable"):
        RpcStream([1, 2, 3])  # type: ignore[arg-type]


@pytest.mark.parametrize(("period", "advance"), [(0, 5), (-1, 5), (6, 5), (1, 2**31), (None, 0)])
def test_periods_and_windows_that_can_not_work_are_refused(period: int | None, advance: int):
    with pytest.raises(ValueError, match="ack_period"):
        RpcStream(numbers(1), ack_period=period, ack_advance=advance)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (64, 2048)),
        ({"is_real_time": True}, (30, 61)),
        ({"ack_advance": 10}, (5, 10)),
        ({"ack_advance": 1}, (1, 1)),
        ({"ack_period": 5000}, (5000, 10_000)),
    ],
)
def test_what_is_not_given_fits_what_is(given: dict[str, int], expected: tuple[int, int]):
    stream = RpcStream(numbers(1), **given)
    assert (stream.ack_period, stream.ack_advance) == expected
