import asyncio
from typing import Any

import pytest

from afresh.errors import LimitError, RpcError
from afresh.rpc.limits import Limits
from afresh.rpc.streams import RpcStream, remote, shared

from .ends import Ends, Feed, intact, numbers, read, read_on, turns


async def take(stream: RpcStream[Any], count: int) -> list[Any]:
    return [await anext(stream) for _ in range(count)]


@pytest.mark.parametrize(("period", "advance"), [(1, 1), (1, 2), (3, 5), (30, 61), (50, 50)])
async def test_the_owner_never_goes_beyond_the_window(ends: Ends, period: int, advance: int):
    feed = Feed()
    feed.put(*range(1000))
    stream = ends.stream(feed.follow(), ack_period=period, ack_advance=advance)
    for count in range(1, 201):
        await anext(stream)
        await turns()
        acknowledged = ends.reader.named("$sys.Ack")[-1][0]
        assert max(ends.owner.items_sent) < acknowledged + advance
        assert feed.given == acknowledged + advance
        assert acknowledged > count - period
    await stream.aclose()


async def test_the_source_is_not_read_beyond_the_window_either(ends: Ends):
    feed = Feed()
    feed.put(*range(100))
    stream = ends.stream(feed.follow(), ack_period=5, ack_advance=10)
    await anext(stream)
    await turns()
    assert feed.given == 10


async def test_the_end_is_sent_inside_the_window_only(ends: Ends):
    stream = ends.stream(numbers(10), ack_period=5, ack_advance=10)
    await take(stream, 1)
    await turns()
    assert (len(ends.owner.items_sent), ends.owner.named("$sys.End")) == (10, [])
    await take(stream, 5)
    await turns()
    assert [index for index, _ in ends.owner.named("$sys.End")] == [10]


async def test_what_was_received_but_not_read_is_not_acknowledged(ends: Ends):
    stream = ends.stream(numbers(1000), ack_period=10, ack_advance=1000)
    await take(stream, 9)
    await turns()
    assert [index for index, _ in ends.reader.named("$sys.Ack")] == [0]
    await take(stream, 1)
    await turns()
    assert [index for index, _ in ends.reader.named("$sys.Ack")] == [0, 10]


async def test_reading_much_in_one_turn_is_acknowledged_once(ends: Ends):
    stream = ends.stream(numbers(2000), ack_period=10, ack_advance=2000)
    await take(stream, 1)
    await turns()
    await take(stream, 1500)
    await turns()
    assert [index for index, _ in ends.reader.named("$sys.Ack")] == [0, 1501]


async def test_a_period_beyond_the_window_does_not_lock_up(ends: Ends):
    stream = ends.stream(numbers(1000), ack_period=64, ack_advance=64)
    # Some owners say 256 and 128.
    found: RpcStream[int] = ends.reader.table.open(
        ends.owner.table.share(RpcStream(numbers(1000), ack_period=1, ack_advance=128))._replace(
            ack_period=256
        ),
        int,
    )
    assert await read(found) == list(range(1000))
    assert await read(stream) == list(range(1000))


async def test_items_travel_in_batches_of_at_most_1024(ends: Ends):
    assert len(await read(ends.stream(numbers(20_000), ack_advance=20_000))) == 20_000
    sizes = [len(items) for _, items in ends.owner.named("$sys.B")]
    assert max(sizes) <= 1024
    assert len(ends.owner.sent) < 100


async def test_batches_of_large_items_are_bounded_by_their_bytes(ends: Ends):
    async def blocks():
        for number in range(300):
            yield f"{number:>10000}"

    assert len(await read(ends.stream(blocks(), str))) == 300
    sizes = [len(message.arguments) for message in ends.owner.sent if "B:" in message.name]
    assert max(sizes) <= 2 * shared.BATCH
    assert sum(sizes) / len(sizes) > 15_000


async def test_what_is_sent_and_not_acknowledged_is_bounded_by_bytes(ends: Ends):
    feed = Feed()
    feed.put(*["x" * 100_000] * 200)
    stream = ends.stream(feed.follow(), str, ack_period=4, ack_advance=200)
    await anext(stream)
    await turns(100)
    assert feed.given * 100_000 <= shared.BUFFER + 300_000
    assert len(await take(stream, 199)) == 199


async def test_the_bound_by_bytes_moves_on_with_the_reader(ends: Ends):
    feed = Feed()
    feed.put(*["x" * 100_000] * 150)
    stream = ends.stream(feed.follow(), str, ack_period=4, ack_advance=200)
    for read_so_far in range(1, 130):
        await anext(stream)
        await turns(60)
        ahead = feed.given - read_so_far
        assert 35 <= ahead <= 47 or feed.given == 150
    assert len(await take(stream, 21)) == 21
    await stream.aclose()


async def test_the_bound_by_bytes_never_keeps_a_reader_from_acknowledging(ends: Ends):
    feed = Feed()
    feed.put(*["x" * 200_000] * 60)
    stream = ends.stream(feed.follow(), str, ack_period=25, ack_advance=50)
    assert len(await take(stream, 60)) == 60


async def test_small_and_large_items_may_alternate(ends: Ends):
    async def source():
        for number in range(2000):
            yield "x" * (200_000 if number % 500 == 499 else number % 50)

    lengths = [len(item) async for item in ends.stream(source(), str)]
    assert lengths == [200_000 if n % 500 == 499 else n % 50 for n in range(2000)]


async def test_an_item_that_no_message_can_hold_ends_the_stream_with_an_error():
    ends = Ends(limits=Limits(max_arguments=1000))
    stream = ends.stream(listed("a", "b", "x" * 2000, "c"), str)
    assert await take(stream, 2) == ["a", "b"]
    with pytest.raises(LimitError, match="max_arguments"):
        await anext(stream)
    await turns()
    assert ends.counts == (0, 0)


async def listed(*items: Any):
    for item in items:
        yield item


async def test_an_item_of_the_wrong_type_for_the_format_ends_the_stream_with_an_error(ends: Ends):
    stream = ends.stream(listed(1, 2, object()), Any)
    assert await take(stream, 2) == [1, 2]
    with pytest.raises(RpcError, match="can't be written"):
        await anext(stream)


async def test_items_have_the_value_they_had_when_they_were_given(ends: Ends):
    async def source():
        row = {"n": 0}
        for row["n"] in range(100):
            yield row

    assert [row["n"] async for row in ends.stream(source(), dict[str, int])] == list(range(100))


class TestProtection:
    """What a consumer does about owners that break the rules; the test plays the owner."""

    async def begun(self, ends: Ends, **rules: Any) -> RpcStream[Any]:
        stream = ends.stream(Feed().follow(), **rules)
        step = asyncio.ensure_future(anext(stream))
        await turns()
        ends.reader.say("$sys.I:2", 1, 0, 0)
        assert await step == 0
        return stream

    async def failed(self, ends: Ends, stream: RpcStream[Any], match: str) -> None:
        with pytest.raises(RpcError, match=match):
            await read_on(stream)
        await turns()
        assert ends.reader.named("$sys.AckEnd") == [(ends.owner.peer_id,)]
        assert ends.counts == (0, 0)

    async def test_items_far_beyond_the_window_fail_the_stream(self, ends: Ends):
        stream = await self.begun(ends, ack_period=3, ack_advance=10)
        for index in range(1, 25):
            ends.reader.say("$sys.I:2", 1, index, index)
        await self.failed(ends, stream, "beyond its window of 10")

    async def test_items_somewhat_beyond_the_window_may_follow_a_reset(self, ends: Ends):
        stream = await self.begun(ends, ack_period=3, ack_advance=10)
        ends.reader.say("$sys.B:2", 1, 1, list(range(1, 24)))
        assert await take(stream, 23) == list(range(1, 24))

    async def test_resets_do_not_widen_the_window(self, ends: Ends):
        stream = await self.begun(ends, ack_period=3, ack_advance=10)
        for index in range(1, 24):
            ends.reader.say("$sys.I:2", 1, index + 5, 0)
            ends.reader.say("$sys.I:2", 1, index, index)
        ends.reader.say("$sys.I:2", 1, 24, 24)
        await self.failed(ends, stream, "beyond its window of 10")

    async def test_a_batch_of_more_than_1024_fails_the_stream(self, ends: Ends):
        stream = await self.begun(ends)
        ends.reader.say("$sys.B:2", 1, 1, list(range(1025)))
        await self.failed(ends, stream, "1,025 items")

    async def test_numbers_below_zero_fail_the_stream(self, ends: Ends):
        stream = await self.begun(ends)
        ends.reader.say("$sys.B:2", 1, -5, list(range(10)))
        await self.failed(ends, stream, "-5")

    async def test_items_of_another_type_fail_the_stream(self, ends: Ends):
        stream = await self.begun(ends)
        ends.reader.say("$sys.I:2", 1, 1, "one")
        await self.failed(ends, stream, "can't be read")

    async def test_too_many_bytes_that_nobody_reads_fail_the_stream(
        self, ends: Ends, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(remote, "MAX_UNREAD", 10_000)
        stream = ends.stream(Feed().follow(), str)
        step = asyncio.ensure_future(anext(stream))
        await turns()
        ends.reader.fault = lambda messages: []
        for index in range(100):
            ends.reader.say("$sys.I:2", 1, index, "x" * 1000)
            await turns()
            if index:
                await anext(stream)
        assert await step
        ends.reader.fault = intact
        for index in range(100, 120):
            ends.reader.say("$sys.I:2", 1, index, "x" * 1000)
        await self.failed(ends, stream, "wait to be read")
        assert ends.reader.table.unread == 0


async def test_items_that_were_read_do_not_count_as_unread_for_other_streams(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote, "MAX_UNREAD", 20_000)
    feeds = [Feed() for _ in range(30)]
    tasks = []
    for feed in feeds:
        feed.put("x" * 1000)
        tasks.append(asyncio.ensure_future(read(ends.stream(feed.follow(), str))))
        await turns()
    assert ends.reader.table.unread == 0
    for feed in feeds:
        feed.put(None)
    for task in tasks:
        assert await task == ["x" * 1000]


async def test_bytes_do_not_count_as_unread_once_they_are_acknowledged(ends: Ends):
    feed = Feed()
    feed.put(*["x" * 1000] * 200)
    stream = ends.stream(feed.follow(), str, ack_period=10, ack_advance=1000)
    await anext(stream)
    await turns(100)
    assert 199_000 <= ends.reader.table.unread < 205_000
    await take(stream, 149)
    await turns()
    assert ends.reader.table.unread < 100_000
    await stream.aclose()
    assert ends.reader.table.unread == 0
