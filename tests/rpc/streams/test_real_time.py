import asyncio
from typing import Any

import pytest

from afresh.rpc.streams import RpcStream

from .ends import NOBODY, Ends, Feed, numbers, read, turns


def every_tenth(item: int) -> bool:
    return item % 10 == 0


async def begun(ends: Ends, feed: Feed, **rules: Any) -> RpcStream[Any]:
    """A real-time stream with room for five items, of which none was read."""
    rules = {"ack_period": 2, "ack_advance": 5, "is_real_time": True} | rules
    stream = ends.stream(feed.follow(), **rules)
    step = asyncio.ensure_future(anext(stream))
    await turns()
    feed.put(0)
    assert await step == 0
    return stream


async def take(stream: RpcStream[Any], count: int) -> list[Any]:
    return [await anext(stream) for _ in range(count)]


async def test_a_reader_who_keeps_up_gets_everything(ends: Ends):
    feed = Feed()
    stream = await begun(ends, feed)
    for number in range(1, 200):
        feed.put(number)
        assert await anext(stream) == number
        await turns()
    await stream.aclose()


async def test_the_other_side_gets_to_know_that_it_is_real_time(ends: Ends):
    assert ends.stream(numbers(3), is_real_time=True).is_real_time


async def test_a_slow_reader_gets_the_latest(ends: Ends):
    feed = Feed()
    stream = await begun(ends, feed)
    for number in range(1, 100):
        feed.put(number)
        await turns()
    assert feed.given == 100
    assert await take(stream, 4) == [1, 2, 3, 4]
    assert await anext(stream) == 99
    feed.put(100)
    assert await anext(stream) == 100
    assert ends.owner.items_sent == list(range(7))  # consecutive numbers
    await stream.aclose()


async def test_a_slow_reader_goes_on_with_an_item_to_go_on_with(ends: Ends):
    feed = Feed()
    stream = await begun(ends, feed, can_skip_to=every_tenth)
    for number in range(1, 35):
        feed.put(number)
        await turns()
    assert await take(stream, 4) == [1, 2, 3, 4]
    assert await take(stream, 5) == [30, 31, 32, 33, 34]
    await stream.aclose()


async def test_what_finds_no_room_is_left_out_up_to_an_item_to_go_on_with(ends: Ends):
    feed = Feed()
    stream = await begun(ends, feed, can_skip_to=lambda item: item % 100 == 0)
    for number in range(1, 90):
        feed.put(number)
        await turns()
    assert await take(stream, 9) == [1, 2, 3, 4, 5, 6, 7, 8, 9]  # five sent and five waiting
    for number in range(90, 103):
        feed.put(number)
        await turns()
    assert await take(stream, 3) == [100, 101, 102]
    await stream.aclose()


async def test_the_first_item_is_one_to_begin_with(ends: Ends):
    feed = Feed()
    feed.put(*range(7, 23), None)
    stream = ends.stream(feed.follow(), is_real_time=True, can_skip_to=every_tenth)
    assert await read(stream) == list(range(10, 23))


async def test_a_source_that_never_waits_has_to_wait_for_a_slow_reader(ends: Ends):
    given = 0

    async def source():
        nonlocal given
        while True:
            given += 1
            yield given

    stream = ends.stream(source(), ack_period=2, ack_advance=5, is_real_time=True)
    await anext(stream)
    await turns(200)
    stopped_at = given
    await turns(200)
    assert given == stopped_at
    await take(stream, 100)
    assert given > stopped_at
    await stream.aclose()


async def test_a_burst_is_read_on_and_its_latest_items_are_sent(ends: Ends):
    feed = Feed()
    stream = await begun(ends, feed)
    feed.put(*range(1, 1000))
    await turns(30)
    assert feed.given == 1000
    assert await take(stream, 5) == [1, 2, 3, 4, 999]
    await stream.aclose()


async def test_an_error_and_the_end_come_after_the_latest_items(ends: Ends):
    feed = Feed()
    stream = await begun(ends, feed)
    for number in range(1, 20):
        feed.put(number)
        await turns()
    feed.put(ValueError("broken"))
    await turns()
    assert await take(stream, 5) == [1, 2, 3, 4, 19]
    with pytest.raises(ValueError, match="broken"):
        await anext(stream)


class TestReconnect:
    async def test_what_is_old_is_not_sent_again(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed)
        ends.disconnect()
        for number in range(1, 30):
            feed.put(number)
            await turns()
        await ends.reconnect()
        await turns()
        feed.put(30, 31)
        assert await take(stream, 2) == [30, 31]
        await stream.aclose()

    async def test_it_goes_on_with_an_item_to_go_on_with(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed, can_skip_to=every_tenth)
        ends.disconnect()
        feed.put(1, 2, 3)
        await turns()
        await ends.reconnect()
        await turns()
        feed.put(*range(4, 23))
        await turns()
        assert await take(stream, 3) == [10, 11, 12]
        await stream.aclose()

    async def test_an_end_that_got_lost_is_sent_again_with_what_came_before(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed)
        ends.disconnect()
        feed.put(1, 2, None)
        await turns()
        await ends.reconnect()
        assert await take(stream, 2) == [1, 2]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    async def test_numbers_stay_consecutive(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed)
        feed.put(1, 2, 3)
        await take(stream, 3)
        await turns()
        for number in range(10, 60, 10):
            ends.disconnect()
            feed.put(number)
            await turns()
            await ends.reconnect()
            await turns()
            feed.put(number + 1)
            assert await anext(stream) == number + 1
        resets = [index for index, host in ends.reader.named("$sys.Ack") if host != NOBODY]
        assert resets == [0, 4, 5, 6, 7, 8]
        await stream.aclose()
