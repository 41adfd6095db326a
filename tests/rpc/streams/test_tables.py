import asyncio
import gc
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.errors import LimitError
from afresh.rpc.limits import Limits
from afresh.rpc.streams import RpcStream
from afresh.testing import FakeClock

from .ends import ARGUMENTS, Ends, Feed, numbers, read, turns


async def begun(ends: Ends, feed: Feed) -> RpcStream[Any]:
    """A stream of which one item was read."""
    feed.put(0)
    stream = ends.stream(feed.follow())
    assert await anext(stream) == 0
    return stream


class TestKeepAlive:
    async def test_streams_that_are_read_are_mentioned(self, ends: Ends):
        first, second, third = (ends.stream(Feed().follow()) for _ in range(3))
        assert ends.reader.table.keep_alive_ids() == []
        tasks = [asyncio.ensure_future(anext(stream)) for stream in (first, third)]
        await turns()
        assert ends.reader.table.keep_alive_ids() == [1, 3]
        assert ends.owner.table.keep_alive_ids() == []
        await first.aclose()
        assert ends.reader.table.keep_alive_ids() == [3]
        for task in tasks:
            task.cancel()
        await second.aclose()

    async def test_what_is_unknown_is_disconnected_all_at_once(self, ends: Ends):
        stream = await begun(ends, Feed())
        ends.owner.table.note_keep_alive([1, 7, 9])
        await turns()
        assert ends.owner.named("$sys.Disconnect") == [([7, 9],)]
        ends.owner.table.note_keep_alive([1])
        ends.owner.table.note_keep_alive([])
        await turns()
        assert len(ends.owner.named("$sys.Disconnect")) == 1
        await stream.aclose()

    async def test_a_stream_that_is_mentioned_stays(self, ends: Ends, clock: FakeClock):
        feed = Feed()
        stream = await begun(ends, feed)
        for _ in range(100):
            await clock.advance(10)
            ends.exchange_keep_alives()
            ends.owner.table.release_expired(clock.now())
        feed.put(1)
        assert await anext(stream) == 1
        await stream.aclose()

    async def test_a_stream_that_is_not_mentioned_is_released(self, ends: Ends, clock: FakeClock):
        feed = Feed()
        stream = await begun(ends, feed)
        await clock.advance(125)
        ends.owner.table.release_expired(clock.now())
        assert ends.counts == (1, 1)
        await clock.advance(0.1)
        ends.owner.table.release_expired(clock.now())
        await turns()
        assert ends.counts == (0, 1)
        assert feed.is_closed
        ends.exchange_keep_alives()
        await turns()
        with pytest.raises(Exception, match="not found or disconnected"):
            await anext(stream)
        assert ends.counts == (0, 0)

    async def test_an_acknowledgement_mentions_the_stream(self, ends: Ends, clock: FakeClock):
        feed = Feed()
        feed.put(0)
        stream = ends.stream(feed.follow(), ack_period=1)
        await clock.advance(120)
        assert await anext(stream) == 0
        await clock.advance(120)
        ends.owner.table.release_expired(clock.now())
        assert ends.counts == (1, 1)
        await stream.aclose()

    async def test_a_reference_that_nobody_reads_is_released(self, ends: Ends, clock: FakeClock):
        stream = ends.stream(numbers(3))
        await clock.advance(126)
        ends.owner.table.release_expired(clock.now())
        assert ends.counts == (0, 0)
        with pytest.raises(Exception, match="not found or disconnected"):
            await read(stream)

    async def test_time_without_a_connection_does_not_count(self, ends: Ends, clock: FakeClock):
        feed = Feed()
        stream = await begun(ends, feed)
        ends.disconnect()
        await clock.advance(500)
        ends.owner.table.release_expired(clock.now())
        await ends.reconnect()
        ends.owner.table.release_expired(clock.now())
        feed.put(1)
        assert await anext(stream) == 1
        await stream.aclose()


class TestLimits:
    async def test_too_many_streams_can_not_be_shared(self):
        ends = Ends(limits=Limits(max_objects=3))
        for _ in range(3):
            ends.stream(numbers(3))
        with pytest.raises(LimitError, match="max_objects"):
            ends.stream(numbers(3))
        ends.close()

    async def test_too_many_streams_can_not_be_read(self):
        ends = Ends(limits=Limits(max_objects=3))
        table = ends.reader.table
        references = [ends.owner.table.share(RpcStream(Feed().follow())) for _ in range(3)]
        references.append(references[0]._replace(local_id=4))
        streams = [table.open(reference, int) for reference in references]
        tasks = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await turns()
        with pytest.raises(LimitError, match="max_objects"):
            await tasks[3]
        for task in tasks[:3]:
            task.cancel()
        ends.close()
        await turns()

    async def test_both_directions_count_together(self):
        ends = Ends(limits=Limits(max_objects=2))
        ends.carry(RpcStream(numbers(1)), RpcStream[int])
        stream = ends.carry(RpcStream(Feed().follow()), RpcStream[int], back=True)
        task = asyncio.ensure_future(anext(stream))
        await turns()
        with pytest.raises(LimitError, match="2 streams"):
            ends.stream(numbers(1))
        task.cancel()
        ends.close()
        await turns()


async def test_many_streams_leave_nothing_behind(ends: Ends):
    before = len(gc.get_objects())
    for number in range(300):
        if number % 3 == 0:
            await read(ends.stream(numbers(5)))
        elif number % 3 == 1:
            async for _ in ends.stream(numbers(50)):
                break
        else:
            stream = ends.stream(numbers(50))
            await anext(stream)
            await stream.aclose()
    await turns()
    assert ends.counts == (0, 0)
    assert ends.reader.table.unread == 0
    ends.owner.sent.clear()
    ends.reader.sent.clear()
    del stream, _
    gc.collect()
    assert len(gc.get_objects()) - before < 1000


async def test_a_table_does_not_outlive_its_streams(ends: Ends):
    ends = Ends(ends.format.key)
    stream = ends.stream(numbers(50))
    await anext(stream)
    ends.close()
    await turns()
    table = weakref.ref(ends.owner)
    del ends, stream
    gc.collect()
    assert table() is None


MESSAGES = sorted(ARGUMENTS)


@given(data=st.data())
async def test_garbage_breaks_nothing(data: st.DataObject):
    ends = Ends(data.draw(st.sampled_from(["json5np", "msgpack6c"])))
    feed, back_feed = Feed(), Feed()
    feed.put(*range(20))
    back_feed.put(*range(20))
    streams = [
        ends.carry(RpcStream(feed.follow(), ack_period=2, ack_advance=9), RpcStream[int]),
        ends.carry(RpcStream(back_feed.follow()), RpcStream[int], back=True),
    ]
    tasks = [asyncio.ensure_future(read(stream)) for stream in streams]
    await turns()
    numbers_drawn = st.integers(-(2**63), 2**64 - 1) | st.integers(-2, 25)
    try:
        for _ in range(data.draw(st.integers(1, 10))):
            end = data.draw(st.sampled_from([ends.owner, ends.reader]))
            name = data.draw(st.sampled_from(MESSAGES))
            section = data.draw(
                st.binary(max_size=60)
                | st.builds(
                    lambda index, rest: ends.format.codec((int, Any)).encode((index, rest)),
                    numbers_drawn,
                    st.none()
                    | st.integers(0, 30)
                    | st.lists(st.integers(0, 30), max_size=30)
                    | st.uuids().map(str)
                    | st.just(str(ends.owner.peer_id))
                    | st.just({"TypeRef": "X", "Message": "y"}),
                )
            )
            end.table.handlers[name](data.draw(st.integers(0, 3)), section)
            await turns(data.draw(st.integers(0, 6)))
    finally:
        ends.close()
        await turns()
        assert all(task.done() for task in tasks)
        await asyncio.gather(*tasks, return_exceptions=True)
    assert ends.counts == (0, 0)
    assert ends.owner.table.unread == ends.reader.table.unread == 0
